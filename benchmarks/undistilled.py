"""What distillation gave: the front's architectures trained again, with and without it, on the test split.

    python benchmarks/undistilled.py runs/image_folder --seeds 3

Each design of the front is trained with fresh seeds for the final schedule, once as the search found it and once
with the labels alone, everything else equal. Prints a Markdown table with mean and standard deviation of the test
accuracy and the paired difference of the means, and writes ``undistilled/undistilled.json`` into the run directory.
"""

import dataclasses
import json
import statistics
from pathlib import Path

from harness.arguments import parser
from harness.results import say
from harness.spread import header, sd
from naskd import open_run
from naskd.runs.retrain import Design, Retraining
from naskd.spec.design import DistillationSpec, TrialConfig


def main() -> None:
    given = parser(__doc__, json=False)
    given.add_argument("run", help="run directory")
    given.add_argument("--seeds", type=int, default=3)
    given.add_argument(
        "--most", type=int, default=8, help="at most this many designs, evenly along the front"
    )
    args = given.parse_args()

    run = open_run(args.run)
    front = run.front()
    step = max(1, -(-len(front) // args.most))
    chosen = front[::step]
    pairs = []
    for trial in chosen:
        config = TrialConfig.from_dict(trial["config"])
        bare = dataclasses.replace(config, distillation=DistillationSpec())
        pairs.append((trial, config, bare))
    run.context.compute.apply_threads()
    retraining = Retraining(run.context, Path(args.run) / "undistilled", run.spec.retrain_epochs)
    retraining.run_dir.mkdir(exist_ok=True)
    designs = [Design(t["number"], c, t["val_accuracy"]) for t, *configs in pairs for c in configs]
    retraining.run(designs, args.seeds, lambda done, total, what: say(f"{done}/{total} {what}"))
    trainings = json.loads((retraining.run_dir / "retrained.json").read_text())["trainings"]

    def accuracies(design: Design) -> list[float]:
        return [trainings[retraining.key(design, k)]["test_accuracy"] for k in range(args.seeds)]

    rows = []
    for trial, config, bare in pairs:
        distilled = accuracies(Design(trial["number"], config, None))
        plain = accuracies(Design(trial["number"], bare, None))
        rows.append(
            {"number": trial["number"], "macs": trial["macs"], "distilled": distilled, "plain": plain}
        )
    (retraining.run_dir / "undistilled.json").write_text(json.dumps(rows, indent=1))
    print(*header("trial", "MACs", "as found", "labels alone", "difference"), sep="\n")
    for row in rows:
        means = [statistics.fmean(row[key]) for key in ("distilled", "plain")]
        spread = [sd(row[key]) if args.seeds > 1 else 0.0 for key in ("distilled", "plain")]
        print(
            f"| {row['number']} | {row['macs']:,} | {means[0]:.4f} ± {spread[0]:.4f} | "
            f"{means[1]:.4f} ± {spread[1]:.4f} | {means[0] - means[1]:+.4f} |"
        )
    differences = [statistics.fmean(r["distilled"]) - statistics.fmean(r["plain"]) for r in rows]
    print(
        f"mean difference {statistics.fmean(differences):+.4f} over {len(rows)} designs, {args.seeds} seeds each"
    )


if __name__ == "__main__":
    main()
