"""What rules note beside labels: why some are fixed, and what contracts, adjusts, costs or is sized along others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from compressor.arrays import IntArray
from compressor.graph.recording.values import Node, Value


@dataclass(frozen=True)
class Reason:
    """Why labels are fixed, and where."""

    place: str
    operator: str
    text: str


@dataclass
class Reader:
    """A contraction over ``labels``: one of ``operands`` (value, axis) must be zero wherever a label is removed."""

    node: Node
    operands: list[tuple[Value, int]]
    labels: IntArray


@dataclass
class Adjustment:
    """Arithmetic across a labelled axis. ``kind`` names the handler in ``masks/sites``; ``axes`` are its labels."""

    kind: str
    node: Node
    labels: IntArray
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Product:
    """``coefficient`` times the sizes of ``axes``: multiply-adds of one operator. The coefficient has what is fixed."""

    node: Node
    kind: str
    coefficient: float
    axes: list[IntArray]


@dataclass
class Derived:
    """An attribute of a module that the trim sets to ``offset + factor`` times the length of ``labels``."""

    module: str
    name: str
    index: int
    labels: IntArray
    offset: float
    factor: float
