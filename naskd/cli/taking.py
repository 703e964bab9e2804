"""Commands that take something away: final trainings, files, a study to start from."""

import json
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from naskd.cli.app import app
from naskd.cli.options import AsJson, Places, RunDir, Settings, Trial, parse_count, parse_milliseconds
from naskd.cli.printing import (
    command_line,
    data_said,
    make_console,
    print_json,
    print_result,
    say,
    writing_to,
)
from naskd.spec.errors import InputError

SCHEMA_FILE = "study.schema.json"
"""What the first line of a study file names."""


@app.command()
def retrain(
    run: RunDir,
    trials: Annotated[
        list[int] | None, typer.Argument(metavar="[TRIAL]", help="Default: the front.", show_default=False)
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Trainings of each; default retrain.seeds.", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of each training; default retrain.epochs.", show_default=False)
    ] = None,
    labels_alone: Annotated[
        bool,
        typer.Option(
            "--labels-alone", help="Also each taught student with the labels alone: what is teaching worth?"
        ),
    ] = False,
    settings: Places = None,
    as_json: AsJson = False,
) -> None:
    """Train designs for good and test them.

    With fresh seeds, for the final schedule, on the test split, by which no search judges. A retraining that was
    interrupted goes on with the next training.
    """
    from naskd.report.progress import CountProgress
    from naskd.report.record import other_costs
    from naskd.report.retrained_table import retrained_table
    from naskd.runs.run import open_run

    opened = open_run(run, settings or ())
    with (
        writing_to(opened.path),
        CountProgress(make_console(stderr=True)) as progress,
        data_said(progress),
    ):
        found = opened.retrain(
            trials or None,
            seeds=seeds,
            epochs=epochs,
            observe=progress.observe,
            labels_alone=labels_alone,
        )
    if as_json:
        print_json(found)
    else:
        print_result(retrained_table(found, other_costs(opened.to_dict())))
    say(f"report: {opened.path / 'report.html'}")


@app.command()
def export(
    run: RunDir,
    trial: Trial,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="See naskd methods; default: as FILE ends, else safetensors.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Default: exported/trial<N> in the run, with the suffix of the format.",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder instead, as for a Hugging Face repository: ONNX file, model card, a script to run it.",
            show_default=False,
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Round to 8-bit integers after the training; of onnx and --folder.")
    ] = False,
    calibrate: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Training images that give the ranges of the integers; default 512.",
            show_default=False,
        ),
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            metavar="POINTS",
            help="Refuse a file that loses more accuracy than so many percentage points.",
            show_default=False,
        ),
    ] = None,
    license_: Annotated[
        str | None,
        typer.Option(
            "--license", metavar="NAME", help="Of the student, for the model card.", show_default=False
        ),
    ] = None,
    settings: Places = None,
) -> None:
    """Write a student as a file or a folder.

    It is compared with the original on real images before it counts as done: on all test images, or on the validation
    images where it was never retrained. The student is that whose test accuracy front and show tell, of the first seed;
    else the one that the search has kept. It is trained now if there is neither.
    """
    from naskd.report.units import percent, size
    from naskd.runs.run import open_run

    if calibrate is not None and not int8:
        raise InputError("--calibrate is for --int8 only")
    opened = open_run(run, settings or ())
    with writing_to(folder or out or opened.path), data_said():
        made = opened.export(
            trial,
            form,
            out,
            folder=folder,
            int8=int8,
            calibration=calibrate,
            max_loss=None if max_loss is None else max_loss / 100,
            license=license_,
        )
    training = made["training"]
    if made["origin"] == "search":
        say(
            "the student of the search, whose accuracy is on validation images; "
            f"{command_line('retrain', run, trial)} trains it for good"
        )
    else:
        epochs = f"{training['epochs']} epoch{'' if training['epochs'] == 1 else 's'}"
        say(
            f"the student of seed {training['replicate']}, trained for {epochs}: "
            f"{percent(training['test_accuracy'])} on the test images"
        )
    same = "the same classes" if made["agreement"] == 1 else f"the same class on {percent(made['agreement'])}"
    right = ""
    if "accuracy" in made:
        right = f", {percent(made['accuracy'])} right (the original {percent(made['original_accuracy'])})"
    say(
        f"the written file on {made['n_images']} {made['images']} images: {same}, logits within "
        f"{made['max_difference']:.2g}{right}; {made['size_bytes']} bytes"
    )
    if int8:
        lost = 100 * (made["original_accuracy"] - made["accuracy"])
        say(
            f"rounded to 8 bits with the ranges of {made['n_calibration']} training images: {abs(lost):.2f} points "
            f"{'less' if lost >= 0 else 'more'} accuracy; {size(made['size_bytes'])}, "
            f"{size(made['float_size_bytes'])} before"
        )
    if folder is not None:
        name = shlex.quote(folder.resolve().name)
        say(f"to share it: hf upload USER/{name} {shlex.quote(str(folder))}")
    print(made["path"])


