"""What an aggregated convolution mixes: kernel sizes and dilations, aligned at their centres.

Where a convolution begins is told by its *left*: the tap of index 0 reads ``left`` samples before the output's place.
That is the padding of an ordinary convolution, but it may be negative, as a small kernel in the middle of a large one
without padding begins after the place.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from compressor.errors import UsageError

Ints = tuple[int, ...]
Padding = str | int | Sequence[int]


@dataclass(frozen=True)
class Candidate:
    """One convolution of a mixture.

    Args:
        kernel_size: taps, one number per spatial axis.
        dilation: samples from tap to tap, one number per spatial axis.
    """

    kernel_size: Ints
    dilation: Ints

    @property
    def extent(self) -> Ints:
        """Samples from the first tap to the last, both counted, per spatial axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True))

    def __str__(self) -> str:
        """Short text for people: ``kernel 3, dilation 7``; one number where all axes have the same."""
        return f"kernel {short(self.kernel_size)}, dilation {short(self.dilation)}"


def short(numbers: Ints) -> str:
    """``3`` for (3, 3), ``1x7`` for (1, 7)."""
    return str(numbers[0]) if len(set(numbers)) == 1 else "x".join(map(str, numbers))


def whole(value: Any, name: str, least: int = 1) -> int:
    """``value`` as an int of at least ``least``; True is none. Raises ``UsageError``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise UsageError(f"{name} takes whole numbers from {least} on; found {value!r}.")
    return number


def per_axis(value: Any, name: str, axes: int, least: int = 1) -> Ints:
    """One number for all axes, or one for each, as a tuple. Raises ``UsageError``."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return (whole(value, name, least),) * axes
    if len(value) != axes:
        raise UsageError(f"{name} takes one number or {axes}, one per spatial axis; found {value!r}.")
    return tuple(whole(each, name, least) for each in value)


def product(kernel_sizes: Iterable[Any], dilations: Iterable[Any], axes: int) -> tuple[Candidate, ...]:
    """The search space K x D, K outer and D inner (DASH, equation 1).

    Raises:
        UsageError: an empty list, a value that is no whole number from 1 on or comes twice, or an even kernel.
    """
    sizes = _listed(kernel_sizes, "kernel_sizes", axes)
    steps = _listed(dilations, "dilations", axes)
    return tuple(odd(Candidate(k, d)) for k, d in itertools.product(sizes, steps))


def _listed(values: Iterable[Any], name: str, axes: int) -> list[Ints]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UsageError(f"{name} takes a list of whole numbers, such as (3, 5, 7); found {values!r}.")
    found = [per_axis(value, name, axes) for value in values]
    if not found:
        raise UsageError(f"{name} is empty; give at least one number.")
    twice = next((each for each in found if found.count(each) > 1), None)
    if twice is not None:
        raise UsageError(f"{name} has {short(twice)} more than once; give every value once.")
    return found


def odd(candidate: Candidate) -> Candidate:
    """The candidate, whose kernel has a centre. Raises ``UsageError`` for an even one."""
    if any(k % 2 == 0 for k in candidate.kernel_size):
        raise UsageError(
            f"kernel_sizes takes odd numbers; found {short(candidate.kernel_size)}, which has no centre to align."
        )
    return candidate


def checked(candidates: Iterable[Any], axes: int) -> tuple[Candidate, ...]:
    """Candidates that somebody listed. Raises ``UsageError`` for none, a wrong one or one that comes twice."""
    found = []
    for each in candidates:
        if not isinstance(each, Candidate):
            raise UsageError(f"candidates takes Candidate(kernel_size, dilation); found {each!r}.")
        kernel_size = per_axis(each.kernel_size, "kernel_size", axes)
        found.append(Candidate(kernel_size, per_axis(each.dilation, "dilation", axes)))
        if found[-1] in found[:-1]:
            raise UsageError(f"candidates has {found[-1]} more than once; give each once.")
    if not found:
        raise UsageError("candidates is empty; give at least one.")
    return tuple(found)


def largest(candidates: Sequence[Candidate]) -> Ints:
    """The largest extent per axis, D_bar in the paper."""
    return tuple(map(max, *(each.extent for each in candidates), (1,) * len(candidates[0].extent)))


def lefts(candidates: Sequence[Candidate], padding: Padding, axes: int) -> tuple[tuple[Ints, ...], Ints]:
    """Where each candidate begins, and how much longer than the input what the kernels slide over is.

    Args:
        candidates: of odd extents.
        padding: "same", or the padding of the one convolution with the largest extent.

    Returns:
        The left of each candidate per axis, and per axis what n samples become less 1 in stride 1: ``n + excess``
        places, so that ``(n + excess - 1) // stride + 1`` outputs.
    """
    extents = largest(candidates)
    if isinstance(padding, str):
        if padding != "same":
            raise UsageError(f'padding takes "same" or whole numbers; found {padding!r}.')
        pads = tuple((e - 1) // 2 for e in extents)
    else:
        pads = per_axis(padding, "padding", axes, 0)
    begins = tuple(
        tuple(p - (e - own) // 2 for p, e, own in zip(pads, extents, each.extent, strict=True)) for each in candidates
    )
    return begins, tuple(2 * p + 1 - e for p, e in zip(pads, extents, strict=True))


def lefts_like(conv: nn.Conv1d | nn.Conv2d, candidates: Sequence[Candidate]) -> tuple[tuple[Ints, ...], Ints]:
    """``lefts`` of candidates in the place of an ordinary convolution, whose output size every one of them keeps.

    "same" pads every candidate by itself; numbers pad candidates of extent e by p + (e - e0) / 2, where e0 is the
    convolution's own extent.

    Raises:
        UsageError: an even kernel that is not the convolution's own, or a padding that is negative or not whole.
    """
    own = own_candidate(conv)
    for each in candidates:
        if each != own:
            odd(each)
    if conv.padding == "same":  # an even extent gets its odd sample on the right, as in PyTorch
        return tuple(tuple((e - 1) // 2 for e in each.extent) for each in candidates), (0,) * len(own.extent)
    pads = (0,) * len(own.extent) if isinstance(conv.padding, str) else tuple(conv.padding)
    begins = []
    for each in candidates:
        twice = [2 * p + e - e0 for p, e, e0 in zip(pads, each.extent, own.extent, strict=True)]
        if min(twice) < 0 or any(pad % 2 for pad in twice):
            raise UsageError(
                f"{each} cannot take the place of {own} with padding {short(pads)}: it would need a padding of "
                f"{short_halves(twice)}. Leave it out, or give the convolution more padding."
            )
        begins.append(tuple(pad // 2 for pad in twice))
    return tuple(begins), tuple(2 * p + 1 - e for p, e in zip(pads, own.extent, strict=True))


def short_halves(twice: Sequence[int]) -> str:
    """``1.5x2`` for (3, 4)."""
    return "x".join(f"{pad / 2:g}" for pad in twice)


def own_candidate(conv: nn.Conv1d | nn.Conv2d) -> Candidate:
    """The candidate that an ordinary convolution is."""
    return Candidate(tuple(conv.kernel_size), tuple(conv.dilation))
