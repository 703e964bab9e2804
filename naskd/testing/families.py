"""What every network family must do, whoever registered it."""

import copy
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from naskd.networks import FAMILIES
from naskd.networks.student import Student, build_student, design_cost, design_operators, student_shapes
from naskd.nn.cost import network_cost
from naskd.nn.taps import tap_shapes
from naskd.nn.tracing import operators_of
from naskd.spec.design import ArchitectureSpec, StageSpec
from naskd.testing.losses import back_propagate
from naskd.testing.suite import Suite

CLASSES = 5
STAGES = (StageSpec("basic", 2, 6), StageSpec("bottleneck", 1, 8, kernel=5, stride=2))


class FamilySuite(Suite):
    """Tests of network families.

    Example::

        class TestMine(FamilySuite):
            names = "my_family"
            architectures = {"my_family": [ArchitectureSpec(family="my_family", options=(("depth", 2),))]}

    They build small students for images of 16x16 pixels.

    Attributes:
        architectures: By name of the family: designs to try beside its default. For a family that is made of stages
            the default has two.
        resolution: Side of the images.
    """

    registry = FAMILIES
    architectures: ClassVar[Mapping[str, Sequence[ArchitectureSpec]]] = {}
    resolution: ClassVar[int] = 16

    def designs(self, name: str) -> list[ArchitectureSpec]:
        """What is tried."""
        stages = STAGES if FAMILIES[name].uses_stages else ()
        return [ArchitectureSpec(stages, family=name), *self.architectures.get(name, ())]

    def build(self, design: ArchitectureSpec, channels: int = 3) -> Student:
        """A student, always with the same weights."""
        torch.default_generator.manual_seed(0)
        return build_student(design, channels, CLASSES, (0.5,) * channels, (0.25,) * channels)

    def images(self, channels: int = 3, batch: int = 4) -> Tensor:
        """The same at each call."""
        generator = torch.Generator().manual_seed(1)
        return torch.rand(batch, channels, self.resolution, self.resolution, generator=generator)

    # --- the card --------------------------------------------------------------------------------------------------

    def test_the_card_describes_students(self, name: str) -> None:
        """Its implementation is a :class:`~naskd.networks.student.Student`; its options have allowed defaults."""
        card = FAMILIES[name]
        assert card.name == name
        assert card.title
        assert issubclass(FAMILIES.load(name), Student)
        for option in card.options.values():
            assert not option.problem(option.default)
            assert option.meaning

    def test_designs_have_one_canonical_way_and_no_problems(self, name: str) -> None:
        """Written in one way twice is written in one way; and the network is the same."""
        card = FAMILIES[name]
        for design in self.designs(name):
            assert card.problems(design) == []
            once = card.canonical(design)
            assert card.canonical(once) == once
            one, other = self.build(design).state_dict(), self.build(once).state_dict()
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)

    def test_an_unknown_option_is_named(self, name: str) -> None:
        """Before anything is built."""
        design = ArchitectureSpec(self.designs(name)[0].stages, family=name, options=(("no such option", 1),))
        assert "no such option" in FAMILIES[name].problems(design)[0]

    def test_a_summary_is_one_line(self, name: str) -> None:
        """For reports, which have plain data."""
        for design in self.designs(name):
            summary = FAMILIES[name].summary(asdict(design))
            assert summary
            assert "\n" not in summary

    # --- the network -----------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("channels", [1, 3])
    def test_logits_and_gradients(self, name: str, channels: int) -> None:
        """A finite logit a class, the same from ``taps``, and a gradient at every parameter."""
        for design in self.designs(name):
            student = self.build(design, channels)
            logits = student(self.images(channels))
            assert logits.shape == (4, CLASSES)
            assert logits.isfinite().all()
            back_propagate((logits * torch.randn_like(logits)).sum())
            for parameter_name, parameter in student.named_parameters():
                assert parameter.grad is not None, parameter_name
                assert parameter.grad.isfinite().all(), parameter_name
                assert parameter.grad.abs().max() > 0, parameter_name
            student.eval()
            taps = student.taps(self.images(channels))
            torch.testing.assert_close(taps.logits, student(self.images(channels)))
            torch.testing.assert_close(student.head(taps.pooled), taps.logits)

    def test_cost_and_shapes_are_those_of_the_built_network(self, name: str) -> None:
        """Closed forms against the counter, and stages as many as the card says."""
        for design in self.designs(name):
            student = self.build(design)
            assert design_cost(design, 3, CLASSES, self.resolution) == network_cost(
                student, 3, self.resolution
            )
            assert design_operators(design, 3, CLASSES, self.resolution) == operators_of(
                student, 3, self.resolution
            )
            shapes = student_shapes(design, CLASSES, self.resolution)
            assert shapes == tap_shapes(student, 3, self.resolution)
            assert len(shapes.stages) == FAMILIES[name].n_stages(design)
            assert len(student.pre_activation_norms()) == len(shapes.stages)

    def test_images_are_resized_to_the_resolution_of_the_design(self, name: str) -> None:
        """By the network, so that its costs and maps are those of smaller images, and it takes larger ones."""
        for design in self.designs(name):
            design = replace(design, resolution=None)
            smaller = replace(design, resolution=self.resolution // 2)
            student, plain = self.build(smaller).eval(), self.build(design).eval()
            expected = plain.taps(
                functional.interpolate(self.images(), scale_factor=0.5, mode="bilinear", antialias=True)
            )
            torch.testing.assert_close(student.taps(self.images()).logits, expected.logits)
            assert student_shapes(smaller, CLASSES, self.resolution) == expected.shapes
            found = design_cost(smaller, 3, CLASSES, self.resolution)
            assert found == network_cost(student, 3, self.resolution)
            assert found == design_cost(design, 3, CLASSES, self.resolution // 2)

    def test_positions_of_stages_grow(self, name: str) -> None:
        """From the image to the classifier, within (0, 1]."""
        for design in self.designs(name):
            positions = [stage.position for stage in student_shapes(design, CLASSES, self.resolution).stages]
            assert positions == sorted(positions)
            assert all(0 < position <= 1 for position in positions)

    def test_images_are_normalised_by_the_network(self, name: str) -> None:
        """By the mean and deviation that it was given, which travel with its weights."""
        for design in self.designs(name):
            student = self.build(design).eval()
            before = student(self.images())
            student.mean += 0.1
            assert not torch.equal(student(self.images()), before)
            assert {"mean", "std"} <= student.state_dict().keys()

    def test_copies_travels_and_loads(self, name: str) -> None:
        """By ``copy.deepcopy``, by pickle and by its state; apart from the student and with its values."""
        for design in self.designs(name):
            student = self.build(design).eval()
            other = build_student(design, 3, CLASSES, (0.5,) * 3, (0.25,) * 3).eval()
            other.load_state_dict(student.state_dict())
            expected = student(self.images())
            for same in (copy.deepcopy(student), pickle.loads(pickle.dumps(student)), other):
                assert torch.equal(same(self.images()), expected)
