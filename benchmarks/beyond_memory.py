"""More images than memory: what reading 200,000 images of 160x160 takes, in memory and in time.

Shards of JPEGs are made, opened as a search opens them (survey, decoding, test images tried), opened again as its
workers do, and shown in the order of a training's epoch, or of its beginning. Each part is a process of its own whose
private memory is limited (``RLIMIT_DATA``); a process that wanted the images in memory would fail. Pages of mapped
files are counted apart: the system takes them back where others need memory.

``--beside`` measures something else: so many images, few enough for memory, are shown from a mapped file and from
memory in turns, to nobody and to a small student that is trained on them.

    python benchmarks/beyond_memory.py --folder /disk/with/20/GB --images 200000 --json beyond_memory.json
    python benchmarks/beyond_memory.py --folder /disk/with/2/GB --beside 14000 --shown 512 --json beside.json
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness import machine
from harness.spread import header, middle, ratios, values

CLASSES = 10
PER_SHARD = 2000
SIDE = 160


class PeakMemory(threading.Thread):
    """Watches this process: its private and its mapped memory, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.private, self.mapped = 0, 0

    def look(self) -> None:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        kib = {key: int(status[key].split()[0]) for key in ("RssAnon", "RssFile")}
        self.private, self.mapped = (
            max(self.private, kib["RssAnon"] * 1024),
            max(self.mapped, kib["RssFile"] * 1024),
        )

    def run(self) -> None:
        while True:
            self.look()
            time.sleep(0.1)


def jpeg(number: int) -> bytes:
    """An image that no other is: blurred noise in a colour of its class, as large a file as a photograph."""
    from PIL import Image

    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    coarse[..., 0] = coarse[..., 0] // 2 + (number % CLASSES) * 12
    file = io.BytesIO()
    Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()


