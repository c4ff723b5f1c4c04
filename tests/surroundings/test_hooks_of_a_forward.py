"""A forward that hangs hooks into its modules when it first runs: a trace leaves none behind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from compressor.graph import capture
from compressor.trim import trim_verified


class Collects(nn.Module):
    """Takes the results of its layers from hooks that its first forward installs, as transformers' models do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.heads = nn.ModuleList(nn.Linear(8, 4) for _ in range(3))
        self.hooked = False

    def forward(self, x: Tensor) -> Tensor:
        seen: list[Tensor] = []
        self.__dict__["seen"] = seen
        if not self.hooked:
            for layer in self.layers:
                layer.register_forward_hook(self.collect)
            self.hooked = True
        for layer in self.layers:
            x = torch.relu(layer(x))
        assert len(seen) == len(self.layers)
        return torch.stack([head(y) for head, y in zip(self.heads, seen, strict=True)]).sum(0)

    def collect(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.__dict__["seen"].append(output)


def test_the_model_computes_after_a_trace_what_it_did_before() -> None:
    torch.manual_seed(0)
    model, x = Collects().eval(), torch.randn(2, 8)
    graph = capture(model, x)
    assert not any(layer._forward_hooks for layer in model.layers)
    expected = model(x)
    torch.testing.assert_close(capture(model, x) and model(x), expected)
    assert [len(layer._forward_hooks) for layer in model.layers] == [1, 1, 1]
    assert graph.groups


def test_it_is_compressed_before_its_first_forward() -> None:
    torch.manual_seed(0)
    model, x = Collects().eval(), torch.randn(2, 8)
    graph = capture(model, x)
    units = graph.all_units()
    for group in graph.groups:
        units[group.units[::2]] = False
    result = trim_verified(model, graph, units, x)
    assert not result.refused, result.reason
    assert result.model(x).shape == (2, 4)
