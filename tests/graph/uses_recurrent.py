"""Uses of recurrent layers and cells: their hidden units go, wherever the state comes from and whatever reads it."""

# ruff: noqa: E501  # a table: one use a line
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.graph.tiny import TOKENS, T, case, lin, par

BATCH = (2, 5, 8)
UNITS = "r.weight_ih_l0:0 r.weight_hh_l0:0 r.weight_hh_l0:1"
FREE = f"a.weight:0 r.weight_ih_l0:1 {UNITS}"
CELL = "a.weight:0 r.weight_ih:0 r.weight_ih:1 r.weight_hh:0 r.weight_hh:1 b.weight:1"
ONE, TWO = {**T, "b": lin(6, 4)}, {**T, "b": lin(12, 4)}


def first(**kw: Any) -> Any:
    return {"batch_first": True, **kw}


# ---- layers
for kind in (nn.LSTM, nn.GRU, nn.RNN):
    for two in (False, True):
        case(f"{kind.__name__} two layers, two directions: {two}", lambda m, x: m.b(m.r(m.a(x).relu())[0]), BATCH,
             **(TWO if two else ONE), r=lambda kind=kind, two=two: kind(12, 6, 2, bidirectional=two, batch_first=True),
             free=f"{FREE} r.weight_ih_l1:0 r.weight_ih_l1:1 r.weight_hh_l1:1 b.weight:1")  # fmt: skip
    case(f"{kind.__name__} without bias, time first", lambda m, x: m.b(m.r(m.a(x))[0]), TOKENS, **ONE,
         r=lambda kind=kind: kind(12, 6, bias=False), free=FREE)  # fmt: skip
case(
    "rnn with relu",
    lambda m, x: m.b(m.r(m.a(x))[0]),
    TOKENS,
    **ONE,
    r=lambda: nn.RNN(12, 6, nonlinearity="relu"),
    free=FREE,
)
case("lstm, unbatched", lambda m, x: m.b(m.r(m.a(x))[0]), (5, 8), **ONE, r=lambda: nn.LSTM(12, 6), free=FREE)
for two in (False, True):
    case(f"lstm with a projection, two directions: {two}", lambda m, x: m.b(m.r(m.a(x))[0]), BATCH, **{**T, "b": lin(5 * (1 + two), 4)},
         r=lambda two=two: nn.LSTM(12, 7, 2, proj_size=5, bidirectional=two, batch_first=True),
         free="a.weight:0 r.weight_hr_l0:0 r.weight_hh_l0:1 r.weight_ih_l1:1 b.weight:1", fixed="r.weight_ih_l0:0 r.weight_hr_l0:1")  # fmt: skip
case(
    "lstm twice",
    lambda m, x: m.b(m.r(m.r(m.a(x))[0])[0]),
    BATCH,
    a=lin(8, 6),
    b=lin(6, 4),
    r=lambda: nn.LSTM(6, 6, **first()),
    free=FREE,
)
case("lstm beside a shortcut", lambda m, x: m.b(m.n(m.a(x) + m.r(m.a(x))[0])), BATCH, a=lin(8, 6), b=lin(6, 4), n=lambda: nn.LayerNorm(6),
     r=lambda: nn.LSTM(6, 6, **first()), free=FREE)  # fmt: skip
case("lstm above gru", lambda m, x: m.b(m.s(m.r(m.a(x))[0])[0]), BATCH, **{**T, "b": lin(5, 4)}, r=lambda: nn.LSTM(12, 6, **first()),
     s=lambda: nn.GRU(6, 5, **first()), free=f"{FREE} s.weight_ih_l0:1 s.weight_hh_l0:1 b.weight:1")  # fmt: skip
case("gru tied to a table", lambda m, x: F.linear(m.r(m.e(x.argmax(-1)))[0], m.e.weight), BATCH, e=lambda: nn.Embedding(8, 6),
     r=lambda: nn.GRU(6, 6, **first()), free=f"e.weight:1 {UNITS}")  # fmt: skip

# ---- where the state comes from
case("gru, a learned state", lambda m, x: m.b(m.r(m.a(x), m.h.expand(-1, x.shape[0], -1).contiguous())[0]), BATCH, **ONE, h=par(2, 1, 6),
     r=lambda: nn.GRU(12, 6, 2, **first()), free=f"{FREE} h:2")  # fmt: skip
case("gru, a computed state", lambda m, x: m.b(m.r(m.a(x), m.e(x.mean(1)).tanh()[None])[0]), BATCH, **ONE, e=lin(8, 6),
     r=lambda: nn.GRU(12, 6, **first()), free=f"{FREE} e.weight:0")  # fmt: skip
case("lstm, a state of zeros by a size of one's own",
     lambda m, x: m.b(m.r(m.a(x), (x.new_zeros(2, x.shape[0], m.hidden), torch.zeros(2, x.shape[0], m.hidden)))[0]), BATCH, **ONE,
     hidden=6, r=lambda: nn.LSTM(12, 6, 2, **first()), free=FREE)  # fmt: skip
case("lstm, a state of zeros by a literal", lambda m, x: m.b(m.r(m.a(x), 2 * (x.new_zeros(1, x.shape[0], 6),))[0]), BATCH, **ONE,
     r=lambda: nn.LSTM(12, 6, **first()), free="a.weight:0", fixed="r.weight_hh_l0:1")  # fmt: skip
