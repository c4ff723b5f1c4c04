"""Modules whose convolution is a mixture over kernel sizes and dilations (DASH, sections 3.1 and 3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from compressor.nn.aggregated.candidates import Candidate, Ints, Padding
from compressor.nn.aggregated.mixture import AggConv


class AggConv1d(AggConv):
    """``AggConv2d`` over sequences, (B, in_channels, length)."""

    axes = 1
    ordinary = nn.Conv1d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: Iterable[Any] = (3, 7, 11, 15, 19),
        dilations: Iterable[Any] = (1, 3, 7, 15),
        stride: int | Ints = 1,
        padding: Padding = "same",
        groups: int = 1,
        bias: bool = True,
        form: str = "auto",
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_sizes, dilations, stride, padding, groups, bias, form, device, dtype
        )

    @classmethod
    def of(
        cls, conv: nn.Conv1d, candidates: Iterable[Candidate], *, form: str = "auto", alpha: bool = True
    ) -> AggConv1d:
        """See ``AggConv2d.of``."""
        return cls.replacing(conv, candidates, form, alpha)


class AggConv2d(AggConv):
    """A mixture of convolutions of all pairs of a kernel size and a dilation, aligned at their centres (DASH,
    equations 1 and 2): ``sum_i mixture_i Conv(w_i, k_i, d_i)(x) + bias``.

    Args:
        in_channels, out_channels, stride, groups, bias, device, dtype: as in ``nn.Conv2d``.
        kernel_sizes: K, odd; a pair for a kernel that differs per axis.
        dilations: D. Candidates are K x D, K outer and D inner.
        padding: "same", for ceil(n / stride) outputs, or the padding of the candidate with the largest extent, around
            whose centre the others lie.
        form: how it is computed, see ``compressor.nn.aggregated.forms``; "auto" measures once per shape which is the
            quickest and remembers it in the latency table.

    Attributes:
        candidates: what is mixed.
        weights: a kernel (out, in / groups, *kernel_size) per candidate.
        alpha: what the shares are the softmax of, shape (n,); None where a search gives them.
        given: shares to mix by in place of alpha's, shape (n,), or None.
        form_used: the form of the last forward pass.

    Raises:
        UsageError: an argument that cannot be used, by name.
    """

    axes = 2
    ordinary = nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: Iterable[Any] = (3, 5, 7, 9),
        dilations: Iterable[Any] = (1, 3, 7, 15),
        stride: int | Ints = 1,
        padding: Padding = "same",
        groups: int = 1,
        bias: bool = True,
        form: str = "auto",
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_sizes, dilations, stride, padding, groups, bias, form, device, dtype
        )

    @classmethod
    def of(
        cls, conv: nn.Conv2d, candidates: Iterable[Candidate], *, form: str = "auto", alpha: bool = True
    ) -> AggConv2d:
        """The mixture in the place of an ordinary convolution: same stride, groups, bias and output size.

        The candidate that is the convolution has its weight itself; the others are drawn normal, with the standard
        deviation of that weight times sqrt(its taps / theirs), which keeps the gain. The bias is shared.

        Args:
            conv: pads with zeros; its padding is "same", or numbers from which candidates of extent e get
                p + (e - e0) / 2 per axis.
            candidates: odd kernels, and the convolution's own, which may be even.
            alpha: whether to have architecture weights; without, set ``given``.

        Raises:
            UsageError: the convolution or a candidate cannot be used, or a candidate's padding would be negative or
                not whole; the message names it.
        """
        return cls.replacing(conv, candidates, form, alpha)
