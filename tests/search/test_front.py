"""Many networks from one search: the best within budgets, and those that no other beats."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.budget import parse_budgets
from compressor.errors import UnreachableBudgetError, UsageError
from compressor.search.front import Candidate, Front

ORIGINAL = {"flops": 100.0, "params": 50.0}
ROWS = st.lists(st.tuples(st.integers(1, 100), st.integers(1, 50), st.integers(0, 20)), min_size=1, max_size=25)


def front(rows: list[tuple[float, float, float]], *, lower: bool = False) -> Front[int]:
    candidates = [Candidate(f"n{i}", {"flops": a, "params": b}, s, i) for i, (a, b, s) in enumerate(rows)]
    return Front(candidates, ORIGINAL, lower_is_better=lower)


@given(ROWS, st.booleans())
def test_pareto_keeps_what_nobody_beats_and_something_beats_the_rest(
    rows: list[tuple[int, int, int]], lower: bool
) -> None:
    whole = front([tuple(map(float, row)) for row in rows], lower=lower)  # type: ignore[misc]
    kept = whole.pareto()
    sign = -1 if lower else 1

    def beats(one: Candidate[int], other: Candidate[int]) -> bool:
        mine = (sign * (one.score or 0.0), -one.costs["flops"], -one.costs["params"])
        its = (sign * (other.score or 0.0), -other.costs["flops"], -other.costs["params"])
        return all(a >= b for a, b in zip(mine, its, strict=True)) and mine != its

    assert not any(beats(one, other) for one in whole for other in kept)
    names = {candidate.name for candidate in kept}
    points = {(c.score, *c.costs.values()) for c in kept}
    for candidate in whole:
        alike = (candidate.score, *candidate.costs.values()) in points
        assert candidate.name in names or alike or any(beats(one, candidate) for one in kept)
    assert [c.costs["flops"] for c in kept] == sorted(c.costs["flops"] for c in kept)


@given(ROWS, st.integers(1, 100), st.booleans())
def test_the_best_is_within_the_budget_and_none_within_it_is_better(
    rows: list[tuple[int, int, int]], share: int, lower: bool
) -> None:
    whole = front([tuple(map(float, row)) for row in rows], lower=lower)  # type: ignore[misc]
    budgets = parse_budgets({"flops": f"{share}%"})
    within = [c for c in whole if c.costs["flops"] <= budgets[0].limit(ORIGINAL["flops"])]
    if not within:
        with pytest.raises(UnreachableBudgetError, match="flops goes from"):
            whole.best(budgets)
        return
    best = whole.best(budgets)
    assert best in within
    assert best.score == (min if lower else max)(c.score for c in within if c.score is not None)


@given(ROWS, st.booleans())
def test_rows_say_who_beats_whom(rows: list[tuple[int, int, int]], lower: bool) -> None:
    whole = front([tuple(map(float, row)) for row in rows], lower=lower)  # type: ignore[misc]
    by_name = {candidate.name: candidate for candidate in whole}
    best = {candidate.name for candidate in whole.pareto()}
    for row in whole.points:
        if row["dominated_by"] is None:
            mine = by_name[row["name"]]
            assert any((each.score, each.costs) == (mine.score, mine.costs) for each in whole if each.name in best)
        else:
            other, mine = by_name[row["dominated_by"]], by_name[row["name"]]
            assert all(other.costs[cost] <= mine.costs[cost] for cost in ORIGINAL)
            assert other.name in best or whole.beaten_by(other) is None


def test_without_scores_what_keeps_more_is_better_and_nothing_is_beaten_for_being_cheap() -> None:
    rows = {"s": 20.0, "m": 40.0, "l": 80.0}
    whole = Front([Candidate(n, {"flops": f}, None, n, {"seed": 1}) for n, f in rows.items()], {"flops": 100.0})
    assert [row["dominated_by"] for row in whole.points] == [None, None, None]
    assert whole.points[0]["seed"] == 1
    assert whole.best(parse_budgets({"flops": "50%"})).name == "m"
    with pytest.raises(UsageError, match="rows alone"):
        whole.pick({"flops": "50%"})
    made = Front(whole, whole.original, make=lambda candidate, budgets: (candidate.name, budgets[0].text))
    assert made.pick({"flops": "50%"}) == ("m", "50%")
    with pytest.raises(UsageError, match="has no score"):
        Front([*whole, Candidate("x", {"flops": 1.0}, 0.5, "x")], whole.original)


def test_json_and_back() -> None:
    whole = front([(10, 20, 0.5), (30, 10, 0.75)])
    again = Front.from_json(json.loads(json.dumps(whole.to_json(lambda found: found))), int)
    assert again.candidates == whole.candidates
    assert again.original == whole.original


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match="'a'"):
        Front([Candidate("a", ORIGINAL, 1.0, 0), Candidate("a", ORIGINAL, 1.0, 0)], ORIGINAL)
    with pytest.raises(UsageError, match="expected those of the original"):
        Front([Candidate("a", {"flops": 1.0}, 1.0, 0)], ORIGINAL)
    with pytest.raises(UsageError, match="not finite"):
        Front([Candidate("a", ORIGINAL, math.nan, 0)], ORIGINAL)
    with pytest.raises(UsageError, match="no memory"):
        front([(1, 1, 1)]).best(parse_budgets({"memory": "5%"}))
    with pytest.raises(UsageError, match="schema version 9"):
        Front.from_json({"schema_version": 9}, int)
    with pytest.raises(UsageError, match=r"front\.rows\[0\]\.score"):
        Front.from_json({**front([]).to_json(int), "rows": [{"name": "a", "costs": {}, "score": "x", "found": 1}]}, int)
