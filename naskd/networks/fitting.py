"""Which of the states in a file of weights are a network's, and under which names.

Trainers keep weights under keys of their own (``state_dict``, ``model``, ``net``) and under names with a prefix
(``module.``, ``_orig_mod.``, ``model.``, ``backbone.``). No list of these is needed: a state is a network's where all
names and shapes of the network are found in it after one prefix, and nothing else is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from naskd.spec.errors import InputError
from naskd.store.checkpoint_file import CheckpointFile, SavedState, State, is_average

_BOOKKEEPING = ("n_averaged", "total_ops", "total_params", "_extra_state")
"""Last parts of names that trainers and counters of operations add, and that no network computes with."""


_NUMBERS = ("int", "float", "bool", "str", "NoneType")
"""Types of entries that hold no weights."""

_WEIGHT_NORM = ("weight_g", "weight_v", "weight.original0", "weight.original1")
"""Last parts of names that torch's weight normalisation makes of a ``weight``."""


@dataclass(frozen=True)
class FittedState:
    """A network's state out of a file.

    Args:
        tensors: Exactly the network's names, shapes and types.
        notes: What should be said of the choice, one line each; empty where there was none.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    """A part of a saved state that fits.

    Args:
        place: Of the state, with the names' prefix.
        tensors: By the network's own names.
        taken: Names of the saved state that are this part.
        left: Those that are not.
    """

    place: str
    tensors: dict[str, Tensor]
    taken: frozenset[str]
    left: tuple[str, ...]

    @property
    def shown(self) -> str:
        """As a study file says it."""
        return repr(self.place or ".")


def fit_checkpoint(
    file: CheckpointFile,
    network: nn.Module,
    wanted: str | None = None,
    without: frozenset[str] = frozenset(),
) -> FittedState:
    """The state of `network` that a file holds.

    Where several fit and differ, an average over the training (EMA) is taken, as timm does, and the notes say so.

    Args:
        file: As it was read.
        network: Whose names and shapes count; nothing is loaded.
        wanted: Where in the file the state lies: keys, and the prefix of its names, joined by dots. None: found.
        without: Names of the network that are not looked for, whatever the file has under them: a classifier that is
            replaced.

    Raises:
        InputError: Nothing fits, several fit and nothing says which is meant, or `wanted` is not there.
    """
    own = {name: value for name, value in network.state_dict().items() if name not in without}
    inside = _shared_prefixes(own) if without else []
    states = [
        _left_out(state, frozenset(name.removeprefix(prefix) for name in without for prefix in inside))
        for state in file.states
    ]
    found = [candidate for state in states for candidate in _candidates(state, own)]
    if wanted is not None:
        found = _under(file, found, wanted.rstrip("."), own, network)
    if not found:
        raise InputError(_misfit(file, _nearest(states, own), own, network))
    chosen, notes = _choice(file, found)
    if wanted is None:
        notes += tuple(_passed_over(file, chosen, found))
    return FittedState(_as_own(chosen.tensors, own), notes)


def _choice(file: CheckpointFile, found: Sequence[_Candidate]) -> tuple[_Candidate, tuple[str, ...]]:
    """The one that is meant of one or more that fit, and what should be said of that."""
    distinct = [
        c for i, c in enumerate(found) if not any(_equal(c.tensors, other.tensors) for other in found[:i])
    ]
    if len(distinct) == 1:
        return distinct[0], ()
    averages = [candidate for candidate in distinct if is_average(candidate.place)]
    places = ", ".join(candidate.shown for candidate in distinct)
    if len(averages) != 1:
        raise InputError(
            f"checkpoint {file.path} holds several different states that fit: {places}; "
            f"say which is meant, such as state = {distinct[0].shown}"
        )
    other = next(candidate for candidate in distinct if candidate is not averages[0])
    note = (
        f"{file.path.name} holds {places}; {averages[0].shown} is taken, the average over the training (EMA); "
        f"state = {other.shown} takes the other"
    )
    return averages[0], (note,)


def _left_out(state: SavedState, without: frozenset[str]) -> SavedState:
    """The same without some names, whatever prefix they have."""
    ends = tuple(f".{name}" for name in without)
    kept = {k: v for k, v in state.tensors.items() if k not in without and not (ends and k.endswith(ends))}
    return replace(state, tensors=kept)


def _under(
    file: CheckpointFile, found: Sequence[_Candidate], wanted: str, own: State, network: nn.Module
) -> list[_Candidate]:
    """Those that fit at the place that is wanted, or where none does, further in."""
    chosen = [candidate for candidate in found if candidate.place == wanted][:1]
    chosen = chosen or [c for c in found if c.place.startswith(f"{wanted}.")]
    if chosen:
        return chosen
    named = [state for state in file.states if state.place == wanted]
    if named:
        raise InputError(_misfit(file, named[0], own, network))
    places = ", ".join(dict.fromkeys(candidate.shown for candidate in found)) or "none"
    raise InputError(
        f"checkpoint {file.path} has no state {wanted!r} for {type(network).__name__}; those that fit: {places}; "
        f"the file holds {file.contents}"
    )


def _candidates(state: SavedState, own: State) -> Iterator[_Candidate]:
    """Parts of a saved state that are exactly the network's."""
    for inside in _shared_prefixes(own):
        names = {name.removeprefix(inside): name for name in own}
        first = next(iter(names))
        found = False
        for key in state.tensors:
            prefix = key.removesuffix(first)
            if not key.endswith(first) or (prefix and not prefix.endswith(".")):
                continue
            candidate = _part(state, prefix, names, own)
            if candidate is not None:
                found = True
                yield candidate
        if found:
            return


