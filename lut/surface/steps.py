"""How latency depends on a channel count beyond its size: staircases, and kernels that need divisible sizes.

Two patterns cover what runtimes do along one axis. *Staircase*: channels are padded to a multiple of ``step``, so 65 to
80 cost the same at a step of 16. *Alignment*: sizes divisible by ``align`` run a fast (padded) kernel and all others,
the ragged ones, a slower one; ONNX Runtime on a CPU does this for input channels and 4. The two combine: multiples of
4 climb a staircase of 16 while the sizes between them lie on a line well above it.

Which pattern an axis follows is found from measured points alone (``lut.surface.estimate.detect``).
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lut.errors import InvalidKeyError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

STEPS = (2, 4, 8, 16, 32, 64)


@dataclasses.dataclass(frozen=True, order=True)
class Pattern:
    """Behaviour along one axis.

    Args:
        align: sizes divisible by this are a family of their own; 1: there is one family.
        step: staircase step of the aligned family; 1: none.
        ragged_step: staircase step of the other sizes.
    """

    align: int = 1
    step: int = 1
    ragged_step: int = 1

    def __post_init__(self) -> None:
        if min(self.align, self.step, self.ragged_step) < 1 or self.step % self.align or self.step % self.ragged_step:
            raise InvalidKeyError(f"A pattern's step is a multiple of its align and ragged_step; found {self}.")

    @property
    def complexity(self) -> int:
        """How much there is to it: 0 smooth, 1 a staircase, 2 alignment, up to 4 for alignment and two staircases."""
        return (self.step > self.align) + 2 * (self.align > 1) + (self.ragged_step > 1)

    def aligned(self, channels: Ints) -> Flags:
        """Which sizes belong to the aligned family."""
        return np.asarray(channels % self.align == 0)

    def level(self, channels: Ints) -> Ints:
        """The size that is paid for: each channel count rounded up to its family's step."""
        step = np.where(self.aligned(channels), self.step, self.ragged_step)
        return np.asarray(-(-channels // step) * step)


SMOOTH = Pattern()


@lru_cache(maxsize=2)
def candidates(alignment: bool) -> tuple[Pattern, ...]:
    """All patterns considered, simplest first."""
    found = [SMOOTH] + [Pattern(step=step) for step in STEPS]
    if alignment:
        for align in STEPS[:-1]:
            for step in (step for step in STEPS if step >= align):
                found += [Pattern(align, step), Pattern(align, step, step)]
    return tuple(found)


def fraction(pattern: Pattern, channels: Ints, low: Ints, high: Ints) -> Floats:
    """How far each size lies between two measured ones of its family, in [0, 1], counted in levels.

    Between two sizes on the same level, counted in channels: measured values stay exact even if noise parts them.
    """
    at, bottom, top = pattern.level(channels), pattern.level(low), pattern.level(high)
    climb, run = top - bottom, high - low
    by_channel = np.where(run > 0, (channels - low) / np.maximum(run, 1), 0.0)
    return np.asarray(np.where(climb > 0, (at - bottom) / np.maximum(climb, 1), by_channel), dtype=np.float64)
