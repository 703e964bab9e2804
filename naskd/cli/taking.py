"""Commands that take something away: final trainings, files, a study to start from."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from naskd.cli.app import app
from naskd.cli.options import Places, RunDir, Trial
from naskd.cli.printing import command_line, data_said, make_console, print_result, say, writing_to
from naskd.spec.errors import InputError


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
    settings: Places = None,
) -> None:
    """Train designs for good and test them.

    With fresh seeds, for the final schedule, on the test split that nothing else opens. A retraining that was
    interrupted goes on where it stopped.
    """
    from naskd.report.progress import CountProgress
    from naskd.report.record import other_costs
    from naskd.report.retrained_table import retrained_table
    from naskd.runs.run import open_run

    opened = open_run(run, settings or ())
    with (
        writing_to(opened.path),
        CountProgress(make_console(stderr=True)) as progress,
        data_said(progress.print),
    ):
        found = opened.retrain(trials or None, seeds=seeds, epochs=epochs, observe=progress.observe)
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
    settings: Places = None,
) -> None:
    """Write a student as one file.

    It is compared with the original on real images before it counts as done. The student is that
    whose test accuracy front and show tell, of the first seed; else the one that the search has kept. It is trained
    now if there is neither.
    """
    from naskd.report.units import percent
    from naskd.runs.run import open_run

    opened = open_run(run, settings or ())
    with writing_to(out if out is not None else opened.path), data_said():
        made = opened.export(trial, form, out)
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
    right = f", {percent(made['accuracy'])} right" if "accuracy" in made else ""
    images = "validation images" if "accuracy" in made else "made-up images"
    say(
        f"the written file on {made['n_images']} {images}: {same}, logits within "
        f"{made['max_difference']:.2g}{right}; {made['size_bytes']} bytes"
    )
    print(made["path"])


@app.command()
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Made if it is not there.", show_default=False)
    ],
) -> None:
    """Write a study to start from.

    A study file, a search space and a README.
    """
    templates = [item for item in files("naskd").joinpath("templates").iterdir() if item.is_file()]
    there = sorted(item.name for item in templates if (folder / item.name).exists())
    if there:
        raise InputError(
            f"{folder} already holds {', '.join(there)}; nothing was written: choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with writing_to(folder):
        for item in sorted(templates, key=lambda item: item.name):
            (folder / item.name).write_bytes(item.read_bytes())
            print(folder / item.name)
    say(
        f"next: {command_line('check', folder / 'study.toml')}, then {command_line('search', folder / 'study.toml')}"
    )
