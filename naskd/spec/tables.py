"""The tables of a study file that name something registered and set the options of its card.

One mechanism for ``[sampler] name``, ``[stopping] name``, ``[data] kind``, ``[data.modality] name``, ``[execution]
executor`` and the `source` of each teacher: a key that is no field of the table's dataclass is an option of the named
card, which says whether it is right.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from naskd.spec.datasets import DataSpec
from naskd.spec.loggers import LOGGERS
from naskd.spec.modalities import ModalitySpec
from naskd.spec.objectives import ACCURACY, OBJECTIVES
from naskd.spec.option import Configured, Option, either, option_problems
from naskd.spec.packages import missing, pip_install
from naskd.spec.paths import absolute, elsewhere
from naskd.spec.registry import imported
from naskd.spec.samplers import SamplerCard
from naskd.spec.stopping import StoppingCard
from naskd.spec.study import ExecutionSpec, SamplerSpec, StoppingSpec, StudySpec, StudyTable
from naskd.spec.teachers import OWN_KEYS, TEACHER_SOURCES, TeacherSpec, normalisation_problems
from naskd.spec.validation import (
    Location,
    Problem,
    as_a_number,
    did_you_mean,
    format_key,
    format_value,
    is_text,
    known_keys,
    unknown_key,
)

TABLES: Mapping[Location, type[Configured]] = {
    ("data",): DataSpec,
    ("data", "modality"): ModalitySpec,
    ("sampler",): SamplerSpec,
    ("stopping",): StoppingSpec,
    ("execution",): ExecutionSpec,
}
"""By their places in a study file; a table within another comes after it."""


Given = Mapping[Location, Mapping[str, Any]]
"""Options by the place of their table: ``("sampler",)``, ``("teachers", 0)``."""


def _tables_of(data: Mapping[str, Any]) -> Iterator[tuple[Location, type[Configured], Mapping[str, Any]]]:
    """The tables that choose something, with their places; those that are tables."""
    single = {**TABLES, ("teacher",): TeacherSpec}
    places: list[tuple[Location, type[Configured], Any]] = [
        (place, spec, _value_at(data, place)) for place, spec in single.items()
    ]
    teachers = data.get("teachers")
    if isinstance(teachers, list | tuple):
        places += [(("teachers", i), TeacherSpec, teacher) for i, teacher in enumerate(teachers)]
    yield from ((place, spec, given) for place, spec, given in places if isinstance(given, Mapping))


def split_options(data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[Location, dict[str, Any]]]:
    """The same tables without options, and the options that were given by table; nothing is checked."""
    common: dict[str, Any] = dict(data)
    options: dict[Location, dict[str, Any]] = {}
    for place, spec, given in _tables_of(data):
        fields = set(_fields(spec))
        common = _put(common, place, {key: value for key, value in given.items() if key in fields})
        options[place] = {key: value for key, value in given.items() if key not in fields}
    return common, options


def chosen_names(data: Mapping[str, Any]) -> dict[Location, Any]:
    """What each table of :data:`TABLES` names, its default where it names nothing; it need not be registered."""
    return {place: _at(data, place).get(spec.CHOOSER, _default_name(spec)) for place, spec in TABLES.items()}


def leave_out_former_options(
    data: dict[str, Any], former: Mapping[Location, Any], settings: Sequence[Sequence[str]]
) -> None:
    """Take out of `data` what only the former method reads, where a setting names another one.

    So ``--set sampler.name=random`` is enough. What is set beside it stays, and is refused where it means nothing.

    Args:
        data: All tables of the file, after the settings.
        former: What :func:`chosen_names` said before.
        settings: Keys that were set.
    """
    kept = set(map(tuple, settings))
    for place, spec in TABLES.items():
        table = _value_at(data, place)
        if not isinstance(table, dict) or (*place, spec.CHOOSER) not in kept:
            continue
        before, now = _card(spec, {spec.CHOOSER: former[place]}), _card(spec, table)
        if before is None or now is None:
            continue
        for name in set(before.options) - set(now.options) - set(_fields(spec)):
            if (*place, name) not in kept:
                table.pop(name, None)


def _default_name(spec: type[Configured]) -> Any:
    return getattr(spec, spec.CHOOSER, None)


def _put(data: Mapping[str, Any], place: Location, table: Any) -> dict[str, Any]:
    """A copy of `data` with another table at a place."""
    top, *rest = place
    if not rest:
        return {**data, str(top): table}
    if isinstance(inner := data[str(top)], Mapping):
        return {**data, str(top): _put(inner, tuple(rest), table)}
    tables = list(inner)
    tables[int(rest[0])] = table
    return {**data, str(top): tables}


def _at(data: Mapping[str, Any], place: Location) -> Mapping[str, Any]:
    """The table at a place, as far as it is right; empty where it is not there."""
    found = _value_at(data, place)
    return found if isinstance(found, Mapping) else {}


def _value_at(data: Mapping[str, Any], place: Location) -> Any:
    """What stands at a place; None where nothing does."""
    found: Any = data
    for part in place:
        try:
            found = found[part]
        except (KeyError, IndexError, TypeError):
            return None
    return found


def name_problems(data: Mapping[str, Any]) -> list[Problem]:
    """Names that nothing is registered under: those of these tables, and the loggers.

    Args:
        data: All tables of the file.
    """
    found = []
    for place, spec, given in _tables_of(data):
        # A teacher without a source may have come by a key of its own.
        if _card(spec, given) is None and not (spec is TeacherSpec and given.get("source") is None):
            key, known = _key(place, spec.CHOOSER), spec.CARDS.names()
            found.append(_unknown_name(key, given.get(spec.CHOOSER), known))
    execution = data.get("execution")
    loggers = execution.get("callbacks") if isinstance(execution, Mapping) else None
    return found + [
        _unknown_name(f"execution.callbacks[{index}]", name, LOGGERS.names())
        for index, name in enumerate(loggers if isinstance(loggers, list | tuple) else ())
        if isinstance(name, str) and name not in LOGGERS
    ]


def check_options(data: Mapping[str, Any], options: Given) -> list[Problem]:
    """All that is wrong with the options of a study file; those of a name that is not registered are passed over.

    Args:
        data: All tables of the file.
        options: By table, as :func:`split_options` found them.
    """
    found = []
    for place, spec, table in _tables_of(data):
        card, given = _card(spec, table), options[place]
        for name, value in given.items():
            found += _option_problem(place, spec, card, name, value)
        found += [
            Problem(_key(place, name), "nothing", f"{option.allowed}: {option.meaning}")
            for name, option in (card.options.items() if card is not None else ())
            if option.required and name not in given
        ]
    return found


def _option_problem(
    place: Location, spec: type[Configured], card: Any, name: str, value: Any
) -> list[Problem]:
    known: Mapping[str, Option] = {} if card is None else card.options
    if name in known:
        if known[name].fits(value):
            return []
        hint = did_you_mean(str(value), known[name].choices) or as_a_number(value, known[name].type, name)
        return [Problem(_key(place, name), format_value(value), known[name].allowed, hint)]
    readers = [other.name for other in spec.CARDS if name in other.options]
    if not readers:
        keys = known_keys(spec) if card is None else [*_fields(spec), *known]
        return [unknown_key(StudyTable, (*place, name), value, keys)]
    if card is None:
        return []
    got = f"{format_value(value)} with {_key(place, spec.CHOOSER)} = {format_value(card.name)}"
    return [Problem(_key(place, name), got, f"only with {either(map(repr, readers))}")]


def check_together(data: Mapping[str, Any], base: Path) -> list[Problem]:
    """What the cards themselves have to say of their tables: packages that are missing, files and folders.

    Args:
        data: Tables with their options among their keys, as far as they are right.
        base: Folder of the study file.
    """
    found = []
    for place, spec in TABLES.items():
        given = _at(data, place)
        card = _card(spec, given)
        if names := missing(getattr(card, "packages", ())):
            allowed = (
                f"one that can be used here; this one needs {' and '.join(names)}, which is not installed"
            )
            got = format_value(card.name)
            found.append(Problem(_key(place, spec.CHOOSER), got, allowed, pip_install(names)))
        if check := getattr(card, "check", ""):
            problems = imported(check)(given, base)
            found += [dataclasses.replace(p, key=_key(place, p.key)) for p in problems]
    return found + _unlabelled_problems(data.get("data", {}).get("unlabelled"), base)


def _unlabelled_problems(folder: str | None, base: Path) -> list[Problem]:
    """Of every kind of data: a folder that is not there."""
    if folder is None or (path := absolute(folder, base)).is_dir():
        return []
    allowed = f"an existing folder; there is no {path}"
    return [Problem("data.unlabelled", format_value(folder), allowed, elsewhere(folder, base))]


def holds_text(path: Sequence[str]) -> bool:
    """Whether the value of a key is text, by its field or by every option of that name; its modules are imported."""
    if is_text(StudyTable, tuple(path)):
        return True
    specs: dict[Location, type[Configured]] = {**TABLES, ("teacher",): TeacherSpec}
    *table, key = path
    cards = specs[tuple(table)].CARDS if tuple(table) in specs else ()
    kinds = {card.options[key].type for card in cards if key in card.options}
    return kinds == {str}


def spec_problems(spec: StudySpec) -> list[str]:
    """What is wrong with the names and options of a study that came from no file; its modules are imported.

    Args:
        spec: The study.
    """
    tables: dict[str, Any] = {}
    found: list[str] = []
    for place in TABLES:
        chosen: Any = spec
        for part in place:
            chosen = getattr(chosen, str(part))
        if chosen is None:
            continue
        given = {name: getattr(chosen, name) for name in _fields(chosen)} | dict(chosen.options)
        tables = _put(tables, place, given)
        if (card := _card(type(chosen), given)) is not None:
            found += option_problems(card.options, chosen.options, f"{chosen.CARDS.what} {card.name!r}")
    teachers = [
        (teacher, {name: getattr(teacher, name) for name in _fields(teacher)})
        for teacher in spec.teacher_specs().values()
    ]
    for teacher, fields in teachers:
        found += map(str, normalisation_problems(teacher.name, fields))
        if teacher.source_name in TEACHER_SOURCES:
            method = f"{TEACHER_SOURCES.what} {teacher.source_name!r}"
            found += option_problems(teacher.card.options, teacher.options, method)
    named = {**tables, "teachers": [fields for _, fields in teachers]}
    found += map(str, name_problems(named))
    found = found or [str(problem) for problem in check_together(tables, spec.base)]
    return found + [str(problem) for problem in unpriced_problems(spec.objectives, tables)]


def unpriced_problems(objectives: Sequence[str], tables: Mapping[str, Any]) -> list[Problem]:
    """A sampler, or a stopping rule, that must know costs before training, where an objective is known after it.

    Args:
        objectives: Of the study; those that are not registered are passed over.
        tables: Those that name a sampler and a stopping rule, as far as they are right.
    """
    late = [
        name
        for name in objectives
        if name in OBJECTIVES and name != ACCURACY and OBJECTIVES[name].known != "before"
    ]
    found = []
    for table, spec in (("sampler", SamplerSpec), ("stopping", StoppingSpec)):
        card: SamplerCard | StoppingCard | None = _card(spec, _at(tables, (table,)))
        if late and card is not None and card.needs_known_costs:
            others = either(repr(other.name) for other in spec.CARDS if not other.needs_known_costs)
            needs = "needs objectives that are known before training"
            allowed = f"{others}: this one {needs}, and {', '.join(late)} is not"
            found.append(Problem(f"{table}.name", format_value(card.name), allowed))
    return found


def with_options(data: Mapping[str, Any], options: Given, wrong: Sequence[Problem]) -> dict[str, Any]:
    """Tables with those of their options that are right."""
    keys = {problem.key for problem in wrong}
    found = dict(data)
    for place, given in options.items():
        right = {name: value for name, value in given.items() if _key(place, name) not in keys}
        if right:
            found = _put(found, place, {**_at(found, place), **right})
    return found


def as_spec(data: Mapping[str, Any], options: Given) -> dict[str, Any]:
    """Tables with their options as a spec holds them."""
    found = dict(data)
    for place, given in options.items():
        found = _put(found, place, {**_at(data, place), "options": tuple(given.items())})
    return found


def as_tables(value: Any) -> Any:
    """The inverse of :func:`as_spec`: what a study, or a part of it, is in a file. Paths become text.

    Args:
        value: Dataclasses as tables, with their options among their keys and without what is at its default; or plain
            values, which stay.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        table = {
            field.name: as_tables(found)
            for field in dataclasses.fields(value)
            if field.name != "options" and (found := getattr(value, field.name)) != _default(field)
        }
        return {**table, **(dict(value.options) if isinstance(value, Configured) else {})}
    if isinstance(value, Mapping):
        return {str(key): as_tables(part) for key, part in value.items() if part is not None}
    if isinstance(value, tuple | list):
        return [as_tables(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _default(field: "dataclasses.Field[Any]") -> Any:
    """Of a field; MISSING where it has none."""
    default = field.default
    if isinstance(default, FieldInfo):
        return default.get_default(call_default_factory=True, validated_data={})
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return default


def _card(spec: type[Configured], given: Mapping[str, Any]) -> Any:
    """What a table names, or None where that is missing or not registered."""
    name = given.get(spec.CHOOSER, getattr(spec, spec.CHOOSER, None))
    if spec is TeacherSpec and name is None:
        name = next((key for key in OWN_KEYS if given.get(key) is not None), None)
    return spec.CARDS[name] if isinstance(name, str) and name in spec.CARDS else None


def _unknown_name(key: str, name: object, known: tuple[str, ...]) -> Problem:
    got = "nothing" if name is None else format_value(name)
    return Problem(key, got, either(map(format_value, known)), did_you_mean(str(name), known))


def _fields(spec: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(spec) if field.name != "options"]


def _key(place: Location, name: str) -> str:
    return format_key((*place, name))
