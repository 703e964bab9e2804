"""Students of integers against the same students in floating point, as they leave: ONNX files in ONNX Runtime.

    python benchmarks/integer_students.py runs/digits --json integers.json

Each design of a run's front, or of `--trials`, is trained as the run trains it, with weights of 32, of 8 and of 4 bits
in every stage, from the same seed. Each is exported. Test accuracy, bytes and latency are those of the files. Latencies
are taken in turns in one process with one thread: medians, with the 5th and the 95th percentile. Prints Markdown.

With `--larger` latency and bytes alone, of two networks for images of 32x32 pixels, which no weight changes: nothing is
trained.
"""

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import machine
from harness.arguments import parser
from harness.results import Results, Row, say
from harness.spread import difference, header, sd
from harness.timing import alternating

BATCHES = (1, 64)


def main() -> None:
    args = arguments().parse_args()
    facts = machine.facts(("torch", "onnx", "onnxruntime"))
    results = Results(args.json, args, facts, resume=args.resume)
    rows: list[Row] = results.found.setdefault("rows", [])
    if args.larger:
        for number in range(len(LARGER)):
            rows += untrained(number, args)
            results.save()
    else:
        bench = Bench(args)
        for seed in range(args.seeds):  # whole fronts first
            for number in bench.trials():
                if any((row["trial"], row["seed"]) == (number, seed) for row in rows):
                    continue
                rows += bench.measured(number, seed)
                results.save()
    print(machine.line(results.found), "", *table(rows, args.bits), sep="\n")


def arguments() -> argparse.ArgumentParser:
    given = parser(__doc__)
    what = given.add_mutually_exclusive_group(required=True)
    what.add_argument("run", type=Path, nargs="?", help="run directory of a finished search")
    what.add_argument("--larger", action="store_true", help="latency of larger networks, and no run")
    given.add_argument("--trials", type=int, nargs="*", default=[], help="default: the front")
    given.add_argument("--bits", type=int, nargs="+", choices=(32, 8, 4), default=[32, 8, 4])
    given.add_argument("--seeds", type=int, default=1)
    given.add_argument("--epochs", type=int, help="default: those of the run's final trainings")
    given.add_argument("--calls", type=int, default=300, help="of each file and batch size")
    return given


