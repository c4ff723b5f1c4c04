"""What is frozen is what it was, bit for bit, in all of it that is kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import compressor
from compressor.architecture.architecture import Architecture
from compressor.costs import build
from compressor.errors import UsageError
from compressor.graph import capture
from compressor.masks import Masking
from compressor.masks.straight_through import hard
from compressor.pipeline.session import Session
from compressor.search.training.shrinking import Live
from tests.api_models import EXAMPLE, loader


class Branch(nn.Module):
    """``x + branch(x)``; the last parameters are those of a BatchNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))


class Forms(nn.Module):
    """Images (B, 3, 8, 8) to four classes: a stem, blocks, a depthwise convolution and two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(Branch(16), Branch(16), Branch(16))
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.wide = nn.Conv2d(16, 24, 1)
        self.one, self.other = nn.Conv2d(24, 24, 1, bias=False), nn.Conv2d(24, 24, 1, bias=False)
        self.other.weight = self.one.weight
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.norm(self.stem(x)).relu())
        x = self.wide(self.deep(x).relu()).relu()
        y: Tensor = self.head(self.other(self.one(x).relu()).relu().mean((2, 3)))
        return y


FORMS: dict[str, tuple[str, ...]] = {
    "first layer": ("stem.",),
    "stem and norm": ("stem.", "norm."),
    "middle block": ("blocks.1.",),
    "last norms": ("blocks.0.bn2.", "blocks.1.bn2.", "blocks.2.bn2."),
    "all but the head": ("stem", "norm", "blocks", "deep", "wide", "one", "other"),
    "biases": ("stem.bias", "blocks.0.conv1.bias", "deep.bias", "wide.bias"),
    "depthwise": ("deep.",),
    "tied": ("one.", "other."),
    "readers": ("blocks.0.conv2.", "wide.", "head.weight"),
}


def forms(frozen: tuple[str, ...] = ()) -> Forms:
    torch.manual_seed(0)
    model = Forms()
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(m, _BatchNorm)):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen) if frozen else True)
    return model


def frozen_norms(model: nn.Module) -> list[str]:
    """Those whose weight and bias are frozen."""
    norms = [(name, m) for name, m in model.named_modules() if isinstance(m, _BatchNorm)]
    return [name for name, m in norms if not any(p.requires_grad for p in m.parameters())]


def require_kept(small: nn.Module, architecture: Architecture, before: nn.Module, buffers: list[str]) -> None:
    """Frozen parameters and these buffers are slices of what they were; of the others most weights have changed."""
    trained = []
    for name, parameter in small.named_parameters():
        first = architecture.first_name(name)
        original = before.get_parameter(first)
        assert parameter.requires_grad == original.requires_grad, name
        same = torch.equal(parameter, architecture.slice(first, original))
        if not original.requires_grad:
            assert same, name
        elif parameter.dim() > 1:
            trained.append(not same)
    assert all(trained)
    assert trained
    there = dict(small.named_buffers())
    for name in set(buffers) & set(there):
        assert torch.equal(there[name], architecture.slice(name, before.get_buffer(name))), name


def statistics(norms: list[str]) -> list[str]:
    return [f"{name}.{buffer}" for name in norms for buffer in ("running_mean", "running_var")]


METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "oneshot": ("oneshot", {}),
    "figs": ("figs", {}),
    "width": ("dnarch", {"learn": "width", "least_steps": 0}),
    "width and depth": ("dnarch", {"learn": "width,depth", "least_steps": 0}),
    "all": ("dnarch", {"least_steps": 0}),
    "all, masked": ("dnarch", {"live": False, "least_steps": 0}),
}


def check_compress(frozen: tuple[str, ...], method: str, prepare: Callable[[nn.Module], list[str]]) -> None:
    search, options = METHODS[method]
    model = forms(frozen)
    norms = prepare(model)
    before = copy.deepcopy(model)
    epochs = {} if search == "oneshot" else {"search_epochs": 3}
    result = compressor.compress(
        model,
        EXAMPLE,
        {"flops": "50%"},
        data={"train": loader(), "val": loader(32, 1)},
        search=search,
        options=options,
        finetune_epochs=1,
        batch_size=16,
        **epochs,
    )
    assert result.report.verification is not None
    assert result.report.verification.error <= 1e-9
    assert all(budget.met for budget in result.report.budgets)
    require_kept(result.model, result.architecture, before, statistics(norms))


@pytest.mark.parametrize("method", ["oneshot", "figs", "width and depth"])
@pytest.mark.parametrize("form", ["stem and norm", "all but the head"])
def test_frozen_tensors_stay(form: str, method: str) -> None:
    check_compress(FORMS[form], method, frozen_norms)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
def test_frozen_tensors_stay_in_every_form(form: str, method: str) -> None:
    check_compress(FORMS[form], method, frozen_norms)


@pytest.mark.parametrize("method", ["oneshot", "all"])
def test_statistics_of_what_is_kept_in_evaluation_mode_stay(method: str) -> None:
    def prepare(model: nn.Module) -> list[str]:
        model.train()
        model.norm.eval()
        model.blocks[0].eval()
        return ["norm", "blocks.0.bn1", "blocks.0.bn2"]

    check_compress((), method, prepare)


def test_statistics_of_norms_without_momentum_are_not_taken_anew() -> None:
    def prepare(model: nn.Module) -> list[str]:
        model.norm.momentum = 0.0
        return ["norm"]

    check_compress((), "width", prepare)


@pytest.mark.parametrize("search", ["oneshot", "figs", "dnarch"])
def test_where_all_is_frozen_training_is_refused_before_any_work(search: str) -> None:
    model, splits = forms().requires_grad_(False), {"train": loader(), "val": loader(32, 1)}
    with pytest.raises(UsageError, match="Forms are frozen, so there is nothing to train"):
        compressor.compress(model, EXAMPLE, {"flops": "50%"}, data=splits, search=search)


def test_where_all_is_frozen_channels_go_all_the_same() -> None:
    model, splits = forms().requires_grad_(False), {"train": loader(), "val": loader(32, 1)}
    before = copy.deepcopy(model.state_dict())
    given = {"data": splits, "search": "oneshot", "finetune_epochs": 0, "options": {"importance": "magnitude"}}
    result = compressor.compress(model, EXAMPLE, {"flops": "50%"}, **given)
    assert all(budget.met for budget in result.report.budgets)
    for name, tensor in result.model.state_dict().items():
        first = result.architecture.first_name(name)
        assert torch.equal(tensor, result.architecture.slice(first, before[first])), name


def loop(model: nn.Module, session: Session, steps: int) -> None:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05, weight_decay=0.01)
    batches = [batch for _ in range(steps) for batch in loader()]
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
            module.eval()
    for inputs, targets in batches[:steps]:
        loss = nn.functional.cross_entropy(model(inputs), targets) + session.cost_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        session.step()


@pytest.mark.parametrize("form", FORMS)
def test_frozen_tensors_stay_in_a_loop_of_ones_own(form: str) -> None:
    check_loop(form, {"learn": "width,depth"})


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"learn": "width"}, {}, None])
@pytest.mark.parametrize("form", FORMS)
def test_frozen_tensors_stay_in_loops_of_any_method(form: str, options: dict[str, Any] | None) -> None:
    check_loop(form, options)


def check_loop(form: str, options: dict[str, Any] | None) -> None:
    model = forms(FORMS[form])
    before = copy.deepcopy(model)
    search = "figs" if options is None else "dnarch"
    session = compressor.prepare(model, EXAMPLE, {"flops": "50%"}, search=search, options=options, total_steps=12)
    loop(model, session, 12)
    model.eval()
    with session.masked(), torch.no_grad():
        expected = model(EXAMPLE)
    small = session.finish().eval()
    assert session.check.error <= 1e-9
    limit = 0.5 * build("flops", capture(before, EXAMPLE)).original
    assert build("flops", capture(small, EXAMPLE)).original <= limit
    require_kept(small, session.architecture, before, statistics(frozen_norms(before)))
    for name, parameter in before.named_parameters():
        assert parameter.requires_grad or torch.equal(parameter, model.get_parameter(name)), name
    torch.testing.assert_close(small(EXAMPLE), expected, rtol=1e-4, atol=1e-4)


def test_weights_frozen_later_stay_from_then_on() -> None:
    model = forms()
    session = compressor.prepare(model, EXAMPLE, {"flops": "50%"}, search="dnarch", total_steps=12)
    loop(model, session, 3)
    model.blocks.requires_grad_(False)
    before = copy.deepcopy(model.blocks)
    loop(model, session, 9)
    session.finish()
    for name, parameter in before.named_parameters():
        assert torch.equal(parameter, model.blocks.get_parameter(name)), name


@pytest.mark.parametrize("form", FORMS)
def test_soft_masks_act_as_they_will_be_folded(form: str) -> None:
    model = forms(FORMS[form]).double().eval()
    x = EXAMPLE.double()
    graph = capture(model, x, kernels=True)
    masking, source = Masking(model, graph), torch.Generator().manual_seed(0)
    units = torch.rand(graph.n_units, generator=source, dtype=torch.float64)
    units = (units * (units > 0.3)).requires_grad_()
    gates = (0.5 + torch.rand(len(graph.blocks), generator=source, dtype=torch.float64) / 2).requires_grad_()
    with masking.applied(units, gates=gates, hard=(hard(units), hard(gates))):
        masked = model(x)
    live = Live(model, graph, folds=True).forward(x, units, gates)
    torch.testing.assert_close(live, masked, rtol=1e-9, atol=1e-9)
    found = [torch.autograd.grad(out.square().sum(), (units, gates)) for out in (masked, live)]
    there = units.detach() > 0
    torch.testing.assert_close(found[1][0][there], found[0][0][there], rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-7, atol=1e-7)
    masking.fold_(units, gates)
    with masking.applied(hard(units).detach(), gates=hard(gates).detach()):
        torch.testing.assert_close(model(x), masked, rtol=1e-9, atol=1e-9)
