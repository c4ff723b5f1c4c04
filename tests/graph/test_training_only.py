"""Code that runs in training alone goes on running in the small network, or what it touches stays whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.graph import capture
from compressor.trim import trim_verified


class Contrast(nn.Module):
    """Keys of earlier batches in a queue, which training alone writes."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 16))
        self.project = nn.Linear(16, 16)
        self.register_buffer("queue", F.normalize(torch.randn(16, 24), dim=0))
        self.register_buffer("place", torch.zeros(1, dtype=torch.long))
        self.queue: Tensor
        self.place: Tensor

    def write(self, keys: Tensor) -> None:
        where = (torch.arange(len(keys)) + self.place) % 24
        self.queue[:, where] = keys.detach().t()
        self.place[0] = (self.place[0] + len(keys)) % 24

    def forward(self, x: Tensor) -> Tensor:
        keys = F.normalize(self.trunk(x), dim=1)
        queries = F.normalize(self.project(self.trunk(0.9 * x)), dim=1)
        found = torch.einsum("nc,ck->nk", queries, self.queue.clone())
        if self.training:
            self.write(keys)
        return found


class ContrastByNumber(Contrast):
    """Where to write is a number, which no trace without numbers can follow."""

    def write(self, keys: Tensor) -> None:
        start = int(self.place)
        self.queue[:, start : start + len(keys)] = keys.detach().t()
        self.place[0] = (start + len(keys)) % 20


class Centred(nn.Module):
    """A running mean that training alone moves, and evaluation subtracts from what another layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 3)
        self.register_buffer("mean", torch.rand(16))
        self.mean: Tensor

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x).relu(), self.b(x).relu()
        if self.training:
            self.mean.lerp_(a.detach().mean(0), 0.1)
        found: Tensor = self.out(b - self.mean) + a.mean(1, keepdim=True)
        return found


class Compared(nn.Module):
    """Two streams that meet in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(6, 16)
        self.heads = nn.ModuleList([nn.Linear(16, 3), nn.Linear(16, 3)])

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        a, b = self.a(x).tanh(), self.b(x).tanh()
        found: Tensor = self.heads[0](a) + self.heads[1](b)
        training = self.training
        return (found, (a - b).square().sum()) if training else found


class Decorated(Compared):
    @torch.autocast("cpu", enabled=False)  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        a, b = self.a(x).tanh(), self.b(x).tanh()
        found: Tensor = self.heads[0](a) + self.heads[1](b)
        return found if not self.training else (found, (a - b).square().sum())


class Inside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.head = Contrast(), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.net(x).relu())
        return found


@pytest.mark.parametrize("make", [Contrast, ContrastByNumber, Centred, Compared, Decorated, Inside])
@pytest.mark.parametrize("seed", range(2))
def test_the_small_network_trains(make: Callable[[], nn.Module], seed: int) -> None:
    torch.manual_seed(seed)
    model, x = make().eval(), torch.randn(3, 6)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = capture(model, x)
    assert graph.groups
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    units, rng = graph.all_units(), np.random.default_rng(seed)
    for number, group in enumerate(graph.groups):
        units[group.units] = rng.random(len(group)) < (0.3, 0.8)[number % 2]
        units[group.units[0]] = True
    result = trim_verified(model, graph, units, x)
    assert not result.refused, result.check.reason
    small = result.model.train()
    for _ in range(2):
        out = small(x)
        sum(each.sum() for each in (out if isinstance(out, tuple) else (out,))).backward()
    assert not model.training


class Noisy(nn.Module):
    """Training alone adds something, so the pass in training mode is made."""

    def __init__(self, noise: nn.Module, rank: int) -> None:
        super().__init__()
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        self.first, self.noise, self.last = kind(3, 8, 3, padding=1), noise, kind(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.training:
            x = x + 0.1 * torch.randn_like(x)
        return self.last(self.noise(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    ("kind", "rank"),
    [
        (nn.Dropout, 2),
        (nn.Dropout1d, 1),
        (nn.Dropout2d, 2),
        (nn.Dropout3d, 3),
        (nn.AlphaDropout, 2),
        (nn.FeatureAlphaDropout, 2),
    ],
)
def test_noise_of_dropouts_follows_the_channels_it_falls_on(kind: type[nn.Dropout], rank: int, inplace: bool) -> None:
    model = Noisy(kind(0.3, inplace), rank).eval()
    graph = capture(model, torch.randn(2, 3, *[6] * rank))
    assert graph.parameters["first.weight"].axes[0] is not None, graph.fixed


class Hands(nn.Module):
    """It hands its mode on, and does nothing else with it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.dropout(self.a(x).relu(), 0.1, self.training))  # type: ignore[no-any-return]


def test_no_second_pass_where_no_code_decides_by_its_mode() -> None:
    ran = []

    class Counted(Hands):
        def forward(self, x: Tensor) -> Tensor:
            ran.append(self.training)
            return super().forward(x)

    assert len(capture(Counted(), torch.randn(1, 6)).groups) == 1
    assert ran == [False]


class HeadsInBatch(nn.Module):
    """Attention that counts its heads among the examples, as several published ones do, and noise in training."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.each, self.width = 2, 6, 12
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.qkv, self.last = nn.Conv2d(8, 36, 1), nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        if self.training:
            x = x + 0.1 * torch.randn_like(x)
        b, _, h, w = x.shape
        parts = torch.split(self.qkv(x), [self.width, self.width, self.width], dim=1)
        q, k, v = (part.reshape(b * self.heads, self.each, -1) for part in parts)
        mixed = (q.transpose(-1, -2) @ k).softmax(-1) @ v.transpose(-1, -2)
        found: Tensor = self.last(mixed.transpose(-1, -2).reshape(b, self.width, h, w))
        return found


def test_the_pass_in_training_mode_takes_one_example_where_it_can() -> None:
    graph = capture(HeadsInBatch().eval(), torch.randn(2, 3, 6, 6))
    axis = graph.parameters["qkv.weight"].axes[0]
    assert axis is not None, graph.fixed
