"""How two studies differ, line by line; what is compared is :meth:`naskd.spec.study.StudySpec.identity`."""

import json
import posixpath
from collections.abc import Mapping
from typing import Any

from naskd.spec import compat
from naskd.spec.code_identity import same_code
from naskd.spec.registry import Registry
from naskd.spec.samplers import SAMPLERS
from naskd.spec.stopping import STOPPING_RULES

METHODS = "methods"
"""Key of an identity: methods of the user's that no file of the study defines, by what they do."""

_MEANING = {
    "data_hash": "images for training or validation are not those of before",
    "split_hash": "the split is another: images came or went, its settings changed, or an earlier version of naskd "
    "left copies of training images among the validation images",
    "modality_hash": "images of the second modality are not those of before",
    "unlabelled_hash": "unlabelled images are not those of before",
    "teacher_hash": "the teacher is another: its file, its code or its settings",
    "teacher_hashes": "the teacher is another: its file, its code or its settings",
    "latency_profile": "latencies are predicted by another profile",
    "earlier_runs": "the runs that it learns from are others, or were read at another time",
    METHODS: "what this method does has changed, or a value that it reads; it is in no file of the study",
    "files": "what the code does has changed; comments and layout do not count",
}
"""What a difference of hashes means, by the beginning of its key."""


_SETTINGS = ("kind", "resolution", "channels", "val_fraction", "test_fraction", "max_train")
"""Of images and their split. What comes of them has hashes, and does not always come of all of them."""


def by_content(identity: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An identity without the settings of what its hashes name: of images and their split, and of teachers.

    Args:
        identity: Of a run.
        other: Where given, of another one: settings stay that explain why their hashes differ.
    """
    beside = identity if other is None else other

    def named(*hashes: str) -> bool:
        return all(identity.get(key) and beside.get(key) == identity[key] for key in hashes)

    found = dict(identity)
    if named("data_hash", "split_hash") and isinstance(found.get("data"), Mapping):
        found["data"] = {key: value for key, value in found["data"].items() if key not in _SETTINGS}
    if named("teacher_hash") and found.get("teacher"):
        found["teacher"] = _called(found["teacher"])
    if named("teacher_hashes") and found.get("teachers"):
        found["teachers"] = list(map(_called, found["teachers"]))
    return found


def _called(teacher: Mapping[str, Any]) -> dict[str, Any]:
    """Of a teacher the name, by which designs mean it."""
    return {key: value for key, value in teacher.items() if key == "name"}


def identity_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A line for each difference of two identities, such as ``epochs: 20 -> 30``; empty when equal.

    Args:
        old: Of a run, as this version or an earlier one wrote it.
        new: Of a study of this version.
    """
    known, now = compat.identity(old), dict(new)
    before, after = by_content(known, now), by_content(now, known)
    files = before.pop("files", None), after.pop("files", None)
    if None not in files:
        for side, left in zip((before, after), _different_files(*files), strict=True):
            side.update({"files": left} if left else {})
    methods = before.pop(METHODS, {}), after.pop(METHODS, {})
    # One that only one of them knows is of no use to the other.
    changed = {name for name, what in methods[0].items() if methods[1].get(name, what) != what}
    for side, known in zip((before, after), methods, strict=True):
        side.update({METHODS: {name: known[name] for name in sorted(changed)}} if changed else {})
    one, other = _flat(_with_defaults(before)), _flat(_with_defaults(after))
    return [
        _explained(f"{key}: {one.get(key, '(absent)')} -> {other.get(key, '(absent)')}")
        for key in dict.fromkeys([*one, *other])
        if one.get(key) != other.get(key)
    ]


def _explained(line: str) -> str:
    meaning = _MEANING.get(line.partition(":")[0].partition(".")[0])
    return line if meaning is None else f"{line} ({meaning})"


def _different_files(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is left of two tables of files, each named by one hash or by several, without those of equal content."""
    before, after = ({posixpath.normpath(n): ids for n, ids in files.items()} for files in (old, new))
    for name, ids in list(before.items()):
        # Under its own name first; a file may also have moved.
        there = [n for n in sorted(after, key=lambda n: n != name) if same_code(ids, after[n])]
        if there:
            del before[name], after[there[0]]
    return {n: _last(ids) for n, ids in before.items()}, {n: _last(ids) for n, ids in after.items()}


def _last(ids: Any) -> Any:
    return ids[-1] if isinstance(ids, list | tuple) and ids else ids


def _with_defaults(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the options that are left out, so that a difference names the value that was meant."""
    found = dict(identity)
    registries: dict[str, Registry[Any]] = {"sampler": SAMPLERS, "stopping": STOPPING_RULES}
    for key, cards in registries.items():
        given = found.get(key) or {}
        if given.get("name") in cards:
            options = cards[given["name"]].options
            found[key] = {**{name: option.default for name, option in options.items()}, **given}
    return found


def _flat(value: Any, key: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and (value or not key):
        children: list[tuple[str, Any]] = [(str(k), v) for k, v in value.items()]
    elif isinstance(value, list | tuple) and value:
        children = [(str(k), v) for k, v in enumerate(value)]
    else:
        return {key: json.dumps(value, default=str)}
    return {
        path: text
        for name, child in children
        for path, text in _flat(child, f"{key}.{name}" if key else name).items()
    }
