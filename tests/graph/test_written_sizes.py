"""Sizes that a forward writes out: those that follow are followed, and of those that cannot it is said where they are."""

# ruff: noqa: E501  # a table: one form a line
from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.edits import Edit, Renumber, SetSizes
from compressor.errors import UsageError
from compressor.graph import capture
from compressor.graph.graph import Graph
from compressor.trim import TrimResult, trim_verified
from tests.graph.tiny import Tiny


def _halved(model: nn.Module, x: Tensor) -> tuple[Graph, TrimResult]:
    graph = capture(model.eval(), x)
    units = graph.all_units()
    rng = np.random.default_rng(0)
    for group in graph.groups:
        units[group.units] = rng.permutation(len(group)) < max(1, len(group) // 2)
    result = trim_verified(model, graph, units, x)
    assert not result.refused
    assert result.check.error <= 1e-9
    return graph, result


class _Attention(nn.Module):
    """Attention over tokens; ``split`` and ``merge`` make ``(b, heads, tokens, width)`` and undo it."""

    def __init__(self, split: Any, merge: Any) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(12, 24) for _ in range(3))
        self.out = nn.Linear(24, 12)
        self.split, self.merge = split, merge

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.split(part(x)) for part in (self.q, self.k, self.v))
        return self.out(self.merge((q @ k.transpose(-1, -2)).softmax(-1) @ v))  # type: ignore[no-any-return]


TOKENS = torch.randn(1, 5, 12, generator=torch.Generator().manual_seed(0))


# ---- einops


def _einops_layers(**lengths: int) -> nn.Module:
    layers = pytest.importorskip("einops.layers.torch")
    return _Attention(
        layers.Rearrange("b n (h d) -> b h n d", **lengths), layers.Rearrange("b h n d -> b n (h d)", **lengths)
    )


@pytest.mark.parametrize("lengths", [{"h": 4}, {"d": 6}, {"h": 4, "d": 6}])
def test_lengths_that_an_einops_layer_holds_follow(lengths: dict[str, int]) -> None:
    model = _einops_layers(**lengths)
    graph, result = _halved(model, TOKENS)
    # heads, and what queries and values have of them, which is one number where the layer holds it
    assert sorted(len(group) for group in graph.groups) == ([4, 6] if "d" in lengths else [4, 6, 6])
    small: Any = result.model
    assert small.q.out_features == 2 * 3
    held = {"h": 2, "d": 3}
    assert small.split.axes_lengths == {name: held[name] for name in lengths}
    assert dict(small.split._axes_lengths) == small.split.axes_lengths
    again = _einops_layers(**lengths)
    again.load_state_dict(model.state_dict())
    fresh = Architecture.from_json(result.architecture.to_json()).apply_(again)
    assert torch.equal(fresh(TOKENS), small(TOKENS))


@pytest.mark.parametrize("heads_first", [True, False])
@pytest.mark.parametrize("twice", [True, False])
def test_einops_functions_follow_an_attribute(heads_first: bool, twice: bool) -> None:
    einops = pytest.importorskip("einops")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.n = nn.Linear(12, 24), nn.Linear(24, 12), 4

        def forward(self, x: Tensor) -> Tensor:
            name = {"h": self.n} if heads_first else {"d": self.n}
            y = einops.rearrange(self.a(x), "b n (h d) -> b h n d", **name)
            return self.b(einops.rearrange(y.cumsum(2), "b h n d -> b n (h d)"))  # type: ignore[no-any-return]

    for _ in range(1 + twice):  # einops remembers the shapes it computed
        graph, _ = _halved(Net(), TOKENS)
        assert sorted(len(group) for group in graph.groups) == [4, 6]


def test_an_einops_reduction_and_repetition_follow() -> None:
    einops = pytest.importorskip("einops")
    model = Tiny(
        lambda m, x: m.b(
            einops.repeat(einops.reduce(m.a(x), "b n (g c) -> b n c", "sum", g=2), "b n c -> b n (r c)", r=3)
        ),
        a=nn.Linear(12, 16),
        b=nn.Linear(24, 12),
    )
    graph, _ = _halved(model, TOKENS)
    assert [len(group) for group in graph.groups] == [8]


def test_a_mixing_layer_of_einops_follows() -> None:
    layers = pytest.importorskip("einops.layers.torch")
    mix = layers.EinMix("b n c -> b n o", weight_shape="c o", bias_shape="o", c=16, o=20)
    model = Tiny(lambda m, x: m.b(m.mix(m.a(x))), a=nn.Linear(12, 16), mix=mix, b=nn.Linear(20, 12))
    graph, _ = _halved(model, TOKENS)
    assert sorted(len(group) for group in graph.groups) == [16, 20]


