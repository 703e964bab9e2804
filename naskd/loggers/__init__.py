"""Loggers: they follow a search beside the terminal. One file each; their cards are in naskd.spec.loggers."""

import os
from collections.abc import Sequence
from pathlib import Path

from naskd.spec.errors import InputError
from naskd.spec.loggers import LOGGERS
from naskd.spec.packages import installed
from naskd.study.observer import StudyObserver


def check_loggers(names: Sequence[str]) -> None:
    """Say what is wrong with ``execution.callbacks`` before anything starts.

    Raises:
        InputError: A name is unknown or stands twice, or a package is not installed.
    """
    cards = [LOGGERS[name] for name in names]
    if len(set(names)) != len(names):
        raise InputError(f"execution.callbacks: got {', '.join(names)}; allowed: each name once")
    missing = [card for card in cards if card.package and not installed(card.package)]
    if missing:
        raise InputError(
            f"execution.callbacks names {' and '.join(card.name for card in missing)}, and "
            f"{' and '.join(card.package for card in missing)} cannot be imported; "
            f"pip install {' '.join(card.install for card in missing)}, or leave it out"
        )


def build_loggers(names: Sequence[str], *, folder: Path, study: str) -> list[StudyObserver]:
    """The loggers of a search. The packages of naskd's own are imported when the first job begins.

    Args:
        names: Distinct names of cards.
        folder: The run directory.
        study: Its name.

    Raises:
        InputError: See :func:`check_loggers`; one cannot be made, or is no
            :class:`~naskd.study.observer.StudyObserver`.
    """
    check_loggers(names)
    folder = Path(os.path.abspath(folder))
    loggers = []
    for name in names:
        logger = LOGGERS.make(name, folder=folder, study=study)
        if not isinstance(logger, StudyObserver):
            raise InputError(
                f"logger {name!r} returned {type(logger).__name__}; it must return a "
                "naskd.study.observer.StudyObserver"
            )
        loggers.append(logger)
    return loggers
