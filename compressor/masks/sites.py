"""What the masked model computes otherwise at a function call: arithmetic across channels, over what is kept.

Each handler gets the program's arguments and the mask ``m`` of the labelled axis, shape (n,), entries in [0, 1], and
calls or replaces the function so that a channel of mask 0 has no influence and the rest gets what the trimmed model
will compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from compressor.graph.recording.dims import OPERATORS
from compressor.masks.standardised import standardised

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Handler = Callable[[Callable[..., Any], Args, Kwargs, Tensor, dict[str, Any]], Any]


NARROW = (torch.bfloat16, torch.float16)
"""Types in which sums are not taken: too few digits, and 16-bit floats end at 65504."""


def _wide(x: Tensor) -> Tensor:
    """Single precision at least, as PyTorch's own norms and variances take."""
    return x.float() if x.dtype in NARROW else x


def _like(y: Tensor, x: Tensor) -> Tensor:
    """``y``, of statistics of ``x``, in the type that the program's own call gives."""
    single = x.device.type != "cpu" and torch.is_autocast_enabled(x.device.type)
    return y if single or x.dtype not in NARROW else y.to(x.dtype)


def _kept(mask: Tensor) -> Tensor:
    return _wide(mask).sum().clamp_min(1e-6)


def _along(mask: Tensor, dim: int) -> Tensor:
    """The mask shaped to broadcast along a negative axis."""
    return mask.reshape(-1, *[1] * (-dim - 1))


def _argument(args: Args, kwargs: Kwargs, position: int, name: str, default: Any = None) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, default)


def operand(func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]) -> Any:
    """A sum of products: one operand is zero wherever a channel is removed.

    A ``convolution`` may have its examples as groups (``groups=batch``, with weights made for each example): these lie
    one after the other, and each sums over what the one example of the trace did.
    """
    where = options["argument"]
    masked = args[where] if isinstance(where, int) else kwargs[where]
    groups = _argument(args, kwargs, 6, "groups", 1) if options.get("convolution") else 1
    for dim in options["dims"]:
        tiled = mask.repeat(groups) if masked.shape[dim] == groups * len(mask) else mask
        masked = masked * _along(tiled, dim)
    if isinstance(where, int):
        return func(*args[:where], masked, *args[where + 1 :], **kwargs)
    return func(*args, **{**kwargs, where: masked})


def operands(func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]) -> Any:
    """A function of several vectors to which what is zero in all of them adds nothing: a distance, a cosine."""
    masked, named = list(args), dict(kwargs)
    for where, dim in options["operands"]:
        into: Any = masked if isinstance(where, int) else named
        into[where] = into[where] * _along(mask, dim)
    return func(*masked, **named)


def pairwise_distance(
    func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]
) -> Any:
    """``|(a - b + eps) m|`` along the last axis: ``eps`` counts for what is kept alone."""
    a, b = _argument(args, kwargs, 0, "x1"), _argument(args, kwargs, 1, "x2")
    p, eps = _argument(args, kwargs, 2, "p", 2.0), _argument(args, kwargs, 3, "eps", 1e-6)
    keepdim = _argument(args, kwargs, 4, "keepdim", False)
    return torch.linalg.vector_norm((a - b + eps) * mask, p, -1, keepdim)


def side_by_side(func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]) -> Tensor:
    """What slides along channels meets those that are kept alone, next to each other as they will be."""
    kept = torch.nonzero(mask.detach() > 0).flatten()
    x = _argument(args, kwargs, 0, "input")
    found = _with_input(func, args, kwargs, lambda x: x.index_select(options["axis"], kept))
    shape = list(found.shape)
    shape[options["axis"]] = x.shape[options["axis"]]
    return found.new_zeros(shape).index_copy(options["axis"], kept, found)  # type: ignore[no-any-return]


def gate(func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]) -> Any:
    """One operand of an addition, a branch's output, times the gate (a scalar)."""
    where = options["argument"]
    if options.get("in_place"):  # the program may go on with its own reference to the operand
        args[where].mul_(mask.to(args[where].dtype))
        return func(*args, **kwargs)
    if isinstance(where, int):
        return func(*args[:where], args[where] * mask.to(args[where].dtype), *args[where + 1 :], **kwargs)
    return func(*args, **{**kwargs, where: kwargs[where] * mask.to(kwargs[where].dtype)})


