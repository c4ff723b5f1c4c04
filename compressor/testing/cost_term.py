"""What every cost term must do."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from compressor.budget import COSTS
from compressor.costs import CostTerm, Sizes, build
from compressor.graph import Graph, capture
from compressor.search.constraints.constraint import hard_sizes
from compressor.testing.networks import NETWORKS, images, network


class CostTermContract:
    """Subclass it and set ``name``, under which the term is registered (the group ``compressor.costs``).

    ``count`` may count the cost on a trimmed network itself; then a hard choice must cost just that.
    """

    name: ClassVar[str]

    def count(self, model: torch.nn.Module) -> float | None:
        """The cost of a network, counted on it; ``None`` where that cannot be done."""
        return None

    def test_it_is_registered_with_a_name_and_a_unit(self) -> None:
        assert self.name in COSTS
        for graph in self.graphs().values():
            term = build(self.name, graph)
            assert term.name == self.name
            assert term.unit
            assert np.isfinite(term.original)
            assert term.original >= 0

    def test_less_never_costs_more(self) -> None:
        rng = np.random.default_rng(0)
        for name, graph in self.graphs().items():
            term = build(self.name, graph)
            units = graph.all_units()
            before = self.of(term, graph, units)
            for unit in rng.permutation(graph.n_units):
                units[unit] = False
                after = self.of(term, graph, units)
                assert after <= before * (1 + 1e-9) + 1e-9, name
                before = after

    def test_it_has_finite_slopes(self) -> None:
        for name, graph in self.graphs().items():
            weights = torch.full((graph.n_units,), 0.7, dtype=torch.float64, requires_grad=True)
            gates = torch.full((len(graph.blocks),), 0.8, dtype=torch.float64, requires_grad=True)
            value = build(self.name, graph)(Sizes(graph, weights, gates))
            assert value.shape == (), name
            value.backward()  # type: ignore[no-untyped-call]
            assert weights.grad is not None, name
            assert torch.isfinite(weights.grad).all(), name

    def test_a_hard_choice_costs_what_is_counted(self) -> None:
        from compressor.trim import plan, trim

        rng = np.random.default_rng(1)
        for name, graph in self.graphs().items():
            model = network(name)
            for _ in range(3):
                units = graph.all_units()
                for group in graph.groups:
                    units[group.units[rng.permutation(len(group))[: len(group) // 2]]] = False
                counted = self.count(trim(model, plan(model, graph, units)))
                if counted is not None:
                    assert abs(self.of(build(self.name, graph), graph, units) - counted) <= 1e-6 * max(counted, 1), name

    def graphs(self) -> dict[str, Graph]:
        """Traces of the networks that the term is tried on."""
        return {name: capture(network(name), images()) for name in NETWORKS}

    def of(self, term: CostTerm, graph: Graph, units: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
        """The cost of a hard choice."""
        with torch.no_grad():
            return float(term(hard_sizes(graph, units)))
