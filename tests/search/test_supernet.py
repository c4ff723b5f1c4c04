"""One training for many budgets: every budget holds, points are slices of the supernet, and a kill changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.budget import parse_budgets
from compressor.errors import TrainingError, UnreachableBudgetError, UsageError
from compressor.graph import Graph
from compressor.pipeline.rounds import round_settings, run_rounds
from compressor.pipeline.stages import Pipeline
from compressor.search.methods.supernet.config import METHOD, SupernetConfig
from compressor.search.methods.supernet.decision import Notes
from compressor.search.methods.supernet.evolution import Evolution, Scored, hypervolume, unbeaten
from compressor.search.methods.supernet.learner import SupernetLearner, policy_lr
from compressor.search.methods.supernet.scoring import Scorer
from compressor.search.methods.supernet.space import Space
from compressor.search.training.subnets import subnet
from compressor.storage.job import Job
from compressor.testing import SearchMethodContract
from compressor.train import Hooks, TrainConfig, Trainer
from tests.search.staged import QUICK, X, data_of, staged
from tests.search.test_supernet_space import toy_space

SMALL = {"population": 8, "generations": 1, "scored_on": 16, "recalibration": 1}


class TestContract(SearchMethodContract):
    method = METHOD
    options = SMALL


def run(budgets: dict[str, str], *, job: Job | None = None, epochs: int = 2, **options: Any) -> Pipeline:
    rounds = round_settings(
        "supernet",
        {**SMALL, **options},
        epochs=epochs,
        budgets=parse_budgets(budgets),
        finetune_epochs=0,
        batch_size=8,
        seed=0,
    )
    return run_rounds(staged(), X, rounds, data=data_of(), job=job)[0]


@pytest.fixture(scope="module")
def searched() -> Pipeline:
    return run({"flops": "60%", "params": "80%"}, lowest="flops=10%", population=16, generations=2)


def test_every_point_is_within_the_budgets_and_no_other_beats_it(searched: Pipeline) -> None:
    points, limits = searched.decision.points, {c.name: c.limit for c in searched.problem.constraints}
    assert len(points) > 1
    assert len(searched.decision.evaluated) >= len(points)
    for point in points:
        assert all(point.costs[name] <= limit for name, limit in limits.items())
        assert set(point.costs) == {"flops", "params", "memory"}
        beaten = [
            other
            for other in points
            if other is not point
            and other.score >= point.score
            and all(other.costs[name] <= point.costs[name] for name in limits)
        ]
        assert not beaten
    best = max(points, key=lambda point: point.score)
    assert np.array_equal(searched.decision.units, best.units)


def test_a_point_is_its_slice_of_the_supernet_in_float64(searched: Pipeline) -> None:
    graph: Graph = searched.graph
    for point in searched.decision.points:
        alone = subnet(searched.searched, graph, point.units, point.gates)
        own = dict(alone.named_buffers())
        assert point.statistics
        for name, value in point.statistics.items():
            assert own[name].shape == value.shape
        decision = type(searched.decision)(point.units, searched.decision.priority, [], point.gates)
        _, trimmed = searched.problem.trim(searched.searched, decision)
        a, b = (m.double().eval()(X.double()) for m in (alone, trimmed.model))
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_points_come_back_from_what_is_stored(searched: Pipeline) -> None:
    decision = searched.decision
    found = type(decision).stored(decision.noted(), decision.tensors(searched.graph))
    assert [point.row() for point in found.points] == [point.row() for point in decision.points]
    for a, b in zip(found.points, decision.points, strict=True):
        assert np.array_equal(a.units, b.units)
        assert np.array_equal(a.gates, b.gates)
        assert all(torch.equal(a.statistics[name], b.statistics[name]) for name in b.statistics)


def test_policies_are_in_the_history(searched: Pipeline) -> None:
    rows = [entry["policies"] for entry in searched.decision.history]
    for row in rows:
        assert set(row) == {"max", "max_std", "min", "min_std"}
        assert set(row["max"]) == {"width", "depth"}
        assert all(row["max"][kind] > row["min"][kind] for kind in row["max"])


def test_gradients_reach_the_policies_from_the_largest_and_the_smallest_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[dict[str, Tensor | None]] = []
    usual = SupernetLearner.further

    def watching(self: SupernetLearner) -> Sequence[Callable[[Any, Tensor], Tensor]]:
        smallest, *others = usual(self)
        values = {name: policy.values for name, policy in self.policies.items()}

        def checked(inputs: Any, taught: Tensor) -> Tensor:
            loss = smallest(inputs, taught)
            found = torch.autograd.grad(loss, list(values.values()), allow_unused=True, retain_graph=True)
            seen.append(dict(zip(values, found, strict=True)))
            return loss

        def without(loss_of: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
            def checked(inputs: Any, taught: Tensor) -> Tensor:
                loss = loss_of(inputs, taught)
                assert not taught.requires_grad
                found = torch.autograd.grad(loss, list(values.values()), allow_unused=True, retain_graph=True)
                assert all(gradient is None for gradient in found)
                return loss

            return checked

        return [checked, *map(without, others)]

    monkeypatch.setattr(SupernetLearner, "further", watching)
    run({"flops": "60%"}, epochs=1)
    assert seen
    for found in seen:
        assert found["max"] is None
        assert found["min"] is not None
        assert bool((found["min"] != 0).any())


@pytest.mark.parametrize("boundaries", ["both", "min", "none"])
def test_boundaries_may_be_learned_in_part_or_not(boundaries: str) -> None:
    pipeline = run({"flops": "60%"}, boundaries=boundaries, epochs=1)
    shown = pipeline.decision.history[-1]["policies"]
    if boundaries != "both":
        assert set(shown["max"].values()) == {1.0}
        assert set(shown["max_std"].values()) == {0.0}
    if boundaries == "none":
        assert shown["min"]["depth"] == 0.0


def test_the_hinge_keeps_the_smallest_networks_under_the_lowest_budget() -> None:
    free, held = (
        run({"flops": "90%"}, lowest="flops=5%", penalty=penalty, policy_lr=0.02, epochs=6).decision.history[-1]
        for penalty in (0.0, 50.0)
    )
    assert held["policies"]["min"]["width"] < free["policies"]["min"]["width"]


@pytest.mark.parametrize("stage", ["training", "selection"])
def test_a_killed_search_ends_with_the_same_bits(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(folder: Path) -> Pipeline:
        with Job.open(folder, {"a": 1}) as job:
            return run({"flops": "60%"}, job=job, epochs=3, population=16)

    whole = started(tmp_path / "whole")
    owner: Any = SupernetLearner if stage == "training" else Scorer
    method = "before_step" if stage == "training" else "__call__"
    usual, left = getattr(owner, method), [10]

    def dying(self: Any, *args: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return usual(self, *args)

    monkeypatch.setattr(owner, method, dying)
    with pytest.raises(KeyboardInterrupt):
        started(tmp_path / "parts")
    if stage == "selection":
        notes = list((tmp_path / "parts").rglob("*.selection.json"))
        assert len(notes) == 1
    again = started(tmp_path / "parts")
    assert again.decision.noted()["points"] == whole.decision.noted()["points"]
    assert again.decision.evaluated == whole.decision.evaluated
    for a, b in zip(again.compressed.state_dict().values(), whole.compressed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not list((tmp_path / "parts").rglob("*.selection.json"))


@pytest.mark.slow
def test_subnets_are_scored_side_by_side_alike() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one, two = (run({"flops": "60%"}, workers=n, epochs=1) for n in (1, 2))
    finally:
        torch.set_num_threads(before)
    assert one.decision.evaluated == two.decision.evaluated
    assert one.decision.noted()["points"] == two.decision.noted()["points"]


def test_damaged_notes_are_made_again(tmp_path: Path) -> None:
    checkpoint = tmp_path / "search.safetensors"
    notes = Notes(checkpoint)
    notes.add("1,2", 0.5)
    notes.save()
    assert Notes(checkpoint).merits == {"1,2": 0.5}
    for damaged in ("{", "[]", '{"1,2": "0.5"}', '{"1,2": null}', '{"1,2": [0.5]}'):
        checkpoint.with_suffix(".selection.json").write_text(damaged, encoding="utf-8")
        assert Notes(checkpoint).merits == {}


def test_a_budget_outside_of_the_space_names_both_ends() -> None:
    with pytest.raises(UnreachableBudgetError, match=r"smallest subnet .* the largest"):
        run({"params": "15%"}, learn="width", choices=2)


def test_widths_are_on_the_grid_and_what_is_to_stay_stays() -> None:
    scope = compressor.Scope(round_to=4, keep={"blocks.4*": "100%"}, exclude=("stem",))
    training = compressor.Training(search_epochs=1, finetune_epochs=0, batch_size=8, tune="none")
    result = compressor.compress(
        staged(), X, {"flops": "70%"}, data=data_of(), search="supernet", options=SMALL, training=training, scope=scope
    )
    full = dict(staged().named_parameters())
    for name, parameter in result.model.named_parameters():
        if name.endswith("conv1.weight"):
            assert len(parameter) % 4 == 0 or len(parameter) == len(full[name])
    assert dict(result.model.named_parameters())["blocks.4.conv1.weight"].shape[0] == 16
    assert dict(result.model.named_parameters())["stem.weight"].shape[0] == 8


def test_it_needs_data() -> None:
    with pytest.raises(UsageError, match="data"):
        compressor.compress(staged(), X, {"flops": "70%"}, search="supernet")


def test_bad_options_are_refused_before_any_work() -> None:
    for options, match in (
        ({"lowest": "flops"}, "flops"),
        ({"lowest": "speed=3"}, "speed"),
        ({"boundaries": "max"}, "boundaries"),
        ({"learn": "colour"}, "learn"),
        ({"threshold": 1.5}, "threshold"),
        ({"randoms": -1}, "randoms"),
    ):
        with pytest.raises(UsageError, match=match):
            METHOD.read(options)
    with pytest.raises(UsageError, match="no such budget"):
        run({"flops": "60%"}, lowest="latency=2ms")


def test_bounds_that_cross_are_refused() -> None:
    with pytest.raises(UsageError, match="above"):
        run({"flops": "30%"}, lowest="flops=50%")


def test_a_loss_that_is_lost_decides_nothing() -> None:
    with pytest.raises(TrainingError):
        run({"flops": "60%"}, lr=1e30)


def test_short_trainings_move_the_policies_faster() -> None:
    assert policy_lr(SupernetConfig(), 100_000) == 5e-4
    assert policy_lr(SupernetConfig(), 1000) == pytest.approx(4e-3)
    assert policy_lr(SupernetConfig(), 10) == 0.02
    assert policy_lr(SupernetConfig(policy_lr=0.1), 10) == 0.1


def test_one_budget_by_compress() -> None:
    result = compressor.compress(
        staged(), X, {"memory": "70%"}, data=data_of(), search="supernet", options=SMALL, training=QUICK
    )
    assert all(budget.met for budget in result.report.budgets)
    assert result.report.verification is not None
    assert result.report.verification.passed


# ---- the trainer's part


class Lessons(Hooks):
    """Half of the loss in the first backward, the rest in a second."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def forward(self, model: nn.Module, inputs: Any) -> Any:
        inputs.add_(1)  # what a forward does to its inputs, further losses do not see
        return model(inputs)

    def further(self) -> Sequence[Callable[[Any, Tensor], Tensor]]:
        def lesson(inputs: Tensor, taught: Tensor) -> Tensor:
            assert not taught.requires_grad
            assert torch.equal(self.model(inputs + 1), taught)
            return self.model(inputs).square().mean()

        return [lesson]


