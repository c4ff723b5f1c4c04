"""Result shapes of the operators that PyTorch works out slowly on meta tensors.

Meta kernels written in Python (batch norm, layer norm, add, mean, cat, ...) take a tenth of a millisecond to a whole
one, which would be most of the time a trace takes. Their shapes are trivial; ``tests/graph/test_shapes.py`` holds them
against PyTorch's.

A handler answers only for what it is sure of: contiguous floating-point tensors of one type, in shapes that fit.
Everything else, errors included, is left to PyTorch, by returning ``None``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

META = torch.device("meta")
Shape = tuple[int, ...]

# One floating-point tensor in, one of the same shape and type out.
_UNARY = (
    "relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "silu", "gelu", "mish", "elu", "celu", "selu",
    "leaky_relu", "sigmoid", "tanh", "softplus", "softsign", "log_sigmoid", "threshold",
)  # fmt: skip


def quick_result(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of the operator ``name`` on meta tensors, or ``None`` to let PyTorch compute it."""
    handler = _HANDLERS.get(name)
    if handler is None or kwargs or not args:
        return None
    first = args[0]
    if type(first) is list:
        first = first[0] if first else None
    return handler(*args) if _plain(first) else None


def _plain(x: Any) -> bool:
    return type(x) is Tensor and x.is_meta and x.is_contiguous() and x.is_floating_point()


def _alike(x: Tensor, *others: Tensor | None) -> bool:
    """Whether all other tensors are plain and of x's type; ``None`` is left out."""
    return all(t is None or (_plain(t) and t.dtype is x.dtype) for t in others)


def _new(x: Tensor, shape: Shape) -> Tensor:
    return torch.empty(shape, dtype=x.dtype, device=META)  # ten times faster than empty_like or new_empty


def _same(x: Tensor, *_: Any) -> Tensor:
    return _new(x, x.shape)


def _itself(x: Tensor, *_: Any) -> Tensor:
    return x


def _binary(x: Tensor, other: Any) -> Tensor | None:
    if type(other) is Tensor:
        shape = _broadcast(x.shape, other.shape) if _alike(x, other) else None
        return None if shape is None else _new(x, shape)
    return _same(x) if type(other) in (int, float) else None


def _binary_(x: Tensor, other: Any) -> Tensor | None:
    if type(other) is Tensor:
        return x if _alike(x, other) and _broadcast(x.shape, other.shape) == x.shape else None
    return x if type(other) in (int, float) else None


def _broadcast(a: Shape, b: Shape) -> Shape | None:
    if a == b:
        return a
    if len(a) < len(b):
        a, b = b, a
    shape = list(a)
    for i, n in enumerate(b, len(a) - len(b)):
        if shape[i] != n and n != 1:
            if shape[i] != 1:
                return None
            shape[i] = n
    return tuple(shape)


def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *_: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    if x.dim() < 2 or x.dtype not in (torch.float32, torch.float64) or not _alike(x, weight, bias, mean, variance):
        return None  # half precision keeps its statistics in another type
    c = x.shape[1]
    if any(t is not None and t.shape != (c,) for t in (weight, bias, mean, variance)) or (training and x.numel() <= c):
        return None
    n = (c,) if training else (0,)  # in evaluation PyTorch's CPU kernel returns empty statistics
    return _same(x), _new(x, n), _new(x, n)


