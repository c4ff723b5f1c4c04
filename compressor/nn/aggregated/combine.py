"""The sum of all kernels of a mixture, as one kernel (DASH, equation 3).

Each kernel times its share of the mixture is added to a strided, centred slice of one buffer. That is the Kronecker
product ``w (x) P`` of section 3.2.3 without its zeros, which are never held: neither dilated nor padded kernels exist,
and what is kept for the backward pass are the kernels themselves. The gradient of a kernel is the same slice of the
buffer's gradient, times its share. On a CPU kernels are summed in pieces that stay in the cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from compressor.nn.aggregated.spans import Layout, Span
from compressor.nn.aggregated.spectra import pieces


def combined(mixture: Tensor, weights: list[Tensor], where: Layout) -> Tensor:
    """The kernel (out, in / groups, *where.taps) that does what the mixture does.

    Args:
        mixture: shares, shape (n,).
        weights: n kernels (out, in / groups, *kernel_size).

    Half precision is summed in float32: one of 49 small shares would get lost otherwise.
    """
    dtype = weights[0].dtype
    if dtype in (torch.float16, torch.bfloat16):
        dtype = torch.float32
    kernel: Tensor = _Combine.apply(mixture.to(dtype), where.spans, where.taps, *[w.to(dtype) for w in weights])
    return kernel


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mixture: Tensor, spans: tuple[Span | None, ...], taps: Any, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(mixture, *weights)
        ctx.spans = spans
        kernel = weights[0].new_zeros(*weights[0].shape[:2], *taps)
        for part in pieces(len(kernel), kernel[0].numel(), kernel.device):
            rows = kernel[part]
            for share, weight, span in zip(mixture.unbind(), weights, spans, strict=True):
                if span is not None:
                    rows[span.places].addcmul_(weight[part][span.taps], share)
        return kernel

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        mixture, *weights = ctx.saved_tensors
        grads = [_slices(gradient, weight, span) for weight, span in zip(weights, ctx.spans, strict=True)]
        of_mixture = None
        if ctx.needs_input_grad[0]:
            pairs = zip(grads, weights, strict=True)
            of_mixture = torch.stack([torch.dot(each.flatten(), weight.flatten()) for each, weight in pairs])
        needed = zip(ctx.needs_input_grad[3:], grads, mixture.unbind(), strict=True)
        return of_mixture, None, None, *(each.mul_(share) if needs else None for needs, each, share in needed)


def _slices(gradient: Tensor, weight: Tensor, span: Span | None) -> Tensor:
    """A kernel's part of the gradient; zero at taps that were cropped."""
    if span is not None and all(b - a == k for a, b, k in zip(span.first, span.last, weight.shape[2:], strict=True)):
        return gradient[span.places].clone(memory_format=torch.contiguous_format)
    found = torch.zeros_like(weight, memory_format=torch.contiguous_format)
    if span is not None:
        found[span.taps] = gradient[span.places]
    return found
