"""What a command is busy with, for whoever shows it where it takes long."""

import logging

from naskd.spec.interrupts import heed

DOING = logging.getLogger(__name__)
"""Each record is a few words, true from now until the next one."""


def doing(what: str) -> None:
    """Say what is begun now, such as ``reading the images``. A Ctrl-C of before ends it here at the latest."""
    heed()
    DOING.info("%s", what)
