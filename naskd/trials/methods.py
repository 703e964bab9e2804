"""What designs are made of: the registries that users add to, and the one way in which a design is written."""

import inspect
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from naskd.knowledge import KNOWLEDGE
from naskd.networks import BLOCKS, FAMILIES
from naskd.schemes import SCHEMES
from naskd.spec import canonical as by_cards
from naskd.spec.code_identity import is_installed
from naskd.spec.compiled_identity import method_id
from naskd.spec.design import DistillationSpec, TrialConfig, content_id
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.option import OptionValue, unknown_options
from naskd.spec.places import is_user_file
from naskd.spec.registry import Registry, code_of, imported
from naskd.spec.seeds import trial_seed
from naskd.spec.userfile import with_siblings

METHODS: tuple[Registry[Any], ...] = (FAMILIES, BLOCKS, KNOWLEDGE, SCHEMES)
"""What users may add to, and designs are made of. Workers know of each what the driver knows."""


def methods_of(config: TrialConfig) -> Iterator[tuple[Registry[Any], str]]:
    """Each name of a method in a design, assistants included, with the registry that it is looked up in."""
    taught = config.distillation
    yield SCHEMES, taught.scheme
    for network in (config.architecture, *(assistant.architecture for assistant in taught.assistants)):
        yield FAMILIES, network.family
        yield from ((BLOCKS, stage.block) for stage in network.stages)
    for terms in (taught.terms, *(assistant.terms for assistant in taught.assistants)):
        yield from ((KNOWLEDGE, term.kind) for term in terms)


def loose_methods(files: Iterable[Path]) -> dict[str, str]:
    """What each method and objective of the user's does that no file of the study defines, by its name.

    A notebook, a script, or a module that one of them imports: nothing else tells that a loss there was changed.

    Args:
        files: Of the study's code, which count by their content.
    """
    known = {file.resolve() for path in files for file in with_siblings(path.resolve())}
    found = {}
    for registry in (*METHODS, OBJECTIVES):
        for card in registry:
            loose = [code for code in code_of(card) if _is_loose(code, known)]
            if loose:
                options = {name: option.default for name, option in getattr(card, "options", {}).items()}
                ids = [method_id(imported(code)) for code in loose]
                found[f"{registry.what} {card.name!r}"] = content_id([ids, options])
    return found


def _is_loose(code: str | Callable[..., Any], known: Container[Path]) -> bool:
    if is_installed(code):
        return False
    try:
        made = imported(code)
        module = str(getattr(made, "__module__", ""))
        # What a study names, this one or another, was imported under such a name.
        return not is_user_file(module) and Path(inspect.getfile(made)).resolve() not in known
    except (ImportError, AttributeError):  # whoever uses it is told
        return False
    except (OSError, TypeError):  # of no file
        return True


def unknown_settings(config: TrialConfig) -> list[str]:
    """Options of a design's methods that their cards do not have, and choices that the options do not have."""
    taught = config.distillation
    found = unknown_options(
        SCHEMES[taught.scheme].options, taught.scheme_options, f"scheme {taught.scheme!r}"
    )
    for network in (config.architecture, *(assistant.architecture for assistant in taught.assistants)):
        family = FAMILIES[network.family]
        found += unknown_options(family.options, network.options, f"network family {family.name!r}")
    for terms in (taught.terms, *(assistant.terms for assistant in taught.assistants)):
        for term in terms:
            found += unknown_options(KNOWLEDGE[term.kind].options, term.options, f"knowledge {term.kind!r}")
    return found


def canonical(config: TrialConfig) -> TrialConfig:
    """The same training written in one way, by the cards of all methods; see :func:`naskd.spec.canonical.canonical`."""
    return by_cards.canonical(config, knowledge=KNOWLEDGE, blocks=BLOCKS, families=FAMILIES, schemes=SCHEMES)


def seed_of(config: TrialConfig, study_seed: int, replicate: int = 0) -> int:
    """The seed of the `replicate`-th training of a design in a study.

    It follows from what is trained, not from which of its networks leaves. So designs of one training, and they alone,
    have the same seed, whichever of them was proposed.

    Args:
        config: A settled design.
        study_seed: Of the study.
        replicate: How many trainings of the same design come before.
    """
    taught = config.distillation
    if taught.scheme in SCHEMES and SCHEMES[taught.scheme].has_siblings:
        config = replace(config, distillation=SCHEMES[taught.scheme].trained_as(taught))
    return trial_seed(study_seed, config.config_id, replicate)


def sibling_of(distillation: DistillationSpec, options: Mapping[str, OptionValue]) -> DistillationSpec:
    """The same training with another network that leaves.

    Args:
        distillation: Of a settled design.
        options: See :class:`~naskd.schemes.scheme.Sibling`.
    """
    changed = {**dict(distillation.scheme_options), **options}
    written = replace(distillation, scheme_options=tuple(changed.items()))
    return SCHEMES[distillation.scheme].canonical(written)