# ---- sizes of PyTorch's own modules, and numbers kept in a dictionary

FORMS: dict[str, tuple[Any, dict[str, nn.Module]]] = {
    "out_channels": (lambda m, x: m.b(m.a(x).reshape(-1, m.a.out_channels, *x.shape[2:])), {}),
    "in_channels": (lambda m, x: m.b(m.a(x).reshape(-1, m.b.in_channels, *x.shape[2:])), {}),
    "num_features": (lambda m, x: m.b(m.n(m.a(x)).view(-1, m.n.num_features, 36).view(1, -1, 6, 6)), {"n": nn.BatchNorm2d(8)}),
    "features": (lambda m, x: m.b(m.f(m.a(x).mean((2, 3)).view(-1, m.f.in_features)).view(1, m.f.out_features, 1, 1)), {"f": nn.Linear(8, 8)}),
    "transposed": (lambda m, x: m.b(m.t(m.a(x)).view(1, m.t.out_channels, -1).view(1, m.b.in_channels, 6, 6)), {"t": nn.ConvTranspose2d(8, 8, 1)}),
    "before it runs": (lambda m, x: m.b(m.a(x) + torch.zeros(1, m.b.in_channels, 1, 1, device=x.device, dtype=x.dtype)), {}),
    "half": (lambda m, x: m.b(torch.cat(m.a(x).split(m.a.out_channels // 2, 1)[::-1], 1)), {}),
    "root": (lambda m, x: m.b(m.a(x) * m.b.in_channels**-0.5), {}),
    "groups": (lambda m, x: m.b(nn.functional.group_norm(m.a(x), m.a.out_channels)), {}),
    "weight-normed": (lambda m, x: m.b(m.w(m.a(x)).view(1, m.w.out_channels, 6, 6)), {"w": nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))}),
    "shape of a weight": (lambda m, x: m.b(m.a(x).view(-1, m.b.weight.shape[1], *x.shape[2:])), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_size_of_a_layer_follows_that_layer(name: str) -> None:
    run, parts = FORMS[name]
    graph, result = _halved(Tiny(run, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 4, 1), **parts), torch.randn(1, 3, 6, 6))
    assert graph.groups
    assert result.model.a.out_channels == 4  # type: ignore[union-attr]


def test_numbers_in_a_dictionary_follow() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.sizes = nn.Linear(12, 24), nn.Linear(24, 12), {"heads": 4, "other": 7}

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x).view(1, 5, self.sizes["heads"], -1).transpose(1, 2).cumsum(2)
            return self.b(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    graph, result = _halved(Net(), TOKENS)
    assert sorted(len(group) for group in graph.groups) == [4, 6]
    assert result.model.sizes == {"heads": 2, "other": 7}


@pytest.mark.parametrize("width", [6, 4, 8])
def test_heads_of_a_width_that_is_an_attribute_follow(width: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.d = nn.Linear(12, 24), nn.Linear(24, 12), width

        def forward(self, x: Tensor) -> Tensor:
            b, n, c = (y := self.a(x)).shape
            y = y.view(b, n, c // self.d, self.d).transpose(1, 2).cumsum(2)
            return self.b(y.transpose(1, 2).reshape(b, n, c))  # type: ignore[no-any-return]

    graph, _ = _halved(Net(), TOKENS)
    assert sorted(len(group) for group in graph.groups) == sorted([width, 24 // width])


# ---- literals


def test_a_literal_is_named_with_its_line() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        y = y.view(-1, 8, 36)
        return m.b(y.view(-1, 8, 6, 6))  # type: ignore[no-any-return]

    graph = capture(Tiny(run, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 4, 1)), torch.randn(1, 3, 6, 6))
    line = inspect.getsourcelines(run)[1] + 2
    said = [fixed.reason for fixed in graph.fixed]
    assert any(f"(test_written_sizes.py:{line}: write " in reason and "size 8" in reason for reason in said), said


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: m.b(torch.cat(m.a(x).split(4, 1)[::-1], 1)),
        lambda m, x: m.b(torch.cat([(y := m.a(x))[:, :3], y[:, 3:].relu()], 1)),
        lambda m, x: m.b(nn.functional.layer_norm(m.a(x).mT.mT.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2)),
        lambda m, x: m.b(m.a(x).unflatten(1, (2, 4)).flatten(1, 2).reshape(1, 8, 6, 6)),
    ],
)
def test_literals_of_other_calls_are_named(run: Any) -> None:
    graph = capture(Tiny(run, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 4, 1)), torch.randn(1, 3, 6, 6))
    assert any("(test_written_sizes.py:" in fixed.reason for fixed in graph.fixed), graph.fixed


# ---- a constant order of channels

ORDER = [3, 0, 7, 5, 1, 2, 6, 4]
INVERSE = np.argsort(ORDER).tolist()


def _buffer(order: list[int], dtype: torch.dtype = torch.int64) -> nn.Buffer:
    return nn.Buffer(torch.tensor(order, dtype=dtype))


ORDERS: dict[str, tuple[Any, Any]] = {
    "buffer": (lambda m, x: m.b(m.a(x)[:, m.order]), lambda: {"order": _buffer(ORDER)}),
    "int32 buffer": (lambda m, x: m.b(m.a(x).index_select(1, m.order)), lambda: {"order": _buffer(ORDER, torch.int32)}),
    "list": (lambda m, x: m.b(m.a(x)[:, m.order]), lambda: {"order": list(ORDER)}),
    "tuple": (lambda m, x: m.b(m.a(x)[:, m.order].relu()), lambda: {"order": tuple(ORDER)}),
    "ellipsis": (lambda m, x: m.b(m.a(x).permute(0, 2, 3, 1)[..., m.order].permute(0, 3, 1, 2)), lambda: {"order": _buffer(ORDER)}),
    "twice": (lambda m, x: m.b(m.c(m.a(x)[:, m.order])[:, m.order]), lambda: {"order": _buffer(ORDER), "c": nn.Conv2d(8, 8, 3, padding=1)}),
    "there and back": (lambda m, x: m.b(m.c(m.a(x)[:, m.order])[:, m.inverse] + m.a(x)), lambda: {"order": _buffer(ORDER), "inverse": _buffer(INVERSE), "c": nn.Conv2d(8, 8, 3, padding=1, groups=8)}),
    "weights in order": (lambda m, x: nn.functional.conv2d(m.a(x), m.w[:, m.order]), lambda: {"order": _buffer(ORDER), "w": nn.Parameter(torch.randn(4, 8, 1, 1))}),
    "as it is": (lambda m, x: m.b(m.a(x)[:, m.order]), lambda: {"order": _buffer(list(range(8)))}),
}  # fmt: skip


def _ordered(name: str) -> nn.Module:
    run, parts = ORDERS[name]
    torch.manual_seed(0)
    return Tiny(run, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 4, 1), **parts())


@pytest.mark.parametrize("name", ORDERS)
def test_a_constant_order_of_channels_is_counted_anew(name: str) -> None:
    x = torch.randn(1, 3, 6, 6)
    result = _halved(_ordered(name), x)[1]
    small: Any = result.model
    assert small.a.out_channels < 8
    assert sorted(int(i) for i in small.order) == list(range(len(small.order)))
    assert len(small.order) == small.a.out_channels
    fresh = Architecture.from_json(result.architecture.to_json()).apply_(_ordered(name))
    assert torch.equal(fresh(x), small(x))
    if isinstance(small.order, torch.Tensor):
        full = torch.full((8,), -1, dtype=small.order.dtype)
        result.architecture.put_back_("order", full, small.order)
        assert full[full >= 0].tolist() == [
            i for i, kept in zip(_ordered(name).order.tolist(), full >= 0, strict=True) if kept
        ]  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("order", [[0, 2, 4, 6, 1, 3, 5, 5], [0, 1, 2, 3, 4, 5, 6, 6]])
def test_what_is_no_order_of_all_channels_stays(order: list[int]) -> None:
    model = Tiny(lambda m, x: m.b(m.a(x)[:, m.order]), a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 4, 1), order=_buffer(order))
    graph, _ = _halved(model, torch.randn(1, 3, 6, 6))
    assert graph.parameters["a.weight"].axes[0] is None


def test_a_forged_order_is_refused_before_anything_changes() -> None:
    x = torch.randn(1, 3, 6, 6)
    forgeries: dict[str, Edit] = {
        "buffer": Renumber("order", [0, 1, 2, 99]),
        "list": SetSizes("", {"order": [0, 0, 1, 2]}),
    }
    for name, forged in forgeries.items():
        architecture = _halved(_ordered(name), x)[1].architecture
        kept = [edit for edit in architecture.edits if (edit.kind, edit.subject) != (forged.kind, forged.subject)]
        architecture = replace(architecture, edits=(*kept, forged))
        fresh = _ordered(name)
        with pytest.raises(UsageError, match="cannot be applied"):
            architecture.apply_(fresh)
        assert fresh.a.out_channels == 8  # type: ignore[union-attr]
