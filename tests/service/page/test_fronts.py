"""The page picks from a front as the job of kind pick does."""

from __future__ import annotations

import random
from typing import Any

import pytest

from compressor.budget import parse_budgets
from compressor.errors import UnreachableBudgetError, UsageError
from compressor.search.front import Candidate, Front
from compressor.service.page.fronts import FrontView, read_front


def document(front: Front[str], **more: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "kind": "sweep",
        "model": "m",
        "metric": "top-1 accuracy",
        "before": 0.9,
        "units": {"flops": "macs", "params": "params"},
        "finished": True,
        "searches": [],
        "points": front.points,
        "fronts": [{"target": None, **front.to_json(lambda name: name)}],
        **more,
    }


def random_front(rng: random.Random) -> Front[str]:
    scored, lower = rng.random() < 0.7, rng.random() < 0.5
    candidates = [
        Candidate(
            f"p{n}",
            {"flops": float(rng.randrange(1, 20)), "params": float(rng.randrange(1, 20))},
            rng.randrange(5) / 4 if scored else None,
            f"p{n}",
        )
        for n in range(rng.randrange(1, 9))
    ]
    return Front(candidates, {"flops": 20.0, "params": 20.0}, lower_is_better=lower, compared=["flops"])


@pytest.mark.parametrize("seed", range(60))
def test_the_same_point_is_picked_as_by_the_job(seed: int) -> None:
    rng = random.Random(seed)
    front = random_front(rng)
    (view,) = read_front(document(front))
    for _ in range(10):
        budgets = parse_budgets({"flops": f"{rng.randrange(1, 101)}%", "params": str(rng.randrange(1, 21))})
        try:
            wanted = front.best(budgets).name
        except UnreachableBudgetError:
            with pytest.raises(UnreachableBudgetError):
                view.best(budgets)
        else:
            assert view.best(budgets).name == wanted


def test_points_are_sorted_by_cost_and_know_who_beats_them() -> None:
    rows = {"big": (10.0, 0.9), "beaten": (8.0, 0.5), "small": (4.0, 0.6)}
    front = Front([Candidate(n, {"flops": c}, s, n) for n, (c, s) in rows.items()], {"flops": 20.0})
    (view,) = read_front(document(front))
    assert [point.name for point in view.points] == ["small", "beaten", "big"]
    assert [point.beaten_by for point in view.points] == [None, "small", None]
    assert [point.folder for point in view.points] == ["small", "beaten", "big"]


def test_the_networks_of_a_search_are_a_front_too() -> None:
    front = Front([Candidate("n1", {"flops": 4.0}, 0.6, "n1")], {"flops": 20.0})
    networks = {
        "kind": "networks",
        "front": front.to_json(lambda name: 0),
        "units": {"flops": "macs"},
        "scores": {"metric": "top-1 accuracy", "before": 0.8},
        "model": "m",
    }
    (view,) = read_front(networks)
    assert (view.points[0].name, view.points[0].folder, view.before) == ("n1", None, 0.8)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        "front",
        {},
        {"kind": "other"},
        {"kind": "sweep"},
        {"kind": "sweep", "metric": "", "fronts": [{}]},
        {"kind": "sweep", "metric": "", "fronts": [{"original": {"flops": "x"}, "rows": []}]},
        {
            "kind": "sweep",
            "metric": "",
            "units": {},
            "fronts": [
                {
                    "original": {"flops": 1},
                    "lower_is_better": False,
                    "rows": [{"name": "a", "costs": {"flops": float("nan")}, "score": 1, "found": "a"}],
                }
            ],
        },
    ],
)
def test_what_is_no_front_is_refused_with_a_line(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"front\.json"):
        read_front(wrong)


def test_a_budget_of_a_cost_that_is_not_known() -> None:
    front = Front([Candidate("a", {"flops": 4.0}, 0.6, "a")], {"flops": 20.0})
    view: FrontView = read_front(document(front))[0]
    with pytest.raises(UsageError, match="flops"):
        view.best(parse_budgets({"memory": "50%"}))


@pytest.mark.parametrize(("trained", "budget", "best"), [(0.9, "50%", "p1"), (0.6, "50%", "n2"), (0.9, "20%", "n1")])
def test_networks_of_the_only_search_stand_beside_the_points(trained: float, budget: str, best: str) -> None:
    """As in the job: the better one, and of those that score alike the network of the search."""
    left = [
        Candidate("n1", {"flops": 4.0, "memory": 1.0}, 0.5, 0),
        Candidate("n2", {"flops": 8.0, "memory": 2.0}, 0.6, 1),
    ]
    networks = {
        "kind": "networks",
        "front": Front(left, {"flops": 20.0, "memory": 9.0}, compared=["flops"]).to_json(lambda number: number),
        "units": {"flops": "macs"},
        "scores": {"metric": "top-1 accuracy", "before": 0.8},
    }
    front = Front([Candidate("p1", {"flops": 8.0}, trained, "p1")], {"flops": 20.0})
    (view,) = read_front(document(front, searches=["supernet"]))
    both = view.beside(read_front(networks)[0])
    assert both.best(parse_budgets({"flops": budget})).name == best
    assert {point.name: point.folder for point in both.points} == {"n1": None, "n2": None, "p1": "p1"}
    assert both.points[1].beaten_by == ("p1" if trained > 0.6 else None)
    other = Front([Candidate("n1", {"memory": 4.0}, 0.6, 0)], {"memory": 20.0}).to_json(lambda number: number)
    assert view.beside(read_front({**networks, "front": other})[0]) == view, "nobody knows what it costs"
