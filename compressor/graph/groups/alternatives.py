"""Choices: a site where exactly one of several alternatives survives.

An alternative is a unit like any other. Its weight is the probability that it is chosen, so costs are expectations
under probabilities, and exact for a hard choice; but of such a group always one unit is there, never none and never
two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from compressor.architecture.edits import Edit
from compressor.arrays import BoolArray, FloatArray, IntArray
from compressor.graph.groups.base import Group


@dataclass(frozen=True)
class Alternative:
    """One of what can be at a site: ``edits`` put it there, none for what the network has."""

    name: str
    edits: tuple[Edit, ...] = ()


@dataclass(eq=False)
class Alternatives(Group):
    """``current`` is the alternative that the network has; ``of`` is the kind of choice, as it is registered."""

    alternatives: tuple[Alternative, ...] = ()
    current: int = 0
    of: str = ""
    scaled: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Modules whose multiply-adds and weights are so many times one number, by alternative."""
    timed: tuple[str, ...] = ()
    """Modules whose runtime operators are known by alternative; without any a latency is not."""

    kind: ClassVar[str] = "choice"

    @property
    def component(self) -> str:  # type: ignore[override]
        return self.of

    @property
    def least(self) -> int:
        return 1

    @property
    def most(self) -> int:
        return 1

    @property
    def as_it_is(self) -> BoolArray:
        return np.asarray(np.arange(len(self)) == self.current)

    def kept(self, count: int, priority: FloatArray) -> IntArray:
        found = priority[self.units]
        best = self.current if found[self.current] >= found.max() else int(np.argmax(found))
        return self.units[best : best + 1]

    def chosen(self, units: BoolArray) -> int:
        """The alternative that a unit mask keeps. Raises ``ValueError`` if that is not just one."""
        (found,) = np.flatnonzero(units[self.units]).tolist()
        return int(found)
