"""Operators that are translated to ONNX here, as PyTorch's exporter gets them wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def translations() -> dict[Any, Callable[..., Any]]:
    """By PyTorch's operator; for ``torch.onnx.export(custom_translation_table=...)``."""
    import torch

    return {torch.ops.aten.cat.default: _cat}


def _cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """``torch.cat`` passes over tensors of shape (0,), and ONNX refuses them beside others.

    Such a tensor is what is left of an operator that was taken out of several that are concatenated. PyTorch's own
    translation finds them and concatenates them all the same.
    """
    from onnxscript import opset18 as op

    kept = [tensor for tensor in tensors if tensor.shape is None or tuple(tensor.shape) != (0,)] or list(tensors)
    return op.Identity(kept[0]) if len(kept) == 1 else op.Concat(*kept, axis=dim)
