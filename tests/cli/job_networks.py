"""Networks by name for the main job (``job_networks:plain``), good and bad; inputs are digits, shape (B, 1, 8, 8)."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """Three convolutions and a linear layer; returns its logits in the ``form`` asked for."""

    def __init__(self, form: str = "tensor", width: int = 16) -> None:
        super().__init__()
        self.form = form
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Any:
        first = self.norm(self.first(x)).relu()
        second = self.second(self.middle(first).relu()).relu()
        logits = self.head(second.mean((2, 3)))
        if self.form == "dict":
            return {"features": second, "logits": logits}
        if self.form == "tuple":
            return logits, second
        if self.form == "nested":
            return {"out": logits, "more": (first, {"deep": second})}
        return logits


def plain() -> nn.Module:
    return Plain()


def returns_dict() -> nn.Module:
    return Plain("dict")


def returns_tuple() -> nn.Module:
    return Plain("tuple")


def returns_nested() -> nn.Module:
    return Plain("nested")


class Raises(Plain):
    def forward(self, x: Tensor) -> Any:
        raise ValueError("no luck\ntoday")


def raises() -> nn.Module:
    return Raises()


class Empty(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def empty() -> nn.Module:
    return Empty()


class Fixed(nn.Module):
    """Its one layer reads the input and writes the output."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x.flatten(1))
        return out


def fixed() -> nn.Module:
    return Fixed()


class TurnsNan(Plain):
    """Good for thirty steps of training, then NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        if self.training and torch.is_grad_enabled():
            self.steps += 1
            if self.steps > 30:
                return logits * float("nan")
        return logits


def turns_nan() -> nn.Module:
    return TurnsNan()


class Random(Plain):
    """Two runs never agree, so nothing can be verified."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) + time.perf_counter()


def random() -> nn.Module:
    return Random()


def factory_raises() -> nn.Module:
    raise RuntimeError("no such luck")


def returns_a_number() -> int:
    return 3
