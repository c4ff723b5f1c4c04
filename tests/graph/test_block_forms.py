"""Residual branches in all the ways in which programs write them are found, and going they leave what masks left.

Every form is a network of two blocks. Whatever goes, the trimmed network computes what the masked one does, costs what
the graph says, runs on inputs of another size and trains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.graph import capture
from compressor.nn.stubs import kind_of, stub
from compressor.trim import plan
from tests.graph.every_choice import check_every_choice

Run = Callable[..., Any]


class Block(nn.Module):
    """``run(block, x, m)`` joins the stream and ``m``, two layers with an activation between."""

    def __init__(self, run: Run, **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        self.a, self.b = nn.Conv2d(6, 10, 3, padding=1), nn.Conv2d(10, 6, 3, padding=1)
        for name, part in parts.items():
            self.add_module(name, part)
        self.scale = nn.Parameter(torch.rand(6, 1, 1))

    def m(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def _in_place(block: Block, x: Tensor) -> Tensor:
    y = block.m(x)
    x = x.abs()
    x += y
    return x


def _gated(block: Block, x: Tensor) -> Tensor:
    gate = block.g(x).sigmoid()
    return gate * x + (1 - gate) * block.m(x)


FORMS: dict[str, Run] = {
    "x + m": lambda s, x: x + s.m(x),
    "m + x": lambda s, x: s.m(x) + x,
    "x - m": lambda s, x: x - s.m(x),
    "m - x": lambda s, x: s.m(x) - x,
    "in place": _in_place,
    "add alpha": lambda s, x: torch.add(x, s.m(x), alpha=0.3),
    "add alpha on x": lambda s, x: torch.add(s.m(x), x, alpha=0.3),
    "scaled": lambda s, x: 0.5 * x + s.m(x),
    "scaled m": lambda s, x: x + 0.5 * s.m(x),
    "divided": lambda s, x: (x + s.m(x)) / 2**0.5,
    "both scaled": lambda s, x: 0.8 * x + 0.2 * s.m(x),
    "abs": lambda s, x: x.abs() + s.m(x),
    "m + abs": lambda s, x: s.m(x) + x.abs(),
    "cos inside": lambda s, x: x + s.m(x.cos()),
    "relu of both": lambda s, x: (r := x.relu()) + s.m(r),
    "pre-activated": lambda s, x: x + s.m(F.relu(s.n(x))),
    "shared activation": lambda s, x: (r := F.relu(s.n(x))) + s.m(r),
    "two activations": lambda s, x: torch.tanh(x) + s.m(torch.sigmoid(x)),
    "normed": lambda s, x: s.n(x) + s.m(x),
    "group normed": lambda s, x: s.p(x) + s.m(x),
    "normed after": lambda s, x: s.n(x + s.m(x)),
    "pooled": lambda s, x: F.avg_pool2d(x, 3, 1, 1) + s.m(x),
    "strided": lambda s, x: F.avg_pool2d(x, 2) + s.m(F.max_pool2d(x, 2)),
    "layer scale": lambda s, x: x + s.scale * s.m(x),
    "layer scale on x": lambda s, x: x * s.scale + s.m(x),
    "dropout": lambda s, x: x + s.d(s.m(x)),
    "dropped path": lambda s, x: x + F.dropout(s.m(x), 0.1, s.training),
    "gated": _gated,
    "gated by a parameter": lambda s, x: s.scale.sigmoid() * x + (1 - s.scale.sigmoid()) * s.m(x),
    "concatenated inside": lambda s, x: x + s.b(torch.cat([s.a(x)[:, :5], s.a(x)[:, 5:]], 1)),
    "two branches": lambda s, x: x + s.m(x) + s.c(x),
    "branches first": lambda s, x: s.m(x) + s.c(x) + x,
}  # fmt: skip


def _parts(name: str) -> dict[str, nn.Module]:
    parts: dict[str, nn.Module] = {}
    if "norm" in name or "activat" in name:
        parts = {"n": nn.BatchNorm2d(6), "p": nn.GroupNorm(2, 6)}
    if name == "dropout":
        parts["d"] = nn.Dropout(0.1)
    if name == "gated":
        parts["g"] = nn.Conv2d(6, 6, 1)
    if "branches" in name:
        parts["c"] = nn.Conv2d(6, 6, 1)
    return parts


def network(name: str, blocks: int = 2) -> nn.Module:
    torch.manual_seed(0)
    body = [Block(FORMS[name], **_parts(name)) for _ in range(blocks)]
    return nn.Sequential(nn.Conv2d(3, 6, 1), *body, nn.Conv2d(6, 4, 1)).eval()


@pytest.mark.parametrize("name", FORMS)
def test_a_branch_beside_what_the_stream_became_is_a_block(name: str) -> None:
    model, x = network(name), torch.randn(2, 3, 8, 8)
    graph = capture(model, x)
    # Branches that are summed before the stream is added are one block together, and one each.
    assert len(graph.blocks) == {"two branches": 4, "branches first": 6}.get(name, 2), name
    check_every_choice(model, graph, x[:1], other=(torch.randn(3, 3, 12, 12),))


@pytest.mark.parametrize(
    "run",
    [
        lambda s, x: s.c(x) + s.m(x),  # both have weights: a projection, not a stream
        lambda s, x: x * s.m(x),
        lambda s, x: torch.cat([x[:, :3], s.m(x)[:, 3:]], 1),
        lambda s, x: (y := s.m(x)) + y.mean((2, 3), keepdim=True),
    ],
)
def test_what_has_no_stream_beside_it_is_no_block(run: Run) -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), Block(run, c=nn.Conv2d(6, 6, 1)), nn.Conv2d(6, 4, 1)).eval()
    assert capture(model, torch.randn(1, 3, 8, 8)).blocks == []


# ---- the ways branches are called


# ---- blocks used several times


class Shared(nn.Module):
    def __init__(self, run: Callable[[Shared, Tensor], Tensor], parts: int = 2) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)
        self.parts = nn.ModuleList(Block(FORMS["x + m"]) for _ in range(parts))
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.run(self, self.stem(x)))


def _again(s: Shared, x: Tensor) -> Tensor:
    for _ in range(3):
        for part in s.parts:
            x = part(x)
    return x


def _outside(s: Shared, x: Tensor) -> Tensor:
    for _ in range(3):
        x = torch.tanh(x) + s.parts[0].m(x)
        x = x - s.parts[1].m(x).relu()
    return x


def _crossed(s: Shared, x: Tensor) -> Tensor:
    y = s.parts[1](s.parts[0](x))
    return s.parts[0](s.parts[1](y))


@pytest.mark.parametrize("run", [_again, _outside, _crossed])
def test_a_block_used_several_times_has_one_gate(run: Callable[[Shared, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model, x = Shared(run).eval(), torch.randn(1, 3, 8, 8)
    for part in model.parts:
        del part.scale  # which nothing here uses: what it might read would stay
    graph = capture(model, x)
    assert len(graph.blocks) == 2
    check_every_choice(model, graph, x, other=(torch.randn(3, 3, 12, 12),))


def _one_block() -> nn.Module:
    block = Block(FORMS["x + m"])
    return nn.Sequential(nn.Conv2d(3, 6, 1), block, block, block, nn.Conv2d(6, 4, 1)).eval()


def test_one_block_under_several_names_goes_under_all() -> None:
    torch.manual_seed(0)
    block = Block(FORMS["x + m"])
    model, x = (
        nn.Sequential(nn.Conv2d(3, 6, 1), block, block, block, nn.Conv2d(6, 4, 1)).eval(),
        torch.randn(1, 3, 8, 8),
    )
    graph = capture(model, x)
    assert [set(found.modules) for found in graph.blocks] == [{"1", "2", "3"}]
    check_every_choice(model, graph, x)
    architecture = plan(model, graph, graph.all_units(), np.zeros(1, dtype=np.bool_))
    fresh = architecture.apply_(_one_block())
    assert not any(name.startswith(("1", "2", "3")) for name in fresh.state_dict())


def test_a_block_that_also_runs_elsewhere_stays() -> None:
    model = Shared(lambda s, x: s.parts[0].m(s.parts[0](x)), 1).eval()
    assert capture(model, torch.randn(1, 3, 8, 8)).blocks == []


# ---- stubs


@pytest.mark.parametrize(
    ("base", "argument", "items"),
    [
        ("identity", 0, None), ("first", 1, None), ("zero", "hidden", None), ("zeros", "hidden", ("tensor",)),
        ("zero4", 0, ("tensor", None)), ("first", "x", ("tensor", None, None)),
        ("zero", 2, (None, "tensor", "cache", 0)),
    ],
)  # fmt: skip
def test_kinds_of_stubs_name_their_input_and_what_they_return(base: str, argument: Any, items: Any) -> None:
    x, cache = torch.ones(2, 3, 4, 4), object()
    made = stub(kind_of(base, argument, items)).eval()
    args = [cache, cache, cache]
    if isinstance(argument, int):
        args[argument] = x
    kwargs = {"hidden": x, "x": x, "cache": cache}
    result = made(*args, **kwargs) if not isinstance(made, nn.Identity) else made(x)
    returned = result if items is not None else (result,)
    expected = items if items is not None else ("tensor",)
    assert len(returned) == len(expected)
    for item, value in zip(expected, returned, strict=True):
        if item == "tensor":
            assert float(value.sum()) == (0.0 if base.startswith("zero") else float(x.sum()))
        else:
            assert value is (None if item is None else cache)


@pytest.mark.parametrize(
    "gate",
    [
        lambda y: y * y.softmax(1),
        lambda y: y * y.mean((2, 3), keepdim=True).sigmoid(),
        lambda y: y * y.flatten(2).amax(-1)[..., None, None].sigmoid(),
        lambda y: y * torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1).sum(1, keepdim=True).sigmoid(),
        lambda y: F.normalize(y, dim=1),
        lambda y: y / (1 + y.abs()),
        lambda y: y.sort(-1)[0],
        lambda y: y.cumsum(-1),
        lambda y: torch.matmul(y.flatten(2) @ y.flatten(2).transpose(1, 2), y.flatten(2)).view_as(y),
    ],
)
def test_a_branch_whose_own_result_gates_it(gate: Callable[[Tensor], Tensor]) -> None:
    """What stands beside the branch's way wants a shape, too, also where the branch is zero."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            result: Tensor = self.head(x + gate(self.b(F.relu(self.a(x)))))
            return result

    model, x = Net().eval(), torch.randn(2, 3, 6, 6)
    graph = capture(model, x)
    check_every_choice(model, graph, x, other=(torch.randn(1, 3, 8, 8),))
