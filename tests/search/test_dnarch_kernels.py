"""DNArch's kernel component: masks over rings, their sizes, and what is decided."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.errors import UsageError
from compressor.masks import gaussian
from compressor.masks.ordered import KernelRows, TrainedKernels
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.learner import DnarchLearner
from compressor.search.methods.dnarch.method import Dnarch
from tests.search.search_models import EXAMPLE, context, plain, residual

CPU = torch.device("cpu")


class Large(nn.Module):
    """Kernels of 7 and 5, one held by too little padding, and one that cannot be cropped."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 8, 7, padding=3)
        self.two = nn.Conv2d(8, 8, 5, padding=1)
        self.three = nn.Conv2d(8, 8, 2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.two(torch.relu(self.one(x))))
        y: Tensor = self.head(torch.relu(self.three(x)).mean((2, 3)))
        return y


def large() -> Large:
    torch.manual_seed(0)
    return Large()


def session(model: nn.Module, share: float = 0.5, **settings: Any) -> DnarchLearner:
    given = context(model, {"flops": share}, kernels=True)
    scores = np.zeros(given.graph.n_units), np.zeros(len(given.graph.blocks))
    return DnarchLearner(model, Projector(given.graph, given.constraints), DnarchConfig(**settings), scores)


def rows(*sizes: tuple[int, int]) -> KernelRows:
    """Rows of (rings, taps)."""
    starts = np.cumsum([0, *(n for n, _ in sizes)])
    units = [np.arange(a, b) for a, b in pairwise(starts)]
    return KernelRows(int(starts[-1]), units, [taps for _, taps in sizes], CPU)


def set_(kernels: KernelRows, *sigmas: float) -> None:
    with torch.no_grad():
        kernels.offsets.copy_(torch.tensor(sigmas, dtype=torch.float64))


def test_the_search_starts_at_whole_kernels_with_the_edge_at_85_percent() -> None:
    masks = session(large())
    assert torch.equal(masks.sizes().units, torch.ones(masks.graph.n_units, dtype=torch.float64))
    assert masks.kernel.masks().min().item() == pytest.approx(0.85)
    assert len(masks.kernel) == 4


