"""Operators that random networks are made of: makers of a few layers and how they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Make = Callable[[int, int, int], tuple[list[nn.Module], Callable[..., Tensor], int]]
OPERATORS: dict[str, Make] = {}
SIZE = 4  # images are (1, C, SIZE, SIZE); C is always a multiple of 4


def operator(make: Make) -> Make:
    """Register a maker: ``(channels, a, b) -> (layers, run(layers, x, earlier), channels after)``,
    ``earlier`` being what was computed before with as many channels."""
    OPERATORS[make.__name__] = make
    return make


def _width(a: int) -> int:
    return (4, 8, 12, 16)[a % 4]


@operator
def conv(c: int, a: int, b: int) -> Any:
    k = 1 + 2 * (b % 2)
    return [nn.Conv2d(c, _width(a), k, padding=k // 2)], lambda m, x, e: m[0](x), _width(a)


@operator
def grouped(c: int, a: int, b: int) -> Any:
    g = (1, 2, 4, c)[b % 4]
    out = c * (1 + a % 2)
    return [nn.Conv2d(c, out, 3, padding=1, groups=g)], lambda m, x, e: F.relu(m[0](x)), out


@operator
def transposed(c: int, a: int, b: int) -> Any:
    g = (1, 2, 4, 1)[b % 4]
    return [nn.ConvTranspose2d(c, _width(a), 3, padding=1, groups=g)], lambda m, x, e: m[0](x), _width(a)


@operator
def normalised(c: int, a: int, b: int) -> Any:
    norm = (
        nn.BatchNorm2d(c),
        nn.GroupNorm((1, 2, 4, c)[b % 4], c),
        nn.InstanceNorm2d(c, affine=True),
        nn.LayerNorm(c),
    )[a % 4]
    if isinstance(norm, nn.LayerNorm):
        return [norm], lambda m, x, e: m[0](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), c
    return [norm], lambda m, x, e: m[0](x), c


@operator
def by_hand(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        if a % 4 == 0:
            return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)
        if a % 4 == 1:
            return (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-3).sqrt()
        if a % 4 == 2:
            return F.normalize(x, dim=1) * x.shape[1] ** 0.5
        return x / (x.abs().sum(1, keepdim=True) / x.shape[1] + 1e-2)

    return [], run, c


@operator
def residual(c: int, a: int, b: int) -> Any:
    h = _width(b)
    layers = [nn.Conv2d(c, h, 1), nn.BatchNorm2d(h), nn.Conv2d(h, c, 3, padding=1)]
    return layers, lambda m, x, e: x + m[2](F.gelu(m[1](m[0](x)))), c


@operator
def add_earlier(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        return x + e[a % len(e)] if e else x * 2

    return [], run, c


@operator
def concatenated(c: int, a: int, b: int) -> Any:
    return [nn.Conv2d(c, _width(a), 1)], lambda m, x, e: torch.cat([x, m[0](x)][:: (-1) ** b], 1), c + _width(a)


def _branches(c: int, width: int, a: int) -> list[nn.Module]:
    """Two to four operators on one input."""
    kinds = (
        nn.Sequential(nn.Conv2d(c, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        nn.Sequential(nn.Conv2d(c, 6, 1), nn.ReLU(), nn.Conv2d(6, width, 3, padding=1)),
        nn.Sequential(nn.Conv2d(c, c, 3, padding=1, groups=c), nn.Conv2d(c, width, 1)),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(c, width, 1)),
    )
    return list(kinds[: 2 + a % 3])


@operator
def summed(c: int, a: int, b: int) -> Any:
    """Operators side by side, with the input where widths are alike."""
    width = _width(b)
    return (
        _branches(c, width, a),
        lambda m, x, e: sum(op(x) for op in m) + (x if a > 1 and c == width else 0.0),
        width,
    )


@operator
def side_by_side(c: int, a: int, b: int) -> Any:
    """The same, concatenated, with what is not zero for zero behind."""
    layers = _branches(c, 4, a)
    width = 4 * len(layers)
    return [*layers, nn.BatchNorm2d(width)], lambda m, x, e: m[-1](torch.cat([op(x) for op in m[:-1]], 1)), width


@operator
def squeeze_excite(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        if a % 2:
            return x * m[1](F.relu(m[0](x.mean((2, 3))))).sigmoid().view(x.size(0), x.size(1), 1, 1)
        return x * m[1](F.relu(m[0](x.mean((2, 3))))).softmax(1)[..., None, None]

    return [nn.Linear(c, 4), nn.Linear(4, c)], run, c


@operator
def gated(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        y = m[0](x)
        if b % 3 == 0:
            return F.glu(y, 1)
        if b % 3 == 1:
            p, q = y.chunk(2, 1)
            return F.silu(p) * q
        return y[:, : y.shape[1] // 2] * y[:, y.shape[1] // 2 :].sigmoid()

    return [nn.Conv2d(c, 2 * _width(a), 1)], run, _width(a)


@operator
def halves(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        p, q = x.chunk(2, 1)
        y = torch.cat([p, m[0](q)], 1)
        return F.channel_shuffle(y, 2) if a % 2 else y

    return [nn.Conv2d(c // 2, c // 2, 1)], run, c


@operator
def shuffled(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        if a % 4 == 0:
            return F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2)
        if a % 4 == 1:
            return x.flip(1)
        if a % 4 == 2:
            return x.roll(1, 2 if b % 2 else 1)
        n, k, h, w = x.shape
        return x.view(n, 4, k // 4, h, w).transpose(1, 2).reshape(n, k, h, w)

    return [], run, c


@operator
def attention(c: int, a: int, b: int) -> Any:
    heads = (1, 2, 4, 2)[a % 4]
    w = _width(b)

    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        n, _, h, v = x.shape
        t = x.flatten(2).transpose(1, 2)
        q, key, value = m[0](t).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        if b % 2:
            y = F.scaled_dot_product_attention(q, key, value)
        else:
            y = (q * q.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(-1) @ value
        return x + m[1](y.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(n, -1, h, v)

    return [nn.Linear(c, 3 * w), nn.Linear(w, c)], run, c


@operator
def multihead(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        t = x.flatten(2).transpose(1, 2)
        return x + m[0](t, t, t, need_weights=bool(b % 2))[0].transpose(1, 2).unflatten(2, (SIZE, SIZE))

    return [nn.MultiheadAttention(c, (1, 2, 4, 2)[a % 4], batch_first=True)], run, c


@operator
def over_channels(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        if a % 4 == 0:
            return x * x.softmax(1)
        if a % 4 == 1:
            return x * torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1).sum(1, keepdim=True).sigmoid()
        if a % 4 == 2:
            return x * x.std(dim=1, keepdim=True, correction=0) + x.norm(dim=1, keepdim=True)  # of one channel, too
        return x - x.logsumexp(1, keepdim=True)

    return [], run, c


@operator
def matmuls(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        t = x.flatten(2)
        if a % 2:
            return (t.transpose(1, 2) @ t / t.shape[1]).softmax(-1).matmul(t.transpose(1, 2)).transpose(1, 2).view_as(x)
        return torch.einsum("bcd,bdn->bcn", torch.einsum("bcn,bdn->bcd", t, t).tanh(), t).view(x.shape)

    return [], run, c


@operator
def tokens_mixed(c: int, a: int, b: int) -> Any:
    layers = [nn.Linear(SIZE * SIZE, _width(a)), nn.Linear(_width(a), SIZE * SIZE)]
    return layers, lambda m, x, e: x + m[1](F.gelu(m[0](x.flatten(2)))).view_as(x), c


@operator
def repeated(c: int, a: int, b: int) -> Any:
    return [], lambda m, x, e: x.repeat(1, 2, 1, 1) if a % 2 else x.repeat_interleave(2, 1), 2 * c


@operator
def padded(c: int, a: int, b: int) -> Any:
    return [], lambda m, x, e: F.pad(x, (0, 0, 0, 0, 4 * (a % 2), 4 * (b % 2))), c + 4 * (a % 2) + 4 * (b % 2)


@operator
def constants(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        if a % 3 == 0:
            return torch.cat([x[:, :3].relu(), x[:, 3:]], 1)
        if a % 3 == 1:
            return torch.cat(x.split([1, c - 1], 1)[::-1], 1)
        return x.cumsum(1) if b % 2 else x[:, torch.arange(c - 1, -1, -1)]

    return [], run, c


@operator
def split_unevenly(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        if a % 4 == 0:
            p, q = x.split([c // 4, c - c // 4], 1)
            return torch.cat([q, p], 1)
        if a % 4 == 1:
            parts = x.unbind(1)
            return torch.stack(parts[::-1], 1)
        if a % 4 == 2:
            return torch.cat(x.tensor_split(3, 1)[::-1], 1)
        return torch.cat([x.narrow(1, 0, 2), x.narrow(1, 2, x.shape[1] - 2)], 1)

    return [], run, c


@operator
def stepped(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        if a % 3 == 0:
            return torch.cat([x[:, 0::2], x[:, 1::2]], 1)
        if a % 3 == 1:
            return x.index_select(1, torch.arange(c).roll(b))
        index = torch.arange(c).flip(0).view(1, c, 1, 1).expand_as(x)
        return x.gather(1, index)

    return [], run, c


@operator
def expanded(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        if a % 2:
            return x + x.mean(1, keepdim=True).expand_as(x)
        return x * m[0].weight.view(1, -1, 1, 1).expand(x.shape[0], -1, SIZE, SIZE)

    return [nn.BatchNorm2d(c)], run, c


@operator
def unfolded(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        n = x.shape[0]
        if a % 2:
            patches = F.unfold(x, 2, stride=2).transpose(1, 2)
            return F.interpolate(m[0](patches).transpose(1, 2).reshape(n, -1, SIZE // 2, SIZE // 2), scale_factor=2.0)
        return F.interpolate(m[0](F.pixel_unshuffle(x, 2).permute(0, 2, 3, 1)).permute(0, 3, 1, 2), size=(SIZE, SIZE))

    return [nn.Linear(4 * c, _width(b))], run, _width(b)


@operator
def computed_weights(c: int, a: int, b: int) -> Any:
    w = _width(b)

    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        if a % 4 == 0:
            return m[0](x)
        weight = m[1].weight
        if a % 4 == 1:  # standardised
            mean = weight.mean((1, 2, 3), keepdim=True)
            return F.conv2d(x, (weight - mean) / (weight.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-4).sqrt())
        if a % 4 == 2:  # two branches as one kernel
            return F.conv2d(x, weight + m[2].weight, m[1].bias)
        return F.linear(x.permute(0, 2, 3, 1), F.normalize(m[1].weight[:, :, 0, 0], dim=1)).permute(0, 3, 1, 2)

    return [nn.utils.parametrizations.weight_norm(nn.Conv2d(c, w, 1)), nn.Conv2d(c, w, 1), nn.Conv2d(c, w, 1)], run, w


@operator
def tied(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        if a % 2:
            return x + m[0](F.relu(m[0](x)))
        return x + F.conv_transpose2d(F.relu(m[1](x)), m[1].weight)

    return [nn.Conv2d(c, c, 1), nn.Conv2d(c, _width(b), 1)], run, c


@operator
def relative_bias(c: int, a: int, b: int) -> Any:
    heads = (1, 2, 4, 2)[a % 4]
    n = SIZE * SIZE
    table = nn.Embedding(2 * n, heads)

    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        t = m[1](x.flatten(2).transpose(1, 2))
        q, k, v = t.view(t.shape[0], n, 3, heads, t.shape[-1] // (3 * heads)).permute(2, 0, 3, 1, 4).unbind(0)
        index = torch.arange(n)[:, None] - torch.arange(n)[None] + n
        bias = m[0](index).permute(2, 0, 1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.unsqueeze(0))
        return m[2](y.transpose(1, 2).reshape(x.shape[0], n, -1)).transpose(1, 2).unflatten(2, (SIZE, SIZE))

    return [table, nn.Linear(c, 3 * _width(b)), nn.Linear(_width(b), c)], run, c


@operator
def tokens(c: int, a: int, b: int) -> Any:
    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        t = x.flatten(2).transpose(1, 2)
        t = torch.cat([m[0].weight[None, :1].expand(t.shape[0], -1, -1), t], 1) + m[1].weight
        t = m[2](t) if a % 2 else m[3](t)
        return t[:, 1:].transpose(1, 2).reshape(x.shape) if b % 2 else t[:, 1:].mT.unflatten(-1, (SIZE, SIZE))

    return [nn.Embedding(2, c), nn.Embedding(SIZE * SIZE + 1, c), nn.LayerNorm(c), nn.RMSNorm(c)], run, c


@operator
def along(c: int, a: int, b: int) -> Any:
    """Convolutions over one and three axes."""

    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        if a % 2:
            return m[0](x.flatten(2)).view(x.shape[0], -1, SIZE, SIZE)
        return m[1](x.unsqueeze(2).repeat(1, 1, 2, 1, 1)).mean(2)

    return [nn.Conv1d(c, _width(b), 3, padding=1), nn.Conv3d(c, _width(b), 1)], run, _width(b)


@operator
def einsums(c: int, a: int, b: int) -> Any:
    w = _width(b)

    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        if a % 2:
            return torch.einsum("bchw,oc->bohw", x, m[0].weight)
        return torch.einsum(
            "bghw,ghwc->bchw", torch.einsum("bchw,oc->bohw", x, m[0].weight), m[1].weight.view(w, SIZE, SIZE, c)
        )

    return [nn.Linear(c, w), nn.Linear(c, w * SIZE * SIZE)], run, w if a % 2 else c


@operator
def recurrent(c: int, a: int, b: int) -> Any:
    kind = nn.LSTM if a % 2 else nn.GRU

    def run(m: Any, x: Tensor, e: list[Tensor]) -> Tensor:
        return m[0](x.flatten(2).transpose(1, 2))[0].transpose(1, 2).reshape(x.shape[0], -1, SIZE, SIZE)

    return [kind(c, 4, batch_first=True, bidirectional=bool(b % 2))], run, 4 * (1 + b % 2)
