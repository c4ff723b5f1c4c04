"""Pool the output or the input of a module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compressor.architecture.edits.base import Edit, Work
from compressor.nn.pooled import MODES, pool_


@dataclass(frozen=True)
class PlacePooling(Edit):
    """Windows of ``size`` (a number for each spatial axis) of the output of ``module`` become their maximum or mean.

    ``mode`` is ``"max"`` or ``"avg"``; ``at`` is ``"output"``, or ``"input"`` for the module's first argument. Windows
    do not overlap; what does not fill one at the end is left out.
    """

    module: str
    size: list[int]
    mode: str = "max"
    at: str = "output"

    kind: ClassVar[str] = "place_pooling"

    def check(self, work: Work) -> None:
        if self.module not in work.modules:
            self.refuse("the model has no such module")
        if self.mode not in MODES:
            self.refuse(f"the mode {self.mode[:40]!r} is unknown; known are {', '.join(MODES)}")
        if self.at not in ("input", "output"):
            self.refuse(f"it is to pool the {self.at[:40]!r} of a module; known are input and output")
        if not 1 <= len(self.size) <= 3 or min(self.size) < 1 or max(self.size) > 1024 or max(self.size) == 1:
            self.refuse(f"{self.size[:4]} is no window of one to three axes")

    def apply_(self, work: Work) -> None:
        pool_(work.modules[self.module], self.size, self.mode, self.at)
