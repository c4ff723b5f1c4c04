"""DNArch's last steps, which train the network decided on, and the steps in which masks rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.backbones.ccnn_search import SearchableCCNN
from compressor.costs import build
from compressor.graph import capture
from compressor.nn.generated import computed
from compressor.search.base import SearchContext
from compressor.search.constraints.constraint import Constraint
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.learner import DnarchLearner
from compressor.search.methods.dnarch.method import Dnarch
from compressor.trim import plan, trim
from tests.search.search_models import EXAMPLE, NETWORKS, context, data, residual


def session(model: nn.Module, x: Tensor = EXAMPLE, share: float = 0.5, **settings: Any) -> DnarchLearner:
    graph = capture(model, x, kernels=True, resolution=True)
    term = build("flops", graph)
    scores = np.zeros(graph.n_units), np.zeros(len(graph.blocks))
    projector = Projector(graph, [Constraint(term, share * term.original)])
    return DnarchLearner(model, projector, DnarchConfig(**settings), scores)


def step(masks: DnarchLearner, model: nn.Module, index: int, total: int, inputs: Tensor) -> Tensor:
    """One step of nothing but the masks; returns the output."""
    masks.before_step(index, total)
    output: Tensor = masks.forward(model, inputs)
    penalty, loss = masks.penalty(), output.square().mean()
    (loss if penalty is None else loss + penalty).backward()  # type: ignore[no-untyped-call]
    for optimizer in masks.optimizers().values():
        optimizer.step()
        optimizer.zero_grad()
    masks.after_step(index, total)
    return output


def offsets(masks: DnarchLearner) -> Tensor:
    return torch.cat([rows.offsets.detach().clone() for rows in masks.rows])


def test_masks_learn_in_every_so_many_steps_until_the_network_is_decided() -> None:
    model = residual()
    masks = session(model, every=3, settle=0.4)
    moved, decided = [], []
    for index in range(20):
        before = offsets(masks)
        step(masks, model, index, 20, EXAMPLE)
        moved.append(not torch.equal(before, offsets(masks)))
        decided.append(masks.settled.decision is not None)
    assert moved == [i % 3 == 0 and i < 12 for i in range(20)]
    assert decided == [i >= 12 for i in range(20)]
    assert masks.log()["flops"] <= 0.5
    assert masks.decide().units is masks.settled.decision.units  # type: ignore[union-attr]


def test_a_network_within_its_budget_is_trained_as_it_is() -> None:
    model = residual().eval()
    masks, before = session(model, share=1.0), [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        expected = model(EXAMPLE)
        masks.before_step(0, 10)
        torch.testing.assert_close(masks.forward(model, EXAMPLE), expected)
    assert masks.settled.decision is not None
    assert masks.settled.decision.units.all()
    masks.fold_(masks.decide())
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_at_rest_the_masks_act_as_they_do_when_they_learn() -> None:
    model = residual().eval()
    masks = session(model, learn=("width", "depth", "kernel"))  # of frequencies see test_dnarch_resolution
    with torch.no_grad():
        masks.width.offsets.sub_(0.7)
        masks.depth.offsets.sub_(0.8)
        learning = masks.forward(model, EXAMPLE)
        masks.before_step(1, 100)
        torch.testing.assert_close(masks.forward(model, EXAMPLE), learning)
    assert masks.penalty() is None
    masks.forward(model, EXAMPLE).sum().backward()
    assert masks.width.offsets.grad is None


def networks() -> dict[str, tuple[Any, Tensor]]:
    found: dict[str, tuple[Any, Tensor]] = {name: (make, EXAMPLE) for name, make in NETWORKS.items()}
    found["ccnn"] = (lambda: SearchableCCNN(3, 12, (16,), in_channels=2, num_classes=4), torch.randn(2, 2, 16))
    return found


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("network", networks())
def test_what_is_trained_once_decided_is_what_is_left(network: str, live: bool) -> None:
    torch.manual_seed(0)
    make, x = networks()[network]
    model = make().eval()
    graph = capture(model, x, kernels=True, resolution=True)
    term = build("flops", graph)
    scores = np.zeros(graph.n_units), np.zeros(len(graph.blocks))
    projector = Projector(graph, [Constraint(term, 0.5 * term.original)], depth=True)
    masks = DnarchLearner(model, projector, DnarchConfig(live=live), scores)
    for index in range(8):
        output = step(masks, model, index, 8, x)
    decision = masks.decide()
    assert float(projector.costs(decision.units, decision.gates)[0]) <= 0.5 * term.original
    masks.fold_(decision)
    with torch.no_grad():
        found = trim(model, plan(model, graph, decision.units, decision.gates))(x)
    torch.testing.assert_close(found, output.detach(), rtol=1e-4, atol=1e-5)


def small_ccnn() -> nn.Module:
    torch.manual_seed(0)
    return SearchableCCNN(2, 16, (8, 8), in_channels=3, num_classes=4)


@pytest.mark.parametrize("make", [residual, small_ccnn])
@pytest.mark.parametrize("stop", [5, 8, 11])
def test_a_run_killed_before_or_after_the_decision_ends_with_the_same_bits(
    make: Callable[[], nn.Module], stop: int, tmp_path: Path
) -> None:
    def given(model: nn.Module, checkpoint: Path | None) -> SearchContext:
        options = {"epochs": 2, "batch_size": 16}
        found = context(model, {"flops": 0.5}, kernels=True, resolution=True, options=options)
        found.checkpoint, found.data = checkpoint, data()
        return found

    class Killed(Exception):
        pass

    class Progress:
        def start(self, total: int, done: int) -> None: ...
        def close(self) -> None: ...
        def advance(self, done: int, **values: Any) -> None:
            if done == stop + 1:
                raise Killed

    straight, model = make(), make()
    expected = Dnarch().run(given(straight, None))
    first = given(model, tmp_path / "run")
    first.progress = Progress()
    with pytest.raises(Killed):
        Dnarch().run(first)
    again = make()
    found = Dnarch().run(given(again, tmp_path / "run"))
    assert np.array_equal(found.units, expected.units)
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_kernels_that_are_computed_keep_their_masks() -> None:
    torch.manual_seed(0)
    model = SearchableCCNN(2, 8, (16,), in_channels=2, num_classes=3)
    masks = session(model, torch.randn(1, 2, 16))
    source = computed(model)
    assert source is not None
    for index in range(6):
        step(masks, model, index, 6, torch.randn(4, 2, 16))
    with torch.no_grad():
        masks.kernel.offsets.fill_(0.2)
        before = {name: w.clone() for name, w in source().items()}
        masks.fold_(masks.decide())
    for i, group in enumerate(masks._free["kernel"]):
        (name, _), *_ = group.members
        ratio = (model.get_parameter(name) / before[name] / masks.kernel.gains()[i]).detach().flatten(1)
        assert torch.allclose(ratio, ratio[:1], rtol=1e-3)  # a mask over positions alone
        assert ratio.max().item() == pytest.approx(1, rel=1e-3)  # and whole at the centre


def test_a_grown_network_starts_with_the_first_of_everything() -> None:
    """So that what is read is what was written, whatever the random weights are."""
    model = SearchableCCNN(4, 16, (16,), in_channels=2, num_classes=3)
    graph = capture(model, torch.randn(1, 2, 16))
    term = build("flops", graph)
    given = SearchContext(model, graph, [Constraint(term, 0.3 * term.original)])
    config = DnarchConfig(grow=2)
    masks = DnarchLearner(model, Projector(graph, given.constraints), config, Dnarch()._scores(given, config))
    for row in masks.width.rows:
        assert (np.diff(row) > 0).all()
        assert masks.width.masks()[torch.from_numpy(row)].gt(0).tolist() == [True] * 8 + [False] * 8
    masks.forward(model, torch.randn(2, 2, 16))
    assert masks.live is not None
    assert masks.live._copy.stem.channels <= 9  # nothing wider is read or written