case("lstm, encoder and decoder", lambda m, x: m.b(m.d(m.a(x), m.r(m.a(x))[1])[0]), BATCH, **ONE, r=lambda: nn.LSTM(12, 6, **first()),
     d=lambda: nn.LSTM(12, 6, **first()), free=f"{FREE} d.weight_hh_l0:1")  # fmt: skip
case("gru, a state in and out", lambda m, x, h: [m.b(y) if i == 0 else y for i, y in enumerate(m.r(m.a(x), h))], BATCH, (1, 2, 6), **ONE,
     r=lambda: nn.GRU(12, 6, **first()), free="a.weight:0 r.weight_ih_l0:1", fixed="r.weight_hh_l0:1")  # fmt: skip

# ---- what reads the state
case(
    "lstm, last step",
    lambda m, x: m.b(m.r(m.a(x))[0][:, -1]),
    BATCH,
    **ONE,
    r=lambda: nn.LSTM(12, 6, 2, **first()),
    free=FREE,
)
case("gru, last states", lambda m, x: m.b(torch.cat([*m.r(m.a(x))[1][-2:]], -1)), BATCH, **TWO, free=FREE,
     r=lambda: nn.GRU(12, 6, 2, bidirectional=True, **first()))  # fmt: skip
case("lstm, states of the cell", lambda m, x: m.b(m.r(m.a(x))[1][1].permute(1, 0, 2).flatten(1)), BATCH, **TWO, free=FREE,
     r=lambda: nn.LSTM(12, 6, 2, **first()))  # fmt: skip
case("gru, directions added by halves", lambda m, x: m.b(sum(m.r(m.a(x))[0].chunk(2, -1))), BATCH, **ONE, free=FREE,
     r=lambda: nn.GRU(12, 6, bidirectional=True, **first()))  # fmt: skip
case("gru, directions added by size", lambda m, x: m.b((y := m.r(m.a(x))[0])[..., : m.r.hidden_size] + y[..., m.r.hidden_size :]), BATCH,
     **ONE, free=FREE, r=lambda: nn.GRU(12, 6, bidirectional=True, **first()))  # fmt: skip
case("gru, directions added by a literal", lambda m, x: m.b((y := m.r(m.a(x))[0])[..., :6] + y[..., 6:]), BATCH, **ONE, free="a.weight:0",
     fixed="r.weight_hh_l0:1", r=lambda: nn.GRU(12, 6, bidirectional=True, **first()))  # fmt: skip
case("lstm, directions as an axis", lambda m, x: m.b((y := m.r(m.a(x))[0]).view(*y.shape[:2], 2, -1).sum(2)), BATCH, **ONE, free=FREE,
     r=lambda: nn.LSTM(12, 6, bidirectional=True, **first()))  # fmt: skip
case("gru, pooled by attention", lambda m, x: m.b(((y := m.r(m.a(x))[0]) * m.w(y).softmax(1)).sum(1)), BATCH, **ONE, w=lin(6, 1), free=FREE,
     r=lambda: nn.GRU(12, 6, **first()))  # fmt: skip


# ---- packed sequences
def packed(m: Any, x: Tensor, ordered: bool) -> Any:
    lengths = torch.full((x.shape[0],), x.shape[1])
    return m.r(pack_padded_sequence(m.a(x), lengths, batch_first=True, enforce_sorted=ordered))


for ordered in (True, False):
    case(f"lstm, packed and padded, ordered: {ordered}", lambda m, x, o=ordered: m.b(pad_packed_sequence(packed(m, x, o)[0], True)[0]), BATCH,
         **TWO, r=lambda: nn.LSTM(12, 6, 2, bidirectional=True, **first()), free=FREE)  # fmt: skip
    case(f"gru, last state of packed, ordered: {ordered}", lambda m, x, o=ordered: m.b(packed(m, x, o)[1][-1]), BATCH, **ONE,
         r=lambda: nn.GRU(12, 6, 2, **first()), free=FREE)  # fmt: skip


# ---- cells
def seen(state: Any) -> Tensor:
    """The hidden state, which an LSTM gives with that of its cell."""
    return state[0] if isinstance(state, tuple) else state


def unrolled(m: Any, x: Tensor) -> Tensor:
    state: Any = x.new_zeros(x.shape[0], m.r.hidden_size)
    state = (state, state) if isinstance(m.r, nn.LSTMCell) else state
    found = []
    for each in m.a(x).unbind(1):
        state = m.r(each, state)
        found.append(m.b(seen(state)))
    return torch.stack(found, 1)


for cell in (nn.LSTMCell, nn.GRUCell, nn.RNNCell):
    name = cell.__name__
    case(f"{name} in a loop", unrolled, BATCH, **ONE, r=lambda cell=cell: cell(12, 6), free=CELL)
    case(f"{name} below another", lambda m, x: m.b(m.s(seen(m.r(m.a(x))))), (2, 8),
         **{**T, "b": lin(5, 4)}, r=lambda cell=cell: cell(12, 6), s=lambda: nn.GRUCell(6, 5), free=f"{CELL} s.weight_ih:1 s.weight_hh:1")  # fmt: skip
case("gru cell, a state by a literal", lambda m, x: m.b(m.r(m.a(x), x.new_zeros(2, 6))), (2, 8), **ONE, r=lambda: nn.GRUCell(12, 6),
     free="a.weight:0 r.weight_ih:1", fixed="r.weight_hh:1")  # fmt: skip
case("gru cell, unbatched", lambda m, x: m.b(m.r(m.a(x))), (8,), **ONE, r=lambda: nn.GRUCell(12, 6), free=CELL)
