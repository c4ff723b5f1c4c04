"""What "verified" means: numbers to compare, inputs the original takes, and outputs that depend on every unit kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.graph import capture
from compressor.trim import trim_verified
from compressor.trim.outputs import error as _error


class Net(nn.Module):
    """A hidden layer of 16 units behind ``run``."""

    def __init__(
        self, run: Callable[[Tensor], Tensor] = torch.relu, after: Callable[[Tensor], Any] | None = None
    ) -> None:
        super().__init__()
        self.run, self.after = run, after
        self.a, self.b, self.c = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.c(self.run(self.b(self.run(self.a(x)))))
        return x if self.after is None else self.after(x)


def verified(model: nn.Module, x: Any) -> Any:
    graph = capture(model.eval(), x)
    units = graph.all_units()
    random = np.random.default_rng(0)
    for group in graph.groups:
        units[random.permutation(group.units)[: len(group) // 2]] = False
    return trim_verified(model, graph, units, x)


def dead(model: Any) -> None:
    model.a.bias.data.fill_(-100.0)


def closed(model: Any) -> None:
    model.c.weight.data.zero_()


def saturated(model: Any) -> None:
    model.a.weight.data.mul_(1e6)


@pytest.mark.parametrize("spoil", [None, dead, closed, saturated])
@pytest.mark.parametrize("run", [torch.relu, torch.sigmoid, nn.functional.hardtanh, nn.functional.gelu])
def test_every_unit_is_seen(spoil: Callable[[Any], None] | None, run: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = Net(run)
    if spoil is not None:
        spoil(model)
    result = verified(model, torch.randn(1, 6))
    assert result.check.passed
    assert result.check.seen == 1.0
    assert result.refused == []


@pytest.mark.parametrize(
    "after",
    [lambda y: y.argmax(-1), lambda y: y > 0, lambda y: y.round().long(), lambda y: y.detach(), lambda y: y.topk(2)[1]],
)
def test_what_decides_is_compared(after: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    result = verified(Net(after=after), torch.randn(1, 6))
    assert result.check.passed
    assert result.check.seen == 1.0


def test_what_cannot_be_seen_stays_whole() -> None:
    torch.manual_seed(0)
    result = verified(Net(after=lambda y: y * 0.0), torch.randn(1, 6))
    assert set(result.refused) == {"a", "b"}
    assert "depends" in result.reason


def test_without_gradients_inside() -> None:
    class Quiet(Net):
        def forward(self, x: Tensor) -> Any:
            with torch.no_grad():
                return super().forward(x)

    torch.manual_seed(0)
    assert verified(Quiet(), torch.randn(1, 6)).check.seen == 1.0


def test_more_than_the_example_is_run() -> None:
    torch.manual_seed(0)
    inputs = " ".join(verified(Net(), torch.randn(3, 6)).check.inputs)
    assert "example inputs" in inputs
    assert "batch of" in inputs
    sequence: Any = nn.Sequential(nn.Conv1d(3, 16, 3), nn.ReLU(), nn.Conv1d(16, 8, 3))
    inputs = " ".join(verified(sequence, torch.randn(1, 3, 20)).check.inputs)
    assert "longer" in inputs
    assert "shorter" in inputs


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    result = verified(Net().to(dtype), torch.randn(1, 6, dtype=dtype))
    assert result.check.passed
    assert result.check.dtype == "float64"


class Single(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if x.dtype is torch.float64:
            raise RuntimeError("no kernel for Double")
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 2


def test_the_highest_precision_that_runs() -> None:
    torch.manual_seed(0)
    result = verified(Net(run=lambda x: torch.relu(Single.apply(x))), torch.randn(1, 6))  # type: ignore[no-untyped-call]
    assert result.check.passed
    assert result.check.dtype == "float32"


@pytest.mark.parametrize("name", ["a.weight", "b.bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named(name: str, value: float) -> None:
    model = Net()
    model.get_parameter(name).data.flatten()[0] = value
    with pytest.raises(compressor.CompressorError, match=name):
        compressor.compress(model, torch.randn(1, 6), {"flops": "50%"})


def test_inputs_that_are_no_numbers_are_named() -> None:
    class Two(Net):
        def forward(self, x: Tensor, extra: Any = None) -> Any:
            return super().forward(x + extra["y"])

    x = torch.randn(1, 6)
    bad = torch.full((1, 6), math.nan)
    with pytest.raises(compressor.CompressorError, match="input 0"):
        compressor.compress(Net(), bad, {"flops": "50%"})
    with pytest.raises(compressor.CompressorError, match="extra"):
        compressor.compress(Two(), x, {"flops": "50%"}, example_kwargs={"extra": {"y": bad}})


def test_outputs_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(compressor.CompressorError, match="NaN"):
        compressor.compress(Net(after=lambda y: (-y.abs() - 1).sqrt()), torch.randn(1, 6), {"flops": "50%"})


def test_inputs_the_original_refuses_are_refused() -> None:
    class Embedded(Net):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 6)

        def forward(self, x: Tensor) -> Any:
            return super().forward(self.table(x))

    with pytest.raises(compressor.CompressorError, match="raises on the example inputs"):
        compressor.compress(Embedded(), torch.tensor([[3, 99]]), {"flops": "50%"})


def test_masks_of_minus_infinity_are_fine() -> None:
    class Causal(Net):
        mask: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((5, 5), -math.inf).triu(1))

        def forward(self, x: Tensor) -> Any:
            scores = (x @ x.transpose(1, 2) + self.mask).softmax(-1)
            return super().forward(scores @ x)

    torch.manual_seed(0)
    assert verified(Causal(), torch.randn(1, 5, 6)).check.passed


def test_no_number_equals_nothing() -> None:
    nan, inf, one = torch.tensor([math.nan, 1.0]), torch.tensor([math.inf, 1.0]), torch.ones(2)
    assert _error(one, one) == 0
    assert _error(inf, inf) == 0
    for a, b in ((nan, nan), (nan, one), (one, nan), (inf, -inf), (inf, one), (one, inf)):
        assert _error(a, b) == math.inf
