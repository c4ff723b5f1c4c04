"""The best alternatives under several budgets, against every assignment there is."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.costs import CostTerm, Sizes
from compressor.errors import UnreachableBudgetError
from compressor.graph import Graph, capture
from compressor.graph.choices import CHOICES, add_choices
from compressor.search.constraints.best_alternatives import best_alternatives, better_alternatives
from compressor.search.constraints.constraint import Constraint
from compressor.search.constraints.projector import Projector
from compressor.search.constraints.together import ways_together
from compressor.search.constraints.wanted import Wanted
from tests.toys.kernels import KERNELS

DECIDES = frozenset({"taps"})


class Priced(CostTerm):
    """Every alternative has a price; what else there is costs one coin."""

    name, unit = "price", "coins"

    def __init__(self, graph: Graph, prices: Any) -> None:
        super().__init__(graph)
        self.prices = torch.from_numpy(prices)

    def __call__(self, sizes: Sizes) -> Tensor:
        return 1.0 + (sizes.units * self.prices).sum()


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> Graph:
    monkeypatch.setitem(CHOICES._known(), "taps", "tests.toys.kernels:find")
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(5))).eval()
    found = capture(model, torch.randn(1, 3, 8, 8))
    add_choices(model, found, ["taps"])
    return found


def case(graph: Graph, seed: int, n_budgets: int) -> tuple[list[Constraint], Any]:
    """Budgets and scores at random; better alternatives cost more as a rule."""
    random = np.random.default_rng(seed)
    worth = random.random(graph.n_units)
    budgets = []
    for _ in range(n_budgets):
        prices = np.zeros(graph.n_units)
        for choice in graph.choices:
            own = 0.5 * worth[choice.units] + random.random(len(choice))
            prices[choice.units] = own
        term = Priced(graph, prices)
        rows = [prices[choice.units] for choice in graph.choices]
        low, high = 1 + sum(row.min() for row in rows), 1 + sum(row.max() for row in rows)
        budgets.append(Constraint(term, low + (high - low) * random.uniform(0.05 if n_budgets == 1 else 0.2, 0.6)))
    return budgets, worth


def assignments(graph: Graph) -> list[Any]:
    found = []
    for picked in itertools.product(range(len(KERNELS)), repeat=len(graph.choices)):
        units = graph.all_units()
        for choice, index in zip(graph.choices, picked, strict=True):
            units[choice.units] = np.arange(len(choice)) == index
        found.append(units)
    return found


def test_it_is_close_to_the_best_and_never_over(graph: Graph) -> None:
    everything = np.array(assignments(graph))
    shares = []
    for seed, n_budgets in itertools.product(range(25), (1, 2, 3)):
        budgets, worth = case(graph, seed, n_budgets)
        projector = Projector(graph, budgets, decides=DECIDES)
        costs = 1.0 + everything[:, :-1] @ np.array([b.term.prices.numpy() for b in budgets]).T  # type: ignore[attr-defined]
        fits = (costs <= projector.limits).all(axis=1)
        found = best_alternatives(projector, graph.all_units(), worth)
        assert [int(found[choice.units].sum()) for choice in graph.choices] == [1] * 5
        assert projector.fits(found) == fits.any(), (seed, n_budgets)
        if not fits.any():
            with pytest.raises(UnreachableBudgetError):
                projector.check_reachable()
            continue
        projector.check_reachable()
        totals = everything[fits][:, :-1] @ worth
        own = float(found[:-1] @ worth)
        shares.append((own - totals.min()) / max(totals.max() - totals.min(), 1e-12))
        assert np.array_equal(found, best_alternatives(projector, graph.all_units(), worth))
        again = better_alternatives(projector, found, worth)
        assert float(again[:-1] @ worth) == pytest.approx(own), "nothing is left to gain by one exchange or two"
    assert np.mean(shares) > 0.98
    assert min(shares) > 0.8


def test_with_room_enough_all_are_the_best(graph: Graph) -> None:
    _, worth = case(graph, 0, 1)
    projector = Projector(graph, [Constraint(Priced(graph, np.ones(graph.n_units)), 1e9)], decides=DECIDES)
    found = best_alternatives(projector, graph.all_units(), worth)
    for choice in graph.choices:
        assert choice.chosen(found) == int(np.argmax(worth[choice.units]))


def test_what_is_held_or_chosen_by_hand_stays(graph: Graph) -> None:
    budgets, worth = case(graph, 3, 1)
    first, second = graph.choices[:2]
    hand = Wanted(chosen={second.index: second.units[2:3]})
    projector = Projector(graph, budgets, whole={first.name}, decides=DECIDES, wanted=hand)
    for seed in range(5):
        scores = np.random.default_rng(seed).random(graph.n_units)
        found = best_alternatives(projector, graph.all_units(), scores)
        assert first.chosen(found) == first.current
        assert second.chosen(found) == 2
    others = Projector(graph, budgets, decides=frozenset({"width"}))
    assert np.array_equal(best_alternatives(others, graph.all_units(), worth), graph.all_units())


def test_budgets_that_only_go_one_by_one_are_named_so(graph: Graph) -> None:
    up, down = np.zeros(graph.n_units), np.zeros(graph.n_units)
    for choice in graph.choices:
        up[choice.units], down[choice.units] = np.arange(5), np.arange(5)[::-1]
    both = [Constraint(Priced(graph, prices), 6.0) for prices in (up, down)]
    with pytest.raises(UnreachableBudgetError, match="under the other budgets"):
        Projector(graph, both, decides=DECIDES).check_reachable()
    with pytest.raises(UnreachableBudgetError, match="is 1 coins"):
        Projector(graph, [Constraint(both[0].term, 0.5), both[1]], decides=DECIDES).check_reachable()
    enough = [Constraint(Priced(graph, prices), 11.0) for prices in (up, down)]
    Projector(graph, enough, decides=DECIDES).check_reachable()


def test_ways_are_found_wherever_there_are_some() -> None:
    random = np.random.default_rng(1)
    for _ in range(40):
        sets = [random.random((4, 2)) for _ in range(4)]
        room = random.uniform(0.8, 2.2, 2)
        every = [sum(s[i] for s, i in zip(sets, picked, strict=True))
                 for picked in itertools.product(range(4), repeat=4)]  # fmt: skip
        ways = ways_together(room, sets)
        assert bool(len(ways)) == any((cost <= room).all() for cost in every)
        for way in ways:
            assert (sum(s[i] for s, i in zip(sets, way, strict=True)) <= room + 1e-9).all()
