"""Importance is that of the weights a forward uses, whatever the model stores, by every measure."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import compressor
from compressor.costs import build
from compressor.errors import UsageError
from compressor.graph import capture
from compressor.nn.tensors import example_of
from compressor.search.base import SearchContext
from compressor.search.constraints.constraint import Constraint
from compressor.search.importance import FROM_DATA, MEASURES
from compressor.search.importance.rank import rank
from tests.search.search_models import EXAMPLE, NETWORKS, data, residual

EVERY = MEASURES.names()


def ranked(model: nn.Module, measure: Any = "magnitude", x: Tensor = EXAMPLE, **rest: Any) -> tuple[Any, Any]:
    graph = capture(model, x)
    constraint = Constraint(build("flops", graph), 0.5 * build("flops", graph).original)
    given = SearchContext(model, graph, [constraint], **{"data": data(), "example": example_of(x), **rest})
    return graph, rank(given, measure)


def chain(widths: tuple[int, ...] = (16, 24, 12)) -> nn.Sequential:
    layers: list[nn.Module] = []
    n = 3
    for width in widths:
        layers += [nn.Conv2d(n, width, 3, padding=1), nn.ReLU()]
        n = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, 4))


class Scaled(nn.Module):
    """Any factor per row of a weight."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand(rows) + 0.1)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.factor.reshape(-1, *[1] * (weight.dim() - 1))


class Squashed(nn.Conv2d):
    """A convolution that bends its weight in its own forward."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, torch.tanh(3 * self.weight), self.bias)


class Gain(nn.Linear):
    """A linear layer that multiplies its weight by a learned gain per output and reads its transpose."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.gain = nn.Parameter(torch.rand(sizes[1]) + 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.weight * self.gain[:, None]).t() + self.bias  # type: ignore[no-any-return]


def pruned(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            prune.l1_unstructured(module, "weight", 0.5)
    return model


def each(apply: Callable[[nn.Module], Any]) -> Callable[[nn.Module], nn.Module]:
    def changed(model: nn.Module) -> nn.Module:
        for module in list(model.modules()):
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                apply(module)
        return model

    return changed


def scaled(module: nn.Module) -> None:
    parametrize.register_parametrization(module, "weight", Scaled(len(module.weight)))  # type: ignore[arg-type]


def squashed(model: nn.Module) -> nn.Module:
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d):
            bias = module.bias is not None
            new = Squashed(module.in_channels, module.out_channels, 3, padding=1, bias=bias)
            new.load_state_dict(module.state_dict())
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, new)
    return model


FORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "pruning masks": pruned,
    "structured pruning masks": each(lambda m: prune.ln_structured(m, "weight", 0.3, n=2, dim=0)),
    "two masks": each(lambda m: [prune.random_unstructured(m, "weight", 0.3) for _ in range(2)]),
    "weight norm hooks": each(nn.utils.weight_norm),
    "weight norm": each(parametrizations.weight_norm),
    "spectral norm hooks": each(nn.utils.spectral_norm),
    "spectral norm": each(parametrizations.spectral_norm),
    "a parametrization of one's own": each(scaled),
    "two parametrizations": each(lambda m: (scaled(m), scaled(m))),
    "weights bent in the forward": squashed,
}


def baked(model: nn.Module) -> nn.Module:
    """The same network with the weights in use as its stored ones."""
    plain = chain() if isinstance(model, nn.Sequential) and len(model) == 9 else residual()
    with torch.no_grad():
        model.eval()(EXAMPLE)
        for name, module in plain.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                given: Any = model.get_submodule(name)
                weight = given.weight
                if isinstance(given, Squashed):
                    weight = torch.tanh(3 * weight)
                module.weight.copy_(weight)
                if module.bias is not None:
                    module.bias.copy_(given.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.load_state_dict(model.get_submodule(name).state_dict())
    return plain.eval()


def skewed(model: nn.Module) -> nn.Module:
    """Rows of stored weights at random scales, which a normalisation takes away again."""
    source = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                scale = torch.empty(len(parameter)).uniform_(0.2, 5, generator=source)
                parameter.mul_(scale.reshape(-1, *[1] * (parameter.dim() - 1)))
            elif name.endswith("factor"):
                parameter.copy_(torch.empty_like(parameter).uniform_(0.01, 9, generator=source))
    return model


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("network", [chain, residual])
@pytest.mark.parametrize("measure", ["magnitude", "l1", "taylor", "sensitivity"])
def test_units_are_ranked_as_with_the_weights_in_use_stored(
    form: str, network: Callable[[], nn.Module], measure: str
) -> None:
    torch.manual_seed(0)
    model = skewed(FORMS[form](network()))
    graph, (units, blocks) = ranked(model, measure)
    plain_graph, (expected, expected_blocks) = ranked(baked(model), measure)
    names = {group.name.partition(".parametrizations")[0]: group for group in graph.groups}
    assert set(names) == {group.name for group in plain_graph.groups}
    for group in plain_graph.groups:
        found = units[names[group.name].units]
        assert np.allclose(found, expected[group.units], rtol=1e-3, atol=1e-6 * expected.max())
    assert np.allclose(blocks > 0, expected_blocks > 0)


def test_a_product_that_is_read_transposed_counts_as_it_is_used() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Gain(8, 32), nn.ReLU(), Gain(32, 32), nn.ReLU(), Gain(32, 4))
    model[0].gain.data[:20] = 1e-4  # type: ignore[union-attr,operator]
    graph, (units, _) = ranked(model, x=torch.randn(2, 8), data=None)
    plain = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    with torch.no_grad():
        for i in (0, 2, 4):
            given: Any = model[i]
            plain[i].weight.copy_(given.weight * given.gain[:, None])  # type: ignore[operator]
    _, (expected, _) = ranked(plain, x=torch.randn(2, 8), data=None)
    assert np.allclose(units, expected, rtol=1e-4)
    assert graph.computed


