"""DNArch's resolution component: masks over frequencies, their sizes, and what is decided."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import compressor
from compressor.costs import build
from compressor.errors import UsageError
from compressor.graph import capture
from compressor.masks import sigmoid
from compressor.masks.ordered import FILTERED_EVERY, FrequencyRows
from compressor.models import load_model
from compressor.nn import resampling, spectral
from compressor.search.constraints.constraint import hard_sizes
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.learner import DnarchLearner
from compressor.search.methods.dnarch.least_savings import SHARE, least_cuts
from compressor.search.methods.dnarch.method import Dnarch
from tests.search.search_models import EXAMPLE, context, data, plain, residual

CPU = torch.device("cpu")


def session(model: nn.Module, share: float = 0.5, **settings: Any) -> DnarchLearner:
    given = context(model, {"flops": share}, resolution=True)
    scores = np.zeros(given.graph.n_units), np.zeros(len(given.graph.blocks))
    return DnarchLearner(model, Projector(given.graph, given.constraints), DnarchConfig(**settings), scores)


@pytest.mark.parametrize("crossing", [-0.79, -0.5, 0.0, 0.4, 0.99])
@pytest.mark.parametrize("n", [8, 31, 32])
def test_sizes_are_the_papers(n: int, crossing: float) -> None:
    rows = FrequencyRows(n // 2, [np.arange(n // 2)], [n], [1], 25.0, CPU)
    assert rows.weights().tolist() == [1.0] * (n // 2)
    with torch.no_grad():
        rows.offsets.fill_(sigmoid.offset(crossing, 25.0))
        rows.clamp_()
    size = sigmoid.size(rows.offsets, 25.0, float(n)).item()
    assert size == pytest.approx(n * (crossing + 1) / 2)
    assert 1 + 2 * rows.sizes().item() == pytest.approx(max(size, 1))
    assert abs(rows.kept()[0] - rows.sizes().item()) <= 1
    (gradient,) = torch.autograd.grad(rows.sizes().sum(), rows.offsets)
    assert gradient.item() == pytest.approx(n / 4)


@pytest.mark.parametrize("cut", range(5))
def test_a_cut_that_does_not_pay_is_none(cut: int) -> None:
    rows = FrequencyRows(8, [np.arange(8)], [16], [3], 25.0, CPU)
    with torch.no_grad():
        rows.offsets.fill_(sigmoid.offset((spectral.coordinates(16)[7 - cut] + 0.01).item(), 25.0))
    kept = 8 - cut if cut >= 3 else 8
    assert rows.kept().tolist() == [kept]
    assert int((rows.masks() > 0).sum()) == kept
    assert rows.weights().sum().item() == pytest.approx(kept, abs=1.0 if cut >= 3 else 1e-9)
    (gradient,) = torch.autograd.grad(rows.weights().sum(), rows.offsets)
    assert gradient.item() > 0


@pytest.mark.parametrize("step", range(FILTERED_EVERY + 1))
def test_whole_axes_are_filtered_in_some_steps_which_count_for_all(step: int) -> None:
    rows = FrequencyRows(16, [np.arange(8), np.arange(8, 16)], [16, 16], [3, 3], 25.0, CPU)
    with torch.no_grad():
        rows.offsets[1] = sigmoid.offset(0.0, 25.0)  # this one is cut, the other whole
    rows.turn(step)
    masks = rows.masks()
    soft = torch.sigmoid(rows.logits())
    filters = step % FILTERED_EVERY == 0
    torch.testing.assert_close(masks[:8], soft[:8] if filters else torch.ones_like(soft[:8]))
    live = masks[8:] > 0
    assert not live.all()
    torch.testing.assert_close(masks[8:][live], soft[8:][live])
    (found,) = torch.autograd.grad(masks.sum(), rows.offsets)
    (expected,) = torch.autograd.grad(soft[:8].sum() + soft[8:][live].sum(), rows.offsets)
    expected[0] *= FILTERED_EVERY if filters else 0
    torch.testing.assert_close(found, expected)


def test_a_search_filters_in_every_other_step_in_which_masks_learn() -> None:
    masks = session(residual(), learn=("resolution",), every=3)
    filtered = []
    for step in range(12):
        masks.before_step(step, 100)
        soft = masks.resolution.masks().min().item() < 1
        if masks.penalty() is None:  # at rest
            assert torch.equal(masks.fixed()[0], torch.ones(masks.graph.n_units))
        else:
            filtered.append(soft)
    assert filtered == [True, False, True, False]


@pytest.mark.parametrize("costs", [(), ("params",), ("complexity",)])
@pytest.mark.parametrize("name", ["resnet20_cifar", "residual"])
def test_cuts_pay_from_where_enumeration_says(name: str, costs: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    given = name == "residual"
    model = residual().eval() if given else load_model(name, weights="none").model.eval()
    graph = capture(model, EXAMPLE if given else torch.randn(1, 3, 32, 32), resolution=True)
    groups = [g for g in graph.groups if g.kind == "resolution"]
    terms = [build(cost, graph) for cost in ("flops", *costs)]
    for group, wanted in zip(groups, least_cuts(graph, groups, terms[1:]), strict=True):
        changes = []
        for cut in range(1, len(group)):
            units = graph.all_units()
            units[group.units[len(group) - cut :]] = False
            sizes = hard_sizes(graph, units)
            changes.append([float(term(sizes)) - term.original for term in terms])
        saves = [
            all(each <= 0 for each in change)
            and any(each < 0 and each <= SHARE * least for each, least in zip(change, changes[-1], strict=True))
            for change in changes
        ]
        if any(saves):
            assert saves == [cut >= wanted for cut in range(1, len(group))]
        else:  # along one axis it never does
            assert wanted >= 2


def test_the_search_starts_at_the_full_resolution() -> None:
    masks = session(residual(), learn=("resolution",))
    assert len(masks.resolution) == 6
    assert torch.equal(masks.sizes().units, torch.ones(masks.graph.n_units, dtype=torch.float64))
    assert masks.resolution.masks().min().item() == pytest.approx(0.85)  # the highest frequency's
    masks.before_step(1, 100)
    with torch.no_grad():
        torch.testing.assert_close(masks.forward(masks.masking.model.eval(), EXAMPLE), masks.masking.model(EXAMPLE))


def test_the_task_and_the_cost_reach_the_masks() -> None:
    masks = session(residual(), learn=("resolution",))
    with torch.no_grad():
        masks.resolution.offsets.fill_(sigmoid.offset(0.1, 25.0))
    for loss in (masks.forward(masks.masking.model, EXAMPLE).square().sum(), masks.multipliers.constraints[0].term(
            masks.sizes())):  # fmt: skip
        (gradient,) = torch.autograd.grad(loss, masks.resolution.offsets)
        assert gradient.abs().min() > 0


@pytest.mark.parametrize("size", [1, 5, 16])
def test_a_filter_on_some_of_a_batch_counts_for_all(size: int) -> None:
    """Of equal examples any few tell what all would."""
    torch.manual_seed(0)
    branch, x = nn.Sequential(nn.Identity()), torch.randn(1, 2, 8, 8).repeat(size, 1, 1, 1)
    band = torch.full((4,), 0.7, requires_grad=True)
    handles = resampling.hook_(dict(branch.named_modules()), ["0"], "0", 2)
    (name, attribute, matrix), *_ = resampling.named(["0"], "0", 0, spectral.low_pass(8, band))
    assert name == "0"
    vars(branch[0])[attribute] = matrix
    found = branch(x)
    expected = spectral.resample(x, (matrix, None))
    some = -(-size // resampling.ONE_IN)
    torch.testing.assert_close(found, torch.cat([expected[:some], x[some:]]))
    weights = torch.randn(1, 2, 8, 8)
    gradients = [torch.autograd.grad((weights * y).sum(), band, retain_graph=True)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert len(handles) == 2


def test_learning_resolution_alone_meets_a_budget() -> None:
    options = {"epochs": 3, "batch_size": 16, "learn": "resolution"}
    given = context(residual(), {"flops": 0.6}, resolution=True, options=options)
    result = Dnarch().run(given)
    cost = Projector(given.graph, given.constraints).costs(result.units, result.gates)[0]
    assert 0.8 <= cost / given.constraints[0].limit <= 1
    for group in given.graph.groups:
        kept = result.units[group.units]
        assert group.kind == "resolution" or kept.all()
        assert not np.diff(kept.astype(int)).max(initial=0) > 0  # from above


def test_everything_at_once_down_to_the_report(tmp_path: Any) -> None:
    given = data()
    result = compressor.compress(
        residual(), EXAMPLE, {"flops": "40%"}, data=(given.train, given.val), search="dnarch",
        options={"batch_size": 16}, search_epochs=3, finetune_epochs=0,
    )  # fmt: skip
    flops = next(cost for cost in result.report.costs if cost.name == "flops")
    assert flops.reached <= 0.4 * flops.original
    result.save(tmp_path / "out")
    again = compressor.load(tmp_path / "out", model=residual())
    torch.testing.assert_close(again(EXAMPLE), result.model(EXAMPLE))


def test_a_model_without_such_branches_says_why() -> None:
    with pytest.raises(UsageError, match="Plain has no resolution to learn: it has no residual block"):
        session(plain(), learn=("resolution",))
    small = nn.Sequential(nn.AvgPool2d(4), *residual())
    with pytest.raises(UsageError, match="has no resolution to learn: 2: its stream has 2 x 2 samples, not 4 to 1024"):
        session(small, learn=("resolution",))
