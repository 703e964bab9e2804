"""What a run knows of a student that leaves it, for the model card."""

import datetime
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import naskd
from naskd.runs.results import is_of, load_results, shown_designs
from naskd.schemes import SCHEMES
from naskd.schemes.prerequisites import StudyTeacher
from naskd.spec.design import SCRATCH, TrialConfig
from naskd.spec.study import StudySpec
from naskd.spec.teachers import TeacherSpec

if TYPE_CHECKING:
    from naskd.runs.run import Run
    from naskd.runs.taking import Wanted


def facts_of(
    run: "Run",
    number: int,
    training: Mapping[str, Any],
    origin: str,
    wanted: "Wanted",
    images: str,
    *,
    changed: bool = False,
) -> dict[str, Any]:
    """All that :func:`naskd.report.model_card.model_card` needs, but what is measured of the written files.

    Args:
        run: Of the student.
        number: Of its trial.
        training: Which training it is of.
        origin: ``search`` of the student that the search has kept.
        wanted: How it leaves.
        images: On which the files are compared: ``test`` or ``validation``.
        changed: Whether these are others than those that the student was judged on before.
    """
    trial = run.trial(number)
    record = load_results(run.path, run.spec.seed)
    rows = [
        row
        for row in shown_designs(record)
        if row["number"] == number and origin == "retrained" and is_of(row, str(trial["config_id"]))
    ]
    known = {teacher["name"]: teacher for teacher in run.to_dict(with_importance=False)["teachers"]}
    config = TrialConfig.from_dict(trial["config"])
    taught = teachers_of(config, run.spec)
    return {
        "name": f"{run.spec.name}-{number}",
        "study": run.spec.name,
        "number": number,
        "license": wanted.license,
        "version": naskd.__version__,
        "date": datetime.date.today().isoformat(),
        "command": _command(run.path, number, wanted),
        "data": _data(run, config),
        "teachers": [
            {
                "name": name,
                "source": teacher_source(teacher),
                "license": teacher.license or _of_its_own(teacher),
                "saw": teacher.saw_elsewhere,
                "val_accuracy": known.get(name, {}).get("val_accuracy"),
            }
            for name, teacher in run.spec.teacher_specs().items()
            if name in taught
        ],
        "config": trial["config"],
        "study_seed": run.spec.seed,
        "training": training,
        "retrained": rows[0] if rows else None,
        "val_accuracy": trial["val_accuracy"],
        "macs": trial["macs"],
        "n_params": trial["n_params"],
        "file": {"images": images, "changed": changed},
    }


def teachers_of(config: TrialConfig, spec: StudySpec) -> set[str]:
    """Names of the study's teachers of which something is in a student.

    It heard them, or began with their weights, or they taught its assistants. The study may have others.
    """
    made = SCHEMES[config.distillation.scheme].prerequisites(config.distillation, spec).made
    names = {network.name for network in made if isinstance(network, StudyTeacher)}
    return names if config.training.start == SCRATCH else names | {config.training.start}


def _data(run: "Run", config: TrialConfig) -> dict[str, Any]:
    data, spec = run.context.resources.data, run.spec.data
    # Images of nobody's publication are the user's own, named by their folder.
    own = not spec.card.paper and spec.root is not None
    return {
        "kind": spec.kind,
        "title": Path(str(spec.root)).name if own else spec.card.title,
        "n_classes": data.n_classes,
        "shape": tuple(data.train.images.shape[1:]),
        "n_train": len(data.train),
        "n_val": len(data.val),
        "n_unlabelled": data.n_unlabelled if config.distillation.unlabelled else 0,
        "modality": None if spec.modality is None else spec.modality.name,
    }


def _of_its_own(teacher: TeacherSpec) -> str | None:
    """Of a network that began from nothing there is nobody else's licence."""
    return None if teacher.architecture is None else "none of its own, it began from scratch"


def teacher_source(teacher: TeacherSpec) -> str:
    """Where a teacher comes from, in words."""
    if teacher.architecture is not None:
        return "a network that naskd trained on these training images"
    if teacher.torchvision is not None:
        text = f"{teacher.torchvision} of torchvision"
        text += f" with weights {teacher.weights}" if teacher.weights else ""
    elif teacher.builder is not None:
        text = "a network of the study's own code"
    else:
        text = f"of the source {teacher.source_name!r}"
    return text + (", trained on these training images" if teacher.trained_here else "")


def _command(path: Path, number: int, wanted: "Wanted") -> str:
    """Names of folders alone: where they lie is nobody's business."""
    assert wanted.folder is not None
    words = ["naskd", "export", path.name, str(number), "--folder", wanted.folder.name]
    words += ["--int8", "--calibrate", str(wanted.calibration)] if wanted.int8 else []
    words += ["--max-loss", f"{100 * wanted.max_loss:g}"] if wanted.max_loss is not None else []
    words += ["--license", wanted.license] if wanted.license else []
    return shlex.join(words)
