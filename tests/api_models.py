"""Small networks and data for tests of the Python API."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    """Images (B, 3, 8, 8) to four classes; a residual block between convolutions."""

    def __init__(self, width: int = 16, form: str = "tensor") -> None:
        super().__init__()
        self.form = form
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.up = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.down = nn.Conv2d(2 * width, width, 3, padding=1)
        self.wide = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.head = nn.Linear(2 * width, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.norm(self.stem(x)).relu()
        x = x + self.down(self.up(x).relu())
        logits = self.head(self.wide(x).relu().mean((2, 3)))
        if self.form == "dict":
            return {"logits": logits, "stem": x}
        return (logits, x) if self.form == "tuple" else logits


class TwoInputs(nn.Module):
    """A tensor argument, a second one, and a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 24), nn.Linear(3, 24), nn.Linear(24, 2)

    def forward(self, x: Tensor, y: Tensor, *, scale: Tensor) -> Tensor:
        out: Tensor = self.c((self.a(x) + self.b(y)).relu()) * scale
        return out


class Autoencoder(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 32, bias=False)
        self.code = nn.Linear(32, 12)
        self.last = nn.Linear(12, 32, bias=False)
        self.last.weight = self.first.weight
        self.out = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.last(self.code(self.first(x).relu())).relu())
        return out


EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net(form: str = "tensor") -> Net:
    torch.manual_seed(0)
    return Net(form=form)


def loader(count: int = 96, seed: int = 0) -> DataLoader[Any]:
    """Images whose class shows in their mean."""
    source = torch.Generator().manual_seed(seed)
    targets = torch.randint(4, (count,), generator=source)
    inputs = torch.randn(count, 3, 8, 8, generator=source) + targets[:, None, None, None].float()
    return DataLoader(TensorDataset(inputs, targets), batch_size=16)


def same(a: Any, b: Any) -> bool:
    """Whether two outputs (tensors, or tuples or dicts of them) are equal."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
