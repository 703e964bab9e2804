"""Records a table of real trainings: every student of a grid, taught in every one of fourteen ways.

    python benchmarks/record_table.py --images cifar10-train.zip --out runs/tables/cifar10 --teacher-images 25000

Questions of search are then asked on the table, hundreds of times, in seconds (``benchmarks/bench_search.py``).

Students see a few thousand images, their teacher as many or more, and both are judged on images that neither has seen:
validation images, which a search may go by, and test images, which it may not. Trainings are recorded in levels: the
first is a grid of 48 students with all their ways, later ones make it finer; then come further seeds. Started again,
it goes on. Rows are in ``rows.jsonl`` as soon as they are trained; ``--publish`` makes the table of them.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

from harness import machine
from harness.arguments import parser
from harness.results import Results, say

_RECORDER: list[Any] = []


def main() -> None:
    args = arguments().parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.publish:
        record(args)
    from table_parts import publishing

    print("\n".join(publishing.publish(args.out, read_rows(args.out / "rows.jsonl"))))


def arguments() -> argparse.ArgumentParser:
    given = parser(__doc__, json=False)
    given.add_argument("--images", type=Path, required=True, help="zip file of <class>/<name>.jpg")
    given.add_argument("--out", type=Path, required=True, help="folder of the table")
    given.add_argument("--student-images", type=int, default=2500)
    given.add_argument("--teacher-images", type=int, default=25000, help="the students' among them")
    given.add_argument("--val-images", type=int, default=2000)
    given.add_argument("--test-images", type=int, default=3000)
    given.add_argument("--teacher-epochs", type=int, default=15)
    given.add_argument("--levels", type=int, default=4, help="how fine the grid becomes, 1 to 4")
    given.add_argument("--seeds", type=int, default=2)
    given.add_argument(
        "--undistilled",
        type=Path,
        help="folder of a table on the same images: its undistilled rows are taken",
    )
    given.add_argument("--jobs", type=int, default=2, help="trainings at once")
    given.add_argument("--device", default="cpu")
    given.add_argument("--threads", type=int, default=1, help="of each training")
    given.add_argument("--execution", action="append", default=[], metavar="KEY=VALUE")
    given.add_argument("--seconds", type=float, default=1e9, help="begin no training after so many")
    given.add_argument("--publish", action="store_true", help="record nothing")
    return given


def open_recorder(args: argparse.Namespace) -> Any:
    from table_parts import splits
    from table_parts.recording import Recorder

    images = splits.read(args.images, args.out / "images.npz")
    sizes = splits.Splits(args.student_images, args.teacher_images, args.val_images, args.test_images)
    return Recorder(args, splits.cut(*images, sizes), args.out)


def record(args: argparse.Namespace) -> None:
    from table_parts import space

    card = Results(args.out / "recording.json", settings(args), machine.facts(), resume=True)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    recorder = open_recorder(args)
    card.found["classes"] = recorder.parts.student.n_classes
    networks = recorder.prepare()
    for name, known in card.found.get("networks", {}).items():
        if known["val_accuracy"] != networks[name]["val_accuracy"]:
            raise SystemExit(
                f"{args.out}: the {name} has {networks[name]['val_accuracy']} on validation images; that of the "
                f"recorded rows had {known['val_accuracy']}: a table has one {name}; restore it, or begin another"
            )
    card.found["networks"] = networks
    card.save()
    rows = args.out / "rows.jsonl"
    done = {(row["config_id"], row["replicate"]) for row in read_rows(rows)}
    if args.undistilled is not None:
        done |= take_undistilled(args, rows, done)
    tasks = []
    for level in range(args.levels):
        for replicate in range(args.seeds):
            for values in space.points(level):
                if (space.joint(space.Point(values)).config_id, replicate) not in done:
                    tasks.append((values, replicate))
    say(f"{len(done):,} trainings are there, {len(tasks):,} to come")
    began = time.monotonic()
    with open(rows, "a") as file:
        file.write("\n")  # the last line may have been cut off by a kill
        for n, row in enumerate(trained(args, tasks), start=1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            if n % 20 == 0:
                rate = n / (time.monotonic() - began) * 3600
                say(
                    f"{len(done) + n:,} trainings, {rate:,.0f} an hour, {(len(tasks) - n) / rate:.1f} h to go"
                )


def trained(args: argparse.Namespace, tasks: list[tuple[dict[str, Any], int]]) -> Iterator[dict[str, Any]]:
    """Rows as they come, of as many tasks as begin in time."""
    began, left = time.monotonic(), iter(tasks)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, spawn, begin, (args,)) as pool:
        running = {pool.submit(train, task) for task in islice(left, args.jobs)}
        while running:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                yield future.result()
                if time.monotonic() - began < args.seconds:
                    running |= {pool.submit(train, task) for task in islice(left, 1)}


def settings(args: argparse.Namespace) -> argparse.Namespace:
    """What a row depends on: the rest may change when a recording goes on."""
    free = ("levels", "seeds", "undistilled", "seconds", "publish", "threads", "execution", "images")
    kept = {name: value for name, value in vars(args).items() if name not in free}
    return argparse.Namespace(**kept, name=args.images.stem)


def begin(args: argparse.Namespace) -> None:
    """In a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    _RECORDER.append(open_recorder(args))


def end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def train(task: tuple[dict[str, Any], int]) -> dict[str, Any]:
    return _RECORDER[0].train(*task)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows that were written whole."""
    rows = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
    return rows


def take_undistilled(
    args: argparse.Namespace, rows: Path, done: set[tuple[str, int]]
) -> set[tuple[str, int]]:
    """Rows of students without a teacher, which are the same whoever teaches the others."""
    theirs = json.loads((args.undistilled / "recording.json").read_text())["arguments"]
    ours = json.loads(json.dumps(vars(settings(args)), default=str))
    alike = ("name", "student_images", "val_images", "test_images", "device")
    if any(theirs[name] != ours[name] for name in alike):
        raise SystemExit(f"--undistilled {args.undistilled}: recorded on other images or another device")
    taken = [
        row
        for row in read_rows(args.undistilled / "rows.jsonl")
        if row["values"]["kd.kind"] == "none" and (row["config_id"], row["replicate"]) not in done
    ]
    with open(rows, "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in taken)
    return {(row["config_id"], row["replicate"]) for row in taken}


if __name__ == "__main__":
    main()
