"""The small studies of :mod:`naskd.testing.studies`, under the name that tests here import."""

from naskd.testing.studies import (
    ALL_TERMS,
    STUDENT,
    TEACHER,
    TRAINING,
    design,
    given,
    make,
    open_context,
    small_context,
    study,
)

__all__ = [
    "ALL_TERMS",
    "STUDENT",
    "TEACHER",
    "TRAINING",
    "design",
    "given",
    "make",
    "open_context",
    "small_context",
    "study",
]
