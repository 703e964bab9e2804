"""What every teacher source must do, whoever registered it."""

from pathlib import Path

import torch
from torch import Tensor, nn

from naskd.networks.teachers import Teacher, TeacherInputs, build_teacher_network
from naskd.spec.teachers import TEACHER_SOURCES, TeacherSpec
from naskd.testing.suite import Suite

CLASSES = ("cat", "dog", "eel", "fox")


class TeacherSourceSuite(Suite):
    """Tests of teacher sources.

    Example::

        class TestMine(TeacherSourceSuite):
            names = "my_source"

    They build teachers of four classes for images of 32x32 pixels in three channels, and no image is read. Override
    :meth:`spec` where your source needs settings or files, and the attributes where it needs other images.
    """

    registry = TEACHER_SOURCES
    in_channels = 3
    resolution = 32
    class_names = CLASSES

    def spec(self, name: str, folder: Path) -> TeacherSpec:
        """A teacher of the source; `folder` is that of the study file, and empty."""
        return TeacherSpec(source=name)

    def build(self, spec: TeacherSpec, folder: Path, state: dict[str, Tensor] | None = None) -> nn.Module:
        """Its network, always drawn from the same seed."""
        torch.default_generator.manual_seed(0)
        given = TeacherInputs(
            folder,
            self.in_channels,
            len(self.class_names),
            self.resolution,
            mean=(0.5,) * self.in_channels,
            std=(0.25,) * self.in_channels,
            class_names=self.class_names,
        )
        return build_teacher_network(spec, given, state)

    def images(self, batch: int = 2) -> Tensor:
        """The same at each call."""
        generator = torch.Generator().manual_seed(0)
        return torch.rand(batch, self.in_channels, self.resolution, self.resolution, generator=generator)

    def test_the_card_says_what_it_is(self, name: str) -> None:
        """Options have allowed defaults."""
        card = TEACHER_SOURCES[name]
        assert card.name == name
        assert card.title
        for option in card.options.values():
            assert option.default is None or not option.problem(option.default)
            assert option.meaning

    def test_a_teacher_shows_logits_and_stages(self, name: str, tmp_path: Path) -> None:
        """Of every class, finite, and the same alone as with everything that losses may ask for."""
        teacher = Teacher(self.build(self.spec(name, tmp_path), tmp_path))
        taps = teacher.taps(self.images())
        assert taps.logits.shape == (2, len(self.class_names))
        assert taps.logits.isfinite().all()
        assert len(taps.stages) == len(taps.pre_activations) >= 1
        assert taps.pooled.shape[0] == 2
        torch.testing.assert_close(teacher(self.images()), taps.logits)

    def test_a_teacher_does_not_learn_and_takes_images_of_any_number(self, name: str, tmp_path: Path) -> None:
        """One image is answered as it is among others; nothing of the network changes."""
        teacher = Teacher(self.build(self.spec(name, tmp_path), tmp_path)).train()
        before = {key: value.clone() for key, value in teacher.state_dict().items()}
        images = self.images(3).requires_grad_()
        torch.testing.assert_close(teacher(images)[:1], teacher(images[:1]), rtol=1e-3, atol=1e-4)
        assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
        assert not any(p.requires_grad for p in teacher.parameters())

    def test_the_same_seed_builds_the_same_network(self, name: str, tmp_path: Path) -> None:
        """Weights come from torch's generator, or from a file."""
        spec = self.spec(name, tmp_path)
        one, other = (self.build(spec, tmp_path).state_dict() for _ in range(2))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)

    def test_what_was_trained_is_built_again_from_its_state(self, name: str, tmp_path: Path) -> None:
        """A later process has the state alone; see ``fresh`` of ``TeacherSource.build``."""
        spec = self.spec(name, tmp_path)
        if spec.checkpoint is not None:
            return  # its state is that of the bare network, which its owner keeps
        trained = self.build(spec, tmp_path)
        with torch.no_grad():
            for parameter in trained.parameters():
                parameter.add_(0.01)
        again = self.build(spec, tmp_path, dict(trained.state_dict()))
        assert torch.equal(again.eval()(self.images()), trained.eval()(self.images()))
