"""Layers that run by the length of the input shrink with what they read, whatever the example's length."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.errors import UnsupportedModelError
from compressor.graph import capture
from compressor.masks import Masking
from compressor.trim import trim_verified

from .random_units import random_units


class ByLength(nn.Module):
    """One layer or the other; with ``both``, a second one from some length on."""

    def __init__(self, *, from_length: int = 16, both: bool = False) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv1d(3, 12, 3, padding=1), nn.Linear(12, 2)
        self.short, self.long = nn.Conv1d(12, 12, 1), nn.Conv1d(12, 12, 5, stride=2, padding=2)
        self.from_length, self.both = from_length, both

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        if self.both:
            x = self.short(x).relu()
        if x.shape[-1] >= self.from_length:
            x = self.long(x).relu()
        elif not self.both:
            x = self.short(x).relu()
        found: Tensor = self.out(x.mean(-1))
        return found


class BySize(nn.Module):
    """Large images are made smaller first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shrink, self.out = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 2, stride=2), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).tanh()
        while min(x.shape[-2:]) > 12:
            x = self.shrink(x).tanh()
        found: Tensor = self.out(x)
        return found


FORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "short, or long": (ByLength, (2, 3, 10), (3, 3, 40)),
    "long, or short": (ByLength, (2, 3, 20), (3, 3, 6)),
    "one more when long": (lambda: ByLength(both=True), (2, 3, 10), (3, 3, 40)),
    "much longer": (lambda: ByLength(from_length=60), (2, 3, 10), (1, 3, 70)),
    "images": (BySize, (1, 3, 8, 8), (1, 3, 28, 30)),
}


@pytest.mark.parametrize("form", FORMS)
def test_inputs_of_both_lengths_run_and_are_exact(form: str) -> None:
    make, shape, other = FORMS[form]
    torch.manual_seed(0)
    model, x = make().double().eval(), torch.randn(*shape, dtype=torch.float64)
    graph = capture(model, x)
    assert graph.groups, [(f.place, f.operator, f.reason) for f in graph.fixed]
    units = random_units(graph)
    result = trim_verified(model, graph, units, x)
    assert not result.refused, result.check.reason
    for inputs in (x, torch.randn(*other, dtype=torch.float64)):
        with torch.no_grad(), Masking(model, graph).applied(torch.from_numpy(units).double()):
            expected = model(inputs)
        torch.testing.assert_close(result.model(inputs), expected, rtol=0, atol=1e-9)


def test_a_length_that_is_never_tried_is_asked_for() -> None:
    model = ByLength(from_length=5000)
    with pytest.raises(UnsupportedModelError, match=r"long.weight was not reached .*pass an example for which it runs"):
        compressor.compress(model, torch.randn(1, 3, 10), {"flops": "50%"})
