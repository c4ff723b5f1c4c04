"""Tiny networks, one per way an operator is used. Tests trim each at random and compare with the masked network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations


class Tiny(nn.Module):
    """Layers, parameters and numbers by name, and a forward given as a function of the module and the inputs."""

    def __init__(self, run: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self._run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self._run(self, *inputs)


@dataclass(frozen=True)
class Case:
    """``free`` and ``fixed`` name parameter axes (``"a.weight:0"``) that can, or must not, lose indices."""

    name: str
    build: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]
    free: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()


CASES: list[Case] = []


def case(name: str, run: Callable[..., Any], *shapes: Any, free: str = "", fixed: str = "", **parts: Any) -> None:
    """Parts are callables that make layers, or plain values; shapes are input shapes or callables that make inputs."""

    def build() -> tuple[nn.Module, tuple[Tensor, ...]]:
        made = {k: v() if callable(v) and not isinstance(v, nn.Module) else v for k, v in parts.items()}
        return Tiny(run, **made), tuple(s() if callable(s) else torch.randn(*s) for s in shapes)

    CASES.append(Case(name, build, tuple(free.split()), tuple(fixed.split())))


def conv(i: int, o: int, k: int = 1, **kw: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(i, o, k, padding=kw.pop("padding", k // 2), **kw)


def lin(i: int, o: int, **kw: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(i, o, **kw)


def par(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.randn(*shape))


IMAGE = (1, 3, 6, 6)  # one example: capture cuts batches, and some of these spell the batch out
TOKENS = (1, 5, 8)
A = {"a": conv(3, 8, 3), "b": conv(8, 4)}  # image in, 8 channels between, 4 out
T = {"a": lin(8, 12), "b": lin(12, 4)}  # tokens in, 12 channels between, 4 out
AB = "a.weight:0 b.weight:1"


def between(name: str, run: Callable[[Tensor], Tensor], **kw: Any) -> None:
    """Something between two convolutions."""
    case(name, lambda m, x: m.b(run(m.a(x))), IMAGE, free=kw.pop("free", AB), **{**A, **kw})


def among(name: str, run: Callable[[Tensor], Tensor], **kw: Any) -> None:
    """Something between two linear layers over tokens."""
    case(name, lambda m, x: m.b(run(m.a(x))), TOKENS, free=kw.pop("free", AB), **{**T, **kw})


# ---- convolutions
case("conv1d", lambda m, x: m.b(m.a(x)), (2, 3, 9), a=lambda: nn.Conv1d(3, 8, 3), b=lambda: nn.Conv1d(8, 4, 1), free=AB)
case(
    "conv3d",
    lambda m, x: m.b(m.a(x)),
    (1, 3, 4, 5, 5),
    a=lambda: nn.Conv3d(3, 8, 3),
    b=lambda: nn.Conv3d(8, 4, 1),
    free=AB,
)
case("conv unbatched", lambda m, x: m.b(m.a(x)), (3, 6, 6), free=AB, **A)
case("transposed", lambda m, x: m.b(m.t(m.a(x))), IMAGE, t=lambda: nn.ConvTranspose2d(8, 6, 2, 2), **{**A, "b": conv(6, 4)},
     free="a.weight:0 t.weight:0 t.weight:1 t.bias:0 b.weight:1")  # fmt: skip
case("transposed 1d", lambda m, x: m.b(m.a(x)), (2, 3, 7), a=lambda: nn.ConvTranspose1d(3, 8, 3), b=lambda: nn.Conv1d(8, 4, 1),
     free="a.weight:1 b.weight:1")  # fmt: skip
case("transposed grouped", lambda m, x: m.b(m.t(m.a(x))), IMAGE, **{**A, "b": conv(12, 4)},
     t=lambda: nn.ConvTranspose2d(8, 12, 2, 2, groups=4), free="a.weight:0 t.weight:0 t.weight:1 t.bias:0 b.weight:1")  # fmt: skip
case("transposed depthwise", lambda m, x: m.b(m.t(m.a(x))), IMAGE, **A, t=lambda: nn.ConvTranspose2d(8, 8, 2, 2, groups=8),
     free="a.weight:0 t.weight:0 b.weight:1")  # fmt: skip
for g, o in ((2, 8), (4, 8), (2, 12), (8, 8), (8, 24)):
    case(f"grouped {g} to {o}", lambda m, x: m.b(F.relu(m.g(m.a(x)))), IMAGE, **{**A, "b": conv(o, 4)},
         g=conv(8, o, 3, groups=g), free="a.weight:0 g.weight:0 b.weight:1")  # fmt: skip
case("cat into grouped", lambda m, x: m.b(m.g(torch.cat([m.a(x), m.c(x)], 1))), IMAGE, a=conv(3, 4), c=conv(3, 8),
     g=conv(12, 12, 3, groups=2), b=conv(12, 4), free="a.weight:0 c.weight:0 g.weight:0 b.weight:1")  # fmt: skip
case("functional conv", lambda m, x: F.conv2d(F.conv2d(x, m.v, m.c, padding=1), m.w), IMAGE, v=par(8, 3, 3, 3), c=par(8),
     w=par(4, 8, 1, 1), free="v:0 c:0 w:1")  # fmt: skip
case("functional depthwise", lambda m, x: m.b(F.conv2d(y := m.a(x), m.w, padding=1, groups=y.shape[1])), IMAGE, **A,
     w=par(8, 1, 3, 3), free="a.weight:0 w:0 b.weight:1")  # fmt: skip
case("functional grouped", lambda m, x: m.b(F.conv2d(m.a(x), m.w, padding=1, groups=2)), IMAGE, **A, w=par(8, 4, 3, 3),
     free="a.weight:0 w:0 w:1 b.weight:1")  # fmt: skip
case(
    "shared conv",
    lambda m, x: m.b(m.s(F.relu(m.s(m.a(x))))),
    IMAGE,
    **A,
    s=conv(8, 8, 3),
    free="a.weight:0 s.weight:0 s.weight:1",
)


# ---- weights that are computed
def _standardised(w: Tensor) -> Tensor:
    return (w - w.mean((1, 2, 3), keepdim=True)) / (w.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()


case("weight standardisation", lambda m, x: m.b(F.conv2d(x, _standardised(m.w), padding=1)), IMAGE, w=par(8, 3, 3, 3), b=conv(8, 4),
     free="w:0 b.weight:1")  # fmt: skip
case("weight standardisation twice", lambda m, x: m.b(F.conv2d(m.a(x), _standardised(m.w), padding=1)), IMAGE, **A, w=par(8, 8, 3, 3),
     free="w:0 b.weight:1")  # fmt: skip
case("weight standardisation by batch norm", lambda m, x: m.b(F.conv2d(m.a(x), F.batch_norm(m.w.reshape(1, m.o, -1), None, None, m.g.view(-1),
     training=True, momentum=0.0, eps=1e-6).reshape_as(m.w))), IMAGE, **A, w=par(8, 8, 1, 1), g=par(8, 1, 1, 1), o=8,
     free="a.weight:0 w:0 w:1 g:0 b.weight:1")  # fmt: skip
case("weight norm", lambda m, x: m.b(m.c(m.a(x))), IMAGE, **A, c=lambda: parametrizations.weight_norm(nn.Conv2d(8, 8, 1)),
     free="a.weight:0 b.weight:1")  # fmt: skip
case("old weight norm", lambda m, x: m.b(m.c(m.a(x))), IMAGE, **A,
     c=lambda: nn.utils.weight_norm(nn.Conv2d(8, 8, 1)), free="a.weight:0 b.weight:1")  # fmt: skip
case(
    "spectral norm",
    lambda m, x: m.b(m.c(m.a(x))),
    IMAGE,
    **A,
    c=lambda: parametrizations.spectral_norm(nn.Conv2d(8, 8, 1)),
)
case("low rank", lambda m, x: m.b(F.linear(m.a(x), m.u @ m.v)), TOKENS, **{**T, "b": lin(10, 4)}, u=par(10, 3), v=par(3, 12),
     free="a.weight:0 u:0 u:1 v:0 v:1 b.weight:1")  # fmt: skip
case("low rank update", lambda m, x: m.b(F.linear(m.a(x), m.w + m.u @ m.v)), TOKENS, **{**T, "b": lin(10, 4)}, u=par(10, 3), v=par(3, 12),
     w=par(10, 12), free="a.weight:0 w:0 w:1 u:1 b.weight:1")  # fmt: skip
case("reparametrised branches", lambda m, x: m.b(F.conv2d(m.a(x), m.w + F.pad(m.v, (1, 1, 1, 1)), padding=1)), IMAGE, **A,
     w=par(8, 8, 3, 3), v=par(8, 8, 1, 1), free="a.weight:0 w:0 w:1 b.weight:1")  # fmt: skip
case("scaled weight", lambda m, x: m.b(F.conv2d(m.a(x), m.w * m.s)), IMAGE, **A, w=par(8, 8, 1, 1), s=par(8, 1, 1, 1),
     free="a.weight:0 w:0 w:1 s:0 b.weight:1")  # fmt: skip
case("tied weights", lambda m, x: F.linear(F.relu(m.a(x)), m.a.weight.t()), TOKENS, a=lin(8, 12), free="a.weight:0 a.bias:0",
     fixed="a.weight:1")  # fmt: skip
case("tied embedding", lambda m, i: F.linear(m.n(m.e(i)), m.e.weight), lambda: torch.randint(0, 9, (2, 5)),
     e=lambda: nn.Embedding(9, 8), n=lambda: nn.LayerNorm(8), free="e.weight:1 n.weight:0", fixed="e.weight:0")  # fmt: skip
case("dynamic convolution", lambda m, x: m.b(F.conv2d(m.a(x), (m.k(x.mean((0, 2, 3))).softmax(-1) @ m.w.flatten(1)).view(8, 8, 1, 1))),
     IMAGE, **A, k=lin(3, 4), w=par(4, 8, 8))  # fmt: skip

# ---- normalisation
between(
    "batch norm",
    lambda x: x,
    a=lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)),
    free="a.0.weight:0 a.1.running_mean:0",
)
for n_groups in (1, 2, 8):
    case(
        f"group norm {n_groups}",
        lambda m, x: m.b(m.n(m.a(x))),
        IMAGE,
        **A,
        n=lambda g=n_groups: nn.GroupNorm(g, 8),
        free=f"{AB} n.weight:0",
    )
case("group norm functional", lambda m, x: m.b(F.group_norm(m.a(x), 2)), IMAGE, **A, free=AB)
case(
    "instance norm",
    lambda m, x: m.b(m.n(m.a(x))),
    IMAGE,
    **A,
    n=lambda: nn.InstanceNorm2d(8, affine=True),
    free=f"{AB} n.weight:0",
)
case("layer norm", lambda m, x: m.b(m.n(m.a(x))), TOKENS, **T, n=lambda: nn.LayerNorm(12), free=f"{AB} n.weight:0")
case("layer norm functional", lambda m, x: m.b(F.layer_norm(y := m.a(x), (y.shape[-1],))), TOKENS, **T, free=AB)
case("layer norm constant", lambda m, x: m.b(F.layer_norm(m.a(x), (12,))), TOKENS, **T, fixed=AB)
case("layer norm of space too", lambda m, x: m.b(m.n(m.a(x))), IMAGE, **A, n=lambda: nn.LayerNorm([8, 6, 6]))
case("layer norm over space", lambda m, x: m.b(m.n(m.a(x))), IMAGE, **A, n=lambda: nn.LayerNorm([6, 6]), free=AB)
case("rms norm", lambda m, x: m.b(m.n(m.a(x))), TOKENS, **T, n=lambda: nn.RMSNorm(12), free=f"{AB} n.weight:0")
case("channels first layer norm", lambda m, x: m.b(m.n(m.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)), IMAGE, **A,
     n=lambda: nn.LayerNorm(8), free=f"{AB} n.weight:0")  # fmt: skip


def _by_hand(x: Tensor) -> Tensor:
    u = x.mean(1, keepdim=True)
    return (x - u) / torch.sqrt((x - u).pow(2).mean(1, keepdim=True) + 1e-6)


between("layer norm by hand", _by_hand)
between(
    "layer norm by variance",
    lambda x: (x - x.mean(1, keepdim=True)) * torch.rsqrt(x.var(1, unbiased=False, keepdim=True) + 1e-6),
)
among("rms norm by hand", lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
among("rms norm by size", lambda x: x / (x.norm(dim=-1, keepdim=True) * x.shape[-1] ** -0.5 + 1e-6))
between(
    "var mean",
    lambda x: (x - torch.var_mean(x, 1, keepdim=True)[1]) / (torch.var_mean(x, dim=1, keepdim=True)[0] + 1e-3).sqrt(),
)
between("normalize", lambda x: F.normalize(x, dim=1))
between(
    "global response norm",
    lambda x: x * (g := x.norm(p=2, dim=(2, 3), keepdim=True)) / (g.mean(1, keepdim=True) + 1e-6),
)
between("local response norm", lambda x: F.local_response_norm(x, 3), free="")

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
    b, n, c = x.shape
    q, k, v = m.qkv(x).reshape(b, n, 3, m.heads, m.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
    q = q * m.head_dim**-0.5
    y = (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v
    return m.b(y.transpose(1, 2).reshape(b, n, m.heads * m.head_dim))


def _fused_by_width(m: Any, x: Tensor) -> Tensor:
    b, n, c = x.shape
    qkv = m.qkv(x).reshape(b, n, 3, m.heads, c // m.heads).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
    return x + m.b(y.transpose(1, 2).reshape(b, n, c))


def _inside_out(m: Any, x: Tensor) -> Tensor:
    b, n, c = x.shape
    q, k, v = m.qkv(x).reshape(b, n, 3, m.heads, c // m.heads).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v).permute(0, 2, 3, 1).reshape(b, n, c)


def _heads_outside(m: Any, x: Tensor) -> Tensor:
    b, n, c = x.shape
    q, k, v = m.qkv(x).view(b, n, m.heads, -1).transpose(1, 2).chunk(3, dim=-1)
    return m.b(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _uneven(m: Any, x: Tensor) -> Tensor:
    b, n, c = x.shape
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

# ---- recurrent
case(
    "lstm",
    lambda m, x: m.b(m.r(m.a(x))[0]),
    TOKENS,
    **{**T, "b": lin(6, 4)},
    r=lambda: nn.LSTM(12, 6, 2),
    free="a.weight:0 r.weight_ih_l0:1",
)
case("gru", lambda m, x: m.b(m.r(m.a(x))[0]), TOKENS, **T, r=lambda: nn.GRU(12, 6, bidirectional=True, batch_first=True),
     free="a.weight:0 r.weight_ih_l0:1 r.weight_ih_l0_reverse:1")  # fmt: skip
case(
    "rnn", lambda m, x: m.b(m.r(m.a(x))[0]), TOKENS, **{**T, "b": lin(6, 4)}, r=lambda: nn.RNN(12, 6), free="a.weight:0"
)
case(
    "lstm cell",
    lambda m, x: m.b(m.r(m.a(x))[0]),
    (2, 8),
    **{**T, "b": lin(6, 4)},
    r=lambda: nn.LSTMCell(12, 6),
    free="a.weight:0 r.weight_ih:1",
)

# ---- gates
between("squeeze excite", lambda x: x * x.mean((2, 3), keepdim=True).sigmoid())
case("squeeze excite layers", lambda m, x: m.b((y := m.a(x)) * m.e(F.relu(m.s(F.adaptive_avg_pool2d(y, 1)))).sigmoid()), IMAGE, **A,
     s=conv(8, 3), e=conv(3, 8), free=f"{AB} s.weight:0 s.weight:1 e.weight:0 e.weight:1")  # fmt: skip
case("squeeze excite linear", lambda m, x: m.b((y := m.a(x)) * m.e(F.relu(m.s(y.mean((2, 3))))).sigmoid().view(*y.shape[:2], 1, 1)), IMAGE, **A,
     s=lin(8, 3), e=lin(3, 8), free=f"{AB} s.weight:0 s.weight:1 e.weight:0 e.weight:1")  # fmt: skip
case("squeeze excite by view", lambda m, x: m.b((y := m.a(x)) * m.e(F.relu(m.s(F.adaptive_avg_pool2d(y, 1).view(y.size(0), y.size(1)))))
     .sigmoid().view(y.size(0), y.size(1), 1, 1).expand_as(y)), IMAGE, **A, s=lin(8, 3), e=lin(3, 8), free=f"{AB} s.weight:0 e.weight:0")  # fmt: skip
case("channel attention by conv1d", lambda m, x: m.b((y := m.a(x)) * m.s(y.mean((2, 3)).unsqueeze(1)).sigmoid().view(1, -1, 1, 1)), IMAGE, **A,
     s=lambda: nn.Conv1d(1, 1, 3, padding=1))  # fmt: skip
case("channel attention expanded", lambda m, x: m.b((y := m.a(x)) * m.s(y.mean((2, 3)).view(1, 1, -1)).sigmoid().view(1, -1, 1, 1).expand_as(y)), IMAGE,
     **A, s=lambda: nn.Conv1d(1, 1, 3, padding=1))  # fmt: skip
case("conv across tokens", lambda m, x: m.b(m.s(m.a(x)).squeeze(1)), (1, 3, 8), **T, s=lambda: nn.Conv1d(3, 1, 1), free=AB)
case("spatial attention", lambda m, x: m.b((y := m.a(x)) * m.s(torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)).sigmoid()),
     IMAGE, **A, s=conv(2, 1, 3), free=AB)  # fmt: skip
case("spatial attention by max", lambda m, x: m.b((y := m.a(x)) * m.s(torch.max(y, dim=1, keepdim=True)[0]).sigmoid()), IMAGE, **A,
     s=conv(1, 1, 3), free=AB)  # fmt: skip
case("selective kernels", lambda m, x: m.b(((s := torch.stack([m.a(x), m.c(x)], 1)) * m.e(F.relu(m.s(s.sum(1).mean((2, 3), keepdim=True))))
     .view(1, 2, -1, 1, 1).softmax(1)).sum(1)), IMAGE, **A, c=conv(3, 8, 3), s=conv(8, 3), e=conv(3, 16), free=f"{AB} c.weight:0 e.weight:0")  # fmt: skip
case("split attention", lambda m, x: m.b(((y := m.g(x)).reshape(1, m.radix, y.shape[1] // m.radix, 6, 6)
     * m.e(F.relu(m.s(y.reshape(1, m.radix, -1, 6, 6).sum(1).mean((2, 3), keepdim=True)))).view(1, 1, m.radix, -1).transpose(1, 2).softmax(1)
     .reshape(1, m.radix, -1, 1, 1)).sum(1)), IMAGE, radix=2, g=conv(3, 16, 3), s=conv(8, 3), e=conv(3, 16), b=conv(8, 4),
     free="g.weight:0 s.weight:1 e.weight:0 b.weight:1")  # fmt: skip
case("glu", lambda m, x: m.b(F.glu(m.a(x), -1)), TOKENS, a=lin(8, 24), b=lin(12, 4), free=AB)
case(
    "gated by chunk",
    lambda m, x: m.b(F.silu((y := m.a(x).chunk(2, -1))[0]) * y[1]),
    TOKENS,
    a=lin(8, 24),
    b=lin(12, 4),
    free=AB,
)
case("gated apart", lambda m, x: m.b(F.silu(m.a(x)) * m.c(x)), TOKENS, **T, c=lin(8, 12), free=f"{AB} c.weight:0")
among("softmax over channels", lambda x: x.softmax(-1))
among("log softmax over channels", lambda x: F.log_softmax(x, dim=-1), free="")
among("softmax of tokens", lambda x: x.softmax(1) * x)
case("layer scale", lambda m, x: m.b(m.a(x) * m.g), TOKENS, **T, g=par(12), free=f"{AB} g:0")
case("prelu", lambda m, x: m.b(m.p(m.a(x))), IMAGE, **A, p=lambda: nn.PReLU(8), free=f"{AB} p.weight:0")
case("prelu one slope", lambda m, x: m.b(m.p(m.a(x))), IMAGE, **A, p=nn.PReLU, free=AB)
case(
    "buffer",
    lambda m, x: m.b(m.n(m.a(x))),
    IMAGE,
    **A,
    n=lambda: nn.BatchNorm2d(8, affine=False),
    free=f"{AB} n.running_var:0",
)

# ---- residuals, several inputs and outputs
case("residual", lambda m, x: m.b(F.relu((y := m.a(x)) + m.c(F.relu(m.d(y))))), IMAGE, **A, d=conv(8, 5, 3), c=conv(5, 8),
     free=f"{AB} d.weight:0 d.weight:1 c.weight:0 c.weight:1")  # fmt: skip
case("in place", lambda m, x: m.b(m.a(x).relu_().add_(1.0).mul_(2.0)), IMAGE, **A, free=AB)
case(
    "two inputs", lambda m, x, z: m.b(m.a(x) * m.c(z)), IMAGE, (1, 5, 6, 6), **A, c=conv(5, 8), free=f"{AB} c.weight:0"
)
case(
    "dict output",
    lambda m, x: {"y": m.b(m.a(x)), "z": [m.c(m.a(x))]},
    IMAGE,
    **A,
    c=conv(8, 2),
    free=f"{AB} c.weight:1",
    fixed="c.weight:0",
)
case("output between", lambda m, x: (m.b(y := m.a(x)), y), IMAGE, **A, fixed=AB)
case("dense", lambda m, x: m.b(torch.cat([y := m.a(x), z := m.c(y), m.d(torch.cat([y, z], 1))], 1)), IMAGE, a=conv(3, 8), c=conv(8, 6), d=conv(14, 6),
     b=conv(20, 4), free="a.weight:0 c.weight:0 d.weight:0 d.weight:1 b.weight:1")  # fmt: skip
case(
    "interpolated sum",
    lambda m, x: m.b(m.a(x) + F.interpolate(m.c(F.max_pool2d(x, 2)), size=(6, 6))),
    IMAGE,
    **A,
    c=conv(3, 8),
    free=AB,
)

# ---- moving and reshaping
case("flatten into linear", lambda m, x: m.b(m.a(x).flatten(1)), IMAGE, a=conv(3, 8, 3), b=lin(8 * 36, 4), free=AB)
case(
    "flatten by view",
    lambda m, x: m.b((y := m.a(x)).view(y.size(0), -1)),
    IMAGE,
    a=conv(3, 8, 3),
    b=lin(8 * 36, 4),
    free=AB,
)
case("flatten by constant", lambda m, x: m.b(m.a(x).view(-1, 288)), IMAGE, a=conv(3, 8, 3), b=lin(8 * 36, 4), fixed=AB)
case("unflatten", lambda m, x: m.b(F.relu(m.a(x).view(1, -1, 3, 3))), (1, 8), a=lin(8, 54), b=conv(6, 4), free=AB)
between("tokens and back", lambda x: x.flatten(2).transpose(1, 2).transpose(1, 2).reshape(1, -1, 6, 6))
between("tokens and back by shape", lambda x: x.flatten(2).permute(0, 2, 1).permute(0, 2, 1).view(x.shape))
between("roll over space", lambda x: x.roll((1, 2), (2, 3)))
between("roll over channels", lambda x: x.roll(2, 1), free="")
between("flip over channels", lambda x: x.flip(1))
between("flip twice", lambda x: x + x.flip(1).flip(1))
between("pad space", lambda x: F.pad(x, (1, 1, 1, 1))[:, :, 1:-1, 1:-1])
case(
    "pad channels",
    lambda m, x: m.b(F.pad(m.a(x), (0, 0, 0, 0, 1, 2)) + m.c(x)),
    IMAGE,
    a=conv(3, 5),
    c=conv(3, 8),
    b=conv(8, 4),
)
case("pad channels by size", lambda m, x: m.b(F.pad(y := m.a(x), (0, 0, 0, 0, 0, (z := m.c(x)).shape[1] - y.shape[1])) + z), IMAGE, a=conv(3, 5),
     c=conv(3, 8), b=conv(8, 4))  # fmt: skip
between("pad modes", lambda x: F.pad(F.pad(x, (1, 1, 1, 1), "reflect"), (1, 1, 1, 1), "replicate")[..., 2:-2, 2:-2])
between("pad circular", lambda x: F.pad(x, (1, 1, 1, 1), "circular")[..., 1:-1, 1:-1])
between("chunk", lambda x: torch.cat([(p := x.chunk(2, 1))[1], p[0].relu()], 1))
between("split even", lambda x: torch.cat(x.split(x.shape[1] // 2, 1)[::-1], 1))
between("split constant", lambda x: torch.cat(x.split(4, 1)[::-1], 1), free="", fixed="")
between("split uneven", lambda x: torch.cat(x.split([3, 5], 1)[::-1], 1), free="")
case(
    "split by attribute",
    lambda m, x: m.b(torch.cat([(p := m.a(x).split([m.p, m.q], 1))[0].relu(), p[1]], 1)),
    IMAGE,
    **A,
    p=3,
    q=5,
    free=AB,
)
case(
    "split by rest",
    lambda m, x: m.b(torch.cat([(p := (y := m.a(x)).split([m.p, y.shape[1] - m.p], 1))[0].relu(), p[1]], 1)),
    IMAGE,
    **A,
    p=3,
)
case(
    "split into blocks",
    lambda m, x: m.b(torch.cat([m.c((y := m.a(x))[:, : m.p]), y[:, m.p :]], 1)),
    IMAGE,
    **A,
    p=3,
    c=conv(3, 3, 3),
    free=AB,
)
between("chunk uneven", lambda x: torch.cat(x.chunk(3, 1)[::-1], 1))
case("split by width", lambda m, x: m.b(torch.cat(m.a(x).split(m.w, 1)[::-1], 1)), IMAGE, **A, w=3, free=AB)
case("heads inside out", lambda m, x: m.z((y := m.a(x)) + m.b(_inside_out(m, y))), TOKENS, **{**T, "b": lin(12, 12)}, qkv=lin(12, 36), z=lin(12, 4),
     heads=4, free="a.weight:0 qkv.weight:0 qkv.weight:1")  # fmt: skip
between("slice half", lambda x: torch.cat([x[:, : x.shape[1] // 2].relu(), x[:, x.shape[1] // 2 :]], 1))
between("slice constant", lambda x: torch.cat([x[:, :3], x[:, 3:].relu()], 1), free="")
case("slice and drop", lambda m, x: m.b(m.a(x)[:, :5]), IMAGE, a=conv(3, 8), b=conv(5, 4))
case("slice by attribute and drop", lambda m, x: m.b(m.a(x)[:, : m.n]), IMAGE, a=conv(3, 8), b=conv(5, 4), n=5, free=AB)
case("slice with a step", lambda m, x: m.b(torch.cat([(y := m.a(x))[:, ::2], y[:, 1::2].relu()], 1)), IMAGE, **A)
case("slice from the end", lambda m, x: m.b(torch.cat([(y := m.a(x))[:, -3:], y[:, :-3].relu()], 1)), IMAGE, **A)
case("narrow", lambda m, x: m.b(m.a(x).narrow(1, 0, 5)), IMAGE, a=conv(3, 8), b=conv(5, 4))
case(
    "select", lambda m, x: m.b(torch.stack([m.a(x)[:, i] for i in (0, 2, 5, 7)], 1)), IMAGE, a=conv(3, 8), b=conv(4, 4)
)
case("select a token", lambda m, x: m.b(m.a(x)[:, -1]), TOKENS, **T, free=AB)
case("index space", lambda m, x: m.b(m.a(x)[:, torch.tensor([0, 3, 1])]), TOKENS, **T, free=AB)
case("index channels", lambda m, x: m.b(m.a(x)[..., torch.arange(11, -1, -1)]), TOKENS, **T)
case("index select", lambda m, x: m.b(m.a(x).index_select(1, torch.tensor([0, 2]))), TOKENS, **T, free=AB)
case(
    "gather tokens",
    lambda m, x: m.b((y := m.a(x)).gather(1, torch.tensor([1, 2]).view(1, 2, 1).expand(1, 2, y.shape[-1]))),
    TOKENS,
    **T,
)
case(
    "take top tokens",
    lambda m, x: m.b((y := m.a(x)) * (y[..., :1] > y[..., :1].topk(3, 1)[0][:, -1:]).to(y.dtype)),
    TOKENS,
    **T,
)
case("assign to channels", lambda m, x: m.b(_assigned(m, m.a(x))), IMAGE, **A, p=3, c=conv(3, 3), free=AB)
between("unbind", lambda x: torch.stack([*x.unbind(2)][::-1], 2))
between("unbind channels", lambda x: torch.stack([*x.unbind(1)][::-1], 1), free="")
case("expand", lambda m, x: m.b(m.a(x) + m.c.expand(1, -1, 6, 6)), IMAGE, **A, c=par(1, 8, 1, 1), free=f"{AB} c:1")
case(
    "expand by shape",
    lambda m, x: m.b((y := m.a(x)) * m.c.view(1, -1, 1, 1).expand(y.shape)),
    IMAGE,
    **A,
    c=par(8),
    free=f"{AB} c:0",
)
case("repeat", lambda m, x: m.b(m.a(x).repeat(1, 2, 1, 1)), IMAGE, a=conv(3, 4), b=conv(8, 4), free=AB)
case("repeat interleave", lambda m, x: m.b(m.a(x).repeat_interleave(2, 1)), IMAGE, a=conv(3, 4), b=conv(8, 4), free=AB)
case(
    "repeat by expand",
    lambda m, x: m.b(m.a(x)[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2)),
    IMAGE,
    a=conv(3, 4),
    b=conv(8, 4),
    free=AB,
)
case("pixel shuffle", lambda m, x: m.b(F.pixel_shuffle(m.a(x), 2)), IMAGE, a=conv(3, 16), b=conv(4, 4), free=AB)
case("pixel unshuffle", lambda m, x: m.b(F.pixel_unshuffle(m.a(x), 2)), IMAGE, a=conv(3, 4), b=conv(16, 4), free=AB)
between("channel shuffle", lambda x: F.channel_shuffle(x, 2))
between("channel shuffle by view", lambda x: x.view(1, 2, x.shape[1] // 2, 6, 6).transpose(1, 2).reshape(1, -1, 6, 6))
case("shuffled halves", lambda m, x: m.b(_shuffled(m, m.a(x))), IMAGE, **A, c=conv(4, 4, 3), free=AB)
case("focus", lambda m, x: m.b(torch.cat([(y := m.a(x))[..., ::2, ::2], y[..., 1::2, ::2], y[..., ::2, 1::2], y[..., 1::2, 1::2]], 1)), IMAGE,
     a=conv(3, 4), b=conv(16, 4), free=AB)  # fmt: skip
case("unfold", lambda m, x: m.b(F.unfold(m.a(x), 2).transpose(1, 2)), IMAGE, a=conv(3, 4), b=lin(16, 4), free=AB)
case(
    "unfold windows",
    lambda m, x: m.b(m.a(x).unfold(2, 2, 2).unfold(3, 2, 2).flatten(1, 3).mean(-1).mean(-1)),
    IMAGE,
    a=conv(3, 4),
    b=lin(36, 4),
)
case("fold", lambda m, x: m.b(F.fold(F.unfold(m.a(x), 2), (6, 6), 2)), IMAGE, **A)
between("windows", lambda x: x.view(1, -1, 3, 2, 3, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, x.shape[1]).transpose(1, 2).reshape(1, 9, -1, 4).mean((1, 3))
        [..., None, None])  # fmt: skip
case("token mixing", lambda m, x: m.b((y := m.a(x)) + m.d(F.gelu(m.c(y.transpose(1, 2)))).transpose(1, 2)), TOKENS, **T, c=lin(5, 7), d=lin(7, 5),
     free=f"{AB} c.weight:0 d.weight:1", fixed="c.weight:1 d.weight:0")  # fmt: skip
between(
    "meshgrid",
    lambda x: x + torch.stack(torch.meshgrid(torch.linspace(0, 1, 6), torch.linspace(0, 1, 6), indexing="ij")).sum(0),
)

# ---- pooling, resizing, reductions
for name, pool in {
    "max pool": lambda x: F.max_pool2d(x, 2), "average pool": lambda x: F.avg_pool2d(x, 3, 1, 1), "adaptive": lambda x: F.adaptive_avg_pool2d(x, 2),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, 2), "lp pool": lambda x: F.lp_pool2d(x.relu() + 1, 2, 2), "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "nearest": lambda x: F.interpolate(x, scale_factor=2), "grid sample": lambda x: F.grid_sample(x, torch.zeros(1, 3, 3, 2), align_corners=False),
    "max pool indices": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), "dropout": lambda x: F.dropout2d(x, 0.5, False),
}.items():  # fmt: skip
    between(f"{name} of space", pool, free="" if "indices" in name else AB)
for name, reduce in {
    "mean": lambda x: x.mean(1, keepdim=True), "sum": lambda x: x.sum(1, keepdim=True), "maximum": lambda x: x.amax(1, keepdim=True),
    "minimum": lambda x: x.min(1, keepdim=True)[0], "variance": lambda x: x.var(1, keepdim=True), "deviation": lambda x: x.std(dim=1, keepdim=True),
    "norm": lambda x: x.norm(dim=1, keepdim=True), "log of sum": lambda x: x.logsumexp(1, keepdim=True), "mean of all": lambda x: x.mean((1, 2, 3), keepdim=True),
    "torch mean": lambda x: torch.mean(x, dim=1, keepdim=True), "vector norm": lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True), "mean of everything": lambda x: x.mean(),
}.items():  # fmt: skip
    between(f"{name} over channels", lambda x, reduce=reduce: x * reduce(x), free="" if "every" in name else AB)
for name, reduce in {
    "argmax": lambda x: x.argmax(1, keepdim=True), "product": lambda x: x.prod(1, keepdim=True), "median": lambda x: x.median(1, keepdim=True)[0],
    "any": lambda x: (x > 0).any(1, keepdim=True), "cumulative sum": lambda x: x.cumsum(1), "sort": lambda x: x.sort(1)[0], "top": lambda x: x.topk(2, 1)[0].sum(1, keepdim=True),
    "maximum of everything": lambda x: x.max(), "variance of everything": lambda x: x.var(), "softmax of everything": lambda x: x.flatten(1).softmax(1).view_as(x),
}.items():  # fmt: skip
    between(f"{name} over channels", lambda x, reduce=reduce: x * reduce(x), free="")

# ---- numbers made from sizes
among("divide by width", lambda x: x.sum(-1, keepdim=True) / x.shape[-1] + x)
among("scale by root", lambda x: x * math.sqrt(x.shape[-1]))
among("scale by power", lambda x: x.mul(x.size(2) ** -0.5))
among("escaped number", lambda x: x * float(x.shape[-1]), free="", fixed=AB)
among("number in a tensor", lambda x: x / torch.tensor(x.shape[-1]).sqrt(), free="", fixed=AB)
among("count of elements", lambda x: x * (x.sum((1, 2), keepdim=True) / (x.numel() // x.shape[0])))


def _assigned(m: Any, x: Tensor) -> Tensor:
    x = x.clone()
    x[:, : m.p] = m.c(x[:, : m.p])
    return x


def _shuffled(m: Any, x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    y = torch.cat([a, m.c(b)], 1)
    n, c, h, w = y.shape
    return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
