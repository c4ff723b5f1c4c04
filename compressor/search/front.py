"""``Front``: many networks from one search, each with what it costs and how good it is.

A search for one budget returns one ``SearchResult``. What decides for many budgets at once (a sweep, a supernet, a
ranking of where to pool) returns these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from compressor.budget import Budget
from compressor.errors import UnreachableBudgetError, UsageError
from compressor.storage.codec import decode

T = TypeVar("T")


@dataclass(frozen=True)
class Candidate(Generic[T]):
    """One network of a front.

    Attributes:
        name: what tells it from the others.
        costs: by name, in each cost's base unit (multiply-adds, parameters, bytes, milliseconds).
        score: how good it is.
        found: what it is: a ``SearchResult``, an ``Architecture``, a folder.
    """

    name: str
    costs: Mapping[str, float]
    score: float
    found: T


class Front(Generic[T]):
    """Candidates with the same costs, all by different names.

    Args:
        candidates: in any order.
        lower_is_better: whether a lower score is better (an error); else a higher one (an accuracy).
        original: the costs of the network that all of them were made from; budgets may be shares of them.

    Raises:
        UsageError: two candidates of one name, other costs than the original's, or numbers that are not finite.

    >>> from compressor.budget import parse_budgets
    >>> sizes = {"s": (20.0, 0.81), "m": (45.0, 0.88), "odd": (60.0, 0.85), "l": (90.0, 0.91)}
    >>> front = Front([Candidate(n, {"flops": f}, a, n) for n, (f, a) in sizes.items()], {"flops": 100.0})
    >>> [candidate.name for candidate in front.pareto()]
    ['s', 'm', 'l']
    >>> front.best(parse_budgets({"flops": "50%"})).name
    'm'
    """

    def __init__(
        self, candidates: Iterable[Candidate[T]], original: Mapping[str, float], *, lower_is_better: bool = False
    ) -> None:
        self.candidates: tuple[Candidate[T], ...] = tuple(candidates)
        self.original, self.lower_is_better = dict(original), lower_is_better
        names = [candidate.name for candidate in self.candidates]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"Two candidates are called {twice!r}; each needs a name of its own.")
        for candidate in self.candidates:
            if set(candidate.costs) != set(self.original):
                raise UsageError(
                    f"{candidate.name} has the costs {', '.join(sorted(candidate.costs)) or 'none'}; expected those of "
                    f"the original, {', '.join(sorted(self.original))}."
                )
            for value in (candidate.score, *candidate.costs.values()):
                if value != value or value in (float("inf"), float("-inf")):
                    raise UsageError(f"{candidate.name} has a score or a cost that is not finite ({value}).")

    def __len__(self) -> int:
        return len(self.candidates)

    def __iter__(self) -> Iterator[Candidate[T]]:
        return iter(self.candidates)

    def best(self, budgets: Sequence[Budget] = ()) -> Candidate[T]:
        """The best candidate within all budgets; of equally good ones the cheapest.

        Raises:
            UsageError: a budget of a cost that the front does not know.
            UnreachableBudgetError: no candidate is within them, with the lowest cost there is.
        """
        limits = {}
        for budget in budgets:
            if budget.cost not in self.original:
                raise UsageError(f"The front knows {', '.join(sorted(self.original))}, and no {budget.cost}.")
            limits[budget.cost] = budget.limit(self.original[budget.cost])
        within = [c for c in self.candidates if all(c.costs[cost] <= limit for cost, limit in limits.items())]
        if not within:
            least = {cost: min((c.costs[cost] for c in self.candidates), default=float("inf")) for cost in limits}
            said = ", ".join(f"{cost} {value:.4g} of at most {limits[cost]:.4g}" for cost, value in least.items())
            raise UnreachableBudgetError(f"No candidate is within the budgets; the least there is: {said}.")
        return min(within, key=lambda c: (-self._quality(c), sum(self._share(c, cost) for cost in c.costs)))

    def pareto(self, costs: Sequence[str] | None = None) -> Front[T]:
        """Those that no other beats: none is as good and cheaper, or better and as cheap, in ``costs`` (default all).

        Cheapest first; of candidates that are alike the first.
        """
        looked = list(self.original) if costs is None else list(costs)
        kept: list[Candidate[T]] = []
        for candidate in self.candidates:
            mine = self._point(candidate, looked)
            others = [self._point(other, looked) for other in self.candidates if other is not candidate]
            beaten = any(_no_worse(other, mine) and other != mine for other in others)
            if not beaten and mine not in [self._point(other, looked) for other in kept]:
                kept.append(candidate)
        kept.sort(key=lambda candidate: [candidate.costs[cost] for cost in looked])
        return Front(kept, self.original, lower_is_better=self.lower_is_better)

    def to_json(self, write: Callable[[T], Any]) -> dict[str, Any]:
        """The front as JSON values; ``write`` turns what was found into some."""
        rows = [{"name": c.name, "costs": dict(c.costs), "score": c.score, "found": write(c.found)} for c in self]
        return {"schema_version": 1, "original": self.original, "lower_is_better": self.lower_is_better, "rows": rows}

    @classmethod
    def from_json(cls, document: Any, read: Callable[[Any], T]) -> Front[T]:
        """Read what ``to_json`` wrote. Raises ``UsageError`` with the place of what is wrong."""
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version != 1:
            raise UsageError(f"The front has schema version {version!r}; this program reads 1.")
        found = decode(_Document, document, "front")
        rows = [Candidate(row.name, row.costs, row.score, read(row.found)) for row in found.rows]
        return cls(rows, found.original, lower_is_better=found.lower_is_better)

    def _quality(self, candidate: Candidate[T]) -> float:
        return -candidate.score if self.lower_is_better else candidate.score

    def _share(self, candidate: Candidate[T], cost: str) -> float:
        return candidate.costs[cost] / self.original[cost] if self.original[cost] else 0.0

    def _point(self, candidate: Candidate[T], costs: Sequence[str]) -> tuple[float, ...]:
        return (-self._quality(candidate), *(candidate.costs[cost] for cost in costs))


def _no_worse(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))


@dataclass(frozen=True)
class _Row:
    name: str
    costs: dict[str, float]
    score: float
    found: Any


@dataclass(frozen=True)
class _Document:
    original: dict[str, float]
    lower_is_better: bool
    rows: list[_Row] = field(default_factory=list)
