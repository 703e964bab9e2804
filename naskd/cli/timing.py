"""Commands that time networks on a device."""

from pathlib import Path
from typing import Annotated

import typer

from naskd.cli.app import app
from naskd.cli.options import AsJson, Settings, StudyFile
from naskd.cli.printing import data_said, make_console, print_json, print_result, say, writing_to
from naskd.spec.outputs import writable

Device = Annotated[
    str, typer.Option(metavar="NAME", help="What runs the networks; see naskd methods device.")
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="Of the device, such as threads=2; may be repeated.",
        show_default=False,
    ),
]


@app.command()
def profile(
    study: StudyFile,
    device: Device = "onnxruntime",
    option: Options = None,
    students: Annotated[int, typer.Option(min=20, help="Students that the profile is fitted to.")] = 200,
    held_out: Annotated[int, typer.Option(min=1, help="Further students, that tell its error.")] = 100,
    rounds: Annotated[int, typer.Option(min=2, help="How often each is timed.")] = 15,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Default: latency.profile of the study.", show_default=False),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a picture of the held-out students.", show_default=False),
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Learn what predicts latency on a device.

    Students of the study's space are timed there, untrained, and a profile file is written. With it latency_ms is
    known before training.
    """
    from naskd.report.profile_table import profile_table
    from naskd.report.progress import CountProgress
    from naskd.runs.profiling import profile as profiled

    if png is not None:
        writable(png)
    with (
        writing_to(out if out is not None else Path(study)),
        CountProgress(make_console(stderr=True), "steps") as progress,
        data_said(progress),
    ):
        made, path = profiled(
            study,
            settings or (),
            out=out,
            device=device,
            options=option or (),
            students=students,
            held_out=held_out,
            rounds=rounds,
            observe=progress.observe,
        )
    if as_json:
        print_json({**made.to_dict(), "errors": made.errors, "path": str(path)})
    else:
        print_result(profile_table(made.to_dict(), made.errors))
    say(f"wrote {path}")
    if png is not None:
        from naskd.report.profile_png import write_profile_png

        with writing_to(png):
            write_profile_png(made.to_dict(), png)
        say(f"wrote {png}")


@app.command()
def latency(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Students, exported as safetensors.", show_default=False),
    ],
    device: Device = "onnxruntime",
    option: Options = None,
    rounds: Annotated[int, typer.Option(min=2, help="How often each is timed.")] = 15,
    as_json: AsJson = False,
) -> None:
    """Time exported students on a device.

    Each is run on one image at a time; its latency is its fastest run.
    """
    from naskd.report.profile_table import latency_table
    from naskd.runs.profiling import read_options, time_students

    found = time_students(files, device=device, options=read_options(device, option or ()), rounds=rounds)
    if as_json:
        print_json(found)
    else:
        print_result(latency_table(found))
