"""How two studies differ, line by line; what is compared is :meth:`naskd.spec.study.StudySpec.identity`."""

import json
from collections.abc import Mapping
from typing import Any

from naskd.spec import compat
from naskd.spec.registry import Registry
from naskd.spec.samplers import SAMPLERS
from naskd.spec.stopping import STOPPING_RULES


def identity_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A line for each difference of two identities, such as ``epochs: 20 -> 30``; empty when equal.

    Args:
        old: Of a run, as this version or an earlier one wrote it.
        new: Of a study of this version.
    """
    before, after = _flat(_with_defaults(compat.identity(old))), _flat(_with_defaults(new))
    return [
        f"{key}: {before.get(key, '(absent)')} -> {after.get(key, '(absent)')}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


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
