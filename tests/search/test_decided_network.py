"""Once it is decided what is kept, the rest of a search trains the trimmed network itself."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from compressor.errors import UnsupportedModelError
from compressor.search.base import SearchContext
from compressor.search.methods.dnarch.method import Dnarch
from compressor.search.methods.figs.method import Figs
from compressor.search.result import SearchResult
from compressor.search.training import decided_network as module
from compressor.search.training.decided_network import Trimmed
from compressor.train import TrainConfig, Trainer
from compressor.trim import plan, trim
from tests.search.search_models import NETWORKS, Splits, context, data, residual

METHODS: dict[str, Any] = {"figs": Figs, "dnarch": Dnarch}
OPTIONS: dict[str, dict[str, Any]] = {
    "figs": {"epochs": 3, "batch_size": 16, "settle": 0.5, "least_steps": 0},
    "dnarch": {"epochs": 3, "batch_size": 16, "settle": 0.5, "least_steps": 0},
}


def in_double() -> Splits:
    found = data()
    for split in (found.train, found.val):
        split.inputs = split.inputs.double()
    return found


def searched(method: str, model: nn.Module, **options: Any) -> tuple[SearchContext, SearchResult]:
    given = context(
        model, {"flops": 0.5}, kernels=method == "dnarch", data=in_double(), options={**OPTIONS[method], **options}
    )
    model.double()
    return given, METHODS[method]().run(given)


def small(given: SearchContext, decision: SearchResult) -> nn.Module:
    return trim(given.model, plan(given.model, given.graph, decision.units, decision.gates_or_all(given.graph)))


class Watch:
    """Which models were trained, and how their parameters differed from the full ones."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        train = Trainer.run

        def run(trainer: Trainer) -> Any:
            self.sizes.append(sum(p.numel() for p in trainer.model.parameters()))
            return train(trainer)

        patch.setattr(Trainer, "run", run)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_it_ends_with_the_weights_that_masks_would_have_ended_with(
    method: str, network: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the network cannot be trimmed for training, masks go on; so the one can be compared with the other."""

    def refuse(*_: Any) -> nn.Module:
        raise UnsupportedModelError("It cannot be copied.")

    watch = Watch(monkeypatch)
    given, decision = searched(method, NETWORKS[network]())
    assert not caplog.records
    weights = small(given, decision).state_dict()
    kept = sum(p.numel() for p in small(given, decision).parameters())
    full = sum(p.numel() for p in given.model.parameters())
    monkeypatch.setattr(module, "trim", refuse)
    with caplog.at_level(logging.WARNING):
        given, by_masks = searched(method, NETWORKS[network]())
    assert "It cannot be copied" in caplog.text
    assert watch.sizes == [full, kept, full, full]
    assert kept < full
    assert np.array_equal(decision.units, by_masks.units)
    assert np.array_equal(decision.gates_or_all(given.graph), by_masks.gates_or_all(given.graph))
    assert [e["step"] for e in decision.history] == [e["step"] for e in by_masks.history]
    assert decision.history[-1]["flops"] <= 0.5
    expected = small(given, by_masks).state_dict()
    for name, tensor in weights.items():
        if "running" not in name and "num_batches" not in name:  # of live copies nobody reads them
            torch.testing.assert_close(tensor, expected[name], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_without_live_networks_it_ends_alike_in_one_part(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, decision = searched(method, residual())
    weights = small(given, decision).state_dict()
    watch = Watch(monkeypatch)
    given, whole = searched(method, residual(), live=False)
    assert len(watch.sizes) == 1
    assert np.array_equal(decision.units, whole.units)
    assert decision.history[-1]["flops"] == pytest.approx(whole.history[-1]["flops"])
    for name, tensor in small(given, whole).named_parameters():
        torch.testing.assert_close(weights[name], tensor.detach(), rtol=1e-4, atol=1e-5)


def test_statistics_of_what_is_kept_come_back_too() -> None:
    given, decision = searched("figs", residual())
    statistics = {n: b for n, b in small(given, decision).named_buffers() if n.endswith("running_var")}
    assert statistics
    assert all(bool((b != 1).all()) for b in statistics.values())


class Tied(nn.Module):
    """Two layers that share a weight, the first of them in a block that can go."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.branch, self.after = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.after.weight = self.branch.weight
        self.bn, self.head = nn.BatchNorm2d(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + self.branch(x)
        y: Tensor = self.head(torch.relu(self.bn(self.after(x))).mean((2, 3)))
        return y


@pytest.mark.parametrize("network", [*NETWORKS, "tied"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_what_the_optimizer_remembers_is_sliced_as_weights_are(network: str, optimizer: str) -> None:
    torch.manual_seed(0)
    model = Tied() if network == "tied" else NETWORKS[network]()
    given = context(model, {"flops": 0.5})
    trainer = Trainer(model, data(), TrainConfig(epochs=1, batch_size=16, optimizer=optimizer))
    trainer.run()
    optimizer_state = trainer.optimizer_state()
    assert set(optimizer_state) == {name for name, _ in model.named_parameters()}
    choice = np.random.default_rng(0)
    units = given.graph.all_units()
    for group in given.graph.groups:
        units[choice.choice(group.units, len(group) // 2, replace=False)] = False
    gates = given.graph.gates(np.arange(len(given.graph.blocks)) % 2 == 1)
    decision = SearchResult(units, torch.zeros(len(units) - 1), [], gates)
    trimmed = Trimmed(model, given.graph, decision)
    # The full network with its memory in the place of its weights, trimmed, has the memory that is kept.
    key = {"sgd": "momentum_buffer", "adamw": "exp_avg"}[optimizer]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(optimizer_state[name][key])
    expected = dict(small(given, decision).named_parameters())
    found = trimmed.optimizer_state(optimizer_state)
    assert set(found) == set(expected)
    for name, parameter in expected.items():
        assert torch.equal(found[name][key], parameter), name
        if optimizer == "adamw":
            assert int(found[name]["step"]) == 6


@pytest.mark.parametrize("network", [*NETWORKS, "tied"])
def test_what_is_put_back_is_where_it_came_from(network: str) -> None:
    torch.manual_seed(0)
    model = Tied() if network == "tied" else NETWORKS[network]()
    given = context(model, {"flops": 0.5}, kernels=network == "residual")
    units = given.graph.all_units()
    for group in given.graph.groups:
        units[group.units[1::2]] = False
    trimmed = Trimmed(model, given.graph, SearchResult(units, torch.zeros(len(units) - 1), []))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in trimmed.model.parameters():
            parameter.add_(1)
    trimmed.put_back_()
    again = Trimmed(model, given.graph, SearchResult(units, torch.zeros(len(units) - 1), []))
    for mine, theirs in zip(trimmed.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for name, parameter in model.named_parameters():
        changed = int((parameter != before[name]).sum())
        assert changed == dict(trimmed.model.named_parameters())[name].numel(), name


class Killed(Exception):
    pass


class Progress:
    """Kills a run after a step, and keeps what it was told."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop, self.told = stop, []  # type: ignore[var-annotated]

    def start(self, total: int, done: int) -> None:
        self.told.append(f"start {done}/{total}")

    def advance(self, done: int, **values: Any) -> None:
        self.told.append(done)
        if done == self.stop:
            raise Killed

    def close(self) -> None:
        self.told.append("close")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stop", [3, 9, 10, 14])
def test_a_search_killed_in_either_part_goes_on(method: str, stop: int, tmp_path: Path) -> None:
    def run(model: nn.Module, checkpoint: Path | None, progress: Progress) -> SearchResult:
        given = context(model, {"flops": 0.5}, options=OPTIONS[method])
        given.checkpoint, given.progress = checkpoint, progress
        return METHODS[method]().run(given)  # type: ignore[no-any-return]

    alone, again, whole = residual(), residual(), Progress()
    expected = run(alone, None, whole)
    assert whole.told == ["start 0/18", *range(1, 19), "close"]
    with pytest.raises(Killed):
        run(residual(), tmp_path / "search.safetensors", Progress(stop))
    going_on = Progress()
    found = run(again, tmp_path / "search.safetensors", going_on)
    assert going_on.told[0].endswith("/18")
    assert going_on.told[-2:] == [18, "close"]
    assert np.array_equal(found.units, expected.units)
    assert found.history == expected.history
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize("live", [True, False])
def test_a_decision_at_the_very_end_leaves_nothing_to_train(live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    searched("figs", residual(), settle=1.0, live=live)
    searched("dnarch", residual(), settle=0.0, live=live)
    assert len(watch.sizes) == 2


def test_what_is_left_is_compiled_once() -> None:
    torch._dynamo.reset()
    compiler = CompileCounter()
    frames: list[int] = []

    class Count(Progress):
        def advance(self, done: int, **values: Any) -> None:
            frames.append(compiler.frame_count)

    given = context(
        residual(), {"flops": 0.5}, options={**OPTIONS["dnarch"], "learn": ("width",), "compiler": compiler}
    )
    given.progress = Count()
    try:
        Dnarch().run(given)
    finally:
        torch._dynamo.reset()
    assert frames[9] == frames[8] + 1
    assert frames[-1] == frames[9]


def test_the_second_part_reports_the_costs_of_what_was_decided() -> None:
    _, decision = searched("figs", residual())
    settled = [entry["flops"] for entry in decision.history if entry["step"] > 9]
    assert len(settled) >= 4
    assert len(set(settled)) == 1
