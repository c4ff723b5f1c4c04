"""Small models with the habits that exporters stumble over."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Convnet(nn.Module):
    """Convolution, normalisation with non-trivial statistics, residual addition, pooling, linear."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.body = nn.Conv2d(width, width, 3, padding=1, groups=2)
        self.head = nn.Linear(width, 5)
        with torch.no_grad():
            self.norm.running_mean.normal_()  # type: ignore[union-attr]
            self.norm.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.body(x)
        return self.head(self.dropout(x.mean((2, 3))))


class Pair(NamedTuple):
    logits: Tensor
    features: Tensor


class ManyOutputs(nn.Module):
    """Returns a tuple, a named tuple, a dict or a nest of them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> object:
        a = self.layer(x)
        b = a.softmax(-1)
        return {
            "tuple": (a, b),
            "named": Pair(a, b),
            "dict": {"out": a, "aux": b},
            "ordered": OrderedDict(out=a, aux=b),
            "nested": {"out": a, "more": [b, (a + b,)]},
        }[self.kind]


class TwoInputs(nn.Module):
    """An embedding looked up by integers beside a float input."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)

    def forward(self, tokens: Tensor, weights: Tensor) -> Tensor:
        return (self.table(tokens) * weights.unsqueeze(-1)).sum(1)


class AnyNumber(nn.Module):
    """Takes one named input and any number of others."""

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = first + other
        return first


class FixedBatch(nn.Module):
    """Bakes its batch size in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] != 3:
            raise ValueError("only three at a time")
        return self.layer(x)


class Refuses(nn.Module):
    """Its forward raises."""

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("this forward always raises")


class Chatty(Convnet):
    """Prints in its forward."""

    def forward(self, x: Tensor) -> Tensor:
        print("forward called")
        return super().forward(x)
