"""Models of timm (Wightman: PyTorch image models. 2019), with timm's own account of their stages and of their input."""

import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from torch import nn

from naskd.networks.teachers import LOCAL_FILE, Bare, TeacherInputs
from naskd.spec.errors import InputError, one_line
from naskd.spec.registry import nearest
from naskd.spec.teachers import TeacherSpec


class TimmSource:
    """A model of timm with a head of the study's classes.

    Normalisation and size are those that timm says its weights want; `mean`, `std` and `resolution` say otherwise.
    Stages are the modules in timm's ``feature_info``.

    Differs: a size that timm says is that of a square; a network that takes others is given it all the same.
    """

    def build(self, spec: TeacherSpec, given: TeacherInputs, *, fresh: bool) -> Bare:
        """See :class:`~naskd.networks.teachers.TeacherSource`."""
        try:
            import timm
        except ImportError as error:
            raise InputError(f"source = 'timm' needs timm: pip install timm ({error})") from error
        name = spec.option("model")
        if not timm.is_model(name):
            known = timm.list_models()
            raise InputError(f"timm {timm.__version__} has no model {name!r}{nearest(name, known)}")
        pretrained = fresh and bool(spec.option("pretrained"))
        nowhere = _nowhere() if pretrained else ""
        try:
            with _asking_the_hub(offline=bool(nowhere)) if pretrained else contextlib.nullcontext():
                network: nn.Module = timm.create_model(
                    name, pretrained=pretrained, num_classes=given.n_classes, in_chans=given.in_channels
                )
        except Exception as error:  # timm, the Hub and urllib raise errors of their own
            way_out = (
                f"; without a network, fetch its weights elsewhere and {LOCAL_FILE} pretrained"
                if pretrained
                else ""
            )
            raise InputError(
                f"timm's {name} cannot be made ({nowhere or one_line(error)}){way_out}"
            ) from error
        wanted = timm.data.resolve_model_data_config(network)
        channels = given.in_channels
        return Bare(
            network,
            _of_channels(wanted["mean"], channels),
            _of_channels(wanted["std"], channels),
            int(wanted["input_size"][-1]),
            _stages(network),
        )


def _nowhere() -> str:
    """Why the Hub cannot be there: its name leads to no address, and no proxy looks it up; empty where it may be.

    A network that is slow is given the time that the Hub's own client gives it.
    """
    try:
        from huggingface_hub import constants
    except ImportError:
        return ""
    host = urlsplit(constants.ENDPOINT).hostname
    if getproxies() or not host:
        return ""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        return f"{host} cannot be reached: {error}"
    return ""


@contextlib.contextmanager
def _asking_the_hub(*, offline: bool) -> Iterator[None]:
    """The Hub's client does not print its retries; where it would find nobody it looks at its own files alone.

    Args:
        offline: Whether it would: its retries then take more than a minute.
    """
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with contextlib.ExitStack() as restored:
        restored.callback(logger.setLevel, level)
        if offline:
            from huggingface_hub import constants

            restored.callback(setattr, constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE)
            constants.HF_HUB_OFFLINE = True
        yield


def _of_channels(values: Any, channels: int) -> tuple[float, ...]:
    """As many numbers as channels: of one channel their mean, as timm takes it of the first weights their sum."""
    numbers = tuple(map(float, values))
    return numbers if len(numbers) == channels else (sum(numbers) / len(numbers),) * channels


def _stages(network: nn.Module) -> tuple[str, ...]:
    """Modules in ``feature_info`` that the network has; of a transformer, whose blocks are alike, stages are found."""
    info = getattr(network, "feature_info", None)
    entries = list(getattr(info, "info", info) or ())
    there = dict(network.named_modules())
    named = [str(entry["module"]) for entry in entries if entry.get("module") in there]
    reductions = {entry.get("reduction") for entry in entries}
    return tuple(dict.fromkeys(named)) if len(named) == len(entries) and len(reductions) > 1 else ()
