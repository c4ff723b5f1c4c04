"""Even widths: what runtimes compute fastest, as far as budgets can be met so."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import compressor
from compressor.costs import build
from compressor.search.base import SearchContext
from compressor.search.constraints.channel_multiples import MOST, SHARE, even_widths
from compressor.search.constraints.constraint import Constraint
from compressor.search.constraints.projector import GAP, Projector
from tests.search.search_models import NETWORKS, context, trace
from tests.search.test_budgets import BACKBONES, QUICK, backbone, search


@pytest.mark.parametrize("name", BACKBONES)
def test_steps_are_the_largest_powers_of_two_that_widths_allow(name: str) -> None:
    _, graph = backbone(name)
    steps = even_widths(graph)
    for group in graph.groups:
        width = len(group) * group.width
        fitting = [n for n in (1, 2, 4, 8, 16, 32) if n <= MOST and (n == 1 or SHARE * n <= width)]
        assert steps[group.name] == max(fitting)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_get_even_widths_close_under_their_budget(name: str) -> None:
    model, graph = backbone(name)
    term = build("flops", graph)
    given = SearchContext(model, graph, [Constraint(term, 0.5 * term.original)], round_to=None)
    result, reached = search("oneshot", given)
    assert 1 - 1.5 * GAP <= reached["flops"] <= 1.0
    steps, odd = even_widths(graph), 0
    for group in graph.groups:
        kept = int(result.units[group.units].sum())
        less_than_a_step = kept * group.width < math.lcm(steps[group.name], group.width)
        odd += kept < len(group) and not less_than_a_step and kept * group.width % steps[group.name] > 0
    assert odd <= 0.1 * len(graph.groups)


@pytest.mark.parametrize("method", QUICK)
@pytest.mark.parametrize("network", NETWORKS)
def test_small_networks_meet_what_they_would_with_any_width(method: str, network: str) -> None:
    """Where steps are large, part of one closes the gap."""
    reached = {r: search(method, context(NETWORKS[network](), {"flops": 0.5}, round_to=r))[1] for r in (1, None)}
    assert reached[None]["flops"] <= 1.0
    assert reached[None]["flops"] >= min(1 - 2 * GAP, reached[1]["flops"] - GAP)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_smallest_network_is_that_of_any_width(network: str) -> None:
    graph = trace(NETWORKS[network]())
    term = build("flops", graph)
    projectors = [Projector(graph, [Constraint(term, term.original)], round_to=r) for r in (1, None)]
    np.testing.assert_array_equal(*(projector.smallest for projector in projectors))
    smallest = projectors[0].minimal(np.zeros(graph.n_units))
    least = float(projectors[0].costs(smallest, ~projectors[0].removable)[0]) / term.original
    _, reached = search("oneshot", context(NETWORKS[network](), {"flops": least * (1 + 1e-9)}, round_to=None))
    assert reached["flops"] <= 1.0


def test_reducing_goes_down_to_the_smallest_widths() -> None:
    _, graph = backbone("mobilenet_v2")
    term = build("flops", graph)
    for round_to in (1, 8, None):
        projector = Projector(graph, [Constraint(term, term.original)], round_to=round_to)
        counts = projector.counts(graph.all_units())
        for _ in range(2000):
            fewer = projector.reduced(counts)
            np.testing.assert_array_equal(fewer, projector.allowed(fewer))
            assert (fewer < counts)[counts > projector.smallest].all()
            counts = fewer
            if (counts == projector.smallest).all():
                break
        np.testing.assert_array_equal(counts, projector.smallest)


def test_narrow_groups_stay_as_they_were_chosen() -> None:
    _, graph = backbone("resnet18")
    term = build("flops", graph)
    projector = Projector(graph, [Constraint(term, term.original)], round_to=None)
    step = projector.steps.max()
    counts = np.full(len(graph.groups), step - 3)
    wide = projector.steps == step
    np.testing.assert_array_equal(projector.allowed(counts)[wide], counts[wide])
    np.testing.assert_array_equal(projector.allowed(counts + step)[wide], np.full(wide.sum(), step))


def test_the_program_keeps_widths_even_unless_told_otherwise() -> None:
    model, graph = backbone("resnet20_cifar")
    steps = even_widths(graph)
    assert set(steps.values()) == {1, 2, 4, 8}
    odd = {}
    for round_to in (None, 1):
        small = compressor.compress(model, torch.zeros(1, 3, 32, 32), {"flops": "50%"}, round_to=round_to).model
        widths = {g.name: len(small.get_parameter(g.members[0][0])) for g in graph.groups}
        odd[round_to] = [name for name, width in widths.items() if width % steps[name]]
    assert not odd[None]
    assert odd[1]
