"""Branches that are called by keyword, read tables or hand on their arguments are blocks like others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.graph import capture
from tests.graph.every_choice import check_every_choice


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
