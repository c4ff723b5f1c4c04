"""Subnets of the One-Shot space that no search chose: drawn at random, or as wide everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.accuracy.accuracy_cifar import uniform
from compressor.arrays import BoolArray, UnitMask
from compressor.backbones.one_shot import OneShot
from compressor.costs import build
from compressor.graph import Graph, capture
from compressor.search.constraints.constraint import Constraint
from compressor.search.constraints.projector import Projector
from compressor.search.training.subnets import subnet

CELLS, BLOCKS, WIDTH, SIZE = 4, 1, 16, 8
LOWEST, HIGHEST = 0.07, 0.7
"""Shares of the multiply-adds between which random subnets lie."""
GOLDEN = 0.6180339887498949


@dataclass
class Space:
    """The supernetwork at its start, with its trace. ``start`` is the seed of its weights."""

    model: nn.Module
    graph: Graph
    example: torch.Tensor

    @classmethod
    def of(cls, aggregator: str, start: int) -> Space:
        """The space with one of ``AGGREGATORS``."""
        torch.manual_seed(start)
        model = OneShot(CELLS, BLOCKS, WIDTH, aggregator=aggregator, size=SIZE)
        example = torch.randn(2, 3, SIZE, SIZE)
        return cls(model, capture(model, example), example)

    @property
    def macs(self) -> float:
        """Multiply-adds of the supernetwork, for one image."""
        return float(build("flops", self.graph).original)

    def constraint(self, share: float) -> Constraint:
        """At most this share of the multiply-adds."""
        term = build("flops", self.graph)
        return Constraint(term, share * term.original)

    def network(self, units: UnitMask, gates: BoolArray | None) -> nn.Module:
        """The subnet with its part of the weights at the start, as an ordinary network."""
        kept = np.ones(len(self.graph.blocks), dtype=np.bool_) if gates is None else gates
        return subnet(self.model, self.graph, units, kept)

    def counted(self, network: nn.Module) -> dict[str, float]:
        """Multiply-adds for one image, and parameters, counted on the network itself."""
        graph = capture(network, self.example)
        return {"macs": float(build("flops", graph).original), "params": float(build("params", graph).original)}


def even(space: Space, share: float) -> tuple[UnitMask, None]:
    """All operators, each group of channels cut to the same share, as far as the budget goes."""
    return uniform(space.model, space.graph, space.constraint(share)), None


def target(index: int) -> float:
    """The share of the multiply-adds that random subnet ``index`` aims at: any first ones are spread evenly in its logarithm."""
    return float(LOWEST * (HIGHEST / LOWEST) ** (((index + 0.5) * GOLDEN) % 1.0))


def drawn(space: Space, index: int) -> tuple[UnitMask, BoolArray]:
    """Random subnet ``index``: some operators of each block, and widths drawn for each group of channels by itself.

    Operators stay with one probability from [0.3, 1], drawn for the subnet; one of a block stays in any case. Widths are
    in proportion to draws from [0.25, 1], all scaled alike so that the subnet is the largest within its share.
    """
    rng = np.random.default_rng(1000 + index)
    graph, constraint = space.graph, space.constraint(target(index))
    projector = Projector(graph, [constraint])
    priority = rng.random(len(graph.blocks))
    gates = graph.gates(rng.random(len(graph.blocks)) < rng.uniform(0.3, 1.0), priority)
    widths = rng.uniform(0.25, 1.0, len(graph.groups))
    sizes = np.array([len(group) for group in graph.groups])
    ranking = rng.random(graph.n_units)

    def scaled(scale: float) -> UnitMask:
        counts = np.clip(np.round(scale * widths * sizes), 1, sizes).astype(np.int64)
        return projector.choose(projector.allowed(counts), ranking)

    low, high = 0.0, 4.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if projector.fits(scaled(middle), gates) else (low, middle)
    return scaled(low), gates


def packed(mask: Any) -> str:
    """A mask as hexadecimal digits."""
    return np.packbits(np.asarray(mask, dtype=np.bool_)).tobytes().hex()


def unpacked(text: str, length: int) -> BoolArray:
    """The mask of ``packed``."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8), count=length)
    found: BoolArray = bits.astype(np.bool_)
    return found
