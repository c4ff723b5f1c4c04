"""Curves over the steps of a training, kept to a bounded number of points."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

MOST_POINTS = 800


@dataclass
class Curve:
    """One quantity over steps. Past ``MOST_POINTS`` every other point goes, and so does every other one that comes.

    Attributes:
        stage: of the job that it belongs to; ``quantity`` is its name, such as ``"loss"``.
        steps, values: the points, steps rising.
    """

    stage: str
    quantity: str
    steps: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    every: int = 1
    seen: int = 0

    def add(self, step: float, value: float) -> None:
        """One point more. What is not finite leaves no point."""
        if not math.isfinite(value) or (self.steps and step <= self.steps[-1]):
            return
        self.seen += 1
        if (self.seen - 1) % self.every:
            return
        self.steps.append(step)
        self.values.append(value)
        if len(self.steps) > MOST_POINTS:
            self.steps, self.values = self.steps[::2], self.values[::2]
            self.every *= 2

    def cut(self, done: float) -> None:
        """Forget what lies after ``done`` steps: a training that was cut off does it again."""
        kept = sum(step <= done for step in self.steps)
        del self.steps[kept:], self.values[kept:]

    @property
    def key(self) -> str:
        """What tells it from the other curves of the job."""
        return f"{self.stage}/{self.quantity}"