def squeeze(func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]) -> Any:
    """The factor ``s`` of a product becomes ``1 - g + g s`` with the gate ``g``: at 0 the other operand is left."""
    where = options["argument"]
    factor = args[where] if isinstance(where, int) else kwargs[where]
    gate = mask.to(factor.dtype)
    factor = 1 - gate + gate * factor
    if isinstance(where, int):
        return func(*args[:where], factor, *args[where + 1 :], **kwargs)
    return func(*args, **{**kwargs, where: factor})


def layer_norm(func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]) -> Any:
    """``(x - mean) / sqrt(var + eps) * w + b`` with mean and biased variance over what is kept of the last axes."""
    bias, eps = _argument(args, kwargs, 3, "bias"), _argument(args, kwargs, 4, "eps", 1e-5)
    return _standardised(args, kwargs, mask, options, bias=bias, eps=eps, centred=True)


def rms_norm(func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]) -> Any:
    """``x / sqrt(mean(x^2) + eps) * w``, the mean over what is kept of the last axes."""
    eps = _argument(args, kwargs, 3, "eps")
    eps = torch.finfo(_wide(_argument(args, kwargs, 0, "input")).dtype).eps if eps is None else eps
    return _standardised(args, kwargs, mask, options, bias=None, eps=eps, centred=False)