@app.command()
def clone(
    run: RunDir,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the new study file; default that of the run's study.",
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
) -> None:
    """Write a study file from a run's study, with keys changed; start nothing.

    The files that it names are found from where it is. Without --set name=NAME its name is the run's with a number.
    """
    from naskd.runs.clone import clone_study
    from naskd.runs.moved import CODE

    with writing_to(out or run):
        made, changed = clone_study(run, out, settings or ())
    for name in changed:
        say(f"warning: {name} is not what {run} was searched with, of which a copy is in {run / CODE}")
    say(f"next: {command_line('search', made)}")
    print(made)


@app.command()
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Made if it is not there.", show_default=False)
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Your images: a folder with a folder for each class, .npz, .csv, ...; the study fits them.",
            show_default=False,
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="TEACHER",
            help="timm:NAME, torchvision:NAME, either with =FILE, or a file of weights.",
            show_default=False,
        ),
    ] = None,
    target_macs: Annotated[
        int | None,
        typer.Option(
            parser=parse_count,
            metavar="M",
            help="Students have at most M MACs, such as 5M.",
            show_default=False,
        ),
    ] = None,
    target_latency: Annotated[
        float | None,
        typer.Option(
            parser=parse_milliseconds,
            metavar="T",
            help="Students take at most T on a device, such as 20ms.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a study to start from.

    A study file, a search space, a README, and the schema by which editors complete the study file. With --images
    they fit your images: it looks at them, and says beside each number why it is so.
    """
    from naskd.spec.schema import study_schema

    if images is not None:
        schema = (json.dumps(study_schema(), indent=1) + "\n").encode()
        _init_for_images(folder, images, teacher, target_macs, target_latency, schema)
        return
    for option, value in (
        ("--teacher", teacher),
        ("--target-macs", target_macs),
        ("--target-latency", target_latency),
    ):
        if value is not None:
            raise InputError(f"{option} goes with --images: what fits depends on the images")
    templates = [item for item in files("naskd").joinpath("templates").iterdir() if item.is_file()]
    content = {item.name: item.read_bytes() for item in templates}
    content[SCHEMA_FILE] = (json.dumps(study_schema(), indent=1) + "\n").encode()
    there = sorted(name for name in content if (folder / name).exists())
    if there:
        raise InputError(
            f"{folder} already holds {', '.join(there)}; nothing was written: choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with writing_to(folder):
        for name in sorted(content):
            (folder / name).write_bytes(content[name])
            print(folder / name)
    _say_next(folder, "check")


def _init_for_images(
    folder: Path,
    images: Path,
    teacher: str | None,
    target_macs: int | None,
    target_ms: float | None,
    schema: bytes,
) -> None:
    from naskd.report.check_table import check_lines
    from naskd.runs.first_study import Wishes, write_study

    if target_macs is not None and target_ms is not None:
        raise InputError("give one of --target-macs and --target-latency")
    with writing_to(folder), data_said(known=False):
        made = write_study(folder, Wishes(images, teacher, target_macs, target_ms), {SCHEMA_FILE: schema})
    for path in made.files:
        print(path)
    for note in made.notes:
        say(f"note: {note}")
    study = folder / "study.toml"
    if made.to_do:
        say(f"first: {made.to_do}")
    elif made.checked is not None and made.checked.problems:
        mend = "remove or mend the files" if made.checked.unreadable else "mend what is said above"
        last = f"the study is written in {folder}; now {mend}, then: {command_line('check', study)}"
        raise InputError([*made.checked.shown_problems, last])
    elif made.checked is not None:
        for line in check_lines(made.checked.to_dict()):
            say(line)
    # Checked it is already, where nothing was to be done first.
    _say_next(folder, "check" if made.to_do else "profile" if made.profile else "")


def _say_next(folder: Path, first: str) -> None:
    """What comes next, in the folder itself: there the runs will lie, as its README says."""
    go = [f"cd {shlex.quote(str(folder))}"] if folder.resolve() != Path.cwd() else []
    commands = [command_line(name, "study.toml") for name in (first, "search") if name]
    say(f"next: {', then '.join([*go, *commands])}")
