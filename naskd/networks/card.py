"""The torch-free descriptions of a block and of a family of networks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from naskd.spec.design import CONVOLUTION, FIRST_FAMILY, FLOAT_BITS, OWN, STRIDED, ArchitectureSpec, StageSpec
from naskd.spec.errors import InputError
from naskd.spec.option import Option, OptionValue, canonical_options, option_problems
from naskd.spec.registry import imported


@dataclass(frozen=True)
class BlockCard:
    """What a block is and which fields of a stage mean anything to it.

    Args:
        name: Name in ``StageSpec.block``.
        title: The field's name of the block.
        paper: Authors, title, venue, year, arXiv number.
        implementation: ``"module:Class"`` of the :class:`~naskd.networks.block.Block`, or the class.
        uses_expansion: Whether ``StageSpec.expansion`` changes the block.
        uses_squeeze_excitation: Whether ``StageSpec.squeeze_excitation`` changes the block.
        takes_weights: Whether it can begin with the weights of a wider one; see
            :meth:`~naskd.networks.block.Block.take_weights`.
        activation: Its own, as ``StageSpec.activation`` would name it; "" where that changes nothing in the block.
        convolutions: How many of ``StageSpec.kernel`` follow each other on its longest way, the first one with the
            stride; beside them there are only 1x1 ones. What it sees follows from it; None where that is not said.
    """

    name: str
    title: str
    paper: str
    implementation: str | type[Any]
    uses_expansion: bool
    uses_squeeze_excitation: bool
    takes_weights: bool = False
    activation: str = ""
    convolutions: int | None = None

    def canonical(self, stage: StageSpec) -> StageSpec:
        """The same stage written in one way: what this block does not read is at its default."""
        same = stage.activation == self.activation or not self.activation
        return replace(
            stage,
            activation=OWN if same else stage.activation,
            downsampling=stage.downsampling if stage.stride > 1 else STRIDED,
            expansion=stage.expansion if self.uses_expansion else StageSpec.expansion,
            squeeze_excitation=stage.squeeze_excitation and self.uses_squeeze_excitation,
        )


@dataclass(frozen=True)
class FamilyCard:
    """What a family of networks is and which fields of an architecture mean anything to it.

    A family whose settings follow other rules overrides :meth:`n_stages`, :meth:`canonical`, :meth:`problems`,
    :meth:`widened` or :meth:`summary` in a subclass of its own.

    Args:
        name: Name in ``ArchitectureSpec.family``.
        title: The field's name of the family.
        paper: Authors, title, venue, year, arXiv number.
        implementation: ``"module:Class"`` of the :class:`~naskd.networks.student.Student`, or the class.
        uses_stages: Whether it is made of ``ArchitectureSpec.stages``, of which it then needs at least one.
        uses_stem: Whether the fields ``stem_...`` change the network.
        uses_bits: Whether its stages may have fewer than 32 bits.
        options: Further settings.
        starts: ``"module:function"``, or a function, from the architectures of a student and of a teacher to the
            reasons why the student cannot begin with that teacher's weights; "" for a family that never can.
    """

    name: str
    title: str
    paper: str
    implementation: str | type[Any]
    uses_stages: bool = False
    uses_stem: bool = False
    uses_bits: bool = False
    options: Mapping[str, Option] = field(default_factory=dict)
    starts: str | Callable[[ArchitectureSpec, ArchitectureSpec], list[str]] = ""

    def option(self, architecture: ArchitectureSpec, name: str) -> OptionValue:
        """The value of option `name` in `architecture`, or its default."""
        value: OptionValue = dict(architecture.options).get(name, self.options[name].default)
        return value

    def n_stages(self, architecture: ArchitectureSpec) -> int:
        """How many stages the network shows in its :class:`~naskd.nn.taps.Taps`; without stages here, none."""
        return len(architecture.stages) if self.uses_stages else 0

    def canonical(self, architecture: ArchitectureSpec) -> ArchitectureSpec:
        """The same network written in one way: what this family does not read is at its default; options sorted."""
        return replace(
            architecture,
            stages=architecture.stages if self.uses_stages else (),
            options=canonical_options(self.options, architecture.options),
            **self._stem(architecture),
        )

    def _stem(self, architecture: ArchitectureSpec) -> dict[str, Any]:
        plain = ArchitectureSpec
        if not self.uses_stem:
            names = ("stem", "stem_width", "stem_kernel", "stem_stride", "stem_pool", "stem_activation")
            return {name: getattr(plain, name) for name in names}
        if architecture.stem == CONVOLUTION:
            return {}
        if architecture.stem_stride > 1:
            return {"stem_kernel": plain.stem_kernel}
        return {"stem": CONVOLUTION, "stem_kernel": 1}  # patches of one pixel

    def problems(self, architecture: ArchitectureSpec) -> list[str]:
        """Why the network cannot be built; empty when it can."""
        found = [f"network family {self.name!r} needs at least one stage"]
        if architecture.stages or not self.uses_stages:
            found = []
        if self.uses_stages and architecture.is_quantized and not self.uses_bits:
            found.append(
                f"network family {self.name!r} has no integer form: the bits of its stages must be {FLOAT_BITS}"
            )
        return found + option_problems(self.options, architecture.options, f"network family {self.name!r}")

    def widened(self, architecture: ArchitectureSpec, factor: float) -> ArchitectureSpec:
        """The same network with `factor` times the channels in its stem and stages, rounded, at least 1.

        Raises:
            InputError: It has no stages, and `factor` is not 1.
        """
        if factor == 1:
            return architecture
        if not architecture.stages:
            raise InputError(
                f"a {architecture.family!r} has no stages to widen, and one of {factor:g} times its width is asked for"
            )

        def scaled(width: int) -> int:
            return max(1, round(width * factor))

        return replace(
            architecture,
            stem_width=scaled(architecture.stem_width),
            stages=tuple(replace(stage, width=scaled(stage.width)) for stage in architecture.stages),
        )

    def start_problems(self, student: ArchitectureSpec, teacher: ArchitectureSpec) -> list[str]:
        """Why a student of this family cannot begin with the weights of a teacher; empty when it can."""
        if not self.starts or teacher.family != self.name:
            families = (
                f"a student of the family {self.name!r} from a teacher of the family {teacher.family!r}"
            )
            return [f"there is no way to start {families}"]
        found: list[str] = imported(self.starts)(student, teacher)
        return found

    def summary(self, architecture: Mapping[str, Any]) -> str:
        """The network in one line, for reports.

        Stages from shallow to deep as ``block width×depth``: ``basic 16×2 → 32×1 → bottleneck 64×1``. A block's name is
        said once for a run of stages; ``k5`` marks a kernel other than 3, ``se`` squeeze-excitation, ``silu`` an
        activation that is not the block's own, ``max pooling`` what halves its map, ``int8`` weights of 8 bits. Other
        families say their name first, and
        options follow: ``vit depth=4 patch=4``. At the end stand a stem of patches, and a resolution of its own.

        Args:
            architecture: As plain data, of any age: keys may be missing.
        """
        parts = [self.name] if self.name != FIRST_FAMILY else []
        if self.uses_stages and architecture.get("stages"):
            parts.append(_stages_in_words(architecture["stages"]))
        given = dict(architecture.get("options") or ())
        values = {name: given.pop(name, option.default) for name, option in self.options.items()}
        parts += [f"{name}={_plain(value)}" for name, value in (*values.items(), *given.items())]
        if self.uses_stem and architecture.get("stem", CONVOLUTION) != CONVOLUTION:
            parts.append(f"patches {architecture.get('stem_stride')}")
        if side := architecture.get("resolution"):
            parts.append(f"at {side}×{side}")
        return " ".join(parts)


def _stages_in_words(stages: Any) -> str:
    parts, previous = [], None
    for stage in stages:
        block = stage.get("block")
        text = f"{stage.get('width')}×{stage.get('depth')}"
        if block != previous:
            text = f"{block} {text}"
        if stage.get("kernel", 3) != 3:
            text += f" k{stage['kernel']}"
        if stage.get("squeeze_excitation"):
            text += " se"
        if (named := stage.get("activation", OWN)) != OWN:
            text += f" {named}"
        if (pooled := stage.get("downsampling", STRIDED)) != STRIDED:
            text += f" {pooled.replace('_', ' ')}"
        if (bits := stage.get("bits", FLOAT_BITS)) != FLOAT_BITS:
            text += f" int{bits}"
        parts.append(text)
        previous = block
    return " → ".join(parts)


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
