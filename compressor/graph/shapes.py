"""Result shapes of the operators that PyTorch works out slowly on meta tensors.

Meta kernels of decomposed operators (batch norm, hardswish, cat, ...) take up to a millisecond each, which would be
most of the time a trace takes. Their shapes are trivial; ``tests/graph/test_shapes.py`` holds them against PyTorch's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# One floating-point tensor in, one of the same shape and type out.
_UNARY = {
    "relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "silu", "gelu", "mish", "elu", "celu", "selu",
    "leaky_relu", "sigmoid", "tanh", "softplus", "softsign", "log_sigmoid", "threshold",
}  # fmt: skip
_BATCH_NORMS = {"native_batch_norm", "_native_batch_norm_legit_no_training"}


def quick_result(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of an operator on meta tensors, or ``None`` to let PyTorch compute it."""
    x = args[0] if args else None
    if name in _UNARY:
        return torch.empty_like(x) if isinstance(x, Tensor) and x.is_meta and x.is_floating_point() else None
    if name in _BATCH_NORMS:
        training = name == "native_batch_norm" and args[5]
        if not x.is_meta or training or kwargs:  # type: ignore[union-attr]
            return None
        empty = torch.empty(0, device="meta")
        return torch.empty_like(x), empty, torch.empty(0, device="meta")  # type: ignore[arg-type]
    if name[-1] == "_" and name[:-1] in _UNARY:
        return x if isinstance(x, Tensor) and x.is_meta else None
    if name == "cat":
        return _cat(*args)
    return None


def _cat(tensors: list[Tensor], dim: int = 0) -> Tensor | None:
    first = tensors[0]
    shape = list(first.shape)
    if not shape or not -len(shape) <= dim < len(shape):
        return None
    total = 0
    for tensor in tensors:
        if not tensor.is_meta or tensor.dim() != len(shape) or tensor.dtype is not first.dtype:
            return None
        total += tensor.shape[dim]
    shape[dim] = total
    if any(n != shape[d] for t in tensors for d, n in enumerate(t.shape) if d != dim % len(shape)):
        return None
    return torch.empty(shape, dtype=first.dtype, device="meta")
