"""DASH: kernels are found, budgets hold, and what is searched in computes what comes out."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.costs import build
from compressor.errors import TrainingError, UnreachableBudgetError, UnsupportedModelError, UsageError
from compressor.graph import Graph, capture
from compressor.graph.choices import add_choices
from compressor.pipeline.chosen import with_choices
from compressor.search.constraints.constraint import Constraint
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dash.config import METHOD, DashConfig
from compressor.search.methods.dash.decision import affordable
from compressor.search.methods.dash.learner import DashLearner
from compressor.search.methods.dash.method import with_rates
from compressor.search.options import Method
from compressor.search.result import SearchResult
from compressor.testing import SearchMethodContract

QUICK = compressor.Training(search_epochs=1, finetune_epochs=0, batch_size=16)


class Staged(nn.Module):
    """Images or signals through a stem, a strided block with a shortcut, a depthwise convolution, and a head."""

    def __init__(self, axes: int = 2) -> None:
        super().__init__()
        conv, norm = (nn.Conv1d, nn.BatchNorm1d) if axes == 1 else (nn.Conv2d, nn.BatchNorm2d)
        self.stem, self.norm = conv(3, 8, 3, padding=1), norm(8)
        self.one, self.two = conv(8, 12, 3, 2, padding=1), conv(12, 12, 5, padding=2)
        self.shortcut = conv(8, 12, 1, 2)
        self.depthwise, self.valid = conv(12, 12, 3, padding=1, groups=12), conv(12, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = self.shortcut(x) + self.two(self.one(x).relu())
        x = self.valid(self.depthwise(x).relu())
        out: Tensor = self.head(x.flatten(2).mean(2))
        return out


def staged(axes: int = 2) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Staged(axes), torch.randn(2, 3, *(16,) * axes)


def learner(
    model: nn.Module, x: Tensor, shares: dict[str, float], seed: int = 0, **options: Any
) -> tuple[Graph, DashLearner]:
    config = DashConfig(**options)
    graph = capture(model.eval(), x)
    add_choices(model, graph, ["convolution"], config.choice_options((), ()))
    terms = {cost: build(cost, graph) for cost in shares}
    constraints = [Constraint(terms[cost], share * terms[cost].original) for cost, share in shares.items()]
    projector = Projector(graph, constraints, decides=config.decides, depth=False)
    return graph, DashLearner(model, projector, with_rates(config, "sgd", dense=False), seed=seed)


def batches(x: Tensor, count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(16, *x.shape[1:], generator=generator), torch.randint(0, 4, (16,), generator=generator))
        for _ in range(count)
    ]


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("form", ["results", "weights", "fft"])
def test_the_network_searched_in_with_hard_weights_is_the_network_found(axes: int, form: str) -> None:
    model, x = staged(axes)
    model = model.double()
    graph, found = learner(model, x.double(), {"flops": 9.0}, form=form)
    random = np.random.default_rng(0)
    trained, decided = found.supernet.weights(), []
    for _ in range(4):
        units, weights = graph.all_units(), []
        for choice in graph.choices:
            pick = int(random.integers(len(choice)))
            units[choice.units] = np.arange(len(choice)) == pick
            weights.append(torch.eye(len(choice), dtype=torch.float64)[pick])
        found.supernet.give(weights)
        with torch.no_grad():
            searched = model(x.double())
        decided.append((SearchResult(units, torch.zeros(graph.n_units), [], weights=trained), searched))
    found.supernet.restore_()
    for decision, searched in decided:
        chosen = with_choices(model, graph, decision, lambda m: capture(m, x.double()))
        with torch.no_grad():
            assert torch.allclose(chosen.model.eval()(x.double()), searched, rtol=0, atol=1e-10)


def test_a_trained_network_starts_as_the_network_it_is() -> None:
    model, x = staged()
    before = copy.deepcopy(model).eval()
    graph, found = learner(model, x, {"flops": 9.0}, dilations=(1,), kernel_sizes=(5, 7))
    weights = [torch.full((len(choice),), 1 / len(choice)) for choice in graph.choices]
    found.supernet.give(weights)
    with torch.no_grad():  # kernels of one dilation that are zero around the old one compute what it does
        assert torch.allclose(model.eval()(x), before(x), atol=1e-5)


def test_only_what_the_budget_leaves_room_for_takes_part() -> None:
    model, x = staged()
    config = DashConfig()
    graph = capture(model.eval(), x)
    add_choices(model, graph, ["convolution"], config.choice_options((), ()))
    term = build("flops", graph)
    projector = Projector(graph, [Constraint(term, term.original)], decides=config.decides, depth=False)
    open_ = affordable(projector)
    for choice, own in zip(graph.choices, open_, strict=True):
        for index in range(len(choice)):
            units = projector.cheapest(projector.start)
            units[choice.units] = np.arange(len(choice)) == index
            assert own[index] == projector.fits(units), (choice.name, choice.alternatives[index].name)
    assert not all(own.all() for own in open_)


@pytest.mark.parametrize(
    "budgets",
    [{"flops": "100%"}, {"params": "150%"}, {"flops": "300%", "params": "120%", "memory": "100%"}, {"flops": "90%"}],
)
def test_budgets_hold_and_the_decision_is_an_edit_of_a_fresh_original(budgets: dict[str, str]) -> None:
    model, x = staged()
    data = (batches(x), batches(x, 1))
    result = compressor.compress(model, x, budgets, data=data, search="dash", training=QUICK)
    assert all(budget.met for budget in result.report.budgets)
    assert result.report.verification is not None
    assert result.report.verification.passed
    fresh = result.architecture.apply_(staged()[0])
    for name, kernel in result.report.operators.items():
        module: Any = dict(fresh.named_modules())[name]
        assert (list(module.kernel_size), list(module.dilation)) == (kernel.kernel_size, kernel.dilation)
    assert list(result.report.operators) == ["stem", "one", "two", "depthwise", "valid"]
    fresh.load_state_dict(result.model.state_dict())
    assert torch.equal(fresh.eval()(x), result.model(x))
    again = compressor.compress(model, x, budgets, data=data, search="dash", training=QUICK)
    assert again.architecture == result.architecture
    assert [type(m) for m in result.model.modules()] == [type(m) for m in model.modules()]


def test_probabilities_are_noted_for_the_report() -> None:
    model, x = staged()
    data = (batches(x), batches(x, 1))
    report = compressor.compress(model, x, {"flops": "200%"}, data=data, search="dash", training=QUICK).report
    assert [each.name for each in report.probabilities] == list(report.operators)
    for each in report.probabilities:
        assert len(each.weights) == len(each.steps) > 0
        assert all(sum(row) == pytest.approx(1, abs=1e-3) for row in each.weights)
    assert type(report).from_json(report.to_json()) == report


def test_the_weights_of_the_kernels_found_are_those_that_the_search_trained() -> None:
    model, x = staged()
    result = compressor.compress(
        model, x, {"flops": "300%"}, data=(batches(x), batches(x, 1)), search="dash", training=QUICK
    )
    fresh = result.architecture.apply_(copy.deepcopy(model))
    assert not torch.equal(fresh.head.weight, result.model.head.weight)  # type: ignore[union-attr,arg-type]
    kept = compressor.compress(
        model,
        x,
        {"flops": "300%"},
        data=(batches(x), batches(x, 1)),
        search="dash",
        options={"fresh": True},
        training=QUICK,
    )
    assert kept.architecture == result.architecture
    fresh = kept.architecture.apply_(copy.deepcopy(model))
    assert torch.equal(fresh.head.weight, kept.model.head.weight)  # type: ignore[union-attr,arg-type]


def test_the_budgets_pull_is_for_the_search_alone() -> None:
    model, x = staged()
    graph, found = learner(model, x, {"flops": 2.0}, kernel_sizes=(3, 5, 7), dilations=(1,), doubt=0.0)
    largest = torch.cat([torch.arange(len(choice)) == len(choice) - 1 for choice in graph.choices])
    with torch.no_grad():
        found.categorical.logits.copy_(torch.where(largest, 0.3, 0.0))
        found.pull.copy_(torch.where(largest, -50.0, 0.0))
    asked = found.categorical.probabilities(found.categorical.logits + found.pull).detach()
    assert float(asked[largest].max()) < 1e-6
    units = found.decide().units
    exact = found.projector.costs(units)[0]
    assert exact <= found.projector.constraints[0].limit
    taken = [choice.chosen(units) == len(choice) - 1 for choice in graph.choices]
    assert any(taken)
    for choice, large in zip(graph.choices, taken, strict=True):
        if not large:  # with this one it would be over the budget
            more = units.copy()
            more[choice.units] = np.arange(len(choice)) == len(choice) - 1
            assert not found.projector.fits(more)
    found.supernet.restore_()


def test_each_logit_descends_what_it_is_about() -> None:
    model, x = staged()
    _, found = learner(model, x, {"flops": 1.2}, kernel_sizes=(3, 5), dilations=(1,))
    found.forward(model.train(), x).square().mean().backward()
    assert found.pull.grad is None
    of_task = found.categorical.logits.grad
    assert of_task is not None
    assert bool(of_task.abs().sum() > 0)
    found.categorical.logits.grad = None
    found.multipliers.values = [1.0]  # as after some steps above the budget
    penalty = found.penalty()
    assert penalty is not None
    penalty.backward()
    assert found.categorical.logits.grad is None
    assert found.pull.grad is not None
    assert bool(found.pull.grad.abs().sum() > 0)
    found.supernet.restore_()


def test_nothing_is_decided_on_architecture_weights_that_are_lost() -> None:
    model, x = staged()
    _, found = learner(model, x, {"flops": 2.0})
    with torch.no_grad():
        found.categorical.logits[3] = float("nan")
    with pytest.raises(TrainingError, match="architecture weights"):
        found.decide()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kernel_sizes": (3, 4)}, "different odd numbers"),
        ({"kernel_sizes": ()}, "one or more"),
        ({"kernel_sizes": (3, 3)}, "different"),
        ({"kernel_sizes": (-3,)}, "from 1"),
        ({"dilations": (0,)}, "from 1"),
        ({"dilations": (1, 1)}, "different"),
        ({"dilations": "1,x"}, "whole numbers"),
        ({"dilations": (1, 40)}, "reach beyond the input"),
        ({"form": "quick"}, "results"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    model, x = staged()
    with pytest.raises(UsageError, match=said):
        compressor.compress(model, x, {"flops": "100%"}, data=(batches(x),), search="dash", options=options)


def test_a_network_without_a_choice_is_refused_with_the_reasons() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 4))
    x = torch.randn(2, 3, 8, 8)
    with pytest.raises(UnsupportedModelError, match="0: a 1x1 convolution"):
        compressor.compress(model, x, {"flops": "100%"}, data=(batches(x),), search="dash")


def test_budgets_below_the_smallest_kernels_are_refused() -> None:
    model, x = staged()
    with pytest.raises(UnreachableBudgetError, match=r"smallest.*--search NAME,figs"):
        compressor.compress(model, x, {"flops": "20%"}, data=(batches(x),), search="dash")


class TestContract(SearchMethodContract):
    method: ClassVar[Method] = METHOD
    networks: ClassVar[Any] = ("plain", "residual", "separable")
    budgets: ClassVar[Any] = ({"flops": "100%"}, {"params": "200%", "flops": "150%"})
