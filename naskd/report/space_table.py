"""What a search space holds, in words."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from naskd.report.units import count, macs

_MEANS = (
    (r"stages", "number of stages"),
    (r"stem\.width", "channels after the stem"),
    (r"stem\.stride", "stride of the stem"),
    (r"stem\.form", "how the stem reads the image"),
    (r"(stage(\d+)\.)?block", "kind of block{of}"),
    (r"(stage(\d+)\.)?kernel", "side of its filters{of}"),
    (r"(stage(\d+)\.)?block\.(\w+)\.expansion", "channels inside a {3} block{of}, as a multiple"),
    (r"(stage(\d+)\.)?block\.(\w+)\.squeeze_excitation", "squeeze-excitation in a {3} block{of}"),
    (r"(stage(\d+)\.)width", "channels{of}"),
    (r"(stage(\d+)\.)depth", "blocks{of}"),
    (r"(stage(\d+)\.)stride", "stride{of}"),
    (r"(stage(\d+)\.)bits", "bits of its weights{of}"),
    (r"activation", "activation of all blocks"),
    (r"downsampling", "how maps are made smaller"),
    (r"(vit\.)?resolution", "side that a student resizes its images to"),
    (r"vit\.(\w+)", "transformer: {1}"),
    (r"kd\.response", "which knowledge of the outputs teaches"),
    (r"kd\.share", "share of the loss that it has, beside the labels"),
    (r"kd\.feature", "which knowledge of inner maps teaches, too"),
    (r"kd\.assistant", "which assistant stands between"),
    (r"kd\.teacher", "which teacher teaches"),
    (r"kd\.unlabelled", "unlabelled images for each labelled one"),
    (r"kd\.temperature", "temperature of the outputs"),
    (r"kd\.scheme", "how networks train together"),
    (r"kd\.(\d+)\.kind", "which knowledge is in slot {1}"),
    (r"kd\.(\d+)\.(\w+)", "{2} of what is in slot {1}"),
    (r"kd\.(\w+)\.use", "whether {1} teaches"),
    (r"kd\.(\w+)\.(\w+)", "{2} of {1}"),
    (r"train\.(\w+)\.learning_rate", "learning rate of {1}"),
    (r"train\.(\w+)", "{1} of the training"),
)
"""What the parameters of naskd's own parts of a space mean; a space may have others."""


def space_table(space: Mapping[str, Any]) -> Group:
    """What a search space holds.

    Args:
        space: See :func:`naskd.runs.opening.describe_space`.
    """
    return Group(*_lines(space), Text(), _parameters(space["parameters"]))


def _lines(space: Mapping[str, Any]) -> Iterator[Text]:
    size = space["log10_size"]
    many = f"about 10^{size:.0f} combinations" if size is not None else "with values between values"
    yield Text(f"Search space {space['space']}", style="bold")
    yield Text(f"{space['n_parameters']} parameters, {many}")
    turned_away = ", ".join(f"{n} {kind}" for kind, n in space["turned_away"].items())
    yield Text(
        f"{space['samples']} random designs drawn: {space['distinct_designs']} distinct ones can be trained; "
        f"turned away: {turned_away or 'none'}"
    )
    of = space["macs"]
    if of["min"] is None:
        yield Text("no design that was drawn can be trained, and naskd check says why")
    else:
        yield Text(
            f"multiply-accumulates of one image: {macs(of['min'])} to {macs(of['max'])}, half of the designs below "
            f"{count(of['median'])}"
        )


def _parameters(parameters: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("parameter", "what it is"):
        table.add_column(title, overflow="fold")
    table.add_column("range", overflow="fold", ratio=1)
    for parameter in parameters:
        name = str(parameter["name"])
        table.add_row(Text(name), Text(meaning(name), style="dim"), Text(str(parameter["range"])))
    return table


def meaning(name: str) -> str:
    """What a parameter is, in words; empty for one that is none of naskd's own parts."""
    for pattern, words in _MEANS:
        if found := re.fullmatch(pattern, name):
            groups = [name, *(part or "" for part in found.groups())]
            stage = re.match(r"stage(\d+)\.", name)
            return words.format(*groups, of=f" of stage {stage[1]}" if stage else "").replace("_", " ")
    return ""
