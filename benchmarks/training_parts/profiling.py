"""Where the time of one distilled trial goes."""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from harness.images import load_images
from harness.results import Row, say
from harness.setting import TEACHINGS, open_setting, resnet, study
from harness.spread import header
from harness.timing import timed
from naskd.spec.design import DistillationSpec, TrainingSpec, TrialConfig

GROUPS = {
    "optimizer": ("adam", "sgd", "multi_tensor", "_fused_", "foreach"),
    "batch norm": ("batch_norm", "batchnorm", "bn_", "native_batch_norm"),
    "convolution": (
        "conv", "mkldnn", "cudnn", "wgrad", "dgrad", "fprop", "implicit", "xmma", "nchwtonhwc", "nhwctonchw",
    ),
    "data gather": ("index", "gather", "scatter"),
    "matrix product": ("addmm", "aten::mm", "bmm", "gemm", "linear", "cutlass"),
    "memory": ("memcpy", "memset", "copy_", "empty", "fill", "zero", "clone", "to_copy"),
    "element by element": (
        "elementwise", "vectorized", "aten::add", "aten::mul", "aten::div", "aten::sub", "relu", "threshold", "pow",
        "clamp", "sqrt", "where", "abs",
    ),
    "reductions and losses": ("reduce", "softmax", "mean", "sum", "nll", "kl_div", "norm", "isfinite", "argmax"),
}  # fmt: skip
"""Words in a name that put it into a group; the first group that fits."""


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    data = load_images(args, args.profile_images, max(10, args.profile_images // 8))
    training = TrainingSpec(
        epochs=args.profile_epochs, batch_size=args.step_batch, augmentation="flip_translate"
    )
    teaching = TrainingSpec(epochs=1, batch_size=args.step_batch, augmentation="flip_translate")
    spec = study(args, resnet(9, args.width), training.epochs, teaching)
    setting = open_setting(spec, data, folder, folder / "cache")
    config = TrialConfig(
        resnet(3, args.width), DistillationSpec(terms=TEACHINGS["all three"]).canonical(), training
    )

    def trial(seed: int) -> float:
        return timed(setting.compute, lambda: setting.trial(config, seed))

    trial(0)  # fills the bank
    plain = trial(1)
    on_gpu = setting.compute.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiled:
        seconds = trial(2)
    found = profiled.key_averages()
    if args.profile_table:
        order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        args.profile_table.write_text(found.table(sort_by=order, row_limit=200, max_name_column_width=100))
    rows = [{"group": name, "seconds": taken} for name, taken in grouped(found, on_gpu).items()]
    known = sum(row["seconds"] for row in rows)
    rest = "device idle" if on_gpu else "Python and all that is no operator"
    rows.append({"group": rest, "seconds": max(0.0, seconds - known)})
    facts = {"whole": seconds, "unprofiled": plain, "device": str(setting.compute.device)}
    say("profile", facts)
    return [{**row, **facts} for row in rows]


def grouped(found: Any, on_gpu: bool) -> dict[str, float]:
    """Seconds by group: of kernels on a GPU, of operators themselves on the CPU."""
    seconds: dict[str, float] = {}
    for event in found:
        kernel = event.device_type == torch.autograd.DeviceType.CUDA
        # What encloses kernels, such as the optimizer's step, would count them twice.
        if on_gpu != kernel or (kernel and event.key.startswith(("Optimizer.", "ProfilerStep"))):
            continue
        taken = (event.self_device_time_total if kernel else event.self_cpu_time_total) / 1e6
        name = event.key.lower()
        group = next(
            (group for group, words in GROUPS.items() if any(word in name for word in words)), "other"
        )
        seconds[group] = seconds.get(group, 0.0) + taken
    return seconds


def table(rows: list[Row]) -> list[str]:
    whole = rows[0]["whole"]
    lines = header("what", "share of the trial", "s")
    ordered = sorted(rows, key=lambda row: -row["seconds"])
    lines += [
        f"| {row['group']} | {row['seconds'] / whole:.1%} | {row['seconds']:.3f} |" for row in ordered[:5]
    ]
    others = sum(row["seconds"] for row in ordered[5:])
    lines += [
        f"| the rest | {others / whole:.1%} | {others:.3f} |",
        "",
        f"On {rows[0]['device']}: {whole:.2f} s with the profiler, {rows[0]['unprofiled']:.2f} s without.",
    ]
    return lines