def _part(state: SavedState, prefix: str, names: Mapping[str, str], own: State) -> _Candidate | None:
    """What follows `prefix`, if it is the network's; `names` are those after it by the network's own."""
    inside = {
        key.removeprefix(prefix): value for key, value in state.tensors.items() if key.startswith(prefix)
    }
    extra = [name for name in inside if name not in names and not _is_bookkeeping(name)]
    if extra and not (prefix == "" and _only_apart(extra, names)):
        return None
    tensors = {}
    for name, full in names.items():
        if name in inside and inside[name].shape == own[full].shape:
            tensors[full] = inside[name]
        elif name.endswith("num_batches_tracked") and name not in inside:
            tensors[full] = own[full]  # torch before 0.4.1 did not count them
        else:
            return None
    place = ".".join(part for part in (state.place, prefix.rstrip(".")) if part)
    taken = frozenset(prefix + name for name in names)
    left = tuple(key for key in state.tensors if key not in taken and not _is_bookkeeping(key))
    return _Candidate(place, tensors, taken, left)


def _only_apart(extra: Sequence[str], names: Mapping[str, str]) -> bool:
    """Whether names that are too many repeat the network's after a prefix, as an average beside the weights does."""
    first = next(iter(names))
    prefixes = {key.removesuffix(first) for key in extra if key.endswith(f".{first}")}
    return bool(prefixes) and all(key.startswith(tuple(prefixes)) for key in extra)


def _shared_prefixes(own: State) -> list[str]:
    """The empty one, and those that all names of a network have: of one that is wrapped where it is built."""
    found, parts = [""], next(iter(own), "").split(".")[:-1]
    for depth in range(1, len(parts) + 1):
        prefix = ".".join(parts[:depth]) + "."
        if not all(name.startswith(prefix) for name in own):
            break
        found.append(prefix)
    return found if own else []


def _is_bookkeeping(name: str) -> bool:
    return name.rpartition(".")[2] in _BOOKKEEPING


def _equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _as_own(tensors: State, own: State) -> dict[str, Tensor]:
    """In the network's types: weights in half precision become whole."""
    return {name: value.to(own[name].dtype) for name, value in tensors.items()}


def _passed_over(file: CheckpointFile, chosen: _Candidate, found: Sequence[_Candidate]) -> Iterator[str]:
    """Averages that are there and cannot be this network's, and tensors beside it that are left out."""
    fitting = {candidate.place for candidate in found}
    strange = [
        key
        for key, what in file.entries.items()
        if is_average(key)
        and not _is_bookkeeping(key)
        and what not in _NUMBERS
        and not any(place == key or place.startswith(f"{key}.") for place in fitting)
    ]
    if strange and not is_average(chosen.place):
        named = ", ".join(map(repr, strange))
        yield f"{file.path.name} also holds {named}, which does not fit the network and is not read"
    others = {name for candidate in found for name in candidate.taken}
    outside = [name for name in chosen.left if name not in others]
    if outside:
        yield f"{file.path.name}: {len(outside)} tensors beside the network are not read: {shortened(outside, 4)}"


