"""Copies of networks run their own modules, whatever functions were put on these."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.nn.copying import deep_copy, same_tensors


class Block(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


def free(block: Any, x: Tensor) -> Tensor:
    return torch.relu(block.norm(block.conv(x)))


def closure(block: Any) -> Any:
    return lambda x: torch.relu(block.norm(block.conv(x)))


def over_a_method(block: Any) -> Any:
    before = block.forward
    return lambda x: before(x)


def wrapped(block: Any) -> Any:
    before = block.forward

    @functools.wraps(before)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return before(*args, **kwargs)

    return forward


def over_parts(block: Any) -> Any:
    layers = [block.conv, {"norm": block.norm}]
    return lambda x: torch.relu(layers[1]["norm"](layers[0](x)))


def over_weights(block: Any) -> Any:
    weight, bias = block.conv.weight, block.conv.bias
    return lambda x: torch.relu(block.norm(nn.functional.conv2d(x, weight, bias, padding=1)))


def by_default(block: Any) -> Any:
    def forward(x: Tensor, block: Any = block) -> Tensor:
        return free(block, x)

    return forward


def nested(block: Any) -> Any:
    inner = closure(block)
    return lambda x: inner(x)


def mutual(block: Any) -> Any:
    def first(x: Tensor) -> Tensor:
        return second(x, True)

    def second(x: Tensor, again: bool = False) -> Tensor:
        return free(block, x) if again else first(x)

    return second


WAYS: dict[str, Callable[[Any], Any]] = {
    "method": lambda m: types.MethodType(free, m),
    "partial": lambda m: functools.partial(free, m),
    "partial of a closure": lambda m: functools.partial(lambda x, k: m.norm(m.conv(x)).relu() * k, k=1.0),
    "closure": closure,
    "over a method": over_a_method,
    "wrapped": wrapped,
    "over parts": over_parts,
    "over weights": over_weights,
    "by default": by_default,
    "nested": nested,
    "mutual": mutual,
}


def network(way: Callable[[Any], Any]) -> Any:
    torch.manual_seed(0)
    blocks = [Block(3, 16), Block(16, 16), Block(16, 8)]
    net = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    for block in blocks:
        block.forward = way(block)  # type: ignore[method-assign]
    return net


@pytest.mark.parametrize("name", [name for name in WAYS if name != "over weights"])
def test_a_compressed_network_runs_its_own_modules(name: str) -> None:
    net, x = network(WAYS[name]), torch.randn(2, 3, 8, 8)
    before = net(x)
    small: Any = compressor.compress(net, x[:1], {"flops": "50%"}).model
    assert small[0].conv.out_channels < 16 or small[1].conv.out_channels < 16
    assert float(small(x).detach().abs().max()) > 0
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert float(small(x).detach().abs().max()) == 0
    assert torch.equal(net(x), before), "the original runs its own modules, too"


@pytest.mark.parametrize("name", WAYS)
def test_a_copy_computes_with_what_it_has(name: str) -> None:
    net, x = network(WAYS[name]), torch.randn(2, 3, 8, 8)
    before = net(x)
    copied = deep_copy(net)
    assert torch.equal(copied(x), before)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert float(copied(x).detach().abs().max()) == 0
    assert torch.equal(net(x), before)


def test_hooks_come_along() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    first: Any = net[0]
    net[1].register_forward_pre_hook(lambda module, args: (args[0] + first.bias,))
    copied: Any = deep_copy(net)
    x, before = torch.randn(1, 4), net(torch.zeros(1, 4))
    with torch.no_grad():
        copied[0].bias += 1
    assert not torch.equal(copied(x), net(x))
    assert torch.equal(net(torch.zeros(1, 4)), before)


def test_modules_of_ones_own_over_the_same_tensors() -> None:
    net: Any = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    twin: Any = same_tensors(net)
    assert twin[0] is not net[0]
    assert all(a is b for a, b in zip(twin.parameters(), net.parameters(), strict=True))
    twin[0].weight_shadow = 1
    assert not hasattr(net[0], "weight_shadow")
