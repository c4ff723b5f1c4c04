"""``Front``: many networks from one search, each with what it costs and how good it is.

A search for one budget returns one ``SearchResult``. What decides for many budgets at once (a sweep, a supernet, a
ranking of where to pool) returns these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from compressor.budget import BASE_UNITS, Budget, parse_budgets
from compressor.errors import UnreachableBudgetError, UsageError
from compressor.search.constraints.constraint import readable
from compressor.storage.codec import decode

T = TypeVar("T")


@dataclass(frozen=True)
class Candidate(Generic[T]):
    """One network of a front.

    Attributes:
        name: what tells it from the others.
        costs: by name, in each cost's base unit (multiply-adds, parameters, bytes, milliseconds).
        score: how good it is; None where nothing was evaluated.
        found: what it is: a ``SearchResult``, an ``Architecture``, a folder.
        notes: what else is worth knowing of it, such as its ``method`` and ``seed``, as JSON values.
    """

    name: str
    costs: Mapping[str, float]
    score: float | None
    found: T
    notes: Mapping[str, Any] = field(default_factory=dict)


class Front(Generic[T]):
    """Candidates with the same costs, all by different names.

    Where nothing was evaluated, the network that keeps more of the original is taken to be the better one.

    Args:
        candidates: in any order.
        lower_is_better: whether a lower score is better (an error); else a higher one (an accuracy).
        original: the costs of the network that all of them were made from; budgets may be shares of them.
        compared: the costs that candidates compete in; all unless given.
        make: turns a candidate and the budgets it was chosen for into a network, for ``pick``.

    Raises:
        UsageError: two candidates of one name, other costs than the original's, numbers that are not finite, or scores
            of some candidates alone.

    >>> from compressor.budget import parse_budgets
    >>> sizes = {"s": (20.0, 0.81), "m": (45.0, 0.88), "odd": (60.0, 0.85), "l": (90.0, 0.91)}
    >>> front = Front([Candidate(n, {"flops": f}, a, n) for n, (f, a) in sizes.items()], {"flops": 100.0})
    >>> [candidate.name for candidate in front.pareto()]
    ['s', 'm', 'l']
    >>> front.best(parse_budgets({"flops": "50%"})).name
    'm'
    >>> front.points[2]["dominated_by"]
    'm'
    """

    def __init__(
        self,
        candidates: Iterable[Candidate[T]],
        original: Mapping[str, float],
        *,
        lower_is_better: bool = False,
        compared: Sequence[str] | None = None,
        make: Callable[[Candidate[T], tuple[Budget, ...]], Any] | None = None,
    ) -> None:
        self.candidates: tuple[Candidate[T], ...] = tuple(candidates)
        self.original, self.lower_is_better = dict(original), lower_is_better
        self.compared = tuple(self.original if compared is None else compared)
        self.make = make
        names = [candidate.name for candidate in self.candidates]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"Two candidates are called {twice!r}; each needs a name of its own.")
        if strange := [cost for cost in self.compared if cost not in self.original]:
            raise UsageError(f"Candidates cannot be compared in {strange[0]}, which the original has not.")
        for candidate in self.candidates:
            if set(candidate.costs) != set(self.original):
                raise UsageError(
                    f"{candidate.name} has the costs {', '.join(sorted(candidate.costs)) or 'none'}; expected those of "
                    f"the original, {', '.join(sorted(self.original))}."
                )
            for value in (candidate.score or 0.0, *candidate.costs.values()):
                if not math.isfinite(value):
                    raise UsageError(f"{candidate.name} has a score or a cost that is not finite ({value}).")
        if len({candidate.score is None for candidate in self.candidates}) > 1:
            lacking = next(candidate.name for candidate in self.candidates if candidate.score is None)
            raise UsageError(f"{lacking} has no score, and others have one; evaluate all, or none.")

    def __len__(self) -> int:
        return len(self.candidates)

    def __iter__(self) -> Iterator[Candidate[T]]:
        return iter(self.candidates)

    @property
    def points(self) -> list[dict[str, Any]]:
        """All candidates as plain rows: ``name``, ``costs``, ``score``, ``dominated_by`` (the name of one that is no
        worse in anything and better in something, else None), and their notes."""
        return [
            {
                "name": each.name,
                "costs": dict(each.costs),
                "score": each.score,
                "dominated_by": None if (other := self.beaten_by(each)) is None else other.name,
                **each.notes,
            }
            for each in self
        ]

    def pick(self, budgets: Mapping[str, str | float]) -> Any:
        """The best network within ``budgets``, such as ``{"flops": "40%"}``, ready for use.

        Raises:
            UsageError: a budget of a cost that the front does not know, or a front that only has rows.
            UnreachableBudgetError: no candidate is within them.
        """
        if self.make is None:
            raise UsageError("This front has rows alone and no networks; take it from compressor.sweep.")
        asked = parse_budgets(budgets)
        return self.make(self.best(asked), asked)

    def best(self, budgets: Sequence[Budget] = ()) -> Candidate[T]:
        """The best candidate within all budgets; of equally good ones the cheapest.

        Raises:
            UsageError: a budget of a cost that the front does not know.
            UnreachableBudgetError: no candidate is within them, with the lowest and highest cost there is.
        """
        within = self.within(budgets)
        if not within:
            raise UnreachableBudgetError(f"No candidate is within the budgets: {self._ends(self._limits(budgets))}.")
        return min(within, key=lambda c: (-self._quality(c), self._share(c)))

    def within(self, budgets: Sequence[Budget]) -> list[Candidate[T]]:
        """The candidates within all budgets. Raises ``UsageError`` for one of a cost that the front does not know."""
        limits = self._limits(budgets)
        return [c for c in self.candidates if all(c.costs[cost] <= limit for cost, limit in limits.items())]

    def _limits(self, budgets: Sequence[Budget]) -> dict[str, float]:
        limits = {}
        for budget in budgets:
            if budget.cost not in self.original:
                raise UsageError(f"The front knows {', '.join(sorted(self.original))}, and no {budget.cost}.")
            limits[budget.cost] = budget.limit(self.original[budget.cost])
        return limits

    def pareto(self, costs: Sequence[str] | None = None) -> Front[T]:
        """Those that no other beats: none is as good and cheaper, or better and as cheap, in ``costs`` (default those
        compared).

        Cheapest first; of candidates that are alike the first.
        """
        looked = list(self.compared) if costs is None else list(costs)
        kept: list[Candidate[T]] = []
        for candidate in self.candidates:
            mine = self._point(candidate, looked)
            if self.beaten_by(candidate, looked) is None and mine not in [self._point(c, looked) for c in kept]:
                kept.append(candidate)
        kept.sort(key=lambda candidate: [candidate.costs[cost] for cost in looked])
        return self._of(kept)

    def beaten_by(self, candidate: Candidate[T], costs: Sequence[str] | None = None) -> Candidate[T] | None:
        """The best of those that are no worse than ``candidate`` in anything and better in something."""
        looked = list(self.compared) if costs is None else list(costs)
        mine = self._point(candidate, looked)
        better = [
            other
            for other in self.candidates
            if (its := self._point(other, looked)) != mine and all(a <= b for a, b in zip(its, mine, strict=True))
        ]
        return min(better, key=lambda c: (-self._quality(c), self._share(c)), default=None)

    def to_json(self, write: Callable[[T], Any]) -> dict[str, Any]:
        """The front as JSON values; ``write`` turns what was found into some."""
        rows = [
            {"name": c.name, "costs": dict(c.costs), "score": c.score, "notes": dict(c.notes), "found": write(c.found)}
            for c in self
        ]
        return {
            "schema_version": 1,
            "original": self.original,
            "lower_is_better": self.lower_is_better,
            "compared": list(self.compared),
            "rows": rows,
        }

    @classmethod
    def from_json(cls, document: Any, read: Callable[[Any], T]) -> Front[T]:
        """Read what ``to_json`` wrote. Raises ``UsageError`` with the place of what is wrong."""
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version != 1:
            raise UsageError(f"The front has schema version {version!r}; this program reads 1.")
        found = decode(_Document, document, "front")
        rows = [Candidate(row.name, row.costs, row.score, read(row.found), row.notes) for row in found.rows]
        return cls(rows, found.original, lower_is_better=found.lower_is_better, compared=found.compared)

    def only(self, candidate: Candidate[T]) -> Front[T]:
        """One of them alone."""
        return self._of([next(each for each in self if each.name == candidate.name)])

    def _of(self, candidates: Iterable[Candidate[T]]) -> Front[T]:
        """Others with the same settings."""
        return Front(
            candidates, self.original, lower_is_better=self.lower_is_better, compared=self.compared, make=self.make
        )

    def _ends(self, limits: Mapping[str, float]) -> str:
        """What there is of each cost, and what it is to be at most."""
        said = []
        for cost, limit in limits.items():
            values = [c.costs[cost] for c in self.candidates]
            least, most, asked = (
                readable(value, BASE_UNITS.get(cost, ""))
                for value in (min(values, default=math.inf), max(values, default=math.inf), limit)
            )
            said.append(f"{cost} goes from {least} to {most}, and at most {asked} was asked for")
        return "; ".join(said)

    def _quality(self, candidate: Candidate[T]) -> float:
        if candidate.score is None:
            return self._share(candidate)
        return -candidate.score if self.lower_is_better else candidate.score

    def _share(self, candidate: Candidate[T]) -> float:
        """What is left of the original, over all costs."""
        return sum(
            value / self.original[cost] if self.original[cost] else 0.0 for cost, value in candidate.costs.items()
        )

    def _point(self, candidate: Candidate[T], costs: Sequence[str]) -> tuple[float, ...]:
        return (-self._quality(candidate), *(candidate.costs[cost] for cost in costs))


@dataclass(frozen=True)
class _Row:
    name: str
    costs: dict[str, float]
    score: float | None
    found: Any
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Document:
    original: dict[str, float]
    lower_is_better: bool
    rows: list[_Row] = field(default_factory=list)
    compared: list[str] | None = None
