"""FiGS stops computing what it has given up, and nothing else changes by it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.search.constraints.projector import Projector
from compressor.search.methods.figs.config import FigsConfig
from compressor.search.methods.figs.fading import EVERY, Fading
from compressor.search.methods.figs.learner import FigsLearner
from compressor.search.methods.figs.method import Figs
from compressor.search.training.shrinking import EVEN
from tests.search.search_models import EXAMPLE, NETWORKS, context, data


def session(network: str, **settings: object) -> tuple[nn.Module, FigsLearner]:
    model = NETWORKS[network]().double()
    given = context(NETWORKS[network](), {"flops": 0.5})
    return model, FigsLearner(model, Projector(given.graph, given.constraints), FigsConfig(**settings))  # type: ignore[arg-type]


def fade(search: FigsLearner, share: float, seed: int = 0) -> None:
    """Let a random share of everything be negligible for long enough."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        search.logits[torch.rand(len(search.logits), generator=source) < share] = -7.0
    for step in range(search.config.patience + EVERY):
        search._fade(step)


def outcome(model: nn.Module, search: FigsLearner) -> list[Tensor]:
    """Output and gradients under one sample of the masks."""
    torch.manual_seed(3)
    model.zero_grad()
    search.logits.grad = None
    output = search.forward(model, torch.cat([EXAMPLE.double()] * 3) + torch.arange(3).reshape(3, 1, 1, 1))
    output.square().sum().backward()
    weights = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]  # none in a gone block
    return [output, search.logits.grad, *weights]


@pytest.mark.parametrize("network", ["residual", "plain"])
@pytest.mark.parametrize("settled", [False, True])
def test_what_is_left_computes_what_masks_compute(network: str, settled: bool) -> None:
    results = []
    for live in (True, False):
        model, search = session(network, live=live, patience=10)
        fade(search, 0.6)
        assert 0 < int(search.fading.gone.sum()) < len(search.fading.gone)
        if settled:
            search.settle()
        results.append(outcome(model, search))
        assert search.live is None or search.live.builds == 1, "computed on what is left"
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_on_several_threads_widths_are_even() -> None:
    threads = torch.get_num_threads()
    results = []
    try:
        for several in (1, 2):
            torch.set_num_threads(several)
            model, search = session("residual", patience=10)
            fade(search, 0.6)
            results.append(outcome(model, search))
            assert search.live is not None
            built = search.live._built
            assert built is not None
            widths = [(int(built[0][group.units].sum()), len(group)) for group in search.graph.groups]
            assert all(n % EVEN == 0 or n == size for n, size in widths) == (several > 1), widths
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_arithmetic_across_channels_keeps_to_masks_until_the_decision() -> None:
    model, search = session("attention", patience=10)
    fade(search, 0.5)
    outcome(model, search)
    assert search.live is not None
    assert search.live.builds == 0
    search.settle()
    outcome(model, search)
    assert search.live.builds == 1


def test_a_thing_goes_after_enough_steps_in_a_row() -> None:
    fading = Fading(3, 0.01, 5, torch.device("cpu"))
    never, sometimes, always = 0.5, 0.001, 0.001
    for step in range(1, 9):
        p = torch.tensor([never, 0.5 if step == 3 else sometimes, always])
        found = fading.step(p)
        assert (found is not None) == (step >= 5)
        if found is not None:
            assert found.tolist() == [False, step >= 8, True]


@pytest.mark.parametrize("round_to", [1, 4])
def test_every_group_keeps_its_smallest_width(round_to: int) -> None:
    model = NETWORKS["residual"]()
    given = context(model, {"flops": 0.5}, round_to=round_to)
    projector = Projector(given.graph, given.constraints, round_to=round_to)
    search = FigsLearner(model, projector, FigsConfig(patience=10))
    fade(search, 1.0)
    left = ~search.fading.gone.numpy()[: given.graph.n_units]
    assert np.array_equal(projector.counts(left), projector.smallest)
    assert float(search.probabilities().detach()[: given.graph.n_units].sum()) < projector.smallest.sum()


def test_what_is_gone_stays_gone_and_the_budget_holds() -> None:
    seen: list[Tensor] = []

    class Watched(FigsLearner):
        def after_step(self, step: int, total_steps: int) -> None:
            super().after_step(step, total_steps)
            seen.append(self.fading.gone.clone())

    model = NETWORKS["plain"]()
    options = {"epochs": 40, "batch_size": 32, "patience": 5, "negligible": 0.3, "settle": 1.0, "logit_lr": 0.2}
    given = context(model, {"flops": 0.4}, data=data(), options=options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compressor.search.methods.figs.method.FigsLearner", Watched)
        decision = Figs().run(given)
    assert 0 < int(seen[-1].sum()) < len(seen[-1])
    for before, after in itertools.pairwise(seen):
        assert not bool((before & ~after).any())
    cost = Projector(given.graph, given.constraints).costs(decision.units)[0]
    assert 0.9 * given.constraints[0].limit <= cost <= given.constraints[0].limit
