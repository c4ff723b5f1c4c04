"""Evolutionary search for the subnets that no other beats (appendix A.3; Wang et al., 2021).

What is drawn depends on the seed and on the scores alone, and scores are kept, so a search that was cut off goes on
where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from compressor.arrays import BoolArray, FloatArray, IntArray
from compressor.search.methods.supernet.space import Space

_TRIES = 20  # to draw a subnet that was not tried before


@dataclass(frozen=True, eq=False)
class Scored:
    """A subnet that was tried: its choices, costs by name, and its merit, of which more is better."""

    choices: IntArray
    costs: Mapping[str, float]
    merit: float

    @property
    def key(self) -> tuple[int, ...]:
        return tuple(self.choices.tolist())


def unbeaten(found: Sequence[Scored], costs: Sequence[str]) -> list[Scored]:
    """Those of which no other is as good and as cheap in all of ``costs``, and better in one; the cheapest first."""
    if not found:
        return []
    table = np.array([[-each.merit, *(each.costs[name] for name in costs)] for each in found])
    kept: list[int] = []
    for i, row in enumerate(table):
        others = np.delete(table, i, axis=0)
        beaten = bool(((others <= row).all(1) & (others < row).any(1)).any())
        twice = any((table[j] == row).all() for j in kept)
        if not beaten and not twice:
            kept.append(i)
    return sorted((found[i] for i in kept), key=lambda each: [each.costs[name] for name in costs])


class Evolution:
    """The search.

    Args:
        allowed: which choices are drawn, shape (D, K).
        costs: of a subnet, by name.
        limits: highest costs, by name: subnets above are made smaller until they are within them.
        score: merits of subnets, NaN for those that have none.
    """

    def __init__(
        self,
        space: Space,
        allowed: BoolArray,
        *,
        costs: Callable[[IntArray], dict[str, float]],
        limits: Mapping[str, float],
        score: Callable[[Sequence[IntArray]], Sequence[float]],
        population: int,
        mutation: float,
        seed: int,
    ) -> None:
        self.space, self.limits, self.population, self.mutation = space, dict(limits), population, mutation
        self._allowed = [np.flatnonzero(row) for row in allowed]
        self._costs, self._score = costs, score
        self._rng = np.random.default_rng(seed)
        self.tried: dict[tuple[int, ...], Scored] = {}

    def run(self, generations: int, told: Callable[[int], None] = lambda generation: None) -> list[Scored]:
        """All subnets tried, in the order of the trials."""
        self._try(self._first())
        told(0)
        for generation in range(1, generations + 1):
            self._try(self._next())
            told(generation)
        return list(self.tried.values())

    def front(self) -> list[Scored]:
        """The subnets that no other beats, over the costs that have limits."""
        return unbeaten(list(self.tried.values()), list(self.limits))

    def _try(self, drawn: Sequence[IntArray]) -> None:
        merits = self._score(drawn)
        for choices, merit in zip(drawn, merits, strict=True):
            if np.isfinite(merit):
                found = Scored(choices, self._costs(choices), float(merit))
                self.tried[found.key] = found

    def _first(self) -> list[IntArray]:
        """The ends of what is allowed, subnets drawn uniformly, and others around sizes drawn uniformly: independent
        choices alone would nearly all cost the same."""
        ends = [np.array([row[0] for row in self._allowed]), np.array([row[-1] for row in self._allowed])]
        drawn: list[IntArray] = []
        for choices in ends:
            self._add(drawn, lambda choices=choices: choices)  # type: ignore[misc]
        while len(drawn) < self.population // 2 and self._add(drawn, self._uniform):
            pass
        while len(drawn) < self.population and self._add(drawn, self._around):
            pass
        return drawn

    def _next(self) -> list[IntArray]:
        """Crossovers and mutations of the subnets that no other beats, as many of each."""
        parents = [each.choices for each in self.front()]
        drawn: list[IntArray] = []
        if len(parents) > 1:
            while len(drawn) < self.population // 2 and self._add(drawn, lambda: self._crossed(parents)):
                pass
        while len(drawn) < self.population and self._add(drawn, lambda: self._mutated(parents)):
            pass
        return drawn

    def _add(self, drawn: list[IntArray], draw: Callable[[], IntArray]) -> bool:
        """Draw one that is new; whether there was one."""
        known = {tuple(each.tolist()) for each in drawn}
        for _ in range(_TRIES):
            choices = self._fitted(draw())
            key = tuple(choices.tolist())
            if key not in known and key not in self.tried:
                drawn.append(choices)
                return True
        return False

    def _uniform(self) -> IntArray:
        return np.array([self._rng.choice(row) for row in self._allowed], dtype=np.int64)

    def _around(self) -> IntArray:
        share = self._rng.random()
        return np.array([row[self._rng.binomial(len(row) - 1, share)] for row in self._allowed], dtype=np.int64)

    def _crossed(self, parents: Sequence[IntArray]) -> IntArray:
        one, other = self._rng.choice(len(parents), 2, replace=False)
        found: IntArray = np.where(self._rng.random(len(self.space)) < 0.5, parents[int(one)], parents[int(other)])
        return found

    def _mutated(self, parents: Sequence[IntArray]) -> IntArray:
        found = parents[int(self._rng.integers(len(parents)))].copy() if parents else self._uniform()
        for i in np.flatnonzero(self._rng.random(len(found)) < self.mutation):
            others = self._allowed[i][self._allowed[i] != found[i]]
            if len(others):
                found[i] = self._rng.choice(others)
        return found

    def _fitted(self, choices: IntArray) -> IntArray:
        """Smaller ones, dimension by dimension, until every limit holds; the smallest there are hold them all."""
        choices = choices.astype(np.int64).copy()
        while self._over(choices):
            choices[self._rng.choice(np.flatnonzero(choices > 0))] -= 1
        return choices

    def _over(self, choices: IntArray) -> bool:
        costs = self._costs(choices)
        return bool(choices.any()) and any(costs[name] > limit for name, limit in self.limits.items())


def hypervolume(points: Sequence[tuple[float, float]], worst: tuple[float, float]) -> float:
    """The area that points (cost, merit) dominate, up to the cost and down to the merit of ``worst``."""
    area, best = 0.0, worst[1]
    steps: FloatArray = np.array(sorted(points), dtype=np.float64).reshape(-1, 2)
    for cost, merit in steps:
        if cost < worst[0] and merit > best:
            area += (worst[0] - cost) * (merit - best)
            best = merit
    return area
