"""Uses of operators that move, pool and reduce, and of numbers made from sizes."""

# ruff: noqa: E501  # a table: one use a line
from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.graph.tiny import AB, IMAGE, TOKENS, A, T, among, between, case, conv, lin, par
from tests.graph.uses_attention import inside_out

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
case("heads inside out", lambda m, x: m.z((y := m.a(x)) + m.b(inside_out(m, y))), TOKENS, **{**T, "b": lin(12, 12)}, qkv=lin(12, 36), z=lin(12, 4),
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
between(
    "channel shuffle to its size",
    lambda x: x.view(1, 2, x.shape[1] // 2, 6, 6).transpose(1, 2).reshape(1, x.shape[1], 6, 6),
)
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
among("count of elements", lambda x: x * (x.sum((1, 2), keepdim=True) / (x.numel() // x.shape[0] // x.shape[1])))


def _assigned(m: Any, x: Tensor) -> Tensor:
    x = x.clone()
    x[:, : m.p] = m.c(x[:, : m.p])
    return x


def _shuffled(m: Any, x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    y = torch.cat([a, m.c(b)], 1)
    n, c, h, w = y.shape
    return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


# ---- numbers first, sections, steps, and axes merged in one order and split in another
between("a number first", lambda x: 2 ** x.tanh() + (3 - x))
between("tensor_split", lambda x: torch.cat(x.tensor_split(2, 1)[::-1], 1))
between("tensor_split unevenly", lambda x: torch.cat(x.tensor_split(3, 1)[::-1], 1), free="")
between("tensor_split at positions", lambda x: torch.cat(x.tensor_split((2, 5), 1)[::-1], 1))
between("even and odd", lambda x: torch.cat([x[:, 1::2], x[:, ::2]], 1))
between("from the second on", lambda x: torch.cat([x[:, 1:7:3], x], 1)[:, 2:], free="")
between(
    "pixel shuffle of all", lambda x: F.pixel_unshuffle(F.pixel_shuffle(x[:, :4], 2), 2).repeat(1, 2, 1, 1), free=""
)
case("patches and back", lambda m, x: m.b((lambda y, n, c, h, w: y.reshape(n * c * (h // m.p), m.p, w // m.p, m.p).transpose(1, 2)
     .reshape(n, c, h // m.p * (w // m.p), m.p**2).transpose(1, 3).reshape(n * m.p**2, h // m.p * (w // m.p), -1).relu()
     .view(n, m.p**2, h // m.p * (w // m.p), -1).transpose(1, 3).reshape(n * c * (h // m.p), w // m.p, m.p, m.p)
     .transpose(1, 2).reshape(n, c, h, w))(y := m.a(x), *y.shape)), IMAGE, **A, p=2, free=AB)  # fmt: skip
