"""Tables that are cut to the input's length keep all their entries, and longer inputs still run and are exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.graph import capture
from compressor.trim import trim_verified

LENGTH, WIDTH = 12, 16
INDEX = torch.arange(LENGTH)


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Table(nn.Module):
    """A residual network over (batch, time, 6); ``put`` adds tables, ``use`` uses them on the stream."""

    def __init__(self, put: Callable[[Table], None], use: Callable[[Table, Tensor], Tensor]) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)
        self.head, self.use = nn.Linear(WIDTH, 5), use
        put(self)

    def forward(self, x: Tensor) -> Tensor:
        y = self.use(self, self.embed(x))
        return self.head(y + self.down(torch.relu(self.up(y))))


def buffer(tensor: Tensor, name: str = "table") -> Callable[[Table], None]:
    return lambda model: model.register_buffer(name, tensor)


def parameter(tensor: Tensor, name: str = "table") -> Callable[[Table], None]:
    return lambda model: setattr(model, name, nn.Parameter(tensor))


def all_of(*puts: Callable[[Table], None]) -> Callable[[Table], None]:
    return lambda model: [put(model) for put in puts] and None


def attention(model: Table) -> None:
    model.q, model.k, model.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))


def lookup(model: Table) -> None:
    model.place = nn.Embedding(LENGTH, WIDTH)


def attend(model: Table, x: Tensor, bias: Tensor) -> Tensor:
    b, t, _ = x.shape
    q, k, v = (f(x).view(b, t, 4, -1).transpose(1, 2) for f in (model.q, model.k, model.v))
    return ((q @ k.transpose(2, 3) + bias).softmax(-1) @ v).transpose(1, 2).reshape(b, t, -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


CAUSAL = torch.triu(torch.full((LENGTH, LENGTH), -9.0), 1)
RELATIVE = INDEX[:, None] - INDEX[None] + LENGTH - 1
Use = Callable[[Table, Tensor], Tensor]
FORMS: dict[str, tuple[Callable[[Table], None], Use]] = {
    "rows": (parameter(randn(LENGTH, WIDTH)), lambda m, x: x + m.table[: x.shape[1]]),
    "rows with a batch": (parameter(randn(1, LENGTH, WIDTH)), lambda m, x: x + m.table[:, : x.size(1)]),
    "zeros": (parameter(torch.zeros(1, LENGTH, WIDTH)), lambda m, x: x + m.table[:, : x.size(1)]),
    "narrow": (buffer(randn(LENGTH, WIDTH)), lambda m, x: x + m.table.narrow(0, 0, x.shape[1])),
    "channels first": (
        parameter(randn(WIDTH, LENGTH)),
        lambda m, x: (x.transpose(1, 2) + m.table[:, : x.shape[1]]).transpose(1, 2),
    ),
    "last rows": (parameter(randn(LENGTH, WIDTH)), lambda m, x: x + m.table[-x.shape[1] :]),
    "rows from an end": (parameter(randn(LENGTH, WIDTH)), lambda m, x: x + m.table[LENGTH - x.shape[1] :]),
    "rows after the first": (parameter(randn(LENGTH + 1, WIDTH)), lambda m, x: x + m.table[1 : x.shape[1] + 1]),
    "every other row": (parameter(randn(2 * LENGTH, WIDTH)), lambda m, x: x + m.table[::2][: x.shape[1]]),
    "rows repeated": (
        parameter(randn(LENGTH, WIDTH)),
        lambda m, x: x + m.table[: x.shape[1]].unsqueeze(0).expand(x.shape[0], -1, -1),
    ),
    "row by row": (
        parameter(randn(LENGTH, WIDTH)),
        lambda m, x: torch.stack([x[:, i] + m.table[i] for i in range(x.shape[1])], 1),
    ),
    "kept positions": (all_of(buffer(INDEX[None]), lookup), lambda m, x: x + m.place(m.table[:, : x.shape[1]])),
    "made positions": (lookup, lambda m, x: x + m.place(torch.arange(x.shape[1]))),
    "indexed": (
        all_of(buffer(INDEX, "index"), parameter(randn(LENGTH, WIDTH))),
        lambda m, x: x + m.table[m.index[: x.shape[1]]],
    ),
    "selected": (
        all_of(buffer(INDEX, "index"), parameter(randn(LENGTH, WIDTH))),
        lambda m, x: x + m.table.index_select(0, m.index[: x.shape[1]]),
    ),
    "rotary": (
        all_of(buffer(randn(LENGTH, WIDTH // 2), "cos"), buffer(randn(LENGTH, WIDTH // 2), "sin")),
        lambda m, x: rotate(x, m.cos[: x.shape[1]], m.sin[: x.shape[1]]),
    ),
    "causal": (all_of(attention, buffer(CAUSAL)), lambda m, x: attend(m, x, m.table[: x.shape[1], : x.shape[1]])),
    "causal as booleans": (
        all_of(attention, buffer(CAUSAL[None, None] == 0)),
        lambda m, x: attend(m, x, torch.zeros(()).masked_fill(~m.table[:, :, : x.shape[1], : x.shape[1]], -9.0)),
    ),
    "bias per head": (
        all_of(attention, buffer(randn(4, LENGTH, LENGTH))),
        lambda m, x: attend(m, x, m.table[:, : x.shape[1], : x.shape[1]]),
    ),
    "relative positions": (
        all_of(attention, parameter(randn(2 * LENGTH - 1, 4)), buffer(RELATIVE, "index")),
        lambda m, x: attend(m, x, m.table[m.index[: x.shape[1], : x.shape[1]]].permute(2, 0, 1)),
    ),
    "without channels": (parameter(randn(LENGTH)), lambda m, x: x * m.table[: x.shape[1], None]),
    "mixes positions": (
        parameter(randn(LENGTH, LENGTH)),
        lambda m, x: torch.einsum("st,btc->bsc", m.table[: x.shape[1], : x.shape[1]], x),
    ),
    "summed": (parameter(randn(LENGTH, WIDTH)), lambda m, x: x + m.table[: x.shape[1]].sum(0)),
    "averaged": (parameter(randn(LENGTH, WIDTH)), lambda m, x: x + m.table.narrow(0, 0, x.shape[1]).mean(0)),
    "resized": (
        parameter(randn(1, WIDTH, LENGTH)),
        lambda m, x: x + F.interpolate(m.table, size=x.shape[1], mode="linear").transpose(1, 2),
    ),
    "class token and places": (
        all_of(parameter(torch.zeros(1, 1, WIDTH), "token"), parameter(randn(1, LENGTH + 1, WIDTH))),
        lambda m, x: torch.cat([m.token.expand(x.shape[0], -1, -1), x], 1) + m.table[:, : x.shape[1] + 1],
    ),
}
CHANNELLESS = {
    "bias per head",
    "causal",
    "causal as booleans",
    "without channels",
    "mixes positions",
    "relative positions",
}


@pytest.mark.parametrize("reached", [1, 5, LENGTH])
@pytest.mark.parametrize("name", FORMS)
def test_a_table_keeps_its_length_and_other_lengths_are_exact(name: str, reached: int) -> None:
    torch.manual_seed(0)
    model = Table(*FORMS[name]).eval()
    graph = capture(model, randn(1, reached, 6))
    for place, p in graph.parameters.items():
        if p.is_buffer or place.startswith(("table", "token", "place")):
            free = {n for n, axis in zip(p.shape, p.axes, strict=True) if axis is not None}
            assert free <= {WIDTH, WIDTH // 2, 4}, (place, p.shape, free)
    units = np.random.default_rng(reached).random(graph.n_units) < 0.6
    for group in graph.groups:
        units[group.units[0]] = True
    for length in (1, 5, LENGTH):
        result = trim_verified(model, graph, units, randn(2, length, 6))
        assert result.check.passed, result.reason
        assert result.refused == [], result.reason
        result.model(randn(3, length, 6))
    assert result.model.head.in_features < WIDTH
    if name not in CHANNELLESS and hasattr(result.model, "table") and result.model.table.is_floating_point():
        assert result.model.table.numel() < model.table.numel()