def test_what_a_computed_weight_hides_counts_as_it_is_stored() -> None:
    """The rank of a product of two matrices is an axis of neither the product nor its reader."""

    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(32, 6)), nn.Parameter(torch.randn(6, 16))
            self.head = nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(nn.functional.linear(x, self.a @ self.b).relu())
            return y

    torch.manual_seed(0)
    model = LowRank()
    graph, (units, _) = ranked(model, x=torch.randn(2, 16), data=None)
    assert graph.computed[0].parameters == ("a", "b")
    for group in graph.groups:
        assert (units[group.units] > 0).all(), group.name
    narrow = compressor.compress(model, torch.randn(2, 16), {"params": "60%"}).model
    assert narrow(torch.randn(5, 16)).shape == (5, 4)


@pytest.mark.parametrize("measure", EVERY)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_measure_ranks_every_network(measure: str, network: str) -> None:
    model = NETWORKS[network]().eval()
    before = copy.deepcopy(model.state_dict())
    heard: list[str] = []
    if (measure, network) == ("bn-scale", "attention"):
        with pytest.raises(UsageError, match="no group"):
            ranked(model, measure)
        return
    graph, (units, blocks) = ranked(model, measure, warn=heard.append)
    assert units.shape == (graph.n_units,)
    assert blocks.shape == (len(graph.blocks),)
    assert np.isfinite(units).all()
    assert (units >= 0).all()
    assert (units > 0).any()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    bare = measure == "bn-scale" and network == "plain"
    assert any("no batch norm follows conv2" in line for line in heard) == bare
    again = ranked(NETWORKS[network]().eval(), measure, warn=heard.append)[1][0]
    assert np.array_equal(units, again)


def test_chance_follows_the_seed() -> None:
    first, same, other = (ranked(residual(), "random", seed=seed)[1][0] for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_bn_scale_keeps_what_is_scaled_most() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(32, 4))
    scales = torch.randperm(32).float() + 1
    model[1].weight.data = scales  # type: ignore[union-attr]
    small = compressor.compress(model, EXAMPLE, {"flops": "50%"}, importance="bn-scale", round_to=1).model
    kept = small[1].weight  # type: ignore[index,union-attr]
    assert sorted(kept.tolist()) == sorted(scales.tolist())[-len(kept) :]  # type: ignore[union-attr,arg-type,operator]


@pytest.mark.parametrize("search", ["oneshot", "dnarch"])
def test_a_function_of_ones_own_decides(search: str) -> None:
    torch.manual_seed(0)
    model = chain((32, 32, 32))
    seen: list[str] = []

    def even_ones(group: Any) -> list[float]:
        seen.append(group.name)
        assert len(group) == 32
        assert all(len(t) == 32 for t in (*group.written.values(), *group.read.values(), *group.scales.values()))
        assert group.written
        assert group.read
        return [1.0 + (i % 2 == 0) for i in range(len(group))]

    rest: dict[str, Any] = {}
    if search == "dnarch":
        rest = {"data": (batches(), batches()), "search_epochs": 2, "finetune_epochs": 0}
    found = compressor.compress(
        model, EXAMPLE, {"flops": "60%"}, search=search, importance=even_ones, round_to=1, **rest
    ).architecture
    assert len(seen) == 3
    kept = found.kept("2.weight", 0)
    assert len(kept) < 32
    odd = [i for i in kept if i % 2]
    assert not odd or len(kept) - len(odd) == 16


