"""How fast students train, and what distillation adds to it.

    python benchmarks/training.py --part step search --json training.json
    python benchmarks/training.py --device cuda --images cifar10.zip --json training-cuda.json

Parts, each with options of its own (``--help``):

- ``step``: a step of a ResNet-20-like student with the knowledge of a ResNet-56-like teacher from a warm bank and from
  the teacher itself, against the same step without a teacher: time, peak memory, share of the matrix product's rate.
- ``search``: a search of 20 trials with an empty bank against the same designs undistilled.
- ``equal``: the accuracy of students of the bank and of the online teacher on the same views; needs ``--images``.
- ``views``: accuracy by the number of views of an image that students see; needs ``--images``.
- ``features``: a step taught by all stages from a warm bank, at real numbers of images.
- ``throughput``: images per second of a whole distilled trial against the customary loop, torchdistill and the ceiling.
- ``together``: the same of several trials at once on the device, and of bare steps in streams of one process.
- ``digits``: trials a minute of ``studies/digits.toml`` on 2 cores, of ``--before REVISION`` and of this tree.
- ``size``: time against the student's MACs and the number of images; what a step and a trial cost apart from these.
- ``profile``: where the time of one trial goes.

All arms of a part run in turns. Prints one Markdown table a part as soon as it is measured; ``--json`` keeps every
single measurement, and with ``--resume`` parts that it has are not measured again. A part that fails is reported, and
the others go on. ``--quick`` makes everything tiny: it shows that the parts work, and measures nothing.
"""

import argparse
import os
from pathlib import Path

from harness import machine, parts
from harness.arguments import new_file, parser
from harness.setting import resolve
from training_parts import digits, equal, features, profiling, search, size, step, throughput, together, views

PARTS: dict[str, parts.Part] = {
    "step": step,
    "search": search,
    "equal": equal,
    "views": views,
    "features": features,
    "throughput": throughput,
    "together": together,
    "digits": digits,
    "size": size,
    "profile": profiling,
}
SIZES: dict[str, tuple[str, int, int, int]] = {
    "repetitions": ("of each arm", 5, 5, 2),
    "width": ("of the first stage of all networks", 16, 16, 4),
    "matmul": ("side of the matrix product", 2048, 4096, 128),
    "step-batch": ("step, profile: images a step", 32, 128, 8),
    "step-steps": ("step: steps a block", 4, 32, 2),
    "step-images": ("step", 256, 4096, 32),
    "search-trials": ("search", 20, 20, 2),
    "search-epochs": ("search", 20, 5, 2),
    "search-images": ("search with --images", 2000, 4096, 60),
    "search-max-macs": ("search with --images: no student above it", 3_000_000, 60_000_000, 3_000_000),
    "equal-images": ("equal", 10_000, 10_000, 64),
    "equal-epochs": ("equal", 10, 10, 2),
    "equal-seeds": ("equal", 5, 5, 2),
    "equal-teacher-epochs": ("equal", 5, 10, 1),
    "views-images": ("views: of the students", 2000, 10_000, 64),
    "views-val": ("views: validation images", 6000, 10_000, 32),
    "views-epochs": ("views", 24, 30, 2),
    "views-seeds": ("views", 4, 8, 2),
    "views-width": ("views: of the student's first stage", 6, 16, 4),
    "views-teacher-images": ("views: those of the students are the first of them", 12_000, 30_000, 64),
    "views-teacher-depth": ("views: blocks a stage of the teacher", 1, 9, 1),
    "views-teacher-epochs": ("views", 6, 20, 1),
    "features-batch": ("features: images a step", 64, 128, 8),
    "features-steps": ("features: steps a block", 4, 64, 2),
    "features-repetitions": ("features", 8, 8, 2),
    "features-views": ("features: columns that are filled and used", 8, 8, 2),
    "features-width": ("features: of the student's first stage", 8, 16, 4),
    "features-teacher-depth": ("features: blocks a stage of the teacher", 1, 3, 1),
    "throughput-images": ("throughput", 2048, 10_000, 48),
    "throughput-val": ("throughput: validation images", 512, 2000, 16),
    "throughput-epochs": ("throughput", 3, 3, 2),
    "throughput-batch": ("throughput: images a step", 64, 128, 16),
    "ceiling-steps": ("throughput: steps a block of the ceiling", 10, 30, 2),
    "together-trials": ("together: trials a block, for each that runs at once", 4, 10, 1),
    "digits-trials": ("digits", 30, 30, 3),
    "size-batch": ("size: images a step", 64, 128, 8),
    "size-steps": ("size: steps a block", 8, 32, 2),
    "size-images": ("size, at x1", 512, 4096, 32),
    "profile-images": ("profile", 256, 10_000, 32),
    "profile-epochs": ("profile", 3, 5, 2),
}
"""Meaning and defaults on the CPU, on a GPU, and with ``--quick``."""