def _standardised(
    args: Args,
    kwargs: Kwargs,
    mask: Tensor,
    options: dict[str, Any],
    *,
    bias: Tensor | None,
    eps: float,
    centred: bool,
) -> Tensor:
    """Over the last ``axes`` axes, of which ``axis`` (negative) has the mask."""
    x, weight = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 2, "weight")
    shape = x.shape[-options["axes"] :]
    shares = _along(_wide(mask), options["axis"]) / (_kept(mask) * (math.prod(shape) // len(mask)))
    weight, bias = (None if each is None else each.reshape(-1) for each in (weight, bias))
    rows, each_share = _wide(x).reshape(-1, math.prod(shape)), shares.expand(shape).reshape(-1)
    return _like(standardised(rows, each_share, weight, bias, eps, centred=centred).reshape(x.shape), x)


def group_norm(func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]) -> Any:
    """Statistics per group over its kept channels and all positions; x is (B, C, ...)."""
    x, groups = _argument(args, kwargs, 0, "input"), options["groups"]
    weight, bias = _argument(args, kwargs, 2, "weight"), _argument(args, kwargs, 3, "bias")
    eps = _argument(args, kwargs, 4, "eps", 1e-5)
    grouped = _wide(x).reshape(x.shape[0], groups, x.shape[1] // groups, -1)
    m = _wide(mask).reshape(groups, -1, 1)
    n = (m.sum((1, 2), keepdim=True) * grouped.shape[-1]).clamp_min(1e-6)
    mean = (grouped * m).sum((2, 3), keepdim=True) / n
    centred = grouped - mean
    variance = (centred.square() * m).sum((2, 3), keepdim=True) / n
    y = (centred * torch.rsqrt(variance + eps)).reshape(x.shape)
    shape = (1, -1, *[1] * (x.dim() - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return _like(y if bias is None else y + bias.reshape(shape), x)


def batch_norm(func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]) -> Any:
    """Statistics of the input itself, per index of axis 1, over what is kept of a labelled axis and all other axes."""
    x = _argument(args, kwargs, 0, "input")
    weight, bias = _argument(args, kwargs, 3, "weight"), _argument(args, kwargs, 4, "bias")
    eps = _argument(args, kwargs, 7, "eps", 1e-5)
    wide, m = _wide(x), _along(_wide(mask), options["axis"])
    dims = [d for d in range(x.dim()) if d != 1]
    n = _kept(mask) * (x.numel() // x.shape[1] // len(mask))
    centred = wide - (wide * m).sum(dims, keepdim=True) / n
    y = centred * torch.rsqrt((centred.square() * m).sum(dims, keepdim=True) / n + eps)
    shape = (1, -1, *[1] * (x.dim() - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return _like(y if bias is None else y + bias.reshape(shape), x)


def attention(func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]) -> Any:
    """Queries are zero where a channel is removed; the default scale is that of the kept depth."""
    query = _argument(args, kwargs, 0, "query")
    masked = query * mask
    if _argument(args, kwargs, 6, "scale") is None:
        masked = masked * torch.sqrt(query.shape[-1] / _kept(mask))
    if args:
        return func(masked, *args[1:], **kwargs)
    return func(**{**kwargs, "query": masked})


def softmax(func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]) -> Any:
    """``exp(x) m / sum(exp(x) m)``: removed channels take no share."""
    return _with_input(func, args, kwargs, lambda x: x + _along(_log(mask), options["axis"]))


def softmin(func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]) -> Any:
    """``exp(-x) m / sum(exp(-x) m)``."""
    return _with_input(func, args, kwargs, lambda x: x - _along(_log(mask), options["axis"]))


def log_softmax(func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]) -> Any:
    """Softmax over what is kept; removed channels give 0, not minus infinity, which no later mask could undo."""
    m = _along(mask, options["axis"])
    return softmax(func, args, kwargs, mask, options).masked_fill(m <= 0, 0.0)


def reduce(func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]) -> Any:
    """Sum, mean, norm, extrema, variance over a labelled axis."""
    axis, operator = options["axis"], options["operator"]
    m = _along(mask, axis)
    if operator in ("sum", "norm", "linalg_vector_norm", "normalize"):
        return _with_input(func, args, kwargs, lambda x: x * m)
    if operator == "mean":
        return _with_input(func, args, kwargs, lambda x: x * m * (len(mask) / _kept(mask)))
    if operator in ("amax", "max"):
        return _with_input(func, args, kwargs, lambda x: x.masked_fill(m < 0.5, -math.inf))
    if operator in ("amin", "min"):
        return _with_input(func, args, kwargs, lambda x: x.masked_fill(m < 0.5, math.inf))
    if operator == "logsumexp":
        return _with_input(func, args, kwargs, lambda x: x + _along(_log(mask), axis))
    if operator in ("var", "std"):
        return _variance(args, kwargs, mask, axis, root=operator == "std")
    if operator in ("var_mean", "std_mean"):
        x = _argument(args, kwargs, 0, "input")
        mean = (_wide(x) * m).sum(axis, keepdim=_keepdim(args, kwargs)) / _kept(mask)
        return _variance(args, kwargs, mask, axis, root=operator == "std_mean"), _like(mean, x)
    raise NotImplementedError(operator)


def _variance(args: Args, kwargs: Kwargs, mask: Tensor, axis: int, *, root: bool) -> Tensor:
    x = _argument(args, kwargs, 0, "input")
    correction = kwargs.get("correction")
    if correction is None:
        unbiased = kwargs.get("unbiased", args[2] if len(args) > 2 and isinstance(args[2], bool) else True)
        correction = int(unbiased)
    keepdim = _keepdim(args, kwargs)
    m, n, wide = _along(_wide(mask), axis), _kept(mask), _wide(x)
    mean = (wide * m).sum(axis, keepdim=True) / n
    variance: Tensor = ((wide - mean).square() * m).sum(axis, keepdim=keepdim) / (n - correction).clamp_min(0)
    return _like(variance.sqrt() if root else variance, x)


def _keepdim(args: Args, kwargs: Kwargs) -> bool:
    return bool(kwargs.get("keepdim", args[3] if len(args) > 3 else False))


def _with_input(func: Callable[..., Any], args: Args, kwargs: Kwargs, change: Callable[[Tensor], Tensor]) -> Any:
    if args:
        return func(change(args[0]), *args[1:], **kwargs)
    return func(**{**kwargs, "input": change(kwargs["input"])})


def _log(mask: Tensor) -> Tensor:
    return torch.where(mask > 0, mask.clamp_min(torch.finfo(mask.dtype).tiny).log(), -math.inf)


def scalar(func: Callable[..., Any], args: Args, kwargs: Kwargs, mask: Tensor, options: dict[str, Any]) -> Any:
    """A number computed from a size: computed anew from the size of what is kept."""
    number = _evaluate(options["expression"], _kept(mask))
    where = options["argument"]
    number = number if options["tensor"] else float(number)
    if isinstance(where, int):
        return func(*args[:where], number, *args[where + 1 :], **kwargs)
    return func(*args, **{**kwargs, where: number})


def _evaluate(expression: Any, n: Tensor) -> Any:
    if isinstance(expression, tuple):
        symbol, left, right = expression
        return OPERATORS[symbol](_evaluate(left, n), _evaluate(right, n))
    return n if expression == "n" else expression


HANDLERS: dict[str, Handler] = {
    "operand": operand,
    "operands": operands,
    "pairwise_distance": pairwise_distance,
    "gate": gate,
    "squeeze": squeeze,
    "side_by_side": side_by_side,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "attention": attention,
    "batch_norm": batch_norm,
    "softmax": softmax,
    "softmin": softmin,
    "log_softmax": log_softmax,
    "reduce": reduce,
    "scalar": scalar,
}
