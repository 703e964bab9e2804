"""Models of timm (Wightman: PyTorch image models. 2019), with timm's own account of their stages and of their input."""

from typing import Any

from torch import nn

from naskd.networks.teachers import Bare, TeacherInputs
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
        try:
            network: nn.Module = timm.create_model(
                name, pretrained=pretrained, num_classes=given.n_classes, in_chans=given.in_channels
            )
        except Exception as error:  # timm, the Hub and urllib raise errors of their own
            way_out = (
                "; without a network, fetch its weights elsewhere and name the local file: checkpoint = 'FILE' and "
                "fine_tune = true in the place of pretrained"
            )
            why = f"({one_line(error)}){way_out if pretrained else ''}"
            raise InputError(f"timm's {name} cannot be made {why}") from error
        wanted = timm.data.resolve_model_data_config(network)
        channels = given.in_channels
        return Bare(
            network,
            _of_channels(wanted["mean"], channels),
            _of_channels(wanted["std"], channels),
            int(wanted["input_size"][-1]),
            _stages(network),
        )


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