class Bench:
    """Trains, exports and measures designs of a run.

    Args:
        args: Of the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        import naskd
        from naskd.data.sealed import load_test_split

        self.args = args
        self.run = naskd.open_run(args.run)
        self.context = self.run.context
        self.context.resources.compute.apply_threads()
        self.test = load_test_split(self.run.spec.data, self.run.spec.base)

    def trials(self) -> list[int]:
        """Numbers of the designs."""
        return self.args.trials or [trial["number"] for trial in self.run.front()]

    def measured(self, number: int, seed: int) -> list[Row]:
        """A row for each choice of bits."""
        with tempfile.TemporaryDirectory() as folder:
            files = {bits: Path(folder) / f"{bits}.onnx" for bits in self.args.bits}
            rows = [self._exported(number, seed, bits, file) for bits, file in files.items()]
            images = self.test.images[: max(BATCHES)]
            return timed(rows, list(files.values()), images, self.args.calls)

    def _exported(self, number: int, seed: int, bits: int, file: Path) -> Row:
        from naskd.networks.student_file import save_student
        from naskd.runs.export import export_student
        from naskd.runs.formats.onnx import OnnxFormat
        from naskd.spec.seeds import derive_seed
        from naskd.trials.run import start_run

        config = self._design(number, bits)
        run, _ = start_run(config, self.context, derive_seed("integers", number, seed))
        while run.epoch < run.total_epochs:
            run.advance(run.epoch + 1)
        data = self.context.resources.data
        source = file.with_suffix(".safetensors")
        save_student(source, run.scheme.deployed, data.class_names)
        made = export_student(source, file, data.val.images[:2000], labels=data.val.labels[:2000])
        right = OnnxFormat().load(file)(self.test.images.float() / 255).argmax(1) == self.test.labels
        return {
            "trial": number,
            "seed": seed,
            "bits": bits,
            "student": self._in_words(config),
            "macs": run.cost.macs,
            "bit_ops": run.cost.bit_ops,
            "counted_bytes": run.cost.size_bytes,
            "file_bytes": file.stat().st_size,
            "agreement": made["agreement"],
            "n_compared": made["n_images"],
            "n_test": len(self.test),
            "test_accuracy": float(right.float().mean()),
        }

    def _design(self, number: int, bits: int) -> Any:
        from naskd.config import TrialConfig

        config = TrialConfig.from_dict(self.run.trial(number)["config"])
        stages = tuple(dataclasses.replace(stage, bits=bits) for stage in config.architecture.stages)
        epochs = self.args.epochs or self.run.spec.retrain_epochs
        return dataclasses.replace(
            config,
            architecture=dataclasses.replace(config.architecture, stages=stages),
            training=dataclasses.replace(config.training, epochs=epochs),
        )

    @staticmethod
    def _in_words(config: Any) -> str:
        from naskd.report.summary import student

        stages = tuple(dataclasses.replace(stage, bits=32) for stage in config.architecture.stages)
        plain = dataclasses.replace(config.architecture, stages=stages)
        return student(dataclasses.replace(config, architecture=plain).to_dict())


LARGER = (("basic", (32, 64, 128), 1, {}), ("inverted_residual", (24, 48, 96), 2, {"expansion": 4.0}))
"""Block, widths of three stages, blocks in each, and what else a stage has."""


def untrained(number: int, args: argparse.Namespace) -> list[Row]:
    """Rows of one of :data:`LARGER`, without accuracy."""
    import torch

    from naskd.config import ArchitectureSpec, StageSpec
    from naskd.networks.student import build_student, design_cost
    from naskd.report.summary import student as in_words
    from naskd.runs.formats.base import Interface
    from naskd.runs.formats.onnx import OnnxFormat

    block, widths, depth, more = LARGER[number]
    images = torch.randint(256, (max(BATCHES), 3, 32, 32), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        files, rows = [], []
        for bits in args.bits:
            stages = tuple(
                StageSpec(block, depth, width, stride=1 if i == 0 else 2, bits=bits, **more)
                for i, width in enumerate(widths)
            )
            spec = ArchitectureSpec(stages, stem_width=16)
            student = build_student(spec, 3, 10, (0.5,) * 3, (0.25,) * 3)
            student(images / 255)  # so that the ranges of activations are known
            files.append(Path(folder) / f"{bits}.onnx")
            interface = Interface(tuple(map(str, range(10))), (3, 32, 32))
            OnnxFormat().write(student.eval(), files[-1], files[-1], interface)
            cost = design_cost(spec, 3, 10, 32)
            words = in_words(
                {"architecture": {"stages": [{"block": block, "width": w, "depth": depth} for w in widths]}}
            )
            rows.append(
                {
                    "trial": number,
                    "seed": 0,
                    "bits": bits,
                    "student": words,
                    "macs": cost.macs,
                    "bit_ops": cost.bit_ops,
                    "counted_bytes": cost.size_bytes,
                    "file_bytes": files[-1].stat().st_size,
                }
            )
        return timed(rows, files, images, args.calls)


def timed(rows: list[Row], files: Sequence[Path], images: Any, calls: int) -> list[Row]:
    """The rows with the milliseconds of their files on batches of images, ``(N, C, H, W)`` uint8."""
    for batch in BATCHES:
        given = (images[:batch].float() / 255).numpy()
        for row, times in zip(rows, latencies(files, given, calls), strict=True):
            row[f"ms_{batch}"] = sorted(1000 * seconds for seconds in times)
    for row in rows:
        say({name: value for name, value in row.items() if not name.startswith("ms")})
    return rows


def latencies(files: Sequence[Path], images: Any, calls: int) -> list[list[float]]:
    """Seconds of each file in turns, in this process and on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1

    def call(file: Path) -> Any:
        network = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return lambda: network.run(["logits"], {"images": images})

    return alternating([call(file) for file in files], calls, limit=60)


def table(rows: Sequence[Row], bits: Sequence[int]) -> Iterator[str]:
    """A line for each design and choice of bits, means over seeds, and a summary."""
    yield from header(
        "student (MACs)", "bits", "test accuracy", "bit operations", "bytes of the file", "same class as trained",
        *(f"ms, batch {batch}" for batch in BATCHES),
    )  # fmt: skip
    for number in dict.fromkeys(row["trial"] for row in rows):
        for own in bits:
            same = [row for row in rows if (row["trial"], row["bits"]) == (number, own)]
            yield _line(same, own)
    yield ""
    for own in bits if all("test_accuracy" in row for row in rows) else ():
        if own != bits[0]:
            one, other = ([row["test_accuracy"] for row in rows if row["bits"] == b] for b in (own, bits[0]))
            yield f"Test accuracy, {own} bits less {bits[0]}: {difference(one, other)}, n = {len(one)}."


def _line(rows: Sequence[Row], bits: int) -> str:
    first = rows[0]
    cells = [
        f"{first['student']} ({first['macs']:,})",
        str(bits),
        _mean(rows, "test_accuracy"),
        f"{first['bit_ops']:,}",
        f"{statistics.fmean(row['file_bytes'] for row in rows):,.0f}",
        _mean(rows, "agreement"),
    ]
    for batch in BATCHES:
        times = sorted(ms for row in rows for ms in row[f"ms_{batch}"])
        low, high = (times[int(share * (len(times) - 1))] for share in (0.05, 0.95))
        cells.append(f"{statistics.median(times):.3f} ({low:.3f} to {high:.3f})")
    return f"| {' | '.join(cells)} |"


def _mean(rows: Sequence[Row], key: str) -> str:
    """With the standard deviation over seeds, where there are several."""
    if key not in rows[0]:
        return ""
    found = [row[key] for row in rows]
    spread = f" ± {sd(found):.4f}" if len(found) > 1 else ""
    return f"{statistics.fmean(found):.4f}{spread}"


if __name__ == "__main__":
    main()
