"""Uses of products: matrices and attention."""

# ruff: noqa: E501  # a table: one use a line
from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.graph.tiny import AB, TOKENS, T, among, case, lin, par

# ---- contraction
among("matmul", lambda x: x @ x.transpose(1, 2) @ x)
among("bmm", lambda x: torch.bmm(torch.bmm(x, x.transpose(1, 2)).softmax(-1), x))
among("baddbmm", lambda x: torch.baddbmm(x, x @ x.mT, x))
among("einsum", lambda x: torch.einsum("bnm,bmc->bnc", torch.einsum("bnc,bmc->bnm", x, x), x))
case("einsum weights", lambda m, x: m.b(torch.einsum("bnc,cd->bnd", m.a(x), m.w)), TOKENS, **{**T, "b": lin(6, 4)}, w=par(12, 6),
     free="a.weight:0 w:0 w:1 b.weight:1")  # fmt: skip
case("einsum heads", lambda m, x: m.b(torch.einsum("bnhd,hde->bnhe", m.a(x).view(1, 5, m.heads, -1), m.w).flatten(2)), TOKENS,
     **{**T, "b": lin(20, 4)}, w=par(4, 3, 5), heads=4, free="a.weight:0 w:0 w:1 w:2 b.weight:1")  # fmt: skip
case("addmm", lambda m, x: m.b(torch.addmm(m.c, m.a(x), m.w)), (5, 8), **{**T, "b": lin(6, 4)}, w=par(12, 6), c=par(6),
     free="a.weight:0 w:0 w:1 c:0 b.weight:1")  # fmt: skip
case("mv", lambda m, x: m.a(x) @ m.w, TOKENS, a=lin(8, 12), w=par(12), free="a.weight:0 w:0")
case("dot", lambda m, x: torch.dot(m.a(x), m.w), (8,), a=lin(8, 12), w=par(12), free="a.weight:0 w:0")
case(
    "bilinear", lambda m, x: m.b(m.l(m.a(x), m.a(x))), TOKENS, **{**T, "b": lin(5, 4)}, l=lambda: nn.Bilinear(12, 12, 5)
)
among("tensordot", lambda x: torch.tensordot(x, x, ([2], [2])).sum((2, 3))[..., None] * x)
among("outer", lambda x: (x[..., :, None] * x[..., None, :]).sum(-1))
among("cosine similarity", lambda x: x * F.cosine_similarity(x, x.flip(1), dim=-1)[..., None], free="")
among("cdist", lambda x: torch.cdist(x, x) @ x, free="")

# ---- attention
QKV = {"q": lin(8, 12), "k": lin(8, 12), "v": lin(8, 12), "b": lin(12, 4)}
Q, V = "q.weight:0 k.weight:0", "v.weight:0 b.weight:1"


def _heads(m: Any, x: Tensor) -> Tensor:
    return x.view(x.shape[0], x.shape[1], m.heads, -1).transpose(1, 2)


def _sdpa(m: Any, x: Tensor) -> Tensor:
    y = F.scaled_dot_product_attention(_heads(m, m.q(x)), _heads(m, m.k(x)), _heads(m, m.v(x)))
    return m.b(y.transpose(1, 2).flatten(2))


def _softmax_attention(m: Any, x: Tensor) -> Tensor:
    b, n, _ = x.shape
    q, k, v = (f(x).reshape(b, n, m.heads, -1).permute(0, 2, 1, 3) for f in (m.q, m.k, m.v))
    scores = q @ k.transpose(-2, -1) / math.sqrt(k.size(-1))
    return m.b((scores.softmax(-1) @ v).permute(0, 2, 1, 3).reshape(b, n, -1))


