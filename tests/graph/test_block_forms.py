"""Residual branches in all the ways in which programs write them are found, and going they leave what masks left.

Every form is a network of two blocks. Whatever goes, the trimmed network computes what the masked one does, costs what
the graph says, runs on inputs of another size and trains.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.architecture.architecture import Architecture
from compressor.costs import build
from compressor.graph import capture
from compressor.graph.graph import Graph
from compressor.nn.stubs import kind_of, stub
from compressor.search.constraints.constraint import hard_sizes
from compressor.trim import Verifier, plan, trim

Run = Callable[..., Any]


def assert_same(first: Any, second: Any) -> None:
    for one, two in zip(pytree.tree_leaves(first), pytree.tree_leaves(second), strict=True):
        assert not isinstance(one, Tensor) or torch.equal(one, two)


def check_every_choice(model: nn.Module, graph: Graph, *inputs: Tensor, other: tuple[Tensor, ...] = ()) -> None:
    """Every set of blocks: exact, of the cost that was said, and fit for training and inputs of another size."""
    verifier = Verifier(model, graph, inputs)
    params = build("params", graph)
    for choice in itertools.product((True, False), repeat=len(graph.blocks)):
        gates, units = graph.gates(np.array(choice)), graph.all_units()
        rng = np.random.default_rng(len(graph.blocks))
        for group in graph.groups:
            units[group.units[rng.permutation(len(group))[: len(group) // 3]]] = False
        architecture = Architecture.from_json(plan(model, graph, units, gates).to_json())
        small = trim(model, architecture)
        check = verifier.check(units, small, architecture, gates)
        assert check.passed, (choice, check)
        assert sum(p.numel() for p in small.parameters()) == float(params(hard_sizes(graph, units, gates)))
        fresh = architecture.apply_(copy.deepcopy(model).eval())
        assert_same(fresh(*inputs), small.eval()(*inputs))
        if other:
            small.eval()(*other)
        small.train()(*inputs).sum().backward()


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


class Branch(nn.Module):
    """A branch whose forward takes and returns more than a tensor."""

    def __init__(self, returns: str) -> None:
        super().__init__()
        self.norm, self.a, self.b = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.returns = returns

    def forward(
        self, hidden: Tensor, table: Tensor | None = None, mask: Tensor | None = None, cache: object = None
    ) -> Any:
        y = self.a(self.norm(hidden))
        y = y if table is None else y * table
        weights = y.softmax(-1)
        y = self.b(torch.relu(y) if mask is None else torch.relu(y) * mask)
        return {
            "tensor": y, "one": (y,), "none": (y, None), "weights": (y, weights), "table": (y, table, mask),
            "cache": (y, cache), "last": (None, table, y),
        }[self.returns]  # fmt: skip


class Stream(nn.Module):
    """How a branch is called: ``keyword``, and with a table made after the stream began."""

    def __init__(self, returns: str, keyword: bool, table: bool) -> None:
        super().__init__()
        self.e, self.h = nn.Linear(4, 8), nn.Linear(8, 3)
        self.branches = nn.ModuleList(Branch(returns) for _ in range(2))
        self.returns, self.keyword, self.table = returns, keyword, table

    def forward(self, x: Tensor) -> Tensor:
        h = self.e(x)
        table = mask = None
        if self.table:
            table = (torch.arange(x.shape[1], device=x.device)[:, None] * 0.3).cos()
            mask = torch.ones(x.shape[1], 1, device=x.device)
            mask[1:] *= 0.5
        for branch in self.branches:
            given = {"hidden": h, "table": table, "mask": mask, "cache": ["not a tensor"]}
            y = branch(**dict(reversed(given.items()))) if self.keyword else branch(*given.values())
            if isinstance(y, tuple):
                if self.returns == "table":
                    y, table, mask = y
                else:
                    y = y[2] if self.returns == "last" else y[0]
            h = h + y
        return self.h(h)


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("keyword", [False, True])
@pytest.mark.parametrize("returns", ["tensor", "one", "none", "weights", "table", "cache", "last"])
def test_branches_may_be_called_by_keyword_and_read_tables(returns: str, keyword: bool, table: bool) -> None:
    torch.manual_seed(0)
    model, x = Stream(returns, keyword, table).eval(), torch.randn(1, 5, 4)
    graph = capture(model, x)
    assert [block.name for block in graph.blocks] == ["branches.0", "branches.1"]
    check_every_choice(model, graph, x, other=(torch.randn(2, 9, 4),))


class Layer(nn.Module):
    """A whole layer, residual and all, that takes keywords and returns a tuple."""

    def __init__(self, items: int) -> None:
        super().__init__()
        self.branch, self.items = Branch("tensor"), items

    def forward(self, hidden: Tensor, table: Tensor, scale: float = 1.0) -> Any:
        y = hidden + self.branch(hidden=hidden, table=table) * scale
        return (y, table, None)[: self.items] if self.items else y


@pytest.mark.parametrize("keyword", [False, True])
@pytest.mark.parametrize("items", [0, 1, 2, 3])
def test_layers_that_hand_on_their_arguments_become_identities(items: int, keyword: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.e, self.h = nn.Linear(4, 8), nn.Linear(8, 3)
            self.layers = nn.ModuleList(Layer(items) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            h, table = self.e(x), torch.linspace(0.5, 1.0, x.shape[1])[:, None]
            for layer in self.layers:
                out = layer(table=table, hidden=h) if keyword else layer(h, table)
                h, table = (out, table) if not items else (out[0], out[1] if items > 1 else table)
            return self.h(h)

    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(1, 5, 4)
    graph = capture(model, x)
    assert [set(block.modules) for block in graph.blocks] == [{"layers.0"}, {"layers.1"}]
    check_every_choice(model, graph, x, other=(torch.randn(2, 9, 4),))


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


class Decoder(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.TransformerDecoderLayer(16, 4, 24, dropout=0.0, **options) for _ in range(1))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, memory)
        result: Tensor = self.head(x)
        return result


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", ["layers", "encoder", "decoder"])
def test_blocks_of_pytorchs_own_transformer(kind: str, batch_first: bool, norm_first: bool) -> None:
    """Their forwards ask the attention and the layers for settings and parameters before they call them."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"batch_first": batch_first, "norm_first": norm_first}
    inputs: tuple[Tensor, ...] = (torch.randn(2, 5, 16),)
    model: nn.Module
    if kind == "decoder":
        model, inputs = Decoder(**options), (*inputs, torch.randn(2, 7, 16))
    elif kind == "encoder":
        layer = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, **options)
        model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 3))
    else:
        layers = (nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, **options) for _ in range(2))
        model = nn.Sequential(*layers, nn.Linear(16, 3))
    if not batch_first:
        inputs = tuple(x.transpose(0, 1) for x in inputs)
    model.eval()
    graph = capture(model, inputs)
    assert len(graph.blocks) == (3 if kind == "decoder" else 4)
    check_every_choice(model, graph, *inputs)


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
