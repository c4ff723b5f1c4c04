"""One axis of a tensor, as units see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from compressor.arrays import BoolArray, IntArray

if TYPE_CHECKING:
    pass


@dataclass(eq=False)
class Axis:
    """An axis whose length can change: index i is kept when all units in row ``factors[i]`` are.

    ``factors`` has shape (length, k); the value ``Graph.n_units`` in it stands for "always kept".
    """

    index: int
    factors: IntArray

    def __len__(self) -> int:
        return len(self.factors)

    def keep(self, units: BoolArray) -> BoolArray:
        """Which indices are kept. ``units`` has one entry per unit and a last one that is always true."""
        return np.asarray(np.all(units[self.factors], axis=1), dtype=np.bool_)
