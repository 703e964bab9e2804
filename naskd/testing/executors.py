"""What every executor must do, whoever registered it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from naskd.executors import EXECUTORS, Executor
from naskd.schemes import IN_TRIALS
from naskd.spec.design import AssistantSpec, DistillationSpec, KnowledgeTerm, TrainingSpec, TrialConfig
from naskd.spec.study import StoppingSpec
from naskd.store.checkpoints import CheckpointStore
from naskd.testing.fixed_source import FixedSource
from naskd.testing.studies import STUDENT, TEACHER, design, given, small_context
from naskd.testing.suite import Suite
from naskd.trials.context import StudyContext
from naskd.trials.groups import Groups
from naskd.trials.jobs import Decision, Job, TrialResult
from naskd.trials.steps import run_job

LOGITS = KnowledgeTerm("logits")


def trial(number: int, config: TrialConfig, requires: tuple[str, ...] = ()) -> Job:
    """A job that trains a design to its end."""
    return Job(str(number), "trial", config, 100 + number, config.training.epochs, requires=requires)


def mixed_jobs(context: StudyContext) -> list[Job]:
    """The teacher, an assistant, and trials with and without them; one cannot be built, and one diverges.

    The first trial's training gives another design, too.
    """
    assistant = AssistantSpec(TEACHER, TrainingSpec(epochs=2, batch_size=32))
    aided = TrialConfig(
        STUDENT,
        DistillationSpec((LOGITS,), assistants=(assistant,)),
        TrainingSpec(epochs=3, batch_size=32),
    )
    teacher, recipe = context.designs.recipes(aided)
    possible = design()
    several = replace(possible, distillation=DistillationSpec(scheme="byot"))
    stages = (replace(STUDENT.stages[0], block="no_such_block"),)
    impossible = replace(possible, architecture=replace(STUDENT, stages=stages))
    return [
        Job(teacher.artifact_id, "artifact", None, teacher.seed, 0),
        Job(recipe.artifact_id, "artifact", aided, recipe.seed, 0, requires=recipe.requires),
        replace(trial(0, several), siblings=tuple(context.designs.siblings(several))),
        trial(1, design(LOGITS), (teacher.artifact_id,)),
        trial(2, aided, (teacher.artifact_id, recipe.artifact_id)),
        trial(3, impossible),
        trial(4, design(LOGITS, learning_rate=1e30), (teacher.artifact_id,)),
    ]


class ExecutorSuite(Suite):
    """Tests of executors.

    Example::

        class TestMine(ExecutorSuite):
            names = "my_executor"

    They train small students on 120 digits, on the CPU. Override the fixture ``executor`` where yours needs more than
    the context and the run directory to be there, such as a cluster.
    """

    registry = EXECUTORS

    @pytest.fixture
    def context(self, tmp_path: Path) -> StudyContext:
        """A study of digits with a trained teacher."""
        (tmp_path / "space.py").write_text("")  # what workers are sent; the jobs here are given
        context = small_context(tmp_path, base=tmp_path, stopping=StoppingSpec("front"))  # one that pauses
        return given(context, checkpoints=CheckpointStore(tmp_path / "checkpoints"))

    @pytest.fixture
    def executor(self, context: StudyContext, tmp_path: Path) -> Callable[[str], Executor]:
        """Makes the registered executor of a name, for the study of ``context``."""

        def load(name: str) -> Executor:
            found: Executor = EXECUTORS.load(name)(context, tmp_path)
            return found

        return load

    def test_the_card_says_what_it_is(self, name: str) -> None:
        """Its title is a line of a listing."""
        card = EXECUTORS[name]
        assert card.name == name
        assert card.title
        assert not card.title.endswith(".")

    def test_a_fixed_list_of_jobs_gives_the_results_of_running_them_one_by_one(
        self, name: str, context: StudyContext, executor: Callable[[str], Executor]
    ) -> None:
        """Every job is told once, with the bits that it has in this process; failures are results."""
        source = FixedSource(jobs := mixed_jobs(context))
        executor(name).run(source)
        assert source.finished
        assert sorted(source.results) == sorted(job.job_id for job in jobs), "every job is told once"
        found = {job.job_id: source.results[job.job_id] for job in jobs}
        assert [found[job.job_id].status for job in jobs] == ["complete"] * 5 + ["failed"] * 2
        assert "unknown block 'no_such_block'" in found["3"].reason
        assert "no_such_block" in found["3"].error, "with its traceback"
        assert "finite" in found["4"].reason
        for job in jobs:
            if job.kind == "trial":
                alone = run_job(job, context, lambda epoch, metrics: Decision.CONTINUE)
                assert found[job.job_id].metrics == alone.metrics
                assert found[job.job_id].curve == alone.curve, "other bits than in this process"
                assert [one.config for one in found[job.job_id].siblings] == list(job.siblings)
                for one, other in zip(found[job.job_id].siblings, alone.siblings, strict=True):
                    assert (one.result.metrics, one.result.curve) == (
                        other.result.metrics,
                        other.result.curve,
                    )
                assert found[job.job_id].seed == job.seed
                assert found[job.job_id].train_macs == alone.train_macs
            assert context.designs.has_artifact(job.job_id) is (job.kind == "artifact")

    def test_every_epoch_is_reported_once_and_in_order(
        self, name: str, context: StudyContext, executor: Callable[[str], Executor]
    ) -> None:
        """From 1, with the metrics that the result's curve has, as plain numbers."""
        untaught = [mixed_jobs(context)[2], trial(1, design())]  # whoever teaches, epochs are told alike
        source = FixedSource(untaught)
        executor(name).run(source)
        for number in ("0", "1"):
            reports = source.reports[number]
            assert [epoch for epoch, _ in reports] == [1, 2, 3]
            curve = source.results[number].curve
            assert [metrics["val_accuracy"] for _, metrics in reports] == [p["val_accuracy"] for p in curve]
            assert all(type(value) in (int, float) for _, metrics in reports for value in metrics.values())

    def test_a_job_that_is_told_to_stop_stops_there_and_the_others_go_on(
        self, name: str, executor: Callable[[str], Executor]
    ) -> None:
        """The answer to a report acts at that epoch."""
        source = FixedSource([trial(0, design()), trial(1, design(batch_size=16))], stop_at=("0", 2))
        executor(name).run(source)
        assert source.results["0"].status == "stopped"
        assert "after epoch 2" in source.results["0"].reason
        assert [point["epoch"] for point in source.results["0"].curve] == [1, 2]
        assert len(source.results["1"].curve) == 3

    def test_a_paused_job_goes_on_where_it_was_and_pays_for_its_own_part(
        self, name: str, context: StudyContext, executor: Callable[[str], Executor]
    ) -> None:
        """With the bits of a training that was never paused; what it goes on from is then gone."""
        begun = trial(0, design())
        going_on = replace(begun, job_id="1", continues="0")
        source = FixedSource([begun], stop_at=("0", 2), decision=Decision.PAUSE)
        executor(name).run(source)
        assert source.results["0"].status == "stopped"
        store = context.resources.checkpoints
        assert isinstance(store, CheckpointStore)
        assert len(store.kept()) == 1, "the state that it goes on from"
        later = FixedSource([going_on])
        executor(name).run(later)
        assert [epoch for epoch, _ in later.reports["1"]] == [3], "it begins where the other was paused"
        assert store.kept() == []
        alone = run_job(replace(begun, job_id="3"), context, lambda epoch, metrics: Decision.CONTINUE)
        found = later.results["1"]
        assert found.curve == alone.curve
        assert found.metrics == alone.metrics
        assert found.train_macs == alone.train_macs
        assert found.spent_macs + source.results["0"].spent_macs == alone.spent_macs

    def test_peers_that_train_apart_have_the_bits_of_those_together(
        self, name: str, context: StudyContext, executor: Callable[[str], Executor]
    ) -> None:
        """However many workers there are; and another trial beside them. What they told each other is then gone."""
        options = (("lag", 1), ("peers_in", IN_TRIALS))
        apart = replace(
            design(), distillation=DistillationSpec(scheme="codistillation", scheme_options=options)
        )
        together = replace(apart, distillation=replace(apart.distillation, scheme_options=options[:1]))
        jobs = [trial(0, apart), trial(1, design())]
        source = FixedSource(jobs)
        executor(name).run(Groups(source, context))
        assert isinstance(context.resources.checkpoints, CheckpointStore)
        assert context.resources.checkpoints.kept() == []
        found = source.results["0"]
        assert [source.results[number].status for number in ("0", "1")] == ["complete", "complete"]
        alone = run_job(replace(jobs[0], config=together), context, lambda epoch, metrics: Decision.CONTINUE)
        assert [point["codistillation"] for point in found.curve] == [
            point["codistillation"] for point in alone.curve
        ]
        assert found.metrics == alone.metrics
        assert [epoch for epoch, _ in source.reports["0"]] == [1, 2, 3]

    def test_a_source_without_jobs_ends_at_once(self, name: str, executor: Callable[[str], Executor]) -> None:
        """A finished search that is resumed."""
        source = FixedSource([])
        executor(name).run(source)
        assert source.results == {}

    def test_what_a_source_raises_is_not_swallowed(
        self, name: str, executor: Callable[[str], Executor]
    ) -> None:
        """A search whose results cannot be kept must not go on."""

        class Full(FixedSource):
            def tell(self, job: Job, result: TrialResult) -> None:
                raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            executor(name).run(Full([trial(0, design())]))
