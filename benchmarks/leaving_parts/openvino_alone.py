"""Classes of image files by OpenVINO alone: ``python openvino_alone.py MODEL IMAGE...``, with openvino, numpy, pillow.

Images must have the size of the network's. Labels are those of the file.
"""

import json
import sys

import numpy as np
import openvino
from PIL import Image

if __name__ == "__main__":
    core = openvino.Core()
    model = core.read_model(sys.argv[1])
    place = (
        "framework" if sys.argv[1].endswith(".onnx") else "naskd"
    )  # where it keeps the texts of an ONNX file
    inside = {name: model.get_rt_info([place, name]).astype(str) for name in ("labels", "preprocessing")}
    labels, how = json.loads(inside["labels"]), json.loads(inside["preprocessing"])
    network = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for file in sys.argv[2:]:
        pixels = np.asarray(Image.open(file).convert(how["mode"]), np.float32) / 255
        shape = how["height"], how["width"], how["channels"]
        logits = network({0: pixels.reshape(shape).transpose(2, 0, 1)[None]})[0][0]
        print(file, labels[logits.argmax()], sep="\t")
