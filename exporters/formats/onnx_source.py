"""The ONNX file that other formats start from: one that exists already, or a temporary one."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from exporters.axes import Asked, Axes
from exporters.base import Inputs
from exporters.errors import ExporterUsageError
from exporters.example import as_example
from exporters.formats.onnx import OnnxExporter


@dataclass(frozen=True)
class OnnxSource:
    """An ONNX file; ``notes`` says why its batch is fixed, if it is; ``opened`` are other open axes of its inputs."""

    path: Path
    dynamic_batch: bool
    opset_version: int | None
    notes: tuple[str, ...]
    opened: Axes


class HalfInside(nn.Module):
    """A copy of a model in half precision that takes and gives single precision, as callers expect."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).half()

    def forward(self, *inputs: object, **named: object) -> object:
        half = _cast((inputs, named), torch.float16)
        return _cast(self.model(*half[0], **half[1]), torch.float32)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _cast(entry, dtype) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_cast(entry, dtype) for entry in value)
    return value


@contextmanager
def onnx_source(
    model: nn.Module,
    example_inputs: Inputs,
    onnx_path: Path | None,
    *,
    half: bool = False,
    dynamic_batch: bool = True,
    dynamic_axes: Asked = None,
    opset_version: int | None = None,
) -> Iterator[OnnxSource]:
    """Give ``onnx_path``, or export ``model`` into a folder that lives as long as this context.

    Raises:
        ExporterUsageError: ``onnx_path`` is no ONNX file.
        UnsupportedExportError: the model cannot be exported.
    """
    if onnx_path is not None:
        yield _existing(Path(onnx_path))
        return
    with tempfile.TemporaryDirectory() as folder:
        info = OnnxExporter().export(
            HalfInside(model) if half else model,
            as_example(example_inputs),
            Path(folder) / "model.onnx",
            dynamic_batch=dynamic_batch,
            dynamic_axes=dynamic_axes,
            opset_version=opset_version,
            check=False,
        )
        found = _existing(info.path)
        yield OnnxSource(info.path, info.dynamic_batch, info.opset_version, info.notes, found.opened)


def _existing(path: Path) -> OnnxSource:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        proto = onnx.load(str(path), load_external_data=False)
    except (OSError, DecodeError) as error:
        raise ExporterUsageError(f"{path} is no ONNX file that can be read; export it again.") from error
    weights = {tensor.name for tensor in proto.graph.initializer}
    shapes = [v.type.tensor_type.shape.dim for v in proto.graph.input if v.name not in weights]
    opened = tuple(
        {axis: dim.dim_param for axis, dim in enumerate(shape) if axis and not dim.HasField("dim_value")}
        for shape in shapes
    )
    dynamic = any(len(shape) > 0 and not shape[0].HasField("dim_value") for shape in shapes)
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), None)
    return OnnxSource(path, dynamic, opset, () if dynamic else (f"{path.name} has a fixed batch.",), opened)
