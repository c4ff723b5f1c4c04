"""Checks of every set of blocks that a network may lose."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.architecture.architecture import Architecture
from compressor.costs import build
from compressor.graph.graph import Graph
from compressor.search.constraints.constraint import hard_sizes
from compressor.trim import Verifier, plan, trim


def assert_same(first: Any, second: Any) -> None:
    for one, two in zip(pytree.tree_leaves(first), pytree.tree_leaves(second), strict=True):
        assert not isinstance(one, Tensor) or torch.equal(one, two)


def check_every_choice(model: nn.Module, graph: Graph, *inputs: Tensor, other: tuple[Tensor, ...] = ()) -> None:
    """Every set of blocks: exact, of the cost that was said, and fit for training and inputs of another size."""
    verifier = Verifier(model, graph, inputs)
    params = build("params", graph)
    for choice in itertools.product((True, False), repeat=len(graph.blocks)):
        gates, units = graph.gates(np.array(choice)), graph.all_units()
        rng = np.random.default_rng(len(graph.blocks))
        for group in graph.groups:
            units[group.units[rng.permutation(len(group))[: len(group) // 3]]] = False
        architecture = Architecture.from_json(plan(model, graph, units, gates).to_json())
        small = trim(model, architecture)
        check = verifier.check(units, small, architecture, gates)
        assert check.passed, (choice, check)
        assert sum(p.numel() for p in small.parameters()) == float(params(hard_sizes(graph, units, gates)))
        fresh = architecture.apply_(copy.deepcopy(model).eval())
        assert_same(fresh(*inputs), small.eval()(*inputs))
        if other:
            small.eval()(*other)
        small.train()(*inputs).sum().backward()
