"""Where to pool: budgets hold, what is searched in computes what comes out, and a killed search ends the same."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import compressor
from compressor.data import from_loaders
from compressor.errors import TrainingError, UnreachableBudgetError, UnsupportedModelError, UsageError
from compressor.graph import capture
from compressor.graph.choices import add_choices
from compressor.pipeline.events import Message, TrainingBegan
from compressor.pipeline.rounds import round_settings, run_rounds
from compressor.report import Report, render_html
from compressor.search.methods.pooling.config import METHOD, PoolingConfig
from compressor.search.methods.pooling.held_out import HeldOut
from compressor.search.methods.pooling.weight_sets import WeightSets, bytes_of_sets, memory_needed
from compressor.storage.job import Job
from compressor.testing import SearchMethodContract
from tests.search.staged import QUICK, X, data_of, search, staged


@pytest.mark.parametrize(
    "budgets", [{"flops": "100%"}, {"flops": "60%"}, {"flops": "300%", "memory": "100%"}, {"memory": "150%"}]
)
def test_budgets_hold_and_the_decision_is_edits_of_a_fresh_original(budgets: dict[str, str]) -> None:
    result = search(budgets)
    report = result.report
    assert all(budget.met for budget in report.budgets)
    assert report.verification is not None
    assert report.verification.passed
    fresh: Any = result.architecture.apply_(staged())
    fresh.load_state_dict(result.model.state_dict())
    assert torch.equal(fresh.eval()(X), result.model.eval()(X))
    limits = {budget.cost: budget.limit for budget in report.budgets}
    for each in report.ranking:  # what is over a budget was never drawn
        assert all(each.costs[name] <= limit * (1 + 1e-9) for name, limit in limits.items())
        assert each.costs["params"] == sum(p.numel() for p in staged().parameters())
    (taken,) = (each for each in report.ranking if each.chosen)
    assert taken == report.ranking[0]
    assert report.choices[0].after == taken.name
    reached = {cost.name: cost.reached for cost in report.costs}
    assert taken.costs["flops"] == pytest.approx(reached["flops"])
    assert taken.costs["memory"] == pytest.approx(reached["memory"])
    scores = [each.score for each in report.ranking]
    assert scores == sorted(scores, key=lambda score: -(score or 0.0))
    assert Report.from_json(report.to_json()) == report


def test_the_network_searched_in_is_the_rewritten_network() -> None:
    model = staged().double()
    x = X.double()
    graph = capture(model.eval(), x)
    add_choices(model, graph, ["pooling"])
    (choice,) = graph.choices
    sets = WeightSets(model, choice.alternatives, 3, free=None)
    with torch.no_grad():
        for each in sets.sets[1:]:
            for p in each.parameters():
                p.add_(0.1 * torch.randn_like(p))
    assert len(choice) == 11  # six layers, two reductions: ten configurations, and what there is
    for configuration in range(1, len(choice)):
        for weights in range(3):
            network, plain = sets.network(configuration, weights), sets.rewritten(configuration, weights)
            for module in plain.modules():
                if isinstance(module, nn.BatchNorm2d):  # of the batch, as in the search
                    module.running_mean = module.running_var = None
            with torch.no_grad():
                torch.testing.assert_close(network.eval()(x), plain.eval()(x), rtol=0, atol=1e-12)
            own = {p.data_ptr() for p in sets.sets[weights].parameters()}
            assert {p.data_ptr() for p in network.parameters()} == own


def test_a_step_moves_one_weight_set_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    from compressor.search.methods.pooling.learner import PoolingLearner

    usual = PoolingLearner.after_step

    def noting(self: Any, step: int, total: int) -> None:
        now = [torch.cat([p.detach().flatten() for p in each.parameters()]) for each in self.sets.sets]
        if hasattr(self, "seen"):
            moved.append(sum(not torch.equal(a, b) for a, b in zip(self.seen, now, strict=True)))
            assert not torch.equal(self.seen[self._drawn[1]], now[self._drawn[1]])
        self.seen = now
        usual(self, step, total)

    monkeypatch.setattr(PoolingLearner, "after_step", noting)
    search({"flops": "150%"}, mixtures=3)
    assert len(moved) > 3
    assert set(moved) == {1}


def test_a_killed_search_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(folder: Path) -> Any:
        training = {"finetune_epochs": 1, "batch_size": 8, "seed": 0}
        from compressor.budget import parse_budgets

        rounds = round_settings(
            "pooling", {"mixtures": 3}, epochs=3, budgets=parse_budgets({"flops": "150%"}), **training
        )
        with Job.open(folder, {"a": 1}) as job:
            return run_rounds(staged(), X, rounds, data=data_of(), job=job)[0]

    whole = run(tmp_path / "whole")
    usual, left = HeldOut.score, [9]

    def dying(self: HeldOut, network: nn.Module, step: int) -> float:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return usual(self, network, step)

    monkeypatch.setattr(HeldOut, "score", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts")
    again = run(tmp_path / "parts")
    assert again.architecture == whole.architecture
    assert again.decision.ranking == whole.decision.ranking
    for a, b in zip(again.compressed.state_dict().values(), whole.compressed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_budget_under_every_configuration_names_the_closest() -> None:
    with pytest.raises(UnreachableBudgetError, match=r"closest is \[1, 1, 4\].*--search pooling,figs"):
        search({"flops": "5%"})


def test_then_channels_are_removed_from_the_result() -> None:
    result = compressor.compress(
        staged(),
        X,
        {"flops": "40%"},
        data=data_of(),
        search="pooling,figs",
        options={"pooling": {"mixtures": 2}},
        training=QUICK,
    )
    assert result.report.budgets[0].met
    assert len(result.report.ranking) == 10 or all(
        each.costs["flops"] <= result.report.budgets[0].original * (1 + 1e-9) for each in result.report.ranking
    )
    kinds = [edit["edit"] for edit in result.architecture.to_json()["edits"]]
    assert "place_pooling" in kinds
    assert "slice" in kinds
    fresh: Any = result.architecture.apply_(staged())
    fresh.load_state_dict(result.model.state_dict())
    assert torch.equal(fresh.eval()(X), result.model.eval()(X))


def test_the_best_are_trained_on_before_one_is_taken() -> None:
    result = search({"flops": "200%"}, top_k=2, top_epochs=1)
    assert result.report.budgets[0].met
    assert result.report.ranking[0].chosen


def test_fresh_starts_retraining_from_the_weights_before() -> None:
    before = copy.deepcopy(staged().state_dict())
    training = compressor.Training(search_epochs=1, finetune_epochs=0, batch_size=8, tune="none")
    result = compressor.compress(
        staged(), X, {"flops": "150%"}, data=data_of(), search="pooling", options={"fresh": True}, training=training
    )
    for name, parameter in result.model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_many_configurations_are_thinned_with_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    result = search({"flops": "900%"}, evaluated=3)
    assert "10 configurations are searched; the 3 with the best" in capsys.readouterr().err
    scored = [each for each in result.report.ranking if each.score is not None]
    assert len(scored) == 3
    assert len(result.report.ranking) == 10


def test_weight_sets_beyond_the_memory_are_refused_with_what_fits() -> None:
    model = staged()
    graph = capture(model.eval(), X)
    add_choices(model, graph, ["pooling"])
    room = bytes_of_sets(model, 3) + 1.0
    assert len(WeightSets(model, graph.choices[0].alternatives, 3, free=room).sets) == 3
    with pytest.raises(UsageError, match="at most 3 fit"):
        WeightSets(model, graph.choices[0].alternatives, 4, free=room)


def test_memory_is_told_before_the_start() -> None:
    told: list[Any] = []
    compressor.compress(
        staged(),
        X,
        {"flops": "150%"},
        data=data_of(),
        search="pooling",
        options={"mixtures": 3},
        training=QUICK,
        listeners=[told.append],
    )
    said = [isinstance(event, Message) and "3 weight sets with gradients and momenta: " in event.text for event in told]
    assert said.index(True) < next(place for place, event in enumerate(told) if isinstance(event, TrainingBegan))
    model = staged()
    assert memory_needed(model, 1, None, offload=True).startswith("1 weight set with")
    assert memory_needed(model, 4, 2e9, offload=False).endswith("; 2 GB are free there.")
    on_a_gpu = memory_needed(nn.Linear(1000, 1000, device="meta"), 4, None, offload=True)
    assert "36.04 MB, of which 20.02 MB at a time on meta" in on_a_gpu, "weights, momenta, and gradients of one set"


def test_weight_sets_that_lie_elsewhere_end_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no GPU, moving is copying: whoever held on to the old tensors would show."""
    away: list[int] = []

    def copied(tensor: Tensor, where: torch.device) -> Tensor:
        away.append(tensor.numel())
        old = tensor.clone()
        tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor.zero_()
        return old

    plain = search({"flops": "150%"}, mixtures=3)
    monkeypatch.setattr("compressor.search.methods.pooling.shelf.moved", copied)
    moved = search({"flops": "150%"}, mixtures=3, offload=True)
    assert len(away) > 100
    assert moved.report.ranking == plain.report.ranking
    for a, b in zip(moved.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_report_draws_which_weights_trained_what() -> None:
    report = search({"flops": "150%"}, mixtures=3).report
    assert {row.name for row in report.weight_sets} == {each.name for each in report.ranking}
    for row in report.weight_sets:
        assert row.alternatives == ["set 1", "set 2", "set 3"]
        assert all(sum(weights) == pytest.approx(1.0, abs=1e-3) for weights in row.weights)
    assert "Weights that configurations shared" in render_html(report)
    assert not any("weight_sets" in entry for entry in report.history)
    assert "Weights that configurations shared" not in render_html(search({"flops": "150%"}, mixtures=1).report)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mixtures": 0}, "mixtures"),
        ({"temperature": "cosine"}, "linear, geometric"),
        ({"beta": 1.0}, "beta"),
        ({"validation": 0}, "validation"),
        ({"top_k": 0}, "top_k"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        PoolingConfig.from_options(options)


def test_a_network_without_stages_is_refused_with_the_reason() -> None:
    flat = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    model = nn.Sequential(flat, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    with pytest.raises(UnsupportedModelError, match="pools cannot be chosen"):
        search({"flops": "100%"}, model=model)


def test_nothing_is_ranked_on_weights_that_are_lost() -> None:
    data = data_of()
    bad = torch.randn(16, 3, 16, 16)
    bad[3] = float("nan")
    batches = DataLoader(TensorDataset(bad, torch.arange(16) % 4), batch_size=8)
    with pytest.raises(TrainingError, match=r"(?i)nan|finite"):
        compressor.compress(
            staged(),
            X,
            {"flops": "150%"},
            data=from_loaders(batches, data.val),
            search="pooling",
            training=QUICK,
        )


# ---- ranking


def test_the_same_seed_decides_the_same() -> None:
    first, second = (search({"flops": "120%"}) for _ in range(2))
    assert first.architecture == second.architecture
    assert first.report.ranking == second.report.ranking


def test_what_the_contract_says_of_options() -> None:
    contract = SearchMethodContract()
    contract.method = METHOD  # type: ignore[misc]  # its networks have no stages, so the rest of it stands above
    contract.test_it_is_registered_and_loads()
    contract.test_options_have_words_and_defaults_that_they_take()
