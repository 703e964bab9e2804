"""What every objective must do, whoever registered it."""

from dataclasses import fields, replace

import pytest
import torch

from naskd.spec.design import TrialConfig
from naskd.spec.latency import HeldOutStudent, LatencyProfile, work_of
from naskd.spec.objectives import OBJECTIVES
from naskd.testing.schemes import copied, equal
from naskd.testing.studies import ALL_TERMS, design, small_context
from naskd.testing.suite import Suite, where
from naskd.trials.context import StudyContext
from naskd.trials.measures import Measured, Trained, objective_value
from naskd.trials.run import TrialRun, start_run


def some_profile(measured: Measured) -> LatencyProfile:
    """A profile that knows the operators of a design: of each amount of work, so many nanoseconds."""
    work = work_of(measured.operators(), 16)
    return LatencyProfile(
        device="onnxruntime",
        options={"threads": 1},
        hardware="made up",
        runtime="none",
        date="2026-01-01",
        in_channels=measured.in_channels,
        resolution=measured.resolution,
        n_classes=measured.n_classes,
        space="space.py:joint",
        n_students=1,
        rounds=2,
        noise=0.0,
        block=16,
        milliseconds={kind: dict.fromkeys(amounts, 1e-6) for kind, amounts in work.items()},
        held_out=(HeldOutStudent(macs=1000, measured_ms=1.0, predicted_ms=1.05),),
    )


class ObjectiveSuite(Suite):
    """Tests of objectives.

    Example::

        class TestMine(ObjectiveSuite):
            names = "my_objective"

    They measure a student of two stages, before its training and after two epochs on 120 digits.
    """

    registry = OBJECTIVES

    @pytest.fixture(scope="class")
    @classmethod
    def context(cls, tmp_path_factory: pytest.TempPathFactory) -> StudyContext:
        """Digits and a trained teacher."""
        return small_context(tmp_path_factory.mktemp("context"))

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, context: StudyContext) -> TrialRun:
        """A training of two epochs."""
        run = start_run(cls.config(), context, seed=5)[0]
        run.advance(2)
        return run

    @staticmethod
    def config() -> TrialConfig:
        """The design that is measured."""
        return design(*ALL_TERMS, epochs=2)

    def measured(self, context: StudyContext) -> Measured:
        """What is known of it before its training; latencies are predicted by some profile of its operators."""
        before = context.designs.measured(self.config())
        return replace(before, latency=some_profile(before))

    def trained(self, context: StudyContext, run: TrialRun) -> Trained:
        """And after it."""
        before = self.measured(context)
        return Trained(
            **{field.name: getattr(before, field.name) for field in fields(Measured)},
            network=run.scheme.deployed.eval(),
            data=context.resources.data,
            compute=context.resources.compute,
            metrics={"val_accuracy": run.curve[-1]["val_accuracy"], "train_macs": run.train_macs},
            curve=tuple(run.curve),
        )

    def test_the_objective_says_what_it_is(self, name: str) -> None:
        """A title and a unit for axes, and words that the search knows."""
        objective = OBJECTIVES[name]
        assert objective.name == name
        assert objective.title
        assert objective.direction in ("maximize", "minimize")
        assert objective.scale in ("linear", "log")
        assert objective.known in ("before", "after")

    @where(lambda name: OBJECTIVES[name].known == "before")
    def test_what_is_known_before_needs_the_design_alone(self, name: str, context: StudyContext) -> None:
        """Finite (and positive on a logarithmic scale), and the same at each call."""
        values = [objective_value(OBJECTIVES[name], self.measured(context)) for _ in range(2)]
        assert values[0] == values[1]

    @where(lambda name: OBJECTIVES[name].known == "after")
    def test_what_is_known_after_is_a_number_and_the_same_each_time(
        self, name: str, context: StudyContext, run: TrialRun
    ) -> None:
        """With equal random numbers: what is drawn comes from torch's generator, which the trial seeds."""
        values = []
        for _ in range(2):
            with context.resources.compute.drawing(7):
                values.append(objective_value(OBJECTIVES[name], self.trained(context, run)))
        assert values[0] == values[1]

    @where(lambda name: OBJECTIVES[name].known == "after")
    def test_the_network_and_the_images_are_left_as_they_are(
        self, name: str, context: StudyContext, run: TrialRun
    ) -> None:
        """Weights, statistics, mode and gradients: whoever measures next sees what this one saw."""
        trained = self.trained(context, run)
        state, images = copied(trained.network), trained.data.val.images.clone()
        for parameter in trained.network.parameters():
            parameter.grad = None
        objective_value(OBJECTIVES[name], trained)
        assert equal(copied(trained.network), state)
        assert torch.equal(trained.data.val.images, images)
        assert not any(module.training for module in trained.network.modules())
        assert all(p.grad is None and p.requires_grad for p in trained.network.parameters())