def batches() -> list[Any]:
    return list(data(64).train.batches(16))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda group: [1.0], "shape"),
        (lambda group: torch.full((len(group),), float("nan")), "finite"),
        (lambda group: -np.ones(len(group)), "not negative"),
        (lambda group: "high", "must return"),
        (lambda group: None, "must return"),
        (lambda group: 1 / 0, "ZeroDivisionError"),
        (lambda group: np.zeros(len(group)), "zero for every unit"),
    ],
)
def test_what_a_function_gives_is_checked(function: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compressor.compress(residual(), EXAMPLE, {"flops": "50%"}, importance=function)


def zeroed(model: nn.Module, share: float, seed: int) -> dict[str, Tensor]:
    """Zero a share of the filters of every convolution whose outputs no block adds up."""
    torch.manual_seed(seed)
    chosen = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and name.rpartition(".")[2] in {"conv1", "0", "2", "4"} and "." not in name:
            dead = torch.randperm(module.out_channels)[: int(share * module.out_channels)]
            module.weight.data[dead] = 0
            if module.bias is not None:
                module.bias.data[dead] = 0
            chosen[name] = dead
    return chosen


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("measure", ["magnitude", "l1", "taylor", "sensitivity"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_budget_for_zeroed_filters_changes_nothing_else(seed: int, measure: str, masked: bool) -> None:
    torch.manual_seed(seed)
    model = chain((24, 40, 32)).eval()
    for name, dead in zeroed(model, 0.5, seed).items():
        if masked:
            module: Any = model.get_submodule(name)
            mask = torch.ones_like(module.weight)
            mask[dead] = 0
            module.weight.data[dead] = 9.0  # what is stored is large, what is in use is zero
            prune.custom_from_mask(module, "weight", mask)
    x = torch.randn(4, 3, 8, 8)
    before = model(x)
    data_ = {"data": (batches(), batches()), "finetune_epochs": 0, "search": "oneshot"} if measure in FROM_DATA else {}
    small = compressor.compress(model, EXAMPLE, {"flops": "40%"}, importance=measure, round_to=1, **data_).model
    assert torch.allclose(small(x), before, atol=1e-5)


def test_channels_that_norms_close_or_nobody_reads_go_first() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 4),
    ).eval()
    closed, unread = torch.randperm(32)[:12], torch.randperm(32)[:12]
    for parameter in (model[1].weight, model[1].bias):
        parameter.data[closed] = 0  # type: ignore[union-attr,operator]
    model[0].weight.data[closed] *= 100  # type: ignore[union-attr,operator]
    model[8].weight.data[:, unread] = 0  # type: ignore[union-attr,operator]
    model[3].weight.data[unread] *= 100  # type: ignore[union-attr,operator]
    before = model(torch.ones(2, 3, 8, 8))
    small = compressor.compress(model, EXAMPLE, {"flops": "55%"}, round_to=1).model
    assert torch.allclose(small(torch.ones(2, 3, 8, 8)), before, atol=1e-5)


def test_a_block_that_adds_nothing_goes_first() -> None:
    model = residual().eval()
    nn.init.zeros_(model[2].bn2.weight)  # type: ignore[union-attr,arg-type]
    nn.init.zeros_(model[2].bn2.bias)  # type: ignore[union-attr,arg-type]
    x = torch.randn(2, 3, 8, 8)
    before = model(x)
    result = compressor.compress(model, EXAMPLE, {"flops": "70%"}, round_to=1)
    assert result.architecture.is_removed("2.conv1.weight")
    assert torch.allclose(result.model(x), before, atol=1e-5)


def test_a_network_whose_every_branch_starts_at_zero_keeps_some() -> None:
    model = residual()
    for i in (1, 2, 3):
        nn.init.zeros_(model[i].bn2.weight)  # type: ignore[union-attr,arg-type]
    result = compressor.compress(model, EXAMPLE, {"flops": "60%"})
    assert not all(result.architecture.is_removed(f"{i}.conv1.weight") for i in (1, 2, 3))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_searches_that_train_run_on_every_form(form: str, search: str) -> None:
    torch.manual_seed(0)
    model = FORMS[form](chain())
    found = compressor.compress(
        model,
        EXAMPLE,
        {"flops": "60%"},
        data=(batches(), batches()),
        search=search,
        search_epochs=1,
        finetune_epochs=1,
        round_to=1,
    )
    assert all(budget.met for budget in found.report.budgets)
