"""Three ways to compute one mixture of convolutions, all equal.

- **results** (DASH, equation 2): each convolution by itself, and the results added up. Quick where kernels are few and
  small. Each kernel is multiplied by its share beforehand, which is the same, costs less than multiplying outputs, and
  needs no output kept for the share's gradient, ``<dL/dy, conv_i(x)>``.
- **weights** (equation 3): kernels are added up, and one convolution with the sum is computed.
- **fft** (equation 4): kernels are added up, and the convolution is a product of spectra.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from compressor.nn.aggregated.candidates import Ints
from compressor.nn.aggregated.combine import combined
from compressor.nn.aggregated.spans import Layout

FORMS = ("results", "weights", "fft")
#: What a transform costs per sample and doubling of its length, in multiply-adds of a matrix product. Measured.
TRANSFORM = 10.0


def computed(
    form: str, x: Tensor, mixture: Tensor, weights: Sequence[Tensor], bias: Tensor | None, where: Layout, groups: int
) -> Tensor:
    """``sum_i mixture_i Conv(w_i)(x) + bias``, shape (B, out, *where.outputs), in the dtype of an ordinary convolution.

    Args:
        form: one of ``FORMS``.
        x: (B, in, *where.size).
        mixture: (n,).
        weights: n kernels, (out, in / groups, *kernel_size).
    """
    if x.numel() == 0:
        form = "weights"  # transforms take no empty batch
    return _FORMS[form](x, mixture, list(weights), bias, where, groups)


def _results(
    x: Tensor, mixture: Tensor, weights: list[Tensor], bias: Tensor | None, where: Layout, groups: int
) -> Tensor:
    skipped = _without_share(mixture)
    y: Tensor | None = None
    for i, (weight, span) in enumerate(zip(weights, where.spans, strict=True)):
        if span is None or i in skipped:
            continue
        part = weight[span.taps] * mixture[i].to(weight.dtype)
        added = _convolution(x, part, bias if y is None else None, where, where.lags(i), span.dilation, groups)
        y = added if y is None else y.add_(added)
    if y is None:  # every kernel that counts is out of reach
        return _weights(x, mixture, weights, bias, where, groups)
    return y


def _without_share(mixture: Tensor) -> frozenset[int]:
    """Candidates of a share that is zero and learns nothing; known without waiting for a device only on the CPU."""
    if mixture.requires_grad or torch.is_grad_enabled() or torch.compiler.is_compiling() or mixture.is_meta:
        return frozenset()
    return frozenset(i for i, share in enumerate(mixture.tolist()) if share == 0)


def _weights(
    x: Tensor, mixture: Tensor, weights: list[Tensor], bias: Tensor | None, where: Layout, groups: int
) -> Tensor:
    kernel = combined(mixture, weights, where).to(weights[0].dtype)
    return _convolution(x, kernel, bias, where, where.low, (1,) * len(where.size), groups)


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, where: Layout, lags: Ints, dilation: Ints, groups: int
) -> Tensor:
    """An ordinary convolution whose first tap lies at ``lags``, with ``where.outputs`` outputs."""
    lefts, rights, whole = [], [], True
    axes = zip(where.size, where.outputs, where.stride, lags, weight.shape[2:], dilation, strict=True)
    for n, m, s, lag, k, d in axes:
        e = d * (k - 1) + 1
        lefts.append(-lag)
        rights.append((m - 1) * s + lag + e - n)
        whole &= lag <= 0 and (n - 2 * lag - e) // s + 1 == m
    if not whole:
        pads = [pad for sides in zip(reversed(lefts), reversed(rights), strict=True) for pad in sides]
        x, lefts = functional.pad(x, pads), [0] * len(lefts)
    apply: Callable[..., Tensor] = functional.conv1d if len(lefts) == 1 else functional.conv2d
    return apply(x, weight, bias, where.stride, tuple(lefts), dilation, groups)


def autocast_dtype(device: str) -> torch.dtype | None:
    """What autocast computes in on this kind of device; None where it is off, or there is none."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def _fft(x: Tensor, mixture: Tensor, weights: list[Tensor], bias: Tensor | None, where: Layout, groups: int) -> Tensor:
    dtype = weights[0].dtype
    if dtype != torch.float64:
        dtype = autocast_dtype(x.device.type) or dtype
    from compressor.nn.aggregated import fourier  # brings the compiler along, a second of start-up

    y = fourier.correlate(x, combined(mixture, weights, where), where, groups)
    if bias is not None:
        y.add_(bias.to(y.dtype).reshape(-1, *[1] * len(where.size)))  # in place: nothing needs what was there
    return y.to(dtype)


_FORMS = {"results": _results, "weights": _weights, "fft": _fft}


def estimate(form: str, where: Layout, kernel: Ints, batch: int, groups: int) -> float:
    """Multiply-adds of a forward pass, about.

    Args:
        kernel: (out, in / groups).
    """
    out, inside = kernel
    taps = sum(math.prod(b - a for a, b in zip(s.first, s.last, strict=True)) for s in where.spans if s is not None)
    outputs = batch * out * inside * math.prod(where.outputs)
    if form == "results":
        return float(outputs * taps)
    adding = out * inside * (taps + math.prod(where.taps))
    if form == "weights":
        return float(outputs * math.prod(where.taps) + adding)
    samples = math.prod(where.lengths)
    signals = batch * (out + inside * groups) + out * inside
    return adding + 2.0 * batch * out * inside * samples + TRANSFORM * signals * samples * math.log2(samples)
