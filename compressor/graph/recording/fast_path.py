"""Common functions as the one operator they run, so that a trace need not take PyTorch's long way to it.

Each entry tells, for the arguments of a call, the operator that PyTorch would dispatch, its arguments, and whether it
changes the first of them; or nothing where the call is an unusual one that PyTorch has to take apart itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compressor.graph.recording.meta_shapes import quick_result

Direct = tuple[str, Any, tuple[Any, ...], bool]
_aten = torch.ops.aten


def _batch_norm(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Direct | None:
    if training:
        return None
    arguments = (x, weight, bias, mean, variance, training, momentum, eps)
    return "native_batch_norm", _aten.native_batch_norm.default, arguments, False


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = None,
    padding: Any = None,
    dilation: Any = None,
    groups: int = 1,
) -> Direct | None:
    if any(type(sizes) is not tuple for sizes in (stride, padding, dilation)):
        return None  # defaults, numbers and names of paddings
    none = [0] * len(stride)
    arguments = (x, weight, bias, list(stride), list(padding), list(dilation), False, none, groups)
    return "convolution", _aten.convolution.default, arguments, False


def _activation(name: str) -> Callable[..., Direct]:
    kept, changed = (getattr(_aten, op).default for op in (name, f"{name}_"))

    def direct(x: Tensor, inplace: bool = False) -> Direct:
        return (f"{name}_", changed, (x,), True) if inplace else (name, kept, (x,), False)

    return direct


def _sigmoid(x: Tensor) -> Direct:
    return "sigmoid", _aten.sigmoid.default, (x,), False


def _pooled_to_one(x: Tensor, output_size: Any) -> Direct | None:
    if output_size not in (1, (1, 1)) or x.dim() != 4:
        return None
    return "mean", _aten.mean.dim, (x, [-1, -2], True), False


_DIRECT: dict[Any, Callable[..., Direct | None]] = {
    functional.batch_norm: _batch_norm,
    functional.conv1d: _convolution,
    functional.conv2d: _convolution,
    functional.conv3d: _convolution,
    functional.adaptive_avg_pool2d: _pooled_to_one,
    functional.relu: _activation("relu"),
    functional.silu: _activation("silu"),
    functional.hardswish: _activation("hardswish"),
    torch.sigmoid: _sigmoid,
}


def direct(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Direct, Any] | None:
    """The operator of a call and its result on meta tensors; ``None`` if PyTorch must run it."""
    arrange = _DIRECT.get(func)
    arranged = arrange(*args, **kwargs) if arrange is not None else None
    if arranged is None:
        return None
    with torch._C._DisableTorchDispatch():
        output = quick_result(arranged[0], arranged[2], {})
    return None if output is None else (arranged, output)
