"""Schemes: which networks train together and who supervises whom. One file per scheme, registered here."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from naskd.knowledge import needs_teacher
from naskd.spec.design import DistillationSpec
from naskd.spec.option import Option, OptionValue, canonical_options, option_problems
from naskd.spec.registry import Registry


@dataclass(frozen=True)
class SchemeCard:
    """The torch-free description of a scheme.

    Args:
        name: Name in search spaces.
        title: The field's name.
        paper: Authors, title, venue, year, arXiv number.
        implementation: ``"module:Class"`` of the :class:`~naskd.schemes.scheme.Scheme`, or the class.
        needs_teacher: Without a term that asks a teacher it is offline training.
        uses_trajectory: Its sources are states of the teacher's training; the teacher must be trained here, and no
            assistant comes between.
        min_stages: Fewest stages of the student.
        options: Further settings.
    """

    name: str
    title: str
    paper: str
    implementation: str | type[Any]
    needs_teacher: bool = False
    uses_trajectory: bool = False
    min_stages: int = 1
    options: Mapping[str, Option] = field(default_factory=dict)

    def option(self, distillation: DistillationSpec, name: str) -> OptionValue:
        """The value of option `name` in a design, or its default."""
        return dict(distillation.scheme_options).get(name, self.options[name].default)

    def canonical(self, distillation: DistillationSpec) -> DistillationSpec:
        """The same training written in one way."""
        if self.needs_teacher and not needs_teacher(distillation):
            return replace(distillation, scheme="offline", scheme_options=())
        return replace(
            distillation, scheme_options=canonical_options(self.options, distillation.scheme_options)
        )

    def problems(self, distillation: DistillationSpec, *, n_stages: int) -> list[str]:
        """Why a design cannot be trained by this scheme; empty when it can."""
        found = option_problems(self.options, distillation.scheme_options, f"scheme {self.name!r}")
        if n_stages < self.min_stages:
            found.append(
                f"scheme {self.name!r} needs students of at least {self.min_stages} stages, got {n_stages}"
            )
        if self.uses_trajectory and distillation.assistants:
            found.append(f"scheme {self.name!r} follows the teacher's own training and takes no assistant")
        return found


SCHEMES: Registry[SchemeCard] = Registry("scheme")

SCHEMES.register(
    SchemeCard(
        name="offline",
        title="offline distillation from frozen teachers, or plain training",
        paper="Hinton, Vinyals, Dean: Distilling the knowledge in a neural network. NIPS workshop 2014, "
        "arXiv 1503.02531",
        implementation="naskd.schemes.offline:OfflineScheme",
    )
)

SCHEMES.register(
    SchemeCard(
        name="rco",
        title="Route-constrained optimization: the teacher's own trajectory teaches",
        paper="Jin, Peng, Wu, Liu, Liu, Liang, Yan, Hu: Knowledge distillation via route constrained optimization. "
        "ICCV 2019, arXiv 1904.09149",
        implementation="naskd.schemes.rco:RcoScheme",
        needs_teacher=True,
        uses_trajectory=True,
        options={
            "anchors": Option(
                4, "states of the teacher, its last one included, at equal epoch intervals", 2, 16
            )
        },
    )
)
SCHEMES.register(
    SchemeCard(
        name="parameter_sharing",
        title="Rocket launching: a deeper booster learns on the student's lower layers",
        paper="Zhou, Fan, Cui, Bian, Zhu, Gai: Rocket launching: a universal and efficient framework for training "
        "well-performing light net. AAAI 2018, arXiv 1708.04106",
        implementation="naskd.schemes.parameter_sharing:ParameterSharingScheme",
        min_stages=2,
        options={
            "hint": Option(0.03, "weight of the squared distance between the two networks' logits", low=0.0),
            "depth": Option(3, "blocks of a booster's own stage for each block of the student's", 1, 16),
        },
    )
)

__all__ = ["SCHEMES", "SchemeCard"]