def make(folder: Path, images: int) -> None:
    folder.mkdir(parents=True)
    for start in range(0, images, PER_SHARD):
        with tarfile.open(folder / f"{start // PER_SHARD:05d}.tar", "w") as tar:
            for number in range(start, min(start + PER_SHARD, images)):
                for suffix, content in ((".jpg", jpeg(number)), (".cls", str(number % CLASSES).encode())):
                    member = tarfile.TarInfo(f"{number:08d}{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def compared(folder: Path, n: int, shown: int | None, rounds: int) -> Iterator[dict[str, Any]]:
    """Images a second of wall time and of CPU time, from the mapped file and from memory, in turns."""
    import torch
    from torch import Tensor
    from torch.nn import functional

    from harness.timing import in_turns
    from naskd.data.decoded_cache import MAPPED_BYTES, decoded_once
    from naskd.data.views import StreamedImages, ViewedImages, make_views
    from naskd.networks.student import build_student
    from naskd.spec.design import ArchitectureSpec, StageSpec

    def fill(images: Any) -> None:
        rng = np.random.default_rng(0)
        for number in range(n):
            images[number] = rng.integers(0, 256, images.shape[1:], dtype=np.uint8)

    if n * 3 * SIDE**2 < MAPPED_BYTES:
        raise SystemExit(f"--beside: fewer than {-(-MAPPED_BYTES // (3 * SIDE**2))} images are not mapped")
    torch.set_num_threads(1)
    images = decoded_once(folder / "cache", f"beside{n}", (n, 3, SIDE, SIDE), fill)
    mapped, held = torch.from_numpy(images), torch.from_numpy(np.array(images))
    views = make_views("flip_translate", n, 0, SIDE)
    arms = {
        "mapped": StreamedImages(mapped, views, torch.device("cpu"), channels_last=True),
        "memory": ViewedImages(held, views, channels_last=True),
    }
    stages = tuple(StageSpec("basic", 1, width, stride=2) for width in (16, 32, 64))
    design = ArchitectureSpec(stem_width=8, stem_stride=2, stages=stages)
    student = build_student(design, 3, CLASSES, (0.5,) * 3, (0.25,) * 3).to(memory_format=torch.channels_last)

    def shown_to_nobody(batch: Tensor) -> None:
        """A batch is there when it can be read."""

    def trained_on(batch: Tensor) -> None:
        student.zero_grad()
        functional.cross_entropy(student(batch), torch.zeros(len(batch), dtype=torch.long)).backward()

    for use in (shown_to_nobody, trained_on):
        for number, name in in_turns(tuple(arms), rounds + 1):
            order = torch.randperm(n, generator=torch.Generator().manual_seed(number))[:shown]
            began, worked, sum_ = time.perf_counter(), time.process_time(), 0.0
            for batch, _ in arms[name].batches(torch.split(order, 128), number):
                use(batch)
                sum_ += float(batch[:, 0, 0].sum())
            wall, cpu = time.perf_counter() - began, time.process_time() - worked
            if number:  # in the first round pages are read, and memory is asked for
                yield {
                    "use": use.__name__,
                    "arm": name,
                    "repetition": number,
                    "per_second": len(order) / wall,
                    "per_cpu_second": len(order) / cpu,
                    "sum": sum_,
                }


def measured(part: str, folder: Path, limit: int, shown: int | None, rounds: int) -> dict[str, Any]:
    """One part, in this process; at most so many images of an epoch are shown."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    watch = PeakMemory()
    watch.start()
    import torch

    from naskd.data.load import load_search_data
    from naskd.data.survey import survey_and_load
    from naskd.data.views import StreamedImages, make_views
    from naskd.spec.datasets import DataSpec

    torch.set_num_threads(1)
    spec = DataSpec("webdataset", root="shards", max_bytes=2**40)
    cache = folder / "cache"
    watch.look()
    before, began = watch.private, time.perf_counter()
    if part == "open":
        survey, data = survey_and_load(spec, folder, cache)
        assert data is not None, survey.problems
        n_opened = sum(map(sum, survey.counts.values()))
    else:
        data = load_search_data(spec, folder, cache)
        n_opened = len(data.train) + len(data.val)
    took, found = time.perf_counter() - began, dict[str, Any]()
    if part == "again":
        n = len(data.train)
        views = make_views("flip_translate", n, 0, SIDE)
        images = StreamedImages(data.train.images, views, torch.device("cpu"))
        order = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:shown]
        began, n_shown = time.perf_counter(), 0
        for batch, _ in images.batches(torch.split(order, 128), 0):
            n_shown += len(batch)
        seconds = time.perf_counter() - began
        found = {"shown": n_shown, "shown_seconds": seconds, "shown_per_second": n_shown / seconds}
    watch.look()
    return {
        "images": n_opened,
        "bytes_decoded": data.n_bytes,
        "seconds": took,
        "images_per_second": n_opened / took,
        **found,
        "private_before": before,
        "private_peak": watch.private,
        "mapped_peak": watch.mapped,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="for shards and decoded images")
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--limit", type=int, default=4 * 10**9, help="bytes of private memory of a process")
    parser.add_argument("--shown", type=int, help="images of an epoch that are shown; all of them")
    parser.add_argument("--beside", type=int, help="compare with memory, of so many images, and do no more")
    parser.add_argument("--rounds", type=int, default=7, help="of the comparison with memory")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=("open", "again"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(measured(arguments.part, arguments.folder, arguments.limit, arguments.shown)))
        return
    found: dict[str, Any] = {"limit": arguments.limit, "side": SIDE, "cores": os.cpu_count()}
    if arguments.beside:
        rows = list(compared(arguments.folder, arguments.beside, arguments.shown, arguments.rounds))
        found = {**machine.facts(), "images": arguments.beside, "shown": arguments.shown, "rows": rows}
        print(*beside_table(rows), sep="\n")
    else:
        found |= beyond(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def beyond(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both parts, each in a process of its own."""
    if not (arguments.folder / "shards").is_dir():
        began = time.perf_counter()
        make(arguments.folder / "shards", arguments.images)
        print(f"made {arguments.images} images in {time.perf_counter() - began:.0f} s", flush=True)
    found = {}
    for part in ("open", "again"):
        command = [sys.executable, __file__, "--folder", str(arguments.folder), "--part", part]
        command += ["--limit", str(arguments.limit)]
        if arguments.shown is not None:
            command += ["--shown", str(arguments.shown)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[part] = numbers = json.loads(done.stdout.splitlines()[-1])
        private, mapped, decoded = (
            numbers[k] / 1e9 for k in ("private_peak", "mapped_peak", "bytes_decoded")
        )
        print(
            f"{part}: {numbers['images']} images in {numbers['seconds']:.0f} s, "
            f"{numbers['images_per_second']:.0f} a second; private memory {private:.2f} GB at most, "
            f"mapped {mapped:.2f} GB; decoded {decoded:.2f} GB",
            flush=True,
        )
        if "shown" in numbers:
            print(f"shown: {numbers['shown']} images, {numbers['shown_per_second']:.0f} a second", flush=True)
    return found


def beside_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Images a second, and the mapped file over memory, round by round."""
    yield from header("use", "of", "mapped", "memory", "mapped over memory")
    for use in dict.fromkeys(row["use"] for row in rows):
        for clock in ("per_second", "per_cpu_second"):
            mapped, memory = (values(rows, clock, use=use, arm=arm) for arm in ("mapped", "memory"))
            ratio = middle(ratios(mapped, memory))
            yield f"| {use} | {clock} | {middle(mapped, 0)} | {middle(memory, 0)} | {ratio} |"


if __name__ == "__main__":
    main()
