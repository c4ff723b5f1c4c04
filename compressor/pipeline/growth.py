"""Networks that may grow: a search inside a larger one, started at the base's size and measured by the base's costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from compressor.budget import Budget
from compressor.costs import REPORTED_COSTS, build
from compressor.errors import UsageError
from compressor.graph import Graph, capture
from compressor.pipeline.settings import Base
from compressor.report.block_table import outline
from compressor.storage.reading import free_memory
from compressor.trim import plan

COPIES = 4  # of the weights: themselves, gradients, momentum, and slices of the live network


def describe_base(budgets: tuple[Budget, ...], base: nn.Module, example_inputs: Any) -> Base:
    """What the base network costs and how it is built. Raises ``UsageError`` for a share of its latency."""
    if any(budget.relative and budget.cost == "latency" for budget in budgets):
        raise UsageError(
            "With --dnarch.grow a latency budget is an amount, such as 3ms: the base network is not timed."
        )
    graph = capture(base, example_inputs)
    names = dict.fromkeys([*REPORTED_COSTS, *(b.cost for b in budgets if b.cost != "latency")])
    whole = plan(base, graph, np.ones(graph.n_units + 1, dtype=np.bool_))
    return Base(
        base,
        costs={name: build(name, graph).original for name in names},
        blocks={row.name: row for row in outline(base, graph, whole)},
    )


def base_budgets(budgets: tuple[Budget, ...], costs: Mapping[str, float]) -> tuple[Budget, ...]:
    """Shares of what the base network costs, as amounts."""
    return tuple(replace(b, value=b.limit(costs[b.cost]), relative=False) if b.relative else b for b in budgets)


def training_bytes(graph: Graph, batch_size: int) -> float:
    """What training the whole network takes: its weights some times over, and every activation of a batch."""
    units = graph.all_units()
    activations = sum(
        s.bytes * math.prod(int(axis.keep(units).sum()) for axis in s.axes) for s in graph.storages if not s.unless_full
    )
    return 4.0 * COPIES * build("params", graph).original + batch_size * activations


def require_room(build: Callable[[int], nn.Module], grow: int) -> None:
    """Raise ``UsageError`` if there is no room for the weights of ``build(grow)``, before they are made: as many as
    follow from how much larger ``build(2)`` is than ``build(1)``."""
    free = free_bytes(torch.device("cpu"))
    if grow <= 2 or free is None:
        return
    one, two = (float(sum(p.numel() for p in build(n).parameters())) for n in (1, 2))
    needed = 4.0 * one * (two / one) ** math.log2(grow)
    if needed > free:
        raise UsageError(
            f"Grown {grow} times, the weights of the network alone take about {needed / 1e9:.3g} GB, and "
            f"{free / 1e9:.3g} GB are free; lower --dnarch.grow."
        )


def require_memory(model: nn.Module, example_inputs: Any, batch_size: int, grow: int) -> None:
    """Raise ``UsageError`` if training the grown network would take more than there is."""
    needed = training_bytes(capture(model, example_inputs), batch_size)
    free = free_bytes(next(model.parameters()).device)
    if free is not None and needed > free:
        raise UsageError(
            f"Grown {grow} times, the network takes about {needed / 1e9:.3g} GB to train in batches of {batch_size}, "
            f"and {free / 1e9:.3g} GB are free; lower --batch-size or --dnarch.grow."
        )


def free_bytes(device: torch.device) -> float | None:
    """Memory that is free on a device; ``None`` where that is not known."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return free_memory()