def test_further_losses_add_to_the_gradients_of_a_step() -> None:
    from tests.train.tiny import tiny_data

    torch.manual_seed(0)
    data = tiny_data()
    inputs, _ = next(iter(data.train.batches(8)))
    model = nn.Sequential(nn.Flatten(), nn.Linear(inputs[0].numel(), 4))
    twin = nn.Sequential(nn.Flatten(), nn.Linear(inputs[0].numel(), 4))
    twin.load_state_dict(model.state_dict())
    config = TrainConfig(epochs=1, batch_size=8, max_steps=1, lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0)
    Trainer(model, data, config, hooks=Lessons(model)).run()

    class Once(Hooks):
        def forward(self, model: nn.Module, inputs: Any) -> Any:
            self.seen = inputs.clone()
            return model(inputs + 1)

        def penalty(self) -> Tensor:
            found: Tensor = twin(self.seen).square().mean()
            return found

    Trainer(twin, data, config, hooks=Once()).run()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


# ---- selection


def evolution(space: Space, merit: Callable[[Any], float], **more: Any) -> Evolution:
    def costs(choices: Any) -> dict[str, float]:
        return {"flops": float(choices.sum())}

    settings: dict[str, Any] = {"population": 10, "mutation": 0.3, "seed": 0, "limits": {"flops": 6.0}, **more}
    return Evolution(
        space,
        space.valid.numpy(),
        costs=costs,
        score=lambda drawn: [merit(each) for each in drawn],
        **settings,
    )