def arguments() -> argparse.Namespace:
    given = parser(__doc__)
    given.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    given.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given.add_argument("--quick", action="store_true", help="everything tiny")
    given.add_argument("--threads", type=int, default=min(2, len(os.sched_getaffinity(0))))
    given.add_argument(
        "--images",
        type=Path,
        help="folder or zip file of <class>/<name>.jpg; default: made-up images, or digits",
    )
    given.add_argument(
        "--execution",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="further keys of the [execution] table",
    )
    given.add_argument("--no-memory", dest="memory", action="store_false", help="step: no peak memory")
    given.add_argument(
        "--equal-margin", type=float, default=0.01, help="of accuracy; stated before measuring"
    )
    given.add_argument("--features-images", nargs="+", type=int, help="features; 5000 50000 without --quick")
    given.add_argument(
        "--features-stand-in",
        action="store_true",
        help="features: fill the bank with maps that nobody computed, where there is no time for a teacher",
    )
    given.add_argument("--views-most", nargs="+", type=int, default=[4, 8, 16], help="views: numbers to try")
    given.add_argument(
        "--views-home", type=Path, help="views: keeps the teacher, and what it says, for further calls"
    )
    given.add_argument("--views-kinds", nargs="+", choices=views.KINDS, default=list(views.KINDS))
    given.add_argument("--pairs", nargs="+", choices=throughput.PAIRS, default=list(throughput.PAIRS))
    given.add_argument(
        "--workers", type=int, default=2, help="throughput: of a data loader; -1: ours and the ceiling alone"
    )
    given.add_argument("--at-once", nargs="+", type=int, help="together; 1 2 on the CPU, 1 2 4 8 on a GPU")
    given.add_argument("--before", help="digits: revision to compare with")
    given.add_argument("--executor-before", nargs="+", default=["serial"], help="digits")
    given.add_argument("--executor-after", nargs="+", default=["serial"], help="digits")
    given.add_argument("--digits-epochs", type=int, help="digits: instead of the study's")
    given.add_argument("--profile-table", type=new_file, help="file for the profiler's whole table")
    for name, (meaning, cpu, cuda, _) in SIZES.items():
        given.add_argument(f"--{name}", type=int, help=f"{meaning}; {cpu} on the CPU, {cuda} on a GPU")
    given.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    given.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    args = given.parse_args()
    column = 3 if args.quick else 2 if args.device == "cuda" else 1
    for name, defaults in SIZES.items():
        key = name.replace("-", "_")
        if getattr(args, key) is None:
            setattr(args, key, defaults[column])
    args.features_images = args.features_images or ([64] if args.quick else [5000, 50_000])
    args.at_once = args.at_once or ([1, 2, 4, 8] if args.device == "cuda" and not args.quick else [1, 2])
    if args.quick:
        args.digits_epochs = args.digits_epochs or 2
        args.memory = args.device == "cuda"  # on the CPU it needs a process for each arm
    return args


def main() -> int:
    args = arguments()
    if args.memory_of is not None:
        step.print_process_peak(args)
        return 0
    compute = resolve(args)
    settings = compute.environment()
    facts = {
        **machine.facts(),
        "threads": compute.threads,
        "precision": str(settings["precision"]),
        "channels_last": compute.channels_last,
    }
    if compute.device.type == "cuda":
        facts["device_name"] = str(settings["device_name"])
    return parts.run(PARTS, args, facts)


if __name__ == "__main__":
    raise SystemExit(main())
