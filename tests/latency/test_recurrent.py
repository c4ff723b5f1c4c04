"""Recurrent layers in latency tables: what they are measured as, and budgets that their hidden units have to meet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.graph import capture
from compressor.latency.signatures import asked


class Tagger(nn.Module):
    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.stem, self.layer = nn.Linear(6, 12), layer
        self.head = nn.Linear(layer.hidden_size * (1 + layer.bidirectional), 4)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.layer(self.stem(x).relu())[0])


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_layers_are_operators_of_their_own(kind: type[nn.RNNBase], two: bool) -> None:
    graph = capture(Tagger(kind(12, 32, 3, batch_first=True, bidirectional=two)).eval(), torch.randn(2, 7, 6))
    found = [operator for operator in graph.operators if operator.kind == "recurrent"]
    sizes = {(o.channels_in.full, o.channels_out.full, o.copies.full, o.spatial) for o in found}
    assert sizes == {(12, 32, 1, (7,)), (32 * (1 + two), 32, 2, (7,))}
    ranges = {each.domain.channels_out for signature, each in asked(graph).items() if signature.kind == "recurrent"}
    assert ranges == {(4, 32)}, "tables answer for hidden units that go"


def test_a_latency_budget_takes_hidden_units() -> None:
    torch.manual_seed(0)
    model = Tagger(nn.LSTM(12, 64, batch_first=True, bidirectional=True)).eval()
    result = compressor.compress(model, torch.randn(2, 7, 6), {"latency": "60%"}, target="simulated")
    assert result.model.layer.hidden_size < 64
    assert all(budget.met for budget in result.report.budgets)