def _batch_norm_no_training(
    x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, *_: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    return _batch_norm(x, weight, bias, mean, variance, False)


def _layer_norm(x: Tensor, shape: list[int], weight: Any, bias: Any, _: float) -> tuple[Tensor, ...] | None:
    n = len(shape)
    if not 0 < n <= x.dim() or list(x.shape[-n:]) != list(shape) or not _alike(x, weight, bias):
        return None
    if any(t is not None and list(t.shape) != list(shape) for t in (weight, bias)):
        return None
    statistics = (*x.shape[:-n], *[1] * n)
    return _same(x), _new(x, statistics), _new(x, statistics)


def _cat(tensors: list[Tensor], dim: int = 0) -> Tensor | None:
    first = tensors[0]
    rank = first.dim()
    if not -rank <= dim < rank or not _alike(first, *tensors):
        return None
    dim %= rank
    before, after = first.shape[:dim], first.shape[dim + 1 :]
    total = 0
    for tensor in tensors:
        shape = tensor.shape
        if len(shape) != rank or shape[:dim] != before or shape[dim + 1 :] != after:
            return None
        total += shape[dim]
    return _new(first, (*before, total, *after))


def _convolution(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    _: list[int],
    groups: int,
) -> Tensor | None:
    rank = x.dim() - 2
    if transposed or rank < 1 or w.dim() != x.dim() or not _alike(x, w, bias) or 0 in x.shape:
        return None
    if not len(stride) == len(padding) == len(dilation) == rank or min(*stride, *dilation) < 1 or min(padding) < 0:
        return None
    c_out = w.shape[0]
    if (
        groups < 1
        or x.shape[1] != w.shape[1] * groups
        or c_out % groups
        or (bias is not None and bias.shape != (c_out,))
    ):
        return None
    sizes = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True)
    ]
    return None if min(sizes) < 1 else _new(x, (x.shape[0], c_out, *sizes))


def _max_pool2d(
    x: Tensor,
    kernel: list[int],
    stride: list[int] | None = None,
    padding: list[int] | None = None,
    dilation: list[int] | None = None,
    ceil: bool = False,
) -> tuple[Tensor, Tensor] | None:
    stride, padding, dilation = stride or kernel, padding or [0, 0], dilation or [1, 1]
    if x.dim() != 4 or 0 in x.shape or any(len(v) != 2 for v in (kernel, stride, padding, dilation)):
        return None
    if min(*stride, *dilation, *kernel) < 1:
        return None
    sizes = []
    for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True):
        if not 0 <= p <= k // 2:
            return None
        room = n + 2 * p - d * (k - 1) - 1
        size = (room + (s - 1 if ceil else 0)) // s + 1
        if ceil and (size - 1) * s >= n + p:  # the last window must start inside the input
            size -= 1
        if room < 0 or size < 1:
            return None
        sizes.append(size)
    shape = (*x.shape[:2], *sizes)
    return _new(x, shape), torch.empty(shape, dtype=torch.int64, device=META)


def _mean(x: Tensor, dims: list[int] | None, keepdim: bool = False) -> Tensor | None:
    rank = x.dim()
    if not dims or 0 in x.shape or not all(-rank <= d < rank for d in dims):
        return None
    gone = {d % rank for d in dims}
    if len(gone) != len(dims):
        return None
    return _new(x, tuple(1 if d in gone else n for d, n in enumerate(x.shape) if keepdim or d not in gone))


def _adaptive_avg_pool2d(x: Tensor, size: list[int]) -> Tensor | None:
    if x.dim() != 4 or 0 in x.shape or len(size) != 2 or min(size) < 1:
        return None
    return _new(x, (*x.shape[:2], *size))


def _addmm(bias: Tensor, a: Tensor, b: Any) -> Tensor | None:
    # b is a transposed weight as a rule, which leaves the result contiguous all the same
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0] or not _alike(bias, a) or b.dtype is not a.dtype:
        return None
    shape = (a.shape[0], b.shape[1])
    if _broadcast(bias.shape, shape) != shape or prod(shape) == 0:
        return None
    return _new(a, shape)


def _fake_quantize(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _same(x), torch.empty(x.shape, dtype=torch.bool, device=META)  # PyTorch has no kernel on meta tensors


_HANDLERS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_UNARY, _same),
    **dict.fromkeys([f"{name}_" for name in _UNARY], _itself),
    **dict.fromkeys(("add", "sub", "mul", "div"), _binary),
    **dict.fromkeys(("add_", "sub_", "mul_", "div_"), _binary_),
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm_no_training,
    "native_layer_norm": _layer_norm,
    "cat": _cat,
    "convolution": _convolution,
    "max_pool2d_with_indices": _max_pool2d,
    "mean": _mean,
    "_adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "addmm": _addmm,
    "fake_quantize_per_tensor_affine_cachemask": _fake_quantize,
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": _fake_quantize,
    "fake_quantize_per_channel_affine_cachemask": _fake_quantize,
}