def _nearest(states: Sequence[SavedState], own: State) -> SavedState:
    """The one with the most of the network's names, after whatever prefix."""

    def shared(state: SavedState) -> int:
        return sum(key in own or any(key.endswith(f".{name}") for name in own) for key in state.tensors)

    return max(states, key=lambda state: (shared(state), len(state.tensors)))


def _nearest_prefix(state: SavedState, own: State) -> str:
    """Without which a state's names are nearest to the network's; the empty one where no other is nearer."""
    dots = ((key, i + 1) for key in state.tensors for i, letter in enumerate(key) if letter == ".")
    prefixes = dict.fromkeys(["", *(key[:end] for key, end in dots if key[end:] in own)])

    def fitting(prefix: str) -> int:
        # All of both that does not count here is missing, unexpected or of another shape.
        return sum(
            2 if state.tensors[prefix + name].shape == value.shape else 1
            for name, value in own.items()
            if prefix + name in state.tensors
        )

    return max(prefixes, key=fitting)


def _misfit(file: CheckpointFile, state: SavedState, own: State, network: nn.Module) -> str:
    """What does not fit, of the state that is nearest."""
    prefix = _nearest_prefix(state, own)
    stripped = {key.removeprefix(prefix): v for key, v in state.tensors.items() if key.startswith(prefix)}
    inside = {key: v for key, v in state.tensors.items() if not key.startswith(prefix)} | stripped
    held = (
        f"it holds {file.contents}; compared was {state.place!r}" if state.place else "it holds a bare state"
    )
    return (
        f"{file.path.name}: the checkpoint does not fit {type(network).__name__}; "
        f"{'; '.join(differences(own, inside)) or 'nothing that tells the two apart by name'}; "
        f"{held} with {len(state.tensors)} tensors, the network that is built has {len(own)}{_hint(own, inside)}"
    )


def _hint(own: State, state: State) -> str:
    """What is probably the matter."""
    normalised = [any(name.endswith(_WEIGHT_NORM) for name in names) for names in (own, state)]
    if normalised == [False, True]:
        return (
            "; the file's layers are weight-normalised: build them so, or save after "
            "torch.nn.utils.remove_weight_norm"
        )
    if normalised == [True, False]:
        return "; the network that is built is weight-normalised, the file's is not: build it without"
    reshaped = [name for name in own if name in state and state[name].shape != own[name].shape]
    if own.keys() == state.keys() and reshaped and all(_other_outputs(own[n], state[n]) for n in reshaped):
        found, wanted = len(state[reshaped[0]]), len(own[reshaped[0]])
        return (
            f"; the file's network has {found} outputs at {reshaped[0]}, the one that is built has {wanted}"
        )
    return ""


def _other_outputs(own: Tensor, found: Tensor) -> bool:
    return own.ndim == found.ndim >= 1 and own.shape[1:] == found.shape[1:]


def differences(own: State, state: State) -> list[str]:
    """How a state differs from a network's: names missing, unexpected, or of another shape, counted."""
    missing, unexpected = [k for k in own if k not in state], [k for k in state if k not in own]
    reshaped = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    return [
        f"{len(names)} {what}: {shortened(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if names
    ]


def load_strictly(network: nn.Module, state: State) -> None:
    """Load a state dict that must fit exactly; nothing is loaded where it does not.

    Raises:
        InputError: Names are missing or unexpected, or tensors have other shapes; the message lists them.
    """
    if problems := differences(network.state_dict(), state):
        raise InputError(
            f"the checkpoint does not fit {type(network).__name__}; {'; '.join(problems)}; "
            f"it must hold exactly the state_dict of this network"
        )
    network.load_state_dict(dict(state))


def shortened(names: Sequence[str], limit: int = 8) -> str:
    """The first names, and how many more there are."""
    text = ", ".join(names[:limit])
    return text if len(names) <= limit else f"{text} and {len(names) - limit} more"
