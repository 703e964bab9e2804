"""How fast students train, and what distillation adds to it.

    python scripts/bench_training.py --part step search --json training.json
    python scripts/bench_training.py --device cuda --images cifar10.zip --json training-cuda.json

Parts, each with options of its own (``--help``):

- ``step``: a step of a ResNet-20-like student with the knowledge of a ResNet-56-like teacher from a warm bank and from
  the teacher itself, against the same step without a teacher: time, peak memory, share of the matrix product's rate.
- ``search``: a search of 20 trials with an empty bank against the same designs undistilled.
- ``equal``: the accuracy of students of the bank and of the online teacher on the same views; needs ``--images``.
- ``throughput``: images per second of a whole distilled trial against the customary loop, torchdistill and the ceiling.
- ``together``: the same of several trials at once on the device, and of bare steps in streams of one process.
- ``digits``: trials a minute of ``studies/digits.toml`` on 2 cores, of ``--before REVISION`` and of this tree.
- ``size``: time against the student's MACs and the number of images; what a step and a trial cost apart from these.
- ``profile``: where the time of one trial goes.

All arms of a part run in turns. Prints one Markdown table a part as soon as it is measured; ``--json`` keeps every
single measurement. A part that fails is reported, and the others go on. ``--quick`` makes everything tiny: it shows
that the parts work, and measures nothing.
"""

import argparse
import gc
import json
import os
import shlex
import sys
import tempfile
import time
import traceback
from datetime import date
from pathlib import Path
from typing import Any

from training_bench import digits, equal, profiling, search, size, step, throughput, together
from training_bench.measuring import machine, say
from training_bench.setting import resolve

PARTS: dict[str, Any] = {
    "step": step,
    "search": search,
    "equal": equal,
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="file for all measurements; rewritten after each part")
    parser.add_argument("--quick", action="store_true", help="everything tiny")
    parser.add_argument("--threads", type=int, default=min(2, len(os.sched_getaffinity(0))))
    parser.add_argument(
        "--images",
        type=Path,
        help="folder or zip file of <class>/<name>.jpg; default: made-up images, or digits",
    )
    parser.add_argument(
        "--execution",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="further keys of the [execution] table",
    )
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="step: no peak memory")
    parser.add_argument(
        "--equal-margin", type=float, default=0.01, help="of accuracy; stated before measuring"
    )
    parser.add_argument("--pairs", nargs="+", choices=throughput.PAIRS, default=list(throughput.PAIRS))
    parser.add_argument(
        "--workers", type=int, default=2, help="throughput: of a data loader; -1: ours and the ceiling alone"
    )
    parser.add_argument("--at-once", nargs="+", type=int, help="together; 1 2 on the CPU, 1 2 4 8 on a GPU")
    parser.add_argument("--before", help="digits: revision to compare with")
    parser.add_argument("--executor-before", nargs="+", default=["serial"], help="digits")
    parser.add_argument("--executor-after", nargs="+", default=["serial"], help="digits")
    parser.add_argument("--digits-epochs", type=int, help="digits: instead of the study's")
    parser.add_argument("--profile-table", type=Path, help="file for the profiler's whole table")
    for name, (meaning, cpu, cuda, _) in SIZES.items():
        parser.add_argument(f"--{name}", type=int, help=f"{meaning}; {cpu} on the CPU, {cuda} on a GPU")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    column = 3 if args.quick else 2 if args.device == "cuda" else 1
    for name, defaults in SIZES.items():
        key = name.replace("-", "_")
        if getattr(args, key) is None:
            setattr(args, key, defaults[column])
    args.at_once = args.at_once or ([1, 2, 4, 8] if args.device == "cuda" and not args.quick else [1, 2])
    if args.quick:
        args.digits_epochs = args.digits_epochs or 2
        args.memory = args.device == "cuda"  # on the CPU it needs a process for each arm
    for key in ("json", "profile_table"):
        path = getattr(args, key)
        if path is not None and not path.parent.is_dir():
            parser.error(f"--{key.replace('_', '-')} {path}: the folder does not exist")
    return args


def main() -> int:
    args = arguments()
    if args.memory_of is not None:
        step.print_process_peak(args)
        return 0
    gc.freeze()  # what was imported: collections between arms need not look at it
    found: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        **machine(resolve(args)),
        "parts": {},
    }
    print(f"{found['command']}\n{found['date']}: {found['cpus']} CPUs, {found['threads']} threads, "
          f"{found['device_name']}, {found['precision']}, {found['versions']}", flush=True)  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="naskd-bench-") as folder:
        for name in args.part:
            part, home = PARTS[name], Path(folder) / name
            home.mkdir()
            began, load = time.perf_counter(), os.getloadavg()
            result: dict[str, Any] = {"load": [load]}
            try:
                result["rows"] = part.measure(args, home)
                lines = part.table(result["rows"])
            except Exception as error:  # the other parts must not be lost with this one
                result["error"] = traceback.format_exc()
                say(result["error"])
                lines = [f"failed: {type(error).__name__}: {error}"]
            result["seconds"] = time.perf_counter() - began
            result["load"].append(os.getloadavg())
            found["parts"][name] = result
            if args.json:
                args.json.write_text(json.dumps(found, indent=1))
            print(f"\n({name}) {result['seconds']:.0f} s, load average {load[0]:.1f} before, "
                  f"{result['load'][1][0]:.1f} after\n", *lines, sep="\n", flush=True)  # fmt: skip
    return int(any("error" in result for result in found["parts"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
