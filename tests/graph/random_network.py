"""Random small networks out of many operators, from a list of ``(operator, a, b)`` that prints and replays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Program = list[tuple[str, int, int]]
Make = Callable[[int, int, int], tuple[list[nn.Module], Callable[..., Tensor], int]]
OPERATORS: dict[str, Make] = {}
SIZE = 4  # images are (1, C, SIZE, SIZE); C is always a multiple of 4


def operator(make: Make) -> Make:
    """Register a maker: ``(channels, a, b) -> (layers, run(layers, x, earlier), channels after)``."""
    OPERATORS[make.__name__] = make
    return make


class RandomNetwork(nn.Module):
    """Runs a program on an image (1, 3, SIZE, SIZE) and ends in 5 numbers."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.steps = nn.ModuleList()
        self.runs: list[Callable[..., Tensor]] = []
        channels = 8
        for name, a, b in program:
            layers, run, channels = OPERATORS[name](channels, a, b)
            self.steps.append(nn.ModuleList(layers))
            self.runs.append(run)
        self.head = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        earlier = [x]
        for step, run in zip(self.steps, self.runs, strict=True):
            x = run(step, x, earlier)
            earlier.append(x)
        return self.head(x.mean((2, 3)))


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
        same = [y for y in e[:-1] if y.shape == x.shape]
        return x + same[a % len(same)] if same else x * 2

    return [], run, c


@operator
def concatenated(c: int, a: int, b: int) -> Any:
    return [nn.Conv2d(c, _width(a), 1)], lambda m, x, e: torch.cat([x, m[0](x)][:: (-1) ** b], 1), c + _width(a)


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
            return x * x.std(dim=1, keepdim=True) + x.norm(dim=1, keepdim=True)
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
