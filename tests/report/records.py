"""Run records that look like real ones, for tests and for looking at reports.

``python tests/report/records.py OUT`` writes pages, pictures and tables of several kinds of record into OUT.
"""

import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from naskd.spec.design import TrialConfig
from naskd.spec.objectives import OBJECTIVES, Objective
from naskd.spec.pareto import front_mask, front_volume, non_dominated

BLOCKS = ("basic", "bottleneck", "inverted_residual", "depthwise_separable")
KINDS = ("logits", "hint", "attention", "rkd")
_OF_THE_TRAINING = ("kd.temperature", "optimizer.learning_rate")
"""Parameters on which no cost of the student depends."""


def design(rng):
    """A design as plain JSON, in the shape of TrialConfig."""
    width = rng.choice((4, 8, 12, 16, 24))
    stages = [
        {
            "block": rng.choice(BLOCKS),
            "depth": rng.randint(1, 3),
            "width": width * 2**index,
            "kernel": rng.choice((3, 3, 3, 5)),
            "expansion": rng.choice((1.0, 2.0, 4.0)),
            "stride": 1 if index == 0 else 2,
            "squeeze_excitation": rng.random() < 0.3,
        }
        for index in range(rng.randint(1, 3))
    ]
    terms = [
        {
            "kind": kind,
            "weight": round(rng.uniform(0.1, 4), 3),
            "weighting": rng.choice(("paper", "balanced")),
            "temperature": round(rng.uniform(1.5, 9), 2),
            "pairs": rng.choice(("last", "all", "middle")),
        }
        for kind in rng.sample(KINDS, rng.choice((0, 1, 1, 1, 2, 2, 3)))
    ]
    distillation = {"terms": terms, "ce_weight": rng.choice((1.0, 0.5))}
    if terms and rng.random() < 0.3:
        distillation["assistants"] = [
            {"architecture": {"stages": [{"block": "basic", "depth": 2, "width": 24}]}}
        ]
    training = {
        "epochs": 20,
        "batch_size": rng.choice((32, 64)),
        "optimizer": rng.choice(("adamw", "sgd")),
        "learning_rate": round(10 ** rng.uniform(-3, -1.5), 5),
        "augmentation": rng.choice(("none", "translate")),
    }
    config = {
        "architecture": {"stages": stages, "stem_width": width},
        "distillation": distillation,
        "training": training,
    }
    full = TrialConfig.from_dict(config)
    return replace(full, distillation=full.distillation.canonical()).to_dict()


def parameters(config):
    """What a sampler would have chosen for a design; of what it does not have, nothing."""
    stages, terms = config["architecture"]["stages"], config["distillation"]["terms"]
    found = {"stages": len(stages), "optimizer.name": config["training"]["optimizer"]}
    for index, stage in enumerate(stages, 1):
        found |= {f"stage{index}.{name}": stage[name] for name in ("block", "depth", "width")}
    if kinds := sorted(term["kind"] for term in terms):
        found |= {"kd.kinds": "+".join(kinds), "kd.temperature": terms[0]["temperature"]}
    return found | {"optimizer.learning_rate": config["training"]["learning_rate"]}


