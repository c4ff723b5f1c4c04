"""Networks that nobody wrote: whatever the operators are combined to, what is trimmed equals what was masked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.costs import Sizes, build
from compressor.graph import capture
from compressor.trim import trim_verified
from exporters.formats.onnx import OnnxExporter
from tests.graph.random_network import Program, RandomNetwork
from tests.graph.random_operators import OPERATORS, SIZE

PROGRAMS = st.lists(
    st.tuples(st.sampled_from(sorted(OPERATORS)), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=7
)
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


def _check(program: Program, seed: int) -> nn.Module:
    torch.manual_seed(0)
    model, x = RandomNetwork(program).eval(), torch.randn(1, 3, SIZE, SIZE)
    graph = capture(model, x, squeeze=bool(seed % 2))
    rng = np.random.default_rng(seed)
    units = graph.all_units()
    for group in graph.groups:
        keep = rng.random(len(group)) < rng.uniform(0.2, 0.9)
        keep[rng.integers(len(group))] = True
        units[group.units] = keep
    gates = graph.gates(rng.random(len(graph.blocks)) < 0.7)
    result = trim_verified(model, graph, units, x, gates=gates)
    assert result.check.error <= 1e-9
    if result.refused and "no input was found" in result.reason:  # of one channel a softmax, say, is a constant
        return result.model
    assert not result.refused, f"{result.refused}: {result.reason}"
    sizes = Sizes(graph, torch.from_numpy(units[:-1]).double(), torch.from_numpy(gates).double())
    assert float(build("params", graph)(sizes)) == sum(p.numel() for p in result.model.parameters())
    return result.model


@settings(max_examples=25, suppress_health_check=QUIET)
@given(PROGRAMS, st.integers(0, 3))
@example([("halves", 1, 0), ("halves", 1, 0), ("grouped", 1, 2)], 0)
@example([("squeeze_excite", 0, 0), ("gated", 2, 2), ("attention", 2, 3)], 1)
@example([("gated", 0, 0), ("shuffled", 0, 0)], 0)
@example([("shuffled", 2, 3), ("squeeze_excite", 3, 2), ("gated", 0, 0), ("shuffled", 0, 1), ("conv", 1, 0)], 155)
@example([("transposed", 0, 0), ("add_earlier", 0, 0)], 7)
@example([("add_earlier", 0, 0), ("grouped", 0, 2), ("transposed", 2, 2), ("add_earlier", 1, 0)], 563)
@example([("split_unevenly", 2, 1)], 131)
@example([("concatenated", 3, 0), ("split_unevenly", 3, 3), ("split_unevenly", 2, 2)], 338)
@example([("conv", 1, 0), ("stepped", 0, 0), ("attention", 1, 1)], 0)
@example([("normalised", 0, 0), ("over_channels", 0, 0), ("add_earlier", 0, 0)], 0)
@example([("side_by_side", 1, 0), ("summed", 3, 0), ("squeeze_excite", 1, 0)], 1)
@example([("summed", 1, 1), ("side_by_side", 2, 0), ("shuffled", 0, 0), ("residual", 1, 1)], 3)
def test_trimmed_equals_masked(program: Program, seed: int) -> None:
    _check(program, seed)


@pytest.mark.slow
@settings(max_examples=80, suppress_health_check=QUIET)
@given(PROGRAMS, st.integers(0, 1000))
def test_trimmed_equals_masked_many(program: Program, seed: int) -> None:
    _check(program, seed)


SAMPLE: list[Program] = [
    [("residual", 1, 2), ("squeeze_excite", 1, 0), ("gated", 2, 1)],
    [("attention", 1, 1), ("normalised", 3, 0), ("tokens_mixed", 2, 0)],
    [("halves", 1, 0), ("grouped", 1, 2), ("shuffled", 0, 0), ("concatenated", 2, 0)],
    [("tokens", 1, 1), ("relative_bias", 1, 2), ("computed_weights", 0, 1)],
]


@pytest.mark.slow
@pytest.mark.parametrize("program", SAMPLE, ids=lambda program: "+".join(name for name, _, _ in program))
def test_the_export_of_a_trimmed_network_loads(program: Program, tmp_path: Path) -> None:
    """ONNX Runtime computes what the trimmed network does; the exporter takes seconds, so only for a few."""
    info = OnnxExporter().export(_check(program, 0), torch.randn(2, 3, SIZE, SIZE), tmp_path / "model.onnx")
    assert info.checks
