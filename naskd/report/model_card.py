"""The model card of a student: what it is, what it was made of, how good it is, and what nobody has tried.

Mitchell et al.: Model cards for model reporting. FAT* 2019, arXiv 1810.03993. Its header is that of a Hugging Face
repository: https://huggingface.co/docs/hub/model-cards.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from naskd.report import summary
from naskd.report.units import count, percent, percent_with_sd, size
from naskd.spec.teachers import called

Facts = Mapping[str, Any]

_SEEN = {
    "train": "these training images alone",
    "other": "other images",
    "train+val": "the training and the validation images",
    "unknown": "images that nobody has named",
}


def model_card(facts: Facts) -> str:
    """The card in Markdown, with a header that model hubs read.

    Args:
        facts: ``name``, ``study``, ``number``, ``license`` or None, ``version``, ``date``, ``command``; ``data`` with
            ``kind``, ``title``, ``n_classes``, ``shape`` (C, H, W), ``n_train``, ``n_val``, ``n_unlabelled``,
            ``modality`` or None; ``teachers``, each with ``name``, ``source``, ``license`` or None, ``saw``
            or None where naskd trained it and nobody says what it saw before, ``val_accuracy`` or None; ``config`` of
            the design; ``study_seed``;
            ``training`` with ``epochs`` and, of a retraining, ``seed``, ``replicate``, ``test_accuracy``; ``retrained``
            with ``test_accuracy_mean``, ``test_accuracy_sd``, ``n``, or None; ``val_accuracy``; ``macs``, ``n_params``;
            ``weights_bytes``; ``file``, what :func:`naskd.runs.export.export_student` says, with ``images``: ``test``
            or ``validation``, and whether these are ``changed``, others than before; ``latency`` with ``median_ms``,
            ``low_ms``, ``high_ms``, ``calls``, ``processor``.
            Accuracies are fractions.
    """
    parts = [
        _header(facts),
        f"# {facts['name']}",
        f"A network that sorts images into {facts['data']['n_classes']} classes, found by naskd: trial "
        f"{facts['number']} of the study `{facts['study']}`.",
        "```\npip install onnxruntime numpy pillow\npython predict.py IMAGE...\n```",
        "`predict.py` resizes and scales images as they were for the training. The labels and what it does are inside "
        "`model.onnx`, too.",
        "## How good it is",
        _table(("on", "images", "accuracy"), _accuracies(facts)),
        *_about_integers(facts["file"]),
        "## What it costs",
        _table(("", ""), _costs(facts)),
        "## What it was trained on",
        _list(_data(facts)),
        "## Who taught it",
        _list(_teacher(teacher) for teacher in facts["teachers"])
        if facts["teachers"]
        else _without_teacher(facts["config"]),
        "## Recipe",
        _list(_recipe(facts)),
        "## Limits",
        _list(_limits(facts)),
        "## Made",
        f"On {facts['date']}, with naskd {facts['version']}:",
        f"```\n{facts['command']}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _header(facts: Facts) -> str:
    data, file = facts["data"], facts["file"]
    lines = [
        f"license: {json.dumps(facts['license'] or 'unknown')}",
        "library_name: naskd",
        "pipeline_tag: image-classification",
        "tags:",
        *(
            f"- {tag}"
            for tag in (
                "image-classification",
                "knowledge-distillation",
                "neural-architecture-search",
                "onnx",
            )
        ),
        "metrics:",
        "- accuracy",
        "model-index:",
        f"- name: {json.dumps(facts['name'])}",
        "  results:",
        "  - task:",
        "      type: image-classification",
        "    dataset:",
        f"      name: {json.dumps(data['title'])}",
        f"      type: {json.dumps(data['kind'])}",
        f"      split: {file['images']}",
        "    metrics:",
        "    - type: accuracy",
        f"      value: {file['accuracy']:.4f}",
    ]
    return "\n".join(["---", *lines, "---"])


def _accuracies(facts: Facts) -> Iterator[tuple[str, str, str]]:
    file, retrained = facts["file"], facts["retrained"]
    images = f"{count(file['n_images'])} {file['images']}"
    integers = "8-bit integers" if "n_calibration" in file else "as it was trained"
    yield f"`model.onnx`, {integers}", images, percent(file["accuracy"])
    yield "`model.safetensors`, the original", images, percent(file["original_accuracy"])
    if retrained is not None:
        seeds = f"{retrained['n']} seed" + ("" if retrained["n"] == 1 else "s, mean ± sd")
        accuracy = percent_with_sd(retrained["test_accuracy_mean"], retrained["test_accuracy_sd"])
        yield f"this design, {seeds}", "test", accuracy
    if facts["val_accuracy"] is not None:
        yield "this design, during the search", "validation", percent(facts["val_accuracy"])


def _about_integers(file: Facts) -> list[str]:
    if "n_calibration" not in file:
        return []
    points = 100 * (file["original_accuracy"] - file["accuracy"])
    said = f"{abs(points):.2f} points {'lower' if points > 0 else 'higher'} than" if points else "as high as"
    return [
        f"`model.onnx` was rounded to 8 bits after the training, with the ranges of {file['n_calibration']} training "
        f"images. Its accuracy is {said} the original's, and it gives {percent(file['agreement'])} of the images the "
        "same class."
    ]


def _costs(facts: Facts) -> Iterator[tuple[str, str]]:
    file, latency = facts["file"], facts["latency"]
    yield "multiply-accumulates of an image", count(facts["macs"])
    yield "parameters", count(facts["n_params"])
    integers = f" ({size(file['float_size_bytes'])} before rounding)" if "float_size_bytes" in file else ""
    yield "`model.onnx`", size(file["size_bytes"]) + integers
    yield "`model.safetensors`", size(facts["weights_bytes"])
    yield (
        "latency of one image, ONNX Runtime, one thread",
        f"{latency['median_ms']:.3f} ms ({latency['low_ms']:.3f} to {latency['high_ms']:.3f}, 5th to 95th percentile "
        f"of {latency['calls']} calls) on {latency['processor']}",
    )


def _data(facts: Facts) -> Iterator[str]:
    data, file = facts["data"], facts["file"]
    channels, height, width = data["shape"]
    yield f"{data['title']} (`{data['kind']}`), {data['n_classes']} classes: see `labels.json`"
    yield f"{width}x{height} pixels, {'gray' if channels == 1 else 'colour'}: see `preprocessing.json`"
    split = f"{data['n_train']} training and {data['n_val']} validation images"
    yield split + (f", {file['n_images']} test images" if file["images"] == "test" else "")
    if data["n_unlabelled"]:
        yield f"{data['n_unlabelled']} images without labels, of which teachers alone spoke"
    if data["modality"]:
        yield f"it sees the modality {data['modality']}, its teachers see the images themselves"


def _teacher(teacher: Facts) -> str:
    text = f"the {called(teacher['name'])}: {teacher['source']}"
    if teacher["val_accuracy"] is not None:
        text += f", {percent(teacher['val_accuracy'])} on the validation images"
    if teacher["saw"] is not None:
        text += f"; elsewhere it was trained on {_SEEN[teacher['saw']]}"
    return text + f"; licence: {teacher['license'] or 'not stated'}"


def _without_teacher(config: Mapping[str, Any]) -> str:
    how = summary.taught_by(config)
    return (
        "Nobody: it learned from labels alone."
        if how == "labels only"
        else f"No teacher of the study; it trained with others: {how}."
    )


def _recipe(facts: Facts) -> Iterator[str]:
    config, training = facts["config"], facts["training"]
    yield f"network: {summary.student(config)}"
    yield f"taught by: {summary.taught_by(config)}, labels with weight {config['distillation'].get('ce_weight', 1):g}"
    settings = {**config["training"], "epochs": training["epochs"]}
    plain = {key: value for key, value in settings.items() if value is not None}
    yield f"training: {', '.join(f'{key} {_plain(value)}' for key, value in plain.items())}"
    seed = f", of this training {training['seed']}" if training.get("seed") else ""
    yield f"seed of the study {facts['study_seed']}{seed}"


def _limits(facts: Facts) -> Iterator[str]:
    file, retrained = facts["file"], facts["retrained"]
    if file["images"] == "validation":
        yield (
            "Its accuracy is on the validation images, by which a search has chosen it among many: it is too high. "
            "`naskd retrain` measures it on test images."
        )
    if file.get("changed"):
        yield (
            f"The {file['images']} images on which the files were compared are not those of the search or the final "
            "training: the first accuracies above are not to be set beside the others."
        )
    if retrained is not None and retrained["n"] == 1:
        yield "It was trained for good once: how much its accuracy varies from seed to seed is not known."
    yield (
        "Every image gets one of its classes, also one that shows none of them. The chances that it says were not "
        "calibrated."
    )
    yield (
        "It was tested on images of the source that it was trained on. Other cameras, other places, noise and images "
        "that were made to deceive it were not tried, nor whether it treats groups of people alike."
    )
    yield "Latency was measured on one machine, with whatever else ran on it."
    if any(teacher["license"] is None for teacher in facts["teachers"]):
        yield "The licence of a teacher is not stated: see whether it lets you pass on what was learned from it."


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _list(items: Iterator[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
