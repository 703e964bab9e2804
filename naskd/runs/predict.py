"""Classes of image files: ``python predict.py IMAGE...``. Needs onnxruntime, numpy and pillow, and nothing else."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image


def read(path: str, mode: str, height: int, width: int) -> Any:
    """An image as the network takes it, ``(1, C, height, width)`` in [0, 1]."""
    image: Image.Image = Image.open(path)
    image.draft(None, (2 * width, 2 * height))  # of a large JPEG no more is decoded than is needed
    if image.mode in ("I", "F"):
        raise ValueError(f"{path} has 32 bits a pixel, whose range is unknown; convert it to 8 bits")
    if image.mode.startswith("I;16"):  # the upper 8 bits
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert(mode)
    scale = max(width / image.width, height / image.height)  # so that it covers the whole input
    size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32) / 255
    return pixels.reshape(height, width, -1).transpose(2, 0, 1)[None]


if __name__ == "__main__":
    model = onnxruntime.InferenceSession(str(Path(__file__).with_name("model.onnx")))
    inside = model.get_modelmeta().custom_metadata_map
    labels, how = json.loads(inside["labels"]), json.loads(inside["preprocessing"])
    failed = 0
    for file in sys.argv[1:]:
        try:
            image = read(file, how["mode"], how["height"], how["width"])
        except (OSError, SyntaxError, ValueError) as error:  # a damaged PNG is a SyntaxError to Pillow
            print(f"{file}: cannot be read: {error}", file=sys.stderr)
            failed = 1
            continue
        logits = model.run(["logits"], {"images": image})[0][0]
        chances = np.exp(logits - logits.max())
        print(file, labels[logits.argmax()], f"{chances.max() / chances.sum():.4f}", sep="\t")
    sys.exit(failed)
