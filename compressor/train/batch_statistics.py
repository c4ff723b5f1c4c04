"""Statistics of batch normalisations over the whole batch, where each of several processes has a part of it.

PyTorch's ``SyncBatchNorm`` takes other modules in their places and a GPU. Here the function that all batch norms call,
whoever calls it, is another one while a step runs, so that copies and slices of a network need no change.

With mean ``m`` and variance ``v`` of the whole batch and ``s = 1 / sqrt(v + eps)``, the output is ``w s (x - m) + b``.
Its gradient is ``w s (g - mean(g) - (x - m) s^2 mean(g (x - m)))``, means over the whole batch, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from compressor.process.ranks import Ranks


@contextmanager
def whole_batch(ranks: Ranks) -> Iterator[None]:
    """Inside, batch normalisations in training mode see the parts of all processes; alone, nothing is different."""
    if ranks.size == 1:
        yield
    else:
        with _Synchronised(ranks):
            yield


class _Synchronised(TorchFunctionMode):
    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.batch_norm:
            return _batch_norm(self._ranks, func, *args, **kwargs)
        if func is torch.batch_norm:
            x, weight, bias, mean, var, training, momentum, eps, *_ = (*args, *kwargs.values())
            return _batch_norm(self._ranks, functional.batch_norm, x, mean, var, weight, bias, training, momentum, eps)
        return func(*args, **kwargs)


def _batch_norm(
    ranks: Ranks,
    alone: Callable[..., Tensor],
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """See ``torch.nn.functional.batch_norm``; ``input`` is (N, C, ...)."""
    if not training:
        return alone(input, running_mean, running_var, weight, bias, training, momentum, eps)
    found: Tensor = _Normalised.apply(input, weight, bias, running_mean, running_var, momentum, eps, ranks)
    return found


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
        ranks: Ranks,
    ) -> Tensor:
        mean, var, count = _statistics(x, ranks)
        with torch.no_grad():
            if running_mean is not None and running_var is not None:
                unbiased = var * (count / (count - 1).clamp_min(1))
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        if weight is not None:  # all four of one type
            mean, var = mean.to(weight.dtype), var.to(weight.dtype)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.count, ctx.ranks = eps, count, ranks
        return functional.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight, mean, var = ctx.saved_tensors
        scale = torch.rsqrt(var + ctx.eps)
        # With given statistics: what x gets through the output, and sums of g (x - m) s and of g.
        through, products, sums = torch.ops.aten.native_batch_norm_backward(
            gradient.contiguous(memory_format=_format(x)), x, weight, mean, var, None, None, False, ctx.eps,
            [True, True, True],
        )  # fmt: skip
        whole = torch.cat([products, sums]).to(mean.dtype)
        ctx.ranks.sum_([whole])
        mean_products, mean_sums = (whole / ctx.count).chunk(2)
        factor = scale if weight is None else scale * weight.to(scale.dtype)
        slope, offset = -factor * scale * mean_products, factor * (mean * scale * mean_products - mean_sums)
        shape = (1, -1, *[1] * (x.ndim - 2))
        found = through.add_((slope.view(shape) * x).add_(offset.view(shape)))
        wanted = ctx.needs_input_grad
        return (
            found if wanted[0] else None,
            products.to(weight.dtype) if wanted[1] else None,
            sums.to(weight.dtype if weight is not None else sums.dtype) if wanted[2] else None,
            None, None, None, None, None,
        )  # fmt: skip


def _statistics(x: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (C,) of all parts, and the count of values of a channel; those of parts are put together in
    the order of the processes, so that all get the same."""
    accumulated = torch.float64 if x.dtype == torch.float64 else torch.float32
    # The kernel of PyTorch's own batch norm; a tenth of the time that ``var_mean`` takes.
    mean, var = torch.ops.aten.batch_norm_update_stats(x.detach().to(accumulated), None, None, 0.0)
    count = torch.tensor([x.numel() / x.shape[1]], dtype=accumulated, device=x.device)
    every = ranks.all_of(torch.cat([mean, var, count]))
    counts = every[:, -1:]
    means, variances = every[:, :-1].chunk(2, dim=1)
    total = counts.sum()
    whole = (counts * means).sum(0) / total
    return whole, (counts * (variances + (means - whole).square())).sum(0) / total, total


def _format(x: Tensor) -> torch.memory_format:
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