def test_an_evolution_stays_within_limits_and_finds_the_front() -> None:
    space = toy_space()
    search = evolution(space, lambda choices: float(choices[0] + 3 * choices[1]))
    tried = search.run(6)
    assert all(each.costs["flops"] <= 6 for each in tried)
    assert len({each.key for each in tried}) == len(tried)
    best = {each.costs["flops"]: each.merit for each in search.front()}
    assert best[0.0] == 0
    assert best[1.0] == 3
    assert best[2.0] == 6
    assert best[6.0] == 10
    again = evolution(space, lambda choices: float(choices[0] + 3 * choices[1]))
    again.run(6)
    assert [each.key for each in again.front()] == [each.key for each in search.front()]


def test_networks_without_a_score_take_no_part() -> None:
    search = evolution(toy_space(), lambda choices: float("nan") if choices[1] else float(choices[0]))
    assert all(each.choices[1] == 0 for each in search.run(2))


def test_unbeaten_over_several_costs() -> None:
    def of(merit: float, **costs: float) -> Scored:
        return Scored(np.array([0]), costs, merit)

    rows = [of(0.9, a=3, b=3), of(0.8, a=1, b=4), of(0.8, a=4, b=1), of(0.8, a=4, b=4), of(0.7, a=1, b=5)]
    assert unbeaten(rows, ["a", "b"]) == [rows[1], rows[0], rows[2]]
    assert unbeaten(rows, ["a"]) == [rows[1], rows[0]]
    assert unbeaten([], ["a"]) == []


def test_hypervolume_is_the_area_that_is_dominated() -> None:
    assert hypervolume([(1, 1)], (3, 0)) == 2
    assert hypervolume([(1, 1), (2, 3)], (3, 0)) == 2 + 2
    assert hypervolume([(1, 1), (2, 0.5)], (3, 0)) == 2
    assert hypervolume([(4, 9), (1, -1)], (3, 0)) == 0
    assert hypervolume([], (3, 0)) == 0
