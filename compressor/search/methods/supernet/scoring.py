"""How good a subnet is: statistics of its normalisations taken anew, then a pass over held-out samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from compressor.arrays import BoolArray, UnitMask
from compressor.data.base import Split
from compressor.data.task import Task
from compressor.graph.graph import Graph
from compressor.search.training.subnets import subnet
from compressor.train import Metrics, evaluate, recalibrate_batchnorm


@dataclass(frozen=True)
class Scorer:
    """Scores networks alike.

    Attributes:
        train: what statistics are taken from.
        held_out: what is scored on.
        batches: of 128 samples each, for the statistics.
    """

    train: Split
    held_out: Split
    task: Task | None
    loss_fn: Callable[[Any, Tensor], Tensor] | None
    batches: int
    seed: int

    def __call__(self, network: nn.Module) -> Metrics:
        """What is found on the held-out samples. The network's statistics are changed."""
        recalibrate_batchnorm(network, self.train, batches=self.batches, seed=self.seed)
        return evaluate(network, self.held_out, loss_fn=self.loss_fn, task=self.task)


def merit(found: Metrics) -> float:
    """The score with a sign that makes more better; NaN if there is none."""
    if found.lost or found.score is None:
        return math.nan
    return -found.score if found.metric.lower_is_better else found.score


@dataclass(frozen=True)
class Ground:
    """What the scores of all subnets have in common. It is pickled for scoring side by side."""

    model: nn.Module
    graph: Graph
    scorer: Scorer

    def score(self, units: UnitMask, gates: BoolArray) -> float:
        """The merit of a subnet."""
        return merit(self.scorer(subnet(self.model, self.graph, units, gates)))


def score_in_worker(ground: Ground, task: tuple[str, UnitMask, BoolArray]) -> float:
    """One task of a pool: a subnet's key, units and blocks."""
    _, units, gates = task
    return ground.score(units, gates)


def statistics(network: nn.Module) -> dict[str, Tensor]:
    """The buffers of all normalisations, by name."""
    return {
        f"{name}.{key}" if name else key: buffer.detach().clone()
        for name, module in network.named_modules()
        if isinstance(module, _NormBase)
        for key, buffer in module.named_buffers(recurse=False)
    }
