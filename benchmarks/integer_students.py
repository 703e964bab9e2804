"""Students of integers against the same students in floating point, as they leave: ONNX files in ONNX Runtime.

    python benchmarks/integer_students.py runs/digits --json integers.json

Each design of a run's front, or of `--trials`, is trained as the run trains it, with weights of 32, of 8 and of 4 bits
in every stage, from the same seed. Each is exported. Test accuracy, bytes and latency are those of the files. Latencies
are taken in turns in one process with one thread: medians, with the 5th and the 95th percentile. Prints Markdown.
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
from harness.spread import difference, header
from harness.timing import alternating

BATCHES = (1, 64)


def main() -> None:
    args = arguments().parse_args()
    facts = machine.facts(("torch", "onnx", "onnxruntime"))
    results = Results(args.json, args, facts, resume=args.resume)
    rows: list[Row] = results.found.setdefault("rows", [])
    bench = Bench(args)
    for number in bench.trials():
        for seed in range(args.seeds):
            if any((row["trial"], row["seed"]) == (number, seed) for row in rows):
                continue
            rows += bench.measured(number, seed)
            results.save()
    print(machine.line(results.found), "", *table(rows, args.bits), sep="\n")


def arguments() -> argparse.ArgumentParser:
    given = parser(__doc__)
    given.add_argument("run", type=Path, help="run directory of a finished search")
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
            for batch in BATCHES:
                for row, times in zip(rows, self._latencies(list(files.values()), batch), strict=True):
                    row[f"ms_{batch}"] = sorted(1000 * seconds for seconds in times)
        for row in rows:
            say({name: value for name, value in row.items() if not name.startswith("ms")})
        return rows

    def _exported(self, number: int, seed: int, bits: int, file: Path) -> Row:
        from naskd.networks.student_file import save_student
        from naskd.runs.export import OnnxFormat, export_student
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
        right = OnnxFormat().run(file, self.test.images.float() / 255).argmax(1) == self.test.labels
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

    def _latencies(self, files: Sequence[Path], batch: int) -> list[list[float]]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        images = (self.test.images[:batch].float() / 255).numpy()

        def call(file: Path) -> Any:
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            return lambda: session.run(["logits"], {"images": images})

        return alternating([call(file) for file in files], self.args.calls, limit=60)


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
    for own in bits:
        if own != bits[0]:
            one, other = ([row["test_accuracy"] for row in rows if row["bits"] == b] for b in (own, bits[0]))
            yield f"Test accuracy, {own} bits less {bits[0]}: {difference(one, other)}, n = {len(one)}."


def _line(rows: Sequence[Row], bits: int) -> str:
    first = rows[0]
    cells = [
        f"{first['student']} ({first['macs']:,})",
        str(bits),
        f"{statistics.fmean(row['test_accuracy'] for row in rows):.4f}",
        f"{first['bit_ops']:,}",
        f"{statistics.fmean(row['file_bytes'] for row in rows):,.0f}",
        f"{min(row['agreement'] for row in rows):.4f}",
    ]
    for batch in BATCHES:
        times = sorted(ms for row in rows for ms in row[f"ms_{batch}"])
        low, high = (times[int(share * (len(times) - 1))] for share in (0.05, 0.95))
        cells.append(f"{statistics.median(times):.3f} ({low:.3f} to {high:.3f})")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
