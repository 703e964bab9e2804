"""LiteRT's flatbuffer (formerly TensorFlow Lite) for phones and small devices."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from naskd.nn.torch_private import antialiased_resizing
from naskd.runs.formats.base import TEXTS, ExportedNetwork, Interface, without_advice
from naskd.spec.errors import InputError, one_line


class LiteRtFormat:
    """One image a call, ``images`` in and ``logits`` out; labels and preprocessing are metadata of the file."""

    def write(self, student: nn.Module, source: Path, target: Path, interface: Interface) -> None:
        """See :class:`~naskd.runs.formats.base.ExportFormat`."""
        os.environ.setdefault(
            "TF_CPP_MIN_LOG_LEVEL", "2"
        )  # the converter's own remarks, which are no Python logs
        with without_advice():
            import litert_torch
            from ai_edge_litert import schema_py_generated as schema
            from ai_edge_litert.tools import flatbuffer_utils
            from litert_torch import progress
            from litert_torch.fx_infra import decomp

            progress.config.show_progress = False
            # Of all that students do it is the one operation that the converter does not know.
            decomp.add_pre_convert_decomp(antialiased_resizing(), _resized)
            example = torch.zeros(1, *interface.shape)
            litert_torch.convert(_Named(student), sample_kwargs={"images": example}).export(str(target))
            model = flatbuffer_utils.read_model(str(target))
            for name, text in interface.texts().items():
                model.metadata.append(schema.MetadataT(name=name, buffer=len(model.buffers)))
                model.buffers.append(schema.BufferT(data=list(text.encode())))
            flatbuffer_utils.write_model(model, str(target))

    def load(self, path: Path) -> nn.Module:
        """See :class:`~naskd.runs.formats.base.ExportFormat`."""
        with without_advice():
            from ai_edge_litert.interpreter import Interpreter

            try:
                content = path.read_bytes()
                runner = Interpreter(model_content=content, num_threads=1).get_signature_runner()
            except (RuntimeError, ValueError, OSError) as error:
                raise InputError(f"{path} cannot be read by LiteRT: {one_line(error)}") from error

        def run(images: Tensor) -> Tensor:
            return torch.cat(
                [torch.from_numpy(runner(images=image.numpy())["logits"]) for image in torch.split(images, 1)]
            )

        return ExportedNetwork(path, _texts(content), run)


class _Named(nn.Module):
    """A network whose output has a name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.network(images)}


def _texts(content: bytes) -> dict[str, str]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    entries = (model.Metadata(number) for number in range(model.MetadataLength()))
    there = {entry.Name().decode(): entry.Buffer() for entry in entries}
    return {
        name: model.Buffers(there[name]).DataAsNumpy().tobytes().decode() for name in TEXTS if name in there
    }


def _resized(
    images: Tensor, size: Any, align_corners: bool, scale_h: Any = None, scale_w: Any = None
) -> Tensor:
    """Bilinear with antialiasing, as a product with a matrix on each side of every map."""
    height, width = size
    return _triangles(images.shape[-2], height) @ images @ _triangles(images.shape[-1], width).T


def _triangles(before: int, after: int) -> Tensor:
    """``(after, before)``: what each pixel counts for a new one.

    It falls linearly with the distance between their centres, to 0 at one pixel of the coarser of both grids. Rows have
    a sum of 1.
    """
    step = before / after
    centres = (torch.arange(after, dtype=torch.float32) + 0.5) * step
    distances = torch.arange(before, dtype=torch.float32) + 0.5 - centres[:, None]
    weights = (1 - distances.abs() / max(step, 1.0)).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)
