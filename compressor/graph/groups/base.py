"""What every group of units is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compressor.arrays import BoolArray, FloatArray, IntArray


@dataclass(eq=False)
class Group:
    """Units of one kind, which take part in the same axes.

    ``width`` is how many indices of the naming parameter's axis one unit carries.
    """

    index: int
    name: str
    units: IntArray
    members: tuple[tuple[str, int], ...] = ()
    width: int = 1

    kind: ClassVar[str]
    """The kind's name in reports."""
    component: ClassVar[str]
    """What of an architecture a method decides on with it, as ``MethodConfig.decides`` names it."""
    ranked: ClassVar[bool] = False
    """Whether units can be ranked by importance and go in any order."""

    def __len__(self) -> int:
        return len(self.units)

    def step(self, multiple: int) -> int:
        """How many units go at once where widths are to be multiples of ``multiple``."""
        return 1

    @property
    def least(self) -> int:
        """How many units stay at least, whatever the step."""
        return 0

    @property
    def most(self) -> int:
        """How many units are there at most."""
        return len(self)

    @property
    def as_it_is(self) -> BoolArray:
        """Which units the network as it is has, shape (len,)."""
        return np.ones(len(self), dtype=np.bool_)

    @property
    def inwards(self) -> IntArray:
        """The units, those that stay longest first, where they go in order."""
        return self.units

    def kept(self, count: int, priority: FloatArray) -> IntArray:
        """The units to keep if ``count`` are to be, by their priority (ties: the earlier)."""
        if count >= len(self):
            return self.units
        return self.units[np.argsort(-priority[self.units], kind="stable")[:count]]
