"""Where networks are timed: cards of devices."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from naskd.spec.errors import InputError
from naskd.spec.option import Option, OptionValue, option_problems
from naskd.spec.registry import Registry


@dataclass(frozen=True)
class DeviceCard:
    """The torch-free description of something that runs a network and tells how long it took.

    Args:
        name: As ``--device`` says it.
        title: One line for a listing.
        paper: See :class:`~naskd.spec.registry.Card`.
        implementation: ``"module:Class"`` of the :class:`~naskd.runs.devices.Device`, or the class; made with its
            options by name.
        options: Settings. An option whose default is None may be left out.
        packages: What it needs beyond naskd's own dependencies, as it is imported and as ``pip install`` knows it.
        reads_onnx: Whether it is given networks as ONNX files; otherwise as torch modules alone.
    """

    name: str
    title: str
    paper: str
    implementation: str | Callable[..., Any]
    options: Mapping[str, Option] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    reads_onnx: bool = True

    def settings(self, given: Mapping[str, OptionValue]) -> dict[str, Any]:
        """All options by name, given or default.

        Raises:
            InputError: One is unknown, missing, or not allowed.
        """
        if found := option_problems(self.options, tuple(given.items()), f"device {self.name!r}"):
            raise InputError(found)
        return {name: given.get(name, option.default) for name, option in self.options.items()}


DEVICES: Registry[DeviceCard] = Registry("device")

_ONNX = ("onnx", "onnxscript")

DEVICES.register(
    DeviceCard(
        name="onnxruntime",
        title="ONNX Runtime on this machine's CPU",
        paper="",
        implementation="naskd.runs.devices:OnnxRuntimeDevice",
        options={"threads": Option(1, "threads of a network; one network runs at a time", low=1)},
        packages=(*_ONNX, "onnxruntime"),
    )
)
DEVICES.register(
    DeviceCard(
        name="torch",
        title="PyTorch on a GPU, timed by CUDA events, or on this machine's CPU",
        paper="",
        implementation="naskd.runs.devices:TorchDevice",
        options={
            "on": Option("cuda", "where networks run", choices=("cuda", "cpu")),
            "threads": Option(1, "threads of a network on a CPU", low=1),
        },
        reads_onnx=False,
    )
)
DEVICES.register(
    DeviceCard(
        name="command",
        title="a program of yours that gets an ONNX file and prints milliseconds, for a phone or a board",
        paper="",
        implementation="naskd.runs.devices:CommandDevice",
        options={
            "command": Option(
                None, "the program with its arguments; the file comes last", kind=str, required=True
            ),
            "hardware": Option("", "what networks run on, for the profile"),
            "seconds": Option(600.0, "a call takes at most so long", above=0),
        },
        packages=_ONNX,
    )
)
