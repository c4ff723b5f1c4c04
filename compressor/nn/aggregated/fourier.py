"""A convolution with one long kernel, through the Fourier transform (DASH, equation 4).

What PyTorch calls a convolution is a correlation, ``y[t] = sum_j w[j] x[t + low + j]``: a convolution of x with the
kernel that runs backwards, read from ``high`` on. Transforms are circular, of L samples. With outputs at 0 to ``last``
and lags ``low`` to ``high``, output t reads ``t + lag``, and two indices meet in a circle of L only where they are L
apart: ``L > last + high`` and ``L >= n - low`` are enough for every output that is needed. For a kernel that reaches r
samples to each side of an input of n that is n + r, not the n + 2 r that a full linear convolution would take.

Nothing is ever conjugated, as flipping a real signal does the same while it is copied anyway. With Y = X W for the
flipped kernel, the flipped gradient G of y gives the gradient of x, flipped, as G W, and that of w as G X.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from compressor.nn.aggregated.candidates import Ints
from compressor.nn.aggregated.spans import Layout
from compressor.nn.aggregated.spectra import Place, from_matrices, pieces, to_matrices


def correlate(x: Tensor, kernel: Tensor, where: Layout, groups: int) -> Tensor:
    """The convolution of ``x`` (B, in, *size) with ``kernel`` (out, in / groups, *where.taps), float32 or float64.

    Returns:
        (B, out, *outputs), of the kernel's dtype.
    """
    # Samples behind the last one that is read would only lengthen the transforms.
    read: Any = (..., *(slice(0, last + high + 1) for last, high in zip(where.last, where.high, strict=True)))
    return _uncompiled(x[read], kernel, where, groups)


class _Places:
    """Where signals lie among the samples of a transform; ``read`` are the input's samples."""

    def __init__(self, where: Layout, read: Ints) -> None:
        long = where.lengths
        axes = list(zip(where.last, where.low, where.high, where.stride, read, strict=True))
        self.input = Place(long, tuple(slice(0, n) for n in read))
        self.kernel = Place(long, tuple(slice(0, taps) for taps in where.taps), flip=True)
        self.output = Place(long, tuple(slice(high, high + last + 1, stride) for last, _, high, stride, _ in axes))
        self.of_output = Place(long, tuple(slice(0, last + 1, stride) for last, _, _, stride, _ in axes), flip=True)
        ends = [(last + high + 1, n) for last, _, high, _, n in axes]
        self.of_input = Place(long, tuple(slice(end - n, end) for end, n in ends), flip=True)
        self.of_kernel = Place(long, tuple(slice(last + low, last + high + 1) for last, low, high, _, _ in axes))


class _Correlate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, where: Layout, groups: int) -> Tensor:
        ctx.groups, ctx.of_x = groups, x.dtype
        ctx.at = at = _Places(where, tuple(x.shape[2:]))
        ctx.shapes = x.shape, kernel.shape
        if kernel.shape[1] == 1:
            ctx.save_for_backward(x, kernel)
            return _outer(x, kernel, groups, at, where.outputs)
        spectrum = to_matrices(x, groups, at.input, kernel.dtype)
        filters = to_matrices(kernel, 1, at.kernel, kernel.dtype)[:, 0, : len(kernel)]
        filters = filters.reshape(len(filters), groups, -1, kernel.shape[1])
        ctx.save_for_backward(spectrum, filters)
        return from_matrices(_product(spectrum, filters.mT), len(x), at.output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        one, two = ctx.saved_tensors
        of_x, of_kernel = ctx.needs_input_grad[:2]
        (rows, *_), shape = ctx.shapes
        x = kernel = None
        if not one.is_complex():
            x, kernel = _outer_backward(one, two, gradient, ctx.groups, ctx.at, of_x, of_kernel)
        else:
            spectrum = to_matrices(gradient, ctx.groups, ctx.at.of_output, gradient.dtype)
            if of_x:
                x = from_matrices(_product(spectrum, two), rows, ctx.at.of_input)
            if of_kernel:
                products = _product(spectrum[:, :, :rows].mT, one[:, :, :rows]).flatten(1, 2)[:, None]
                kernel = from_matrices(products, shape[0], ctx.at.of_kernel)
        return None if x is None else x.to(ctx.of_x), kernel, None, None


def _product(one: Tensor, two: Tensor) -> Tensor:
    """Matrix products per frequency and group: (F, G, I, J) with (F, G, J, K)."""
    return torch.bmm(one.flatten(0, 1), two.flatten(0, 1)).reshape(*one.shape[:3], two.shape[3])


def _outer(x: Tensor, kernel: Tensor, groups: int, at: _Places, outputs: Ints) -> Tensor:
    """Where each output reads one channel there is nothing to sum, and nothing to transpose: (B, C, F) as it is."""
    filters = _filters(kernel, groups, at)
    y = x.new_empty(len(x), len(kernel), *outputs, dtype=kernel.dtype)
    for part in pieces(len(x), 2 * filters.numel(), x.device):
        spectrum = at.input.spectrum(x[part], kernel.dtype)
        y[part] = at.output.signal((spectrum[:, :, None] * filters).flatten(1, 2))
    return y


def _filters(kernel: Tensor, groups: int, at: _Places) -> Tensor:
    """Spectra of the flipped kernels, shape (groups, out / groups, *frequencies)."""
    spectrum = at.kernel.spectrum(kernel, kernel.dtype)
    return spectrum.reshape(groups, -1, *spectrum.shape[2:])


def _outer_backward(
    x: Tensor, kernel: Tensor, gradient: Tensor, groups: int, at: _Places, of_x: bool, of_kernel: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Spectra are made again rather than kept: that takes no longer than fetching them from memory."""
    dtype = kernel.dtype
    filters = _filters(kernel, groups, at) if of_x else None
    grads = x.new_empty(x.shape, dtype=dtype) if of_x else None
    total: Tensor | None = None
    for part in pieces(len(x), 2 * len(kernel) * math.prod(at.input.frequencies), x.device):
        spectrum = at.of_output.spectrum(gradient[part], dtype)
        spectrum = spectrum.reshape(len(spectrum), groups, -1, *spectrum.shape[2:])
        if grads is not None and filters is not None:
            grads[part] = at.of_input.signal((spectrum * filters).sum(2))
        if of_kernel:
            inputs = at.input.spectrum(x[part], dtype)
            products = (spectrum * inputs[:, :, None]).sum(0)
            total = products if total is None else total + products
    if total is None:
        return grads, None
    return grads, at.of_kernel.signal(total.flatten(0, 1)[:, None]).contiguous()


def _apply(x: Tensor, kernel: Tensor, where: Layout, groups: int) -> Tensor:
    y: Tensor = _Correlate.apply(x, kernel, where, groups)
    return y


# Compilers make no code for complex numbers, and what they fall back to is slower than this.
_uncompiled: Callable[[Tensor, Tensor, Layout, int], Tensor] = torch.compiler.disable(_apply)  # type: ignore[no-untyped-call]