@pytest.mark.parametrize("sigma", [0.06, 0.1, 0.2, 0.3, 0.47, 0.9])
@pytest.mark.parametrize("taps", [3, 5, 9, 31])
def test_sizes_are_the_papers(sigma: float, taps: int) -> None:
    kernels = rows((taps // 2, taps))
    set_(kernels, sigma)
    kernels.clamp_()
    sigma = kernels.offsets.item()
    expected = gaussian.size(torch.tensor(sigma), taps, start=taps, start_sigma=1 / gaussian.reach()).item()
    assert 1 + 2 * kernels.sizes().item() == pytest.approx(expected, rel=1e-6)
    assert 1 + 2 * kernels.weights().sum().item() == pytest.approx(expected, rel=1e-6)
    assert 1 + 2 * kernels.kept()[0] == gaussian.count(sigma, taps)
    mask = gaussian.mask(torch.linspace(-1, 1, taps, dtype=torch.float64), sigma)
    torch.testing.assert_close(kernels.masks(), mask[taps // 2 + 1 :])


def test_a_kernel_is_never_lost_and_the_bounds_keep_the_gradient() -> None:
    kernels = rows((3, 7), (1, 7))
    for sigmas in ((0.0, 0.0), (9.0, 9.0)):
        set_(kernels, *sigmas)
        kernels.clamp_()
        (gradient,) = torch.autograd.grad(kernels.sizes().sum(), kernels.offsets)
        assert (gradient > 0).all()
    assert kernels.kept().tolist() == [3, 1]
    assert kernels.least().tolist() == [0, 0]
    set_(kernels, 0.0, 0.0)
    kernels.clamp_()
    assert 2 * gaussian.crossing(kernels.offsets[0]).item() * 7 / 2 == pytest.approx(1)  # one sample


@pytest.mark.parametrize("taps", [3, 7])
def test_trained_kernels_count_rings_and_are_priced_by_what_the_mask_leaves(taps: int) -> None:
    kernels = TrainedKernels(taps // 2, [np.arange(taps // 2)], [taps], CPU)
    assert kernels.offsets.item() == pytest.approx(gaussian.highest())
    sigmas = torch.linspace(0.03, gaussian.highest(), 40_001, dtype=torch.float64)
    priced = 0.0
    for before, sigma in pairwise(sigmas.tolist()[::20]):
        set_(kernels, sigma)
        size = kernels.sizes()
        assert 1 + 2 * size.item() == pytest.approx(gaussian.count(sigma, taps))
        (gradient,) = torch.autograd.grad(size.sum(), kernels.offsets)
        priced += gradient.item() * (sigma - before)
    left = gaussian.mask(torch.linspace(0, 1, taps // 2 + 1, dtype=torch.float64)[1:], gaussian.highest())
    assert priced == pytest.approx(((left - 0.1) / 0.9).sum().item(), rel=0.02)  # all of it on the way down


def test_what_padding_holds_has_no_mask() -> None:
    kernels = rows((1, 7))
    set_(kernels, 0.35)
    assert kernels.masks().item() == 0  # the ring at 1; those at 1/3 and 2/3 are in no row
    assert 0 <= kernels.sizes().item() < 1


def test_logits_are_those_of_the_masks() -> None:
    kernels = rows((3, 7))
    set_(kernels, 1.2)
    torch.testing.assert_close(torch.sigmoid(kernels.logits()), kernels.masks())


def test_rings_go_from_the_outside() -> None:
    masks = session(large(), learn=("kernel",))
    with torch.no_grad():
        masks.kernel.offsets.copy_(torch.tensor([0.33, 0.2, 0.4, 1.0], dtype=torch.float64))
    decision = masks.decide()
    masks.fold_(decision)
    small = compressor.trim.trim(masks.masking.model, compressor.trim.plan(masks.masking.model, masks.graph,
                                                                           decision.units))  # fmt: skip
    assert small.get_submodule("one").kernel_size == (5, 3)
    assert small.get_submodule("two").kernel_size == (3, 5)
    assert small(EXAMPLE).shape == (1, 4)
    assert masks.width.kept().tolist() == []


def test_learning_kernels_alone_meets_a_budget() -> None:
    given = context(large(), {"flops": 0.4}, kernels=True, options={"epochs": 2, "batch_size": 16, "learn": "kernel"})
    result = Dnarch().run(given)
    cost = Projector(given.graph, given.constraints).costs(result.units, result.gates)[0]
    assert cost <= given.constraints[0].limit
    for group in given.graph.groups:
        assert group.kind == "kernel" or result.units[group.units].all()


def test_all_components_meet_a_budget_closely() -> None:
    given = context(residual(), {"flops": 0.3}, kernels=True, options={"epochs": 4, "batch_size": 16})
    result = Dnarch().run(given)
    cost = Projector(given.graph, given.constraints).costs(result.units, result.gates)[0]
    assert 0.85 <= cost / given.constraints[0].limit <= 1  # a channel of this network is 7 %


def test_from_the_function_down_to_the_cropped_network(tmp_path: Any) -> None:
    from tests.search.search_models import data

    given = data()
    result = compressor.compress(
        large(), EXAMPLE, {"flops": "30%"}, data=(given.train, given.val), search="dnarch",
        options={"learn": "kernel"}, search_epochs=1, finetune_epochs=0,
    )  # fmt: skip
    flops = next(cost for cost in result.report.costs if cost.name == "flops")
    assert flops.reached <= 0.3 * flops.original
    assert any(k < 7 for k in result.model.get_submodule("one").kernel_size)  # type: ignore[union-attr]
    assert result.architecture.kept("one.weight", 2)[0] == (7 - len(result.architecture.kept("one.weight", 2))) // 2
    result.save(tmp_path / "out")
    again = compressor.load(tmp_path / "out", model=large())
    torch.testing.assert_close(again(EXAMPLE), result.model(EXAMPLE))


def test_a_model_without_such_kernels_says_why() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 2), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(
        UsageError, match=r"no kernel to learn: 0 has an even kernel \(2\), 2 has a kernel of 3 without"
    ):
        session(model, learn=("kernel",))
    with pytest.raises(UsageError, match="no convolution with a kernel above 1"):
        session(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)), learn=("kernel",))
    assert DnarchConfig().components(session(plain()).graph) == {"width", "kernel"}
