"""Forwards that keep what they computed: nothing of a trace or a check is left in what they keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def _in_a_dictionary(cache: Any, made: Callable[[], Tensor]) -> Tensor:
    key = "cpu"
    if key not in cache:
        cache[key] = made()
    found: Tensor = cache[key]
    return found


def _in_a_list(cache: Any, made: Callable[[], Tensor]) -> Tensor:
    if not cache:
        cache.append(made())
    found: Tensor = cache[0]
    return found


def _nested(cache: Any, made: Callable[[], Tensor]) -> Tensor:
    if not cache["of"]:
        cache["of"].append({"bias": made()})
    found: Tensor = cache["of"][0]["bias"]
    return found


class Caching(nn.Module):
    """Scales channels by what it computes from a parameter once, in evaluation mode."""

    def __init__(self, cache: Any, kept: Callable[[Any, Callable[[], Tensor]], Tensor]) -> None:
        super().__init__()
        self.cache, self.kept = cache, kept
        self.first, self.second = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 16, 3, padding=1)
        self.scale, self.head = nn.Parameter(torch.rand(12)), nn.Linear(16, 4)

    def made(self) -> Tensor:
        return self.scale.exp()[None, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        scale = self.made() if self.training else self.kept(self.cache, self.made)
        out: Tensor = self.head(self.second(self.first(x).relu() * scale).relu().mean((2, 3)))
        return out


CACHES: dict[str, tuple[Callable[[], Any], Callable[[Any, Callable[[], Tensor]], Tensor]]] = {
    "dictionary": (dict, _in_a_dictionary),
    "list": (list, _in_a_list),
    "nested": (lambda: {"of": []}, _nested),
}


@pytest.mark.parametrize("kind", CACHES)
def test_what_a_forward_keeps_is_its_own(kind: str) -> None:
    make, kept = CACHES[kind]
    torch.manual_seed(0)
    model = Caching(make(), kept).eval()
    result = compressor.compress(model, X, {"flops": "50%"})
    assert model.cache == make()
    assert result.model.cache == make()
    assert result.report.verification is not None
    assert result.report.verification.passed
    assert not any("left whole" in fixed.reason for fixed in result.report.fixed)
    fresh = Caching(make(), kept)
    result.architecture.apply_(fresh)
    fresh.load_state_dict(result.model.state_dict())
    with torch.no_grad():
        assert torch.equal(result.model.eval()(X), fresh.eval()(X))
        assert result.model(X).dtype is torch.float32
        assert model(X).shape == (2, 4)
