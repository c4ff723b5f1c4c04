"""Tiny networks, one per way an operator is used. Tests trim each at random and compare with the masked network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


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