def trial(number, rng, epochs=20):
    """A trial whose accuracy grows with its cost and with its distillation, with noise."""
    config = design(rng)
    stages = config["architecture"]["stages"]
    macs = sum(
        64 // 4**i * s["depth"] * s["width"] ** 2 * (9 if s["block"] == "basic" else 2)
        for i, s in enumerate(stages)
    )
    macs = int(macs * rng.uniform(0.8, 1.2)) + 500
    kinds = {term["kind"] for term in config["distillation"]["terms"]}
    error = 0.42 * (macs / 2e3) ** -0.42 * rng.lognormvariate(0, 0.35)
    error *= 0.75 if "attention" in kinds else 0.85 if "logits" in kinds else 1.0
    error = min(0.85, error * (1.8 if config["training"]["optimizer"] == "sgd" else 1) + 0.004)
    accuracy = round((1 - error) * 359) / 359
    curve = [
        {
            "epoch": epoch,
            "val_accuracy": max(
                0.08, accuracy * (1 - 0.9 * np.exp(-4 * epoch / epochs)) + rng.gauss(0, 0.006)
            ),
            "loss": 2.3 * np.exp(-3 * epoch / epochs) + error + rng.gauss(0, 0.01),
        }
        for epoch in range(1, epochs + 1)
    ]
    curve[-1]["val_accuracy"] = accuracy
    return {
        "number": number,
        "state": "COMPLETE",
        "reason": "",
        "val_accuracy": accuracy,
        "macs": macs,
        "n_params": macs // 40 + 300,
        "size_bytes": 4 * (macs // 40 + 320),
        "config": config,
        "parameters": parameters(config),
        "unused": {"design": []},
        "config_id": f"{rng.getrandbits(48):012x}",
        "seed": rng.getrandbits(62),
        "wall_seconds": 0.4 + macs / 4e5,
        "train_macs": macs * 3 * 1149 * epochs + int(2e9),
        "teacher_agreement": min(1.0, accuracy + 0.005),
        "curve": curve,
    }


FAILURES = ("loss is not finite at epoch 3", "out of memory: 2.1 GB asked, 1.4 GB free")
REFUSALS = ("macs 1,540,212 > max_macs 1,000,000", "duplicate of trial 7", "rkd needs batches of at least 2")


def whole(shares):
    """The same, of one."""
    return {name: share / sum(shares.values()) for name, share in shares.items()}


def record(n=60, seed=0, *, teacher=True, third=False, retrained=False, study="digits", front_only=False):
    """A run record of `n` complete trials, some more failed and turned away."""
    rng = random.Random(seed)
    trials = [trial(number, rng) for number in range(n)]
    for number in range(n, n + n // 10):
        failed = trial(number, rng, epochs=3)
        failed |= {
            "state": "FAIL",
            "reason": rng.choice(FAILURES),
            "val_accuracy": None,
            "error": "Traceback: boom",
        }
        trials.append(failed)
    for number in range(n + n // 10, n + n // 10 + n // 4):
        refused = {"number": number, "state": "PRUNED", "reason": rng.choice(REFUSALS), "config": design(rng)}
        trials.append(refused)
    names = ["val_accuracy", "macs"] + (["n_params"] if third else [])
    if third:
        for item in trials:
            if item.get("n_params"):
                item["n_params"] = int(item["n_params"] * rng.lognormvariate(0, 0.6)) + 10
    axes = [OBJECTIVES[name] for name in names]
    reference = {"val_accuracy": 0.0, "macs": 1e7, "n_params": 1e6}
    complete = trials[:n]
    values = [[item[name] for name in names] for item in complete]
    for item, on_front in zip(complete, front_mask(values, axes), strict=True):
        item["on_front"] = bool(on_front)
    spent, progress = 4e10, []
    for index, item in enumerate(complete):
        spent += item["train_macs"]
        volume = front_volume(values[: index + 1], axes, reference)
        progress.append({"train_macs": spent, "trial": index, "hypervolume": volume})
    front = sorted((item for item in complete if item["on_front"]), key=lambda item: item["macs"])
    result = {
        "schema_version": 1,
        "study": study,
        "objectives": [
            {"name": m, "direction": "maximize" if m == "val_accuracy" else "minimize"} for m in names
        ],
        "reference_point": {name: reference[name] for name in names},
        "hypervolume": progress[-1]["hypervolume"] if progress else 0.0,
        "train_macs": spent,
        "trials": front if front_only else trials,
        "progress": progress,
        "importance_by_cost": [
            {
                "low": low,
                "high": 3 * low,
                "trials": 20,
                "spread": 0.03,
                "shares": {"kd.temperature": 0.7, "block": 0.3},
            }
            for low in (1e5, 4e5, 2e6)
        ],
        "importance": {
            name: whole(
                {
                    f"stage{i}.{field}": rng.random() ** 3
                    for i in (1, 2, 3)
                    for field in ("width", "depth", "block")
                }
                | {other: rng.random() for other in _OF_THE_TRAINING if name == "val_accuracy"}
            )
            for name in names
        }
        if n > 3
        else {},
        "teacher": {
            "name": "teacher",
            "val_accuracy": 0.9889,
            "macs": 4.2e6,
            "n_params": 171_000,
            "size_bytes": 7e5,
        }
        if teacher
        else None,
        "warnings": ["Validation has 359 images: differences below 0.5 points are noise."],
        "counts": {"complete": n, "failed": n // 10, "turned_away": n // 4},
        "seed": 0,
        "retrained": None,
        "environment": {
            "python": "3.11.9",
            "torch": "2.9.1",
            "device": "cpu",
            "threads": 1,
            "naskd": "0.1.0",
        },
    }
    if retrained:
        designs = []
        for item in front:
            mean = item["val_accuracy"] - abs(rng.gauss(0.012, 0.006))
            designs.append(
                {
                    "number": item["number"],
                    "macs": item["macs"],
                    "n_params": item["n_params"],
                    "n": 5,
                    "val_accuracy_search": item["val_accuracy"],
                    "test_accuracy_mean": mean,
                    "test_accuracy_sd": abs(rng.gauss(0, 0.005)),
                }
            )
        on = non_dominated([[d["test_accuracy_mean"], d["macs"]] for d in designs], (True, False))
        for row, kept in zip(designs, on, strict=True):
            row["on_front"] = bool(kept)
        error = 0.0079
        good = [row for row in designs if row["test_accuracy_mean"] >= 0.9806 - error]
        best = min(good, key=lambda row: row["macs"], default=None)
        result["retrained"] = {
            "seeds": 5,
            "epochs": 40,
            "n_test": 360,
            "teacher_test_accuracy": 0.9806,
            "teacher_test_standard_error": error,
            "matches_teacher": best
            and {
                "number": best["number"],
                "macs": best["macs"],
                "times_cheaper": 30_400_000 / best["macs"],
            },
            "designs": designs,
        }
    return result


def own_objective(direction="minimize", n=40):
    """A record whose cost is no cost that naskd knows: milliseconds, or a margin that is better when larger."""
    least = direction == "minimize"
    described = {
        "name": "latency" if least else "margin",
        "title": "latency" if least else "robust margin",
        "direction": direction,
        "unit": "ms" if least else "",
        "scale": "linear",
        "known": "before" if least else "after",
    }
    name, found = described["name"], record(n, seed=4, retrained=True)
    axes = [OBJECTIVES["val_accuracy"], Objective(**described, implementation="")]
    complete = found["trials"][:n]
    for item in complete:
        item[name] = round(0.5 + item["macs"] / 2e4, 3) if least else round(40 / item["macs"] ** 0.5 - 0.1, 4)
    points = [[item["val_accuracy"], item[name]] for item in complete]
    for item, on_front in zip(complete, front_mask(points, axes), strict=True):
        item["on_front"] = bool(on_front)
    by_number = {item["number"]: item for item in complete}
    for row in found["retrained"]["designs"]:
        row[name] = by_number[row["number"]][name]
    return found | {
        "study": f"own {name}",
        "objectives": [OBJECTIVES["val_accuracy"].describe(), described],
        "reference_point": {"val_accuracy": 0.1, name: 40.0 if least else -1.0},
        "importance": {
            "val_accuracy": found["importance"]["val_accuracy"],
            name: found["importance"]["macs"],
        },
    }


def odd_records():
    """Records at the edges, by name."""
    nothing = record(0)
    one = record(1, teacher=False)
    two = record(2)
    holes = record(20)
    for item in holes["trials"][:5]:
        item |= {"curve": None, "val_accuracy": float("nan"), "config": None, "on_front": False}
    holes["trials"][5]["curve"] = [{"epoch": 1, "val_accuracy": float("nan"), "loss": float("inf")}]
    holes |= {"hypervolume": float("nan"), "teacher": {"name": "t", "val_accuracy": None, "macs": None}}
    many = record(40, seed=5)
    for index, item in enumerate(many["trials"][:40]):
        item |= {"macs": 1000 + 40 * index, "val_accuracy": 0.5 + index / 90, "on_front": True}
    hostile = record(12, study="<script>document.title='owned'</script>{{script}}", retrained=True)
    for item in hostile["trials"]:
        item["reason"] = "</script><img src=x onerror=document.title='owned'>[bold]"
        item["state"] = "FAIL" if item["number"] % 5 == 4 else item["state"]
    hostile["warnings"] = ["<b onmouseover=alert(1)>$x^2$ [red]</b>\u2028"]
    hostile["environment"] = {"<i>": "</style><script>document.title='owned'</script>"}
    hostile["teacher"]["name"] = "<script>document.title='owned'</script>"
    bare = {"study": "bare", "trials": [{"number": 3, "val_accuracy": 0.5, "macs": 100}]}
    return {
        "nothing": nothing,
        "one": one,
        "two": two,
        "three_objectives": record(60, seed=2, third=True),
        "no_teacher": record(30, teacher=False),
        "front_only": record(30, front_only=True),
        "holes": holes,
        "every_trial_on_front": many,
        "large": record(300, seed=9, retrained=True),
        "hostile": hostile,
        "bare": bare,
        "empty": {},
        "failed_only": record(20) | {"trials": [t for t in record(20)["trials"] if t["state"] != "COMPLETE"]},
        "retrained": record(80, seed=1, retrained=True),
        "own_cost": own_objective() | stopped_early(own_objective()),
        "own_gain": own_objective("maximize"),
    }


def stopped_early(source, epochs=3):
    """The trials and counts of a record, with the last trial that was turned away stopped by a rule instead."""
    *others, last = source["trials"]
    assert last["state"] == "PRUNED"
    curve = trial(last["number"], random.Random(1), epochs)["curve"]
    last = last | {"curve": curve, "reason": f"stopped by rule 'mine' after epoch {epochs}"}
    counts = source["counts"]
    return {
        "trials": [*others, last],
        "counts": counts | {"stopped": 1, "turned_away": counts["turned_away"] - 1},
    }


def main(out):
    """Write every kind of report of every record into the folder `out`."""
    from rich.console import Console

    from naskd.report.front_csv import front_csv
    from naskd.report.front_table import front_table
    from naskd.report.html import write_html
    from naskd.report.plots import write_png
    from naskd.report.trial_table import trial_table

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in odd_records().items():
        write_html(data, folder / f"{name}.html")
        write_png(data, folder / f"{name}.png")
        (folder / f"{name}.csv").write_text(front_csv(data))
        (folder / f"{name}.json").write_text(json.dumps(data))
        with open(folder / f"{name}.txt", "w") as file:
            for width in (80, 140):
                console = Console(file=file, width=width)
                console.print(front_table(data))
                for item in data.get("trials", ())[:1]:
                    console.print(trial_table(data, item["number"]))


if __name__ == "__main__":
    main(sys.argv[1])
