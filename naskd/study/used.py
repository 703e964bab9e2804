"""What a trial says of the parameters that changed nothing in it; see :mod:`naskd.study.unused`.

Apart from what finds them, since whoever reads a record needs no space and no torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

UNUSED = "unused"
"""Attribute of a trial: names of parameters, see :meth:`naskd.study.unused.Unused.of`."""
DESIGN = "design"
"""Key of those that changed nothing at all."""


def used(parameters: Mapping[str, Any], unused: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The parameters of a trial without those that changed nothing."""
    idle = frozenset(unused.get(DESIGN, ()))
    return {name: value for name, value in parameters.items() if name not in idle}
