"""Every use of every operator: trimmed equals masked, and what should be free or fixed is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compressor.graph import capture
from compressor.trim import trim_verified
from tests.graph import (
    uses_along,
    uses_attention,
    uses_gates,
    uses_layers,
    uses_moves,
    uses_recurrent,
    uses_transformers,
    uses_vision,
)
from tests.graph.tiny import CASES, Case

TABLES = (
    uses_along,
    uses_attention,
    uses_gates,
    uses_layers,
    uses_moves,
    uses_recurrent,
    uses_transformers,
    uses_vision,
)  # filled CASES when they were imported


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_trimmed_equals_masked(case: Case) -> None:
    torch.manual_seed(0)
    model, inputs = case.build()
    graph = capture(model.eval(), inputs)
    for text, free in (*((t, True) for t in case.free), *((t, False) for t in case.fixed)):
        name, _, axis = text.rpartition(":")
        assert (graph.parameters[name].axes[int(axis)] is not None) == free, (
            f"{text}: {[(f.place, f.operator, f.reason) for f in graph.fixed]}"
        )
    for seed in range(4):
        rng = np.random.default_rng(seed)
        units = graph.all_units()
        for group in graph.groups:
            keep = rng.random(len(group)) < rng.uniform(0.3, 0.9)
            keep[rng.integers(len(group))] = True
            units[group.units] = keep
        result = trim_verified(model, graph, units, inputs, seed=seed)
        assert not result.refused, f"{result.refused} {result.check.reason}"
        assert result.check.error <= 1e-9, result.check.reason