def _fused(m: Any, x: Tensor) -> Tensor:
    b, n, _ = x.shape
    q, k, v = m.qkv(x).reshape(b, n, 3, m.heads, m.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
    q = q * m.head_dim**-0.5
    y = (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v
    return m.b(y.transpose(1, 2).reshape(b, n, m.heads * m.head_dim))


def _fused_by_width(m: Any, x: Tensor) -> Tensor:
    b, n, c = x.shape
    qkv = m.qkv(x).reshape(b, n, 3, m.heads, c // m.heads).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
    return x + m.b(y.transpose(1, 2).reshape(b, n, c))


def inside_out(m: Any, x: Tensor) -> Tensor:
    b, n, c = x.shape
    q, k, v = m.qkv(x).reshape(b, n, 3, m.heads, c // m.heads).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v).permute(0, 2, 3, 1).reshape(b, n, c)


def _heads_outside(m: Any, x: Tensor) -> Tensor:
    b, n, _ = x.shape
    q, k, v = m.qkv(x).view(b, n, m.heads, -1).transpose(1, 2).chunk(3, dim=-1)
    return m.b(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _uneven(m: Any, x: Tensor) -> Tensor:
    b, n, _ = x.shape
    q, k, v = m.qkv(x).view(b, n, m.heads, -1).split([m.key_dim, m.key_dim, m.d], dim=3)
    q, k, v = (t.permute(0, 2, 1, 3) for t in (q, k, v))
    y = ((q @ k.transpose(-2, -1)) * m.scale + m.bias[:, :n, :n]).softmax(-1) @ v
    return m.b(y.transpose(1, 2).reshape(b, n, m.d * m.heads))


def _grouped_queries(m: Any, x: Tensor) -> Tensor:
    b, n, _ = x.shape
    q, k, v = (f(x).view(b, n, -1, m.d).transpose(1, 2) for f in (m.q, m.k, m.v))
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    return m.b(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


case("attention", _sdpa, TOKENS, **QKV, heads=4, free=f"{Q} {V}")
case("attention by softmax", _softmax_attention, TOKENS, **QKV, heads=4, free=f"{Q} {V}")
case(
    "attention fused", _fused, TOKENS, qkv=lin(8, 36), b=lin(12, 4), heads=4, head_dim=3, free="qkv.weight:0 b.weight:1"
)
case("attention fused by width", lambda m, x: m.z(_fused_by_width(m, m.e(x))), TOKENS, e=lin(8, 12), qkv=lin(12, 36), b=lin(12, 12),
     z=lin(12, 4), heads=4, free="qkv.weight:0 b.weight:1 e.weight:0")  # fmt: skip
case(
    "attention heads outside",
    _heads_outside,
    TOKENS,
    qkv=lin(8, 36),
    b=lin(12, 4),
    heads=4,
    free="qkv.weight:0 b.weight:1",
)
case("attention uneven", _uneven, TOKENS, qkv=lin(8, 4 * (3 + 3 + 5)), b=lin(20, 4), heads=4, key_dim=3, d=5, scale=0.5,
     bias=par(4, 6, 6), free="qkv.weight:0 b.weight:1 bias:0")  # fmt: skip
case("attention grouped queries", _grouped_queries, TOKENS, q=lin(8, 24), k=lin(8, 12), v=lin(8, 12), b=lin(24, 4), d=6)
case("attention grouped queries fused", lambda m, x: m.b(F.scaled_dot_product_attention(*((f(x).view(1, 5, -1, m.d).transpose(1, 2))
     for f in (m.q, m.k, m.v)), enable_gqa=True).transpose(1, 2).flatten(2)), TOKENS, q=lin(8, 24), k=lin(8, 12), v=lin(8, 12),
     b=lin(24, 4), d=6)  # fmt: skip
case("attention over channels", lambda m, x: m.b((F.normalize(m.q(x), dim=1).transpose(1, 2) @ F.normalize(m.k(x), dim=1)).softmax(-1)
     @ m.v(x).transpose(1, 2) if False else ((m.q(x).transpose(1, 2) @ m.k(x)).softmax(-1) @ m.v(x).transpose(1, 2)).transpose(1, 2)),
     TOKENS, **QKV, free=f"{Q} {V}")  # fmt: skip
case(
    "attention linear",
    lambda m, x: m.b(F.relu(m.q(x)) @ (F.relu(m.k(x)).transpose(1, 2) @ m.v(x))),
    TOKENS,
    **QKV,
    free=f"{Q} {V}",
)
case("attention with talking heads", lambda m, x: m.b(((m.t((_heads(m, m.q(x)) @ _heads(m, m.k(x)).mT).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
     .softmax(-1) @ _heads(m, m.v(x))).transpose(1, 2).flatten(2)), TOKENS, **QKV, t=lin(4, 4), heads=4, free=f"{Q} {V} t.weight:0 t.weight:1")  # fmt: skip
case("multihead module", lambda m, x: m.b(m.m(y := m.a(x), y, y)[0]), TOKENS, **T, m=lambda: nn.MultiheadAttention(12, 4, batch_first=True),
     free=f"{AB} m.in_proj_weight:0 m.in_proj_weight:1 m.out_proj.weight:0 m.out_proj.weight:1")  # fmt: skip
case("multihead module across", lambda m, x, z: m.b(m.m(m.a(x), z, z, need_weights=False)[0]), TOKENS, (1, 7, 6), **T,
     m=lambda: nn.MultiheadAttention(12, 4, kdim=6, vdim=6, batch_first=True), free=f"{AB} m.q_proj_weight:0 m.v_proj_weight:0")  # fmt: skip
case("encoder layer", lambda m, x: m.b(m.m(m.a(x))), TOKENS, **T, m=lambda: nn.TransformerEncoderLayer(12, 4, 20, batch_first=True),
     free=f"{AB} m.linear1.weight:0 m.self_attn.in_proj_weight:0")  # fmt: skip
case("decoder layer", lambda m, x, z: m.b(m.m(m.a(x), m.a(z))), TOKENS, (1, 7, 8), **T, m=lambda: nn.TransformerDecoderLayer(12, 4, 20, batch_first=True),
     free=f"{AB} m.linear1.weight:0 m.multihead_attn.in_proj_weight:0")  # fmt: skip
case("encoder", lambda m, x: m.b(m.m(m.a(x))), TOKENS, **T, free=AB,
     m=lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 4, 20, batch_first=True), 2))  # fmt: skip
case("position bias table", lambda m, x: m.b(((_heads(m, m.q(x)) @ _heads(m, m.k(x)).mT + m.table[torch.arange(25) % 9].view(5, 5, -1).permute(2, 0, 1))
     .softmax(-1) @ _heads(m, m.v(x))).transpose(1, 2).flatten(2)), TOKENS, **QKV, heads=4, table=par(9, 4), free=f"{Q} {V} table:1")  # fmt: skip
case("class token", lambda m, x: m.b((torch.cat([m.c.expand(x.shape[0], -1, -1), m.a(x)], 1) + m.p)[:, 0]), TOKENS, **T, c=par(1, 1, 12),
     p=par(1, 6, 12), free=f"{AB} c:2 p:2")  # fmt: skip
