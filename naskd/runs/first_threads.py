"""How many threads a trial of a first study has, by timed steps of a student: that needs no teacher."""

from collections.abc import Sequence
from pathlib import Path

from naskd.data.survey import survey_and_load
from naskd.runs.timing import seconds_by_threads
from naskd.spec.design import TrialConfig
from naskd.spec.doing import doing
from naskd.spec.errors import NaskdError
from naskd.spec.parse import parse_study
from naskd.store.artifacts import ArtifactStore
from naskd.trials.context import StudyContext
from naskd.trials.resources import open_resources


def step_seconds(study: Path, runs: Path, design: TrialConfig, numbers: Sequence[int]) -> dict[int, float]:
    """Seconds of a training step on the study's images by the number of threads.

    Args:
        study: The study file; its teacher and its latency profile need not be there.
        runs: Folder of all runs, where decoded images are kept.
        design: A student that learns from the labels alone.
        numbers: Of threads, each at least 1.

    Returns:
        Empty where the study or its images cannot be read: a check says what is wrong with them.
    """
    doing("reading the images")
    try:
        spec = parse_study(study, lacking=("latency.profile",))
        _, data = survey_and_load(spec.data, spec.base, runs / "cache")
        if data is None:
            return {}
        resources = open_resources(spec, ArtifactStore(runs / "artifacts"), runs / "cache", data=data)
    except NaskdError:
        return {}
    doing(f"timing a few steps with {' and '.join(map(str, numbers))} threads")
    return seconds_by_threads(StudyContext.of(resources), design, numbers)
