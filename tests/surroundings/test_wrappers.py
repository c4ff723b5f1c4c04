"""Models as they come in practice: wrapped, frozen, in half precision, built late, with hooks and parametrizations."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import compressor
from compressor.errors import UsageError
from compressor.graph import capture
from compressor.trim import trim_verified

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        out: Tensor = self.head(self.second(x).relu().mean((2, 3)))
        return out


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def halved(model: nn.Module, inputs: Any = X, **options: Any) -> compressor.Result:
    result = compressor.compress(model, inputs, {"flops": "50%"}, **options)
    check = result.report.verification
    assert check is not None
    assert check.passed, check
    assert not any("left whole" in fixed.reason for fixed in result.report.fixed)
    return result


@pytest.fixture
def one_process() -> Iterator[None]:
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    torch.distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_data_parallel_is_unwrapped() -> None:
    result = halved(nn.DataParallel(net()))
    assert type(result.model) is Net
    assert result.report.model == "Net"


def test_distributed_data_parallel_is_unwrapped(one_process: None) -> None:
    wrapped = nn.parallel.DistributedDataParallel(net())
    assert type(halved(wrapped).model) is Net
    session = compressor.prepare(wrapped.train(), X, {"flops": "60%"}, total_steps=3)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.01)
    for _ in range(3):
        loss = wrapped(X).square().mean() + session.cost_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        session.step()
    small = session.finish()
    assert type(small) is Net
    assert small.first.out_channels < 12 or small.second.out_channels < 16


def test_compiled_models_are_unwrapped_and_compiled_parts_run_as_written() -> None:
    assert type(halved(torch.compile(net())).model) is Net
    assert type(halved(torch.compile(nn.DataParallel(net()))).model) is Net
    in_place = net()
    in_place.compile()
    in_place.second.compile()
    assert halved(in_place).model.head.in_features < 16
    part: Any = net()
    part.second = torch.compile(part.second)
    small = halved(part).model
    assert small.second.out_channels == small.head.in_features < 16


def test_frozen_parameters_stay_frozen_and_are_trimmed_too() -> None:
    model = net()
    model.first.weight.requires_grad_(False)
    model.norm.requires_grad_(False)
    small = halved(model).model
    assert small.first.out_channels < 12
    assert [n for n, p in small.named_parameters() if not p.requires_grad] == [
        "first.weight",
        "norm.weight",
        "norm.bias",
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_kept(dtype: torch.dtype) -> None:
    result = halved(net().to(dtype), X.to(dtype))
    small = result.model
    assert result.report.verification.error <= 1e-9
    assert {p.dtype for p in small.parameters()} == {dtype}
    assert small(X.to(dtype)).dtype == dtype


class ReadsValues(Net):
    """Cannot run on meta tensors."""

    def forward(self, x: Tensor) -> Tensor:
        scale = 2.0 if x.abs().sum().item() > 0 else 1.0
        return super().forward(x * scale)


def test_a_forward_that_reads_values_is_run_on_real_tensors() -> None:
    torch.manual_seed(0)
    model = ReadsValues().eval()
    assert not capture(model, X).on_meta
    assert halved(model).model.first.out_channels < 12


def test_lazy_modules_get_their_shapes_from_the_example() -> None:
    model = nn.Sequential(nn.LazyConv2d(12, 3), nn.ReLU(), nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(5)).eval()
    small = halved(model).model
    assert small[2].in_channels == small[0].out_channels < 12


def test_building_leaves_the_random_generators_alone_and_weighs_as_the_first_forward_would() -> None:
    late = BuiltLate().eval()
    own = nn.Sequential(nn.LazyConv2d(12, 3), nn.ReLU(), nn.Conv2d(12, 5, 3)).eval()
    ours, state = copy.deepcopy(own), torch.get_rng_state()
    own(X)
    torch.set_rng_state(state)
    for model in (ours, late):
        before = torch.get_rng_state()
        halved(model)
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), ours.parameters(), strict=True))


def test_a_lazy_original_is_built_before_an_architecture_applies() -> None:
    def fresh() -> nn.Module:
        return nn.Sequential(nn.LazyConv2d(12, 3), nn.ReLU(), nn.Conv2d(12, 5, 3)).eval()

    architecture = halved(fresh()).architecture
    model = fresh()
    with pytest.raises(UsageError, match="run the model once"):
        architecture.apply_(model)
    model(X)
    assert architecture.apply_(model)[0].out_channels < 12


class BuiltLate(nn.Module):
    """Makes its last layer when it first sees an input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3)
        self.head: nn.Linear | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu().flatten(1)
        if self.head is None:
            self.head = nn.Linear(x.shape[1], 5, device=x.device)
        out: Tensor = self.head(x)
        return out


def test_modules_made_by_the_first_forward_are_made_before_the_trace() -> None:
    torch.manual_seed(0)
    model = BuiltLate().eval()
    small = halved(model).model
    assert small.head is not None
    assert small.head.in_features == 36 * small.first.out_channels < 36 * 12


class Symmetric(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w * w.abs().clamp(max=1.0)


def test_hooks_and_parametrizations_of_the_users_own_go_along() -> None:
    model = net()
    parametrize.register_parametrization(model.second, "weight", Symmetric())
    model.first.register_forward_hook(lambda module, args, output: output * 0.5)
    model.head.register_forward_pre_hook(lambda module, args: (args[0].tanh(),))
    seen: list[int] = []
    model.register_forward_hook(lambda module, args, output: seen.append(output.shape[1]))
    small = halved(model).model
    assert small.second.out_channels < 16
    assert parametrize.is_parametrized(small.second)
    seen.clear()
    out = small(X)
    assert seen == [5]
    for module in small.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    assert not torch.allclose(small(X), out), "the hooks were at work in the compressed network"


def test_hooks_that_keep_activations_do_not_hold_the_trace() -> None:
    model = net()
    kept: dict[str, Tensor] = {}
    model.second.register_forward_hook(lambda module, args, output: kept.update(out=output))
    halved(model)
    model(X)
    assert kept["out"].shape == (2, 16, 8, 8)


def test_include_and_exclude() -> None:
    small = halved(net(), exclude=("first",)).model
    assert small.first.out_channels == 12
    assert small.second.out_channels < 16
    small = halved(net(), include=("first",)).model
    assert small.first.out_channels < 12
    assert small.second.out_channels == 16


class Compares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 1), nn.Conv2d(12, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.b(x)
        if x.shape == y.shape:
            y = y + x
        out: Tensor = self.head(y)
        return out


def test_widths_at_which_a_forward_decides_otherwise_are_not_used() -> None:
    torch.manual_seed(0)
    model = Compares().eval()
    graph = capture(model, X)
    units = graph.all_units()
    for group in graph.groups:
        units[group.units[4:]] = False
    result = trim_verified(model, graph, units, X)
    assert set(result.refused) <= {"a", "b"}
    assert result.refused
    assert result.check.error <= 1e-9
