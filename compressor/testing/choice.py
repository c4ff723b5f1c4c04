"""What every kind of choice must do."""

from __future__ import annotations

import copy
import json
from typing import Any, ClassVar

import torch
from torch import nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.edits import edit_from_json
from compressor.arrays import UnitMask
from compressor.costs import Sizes, build
from compressor.graph import Graph, capture
from compressor.graph.choices import CHOICES, add_choices
from compressor.latency.signatures import runs, signature_of
from lut import Signature


def _operators(graph: Graph, units: UnitMask) -> list[tuple[Signature, str, int, int, int]]:
    """What a runtime runs, and over how many channels and positions, with the alternatives of ``units``, by place."""
    found = [run.operator for run in runs(graph) if run.unit is None or units[run.unit]]
    found = [o for o in found if all(axis.keep(units).any() for axis in o.copies.axes)]
    rows = [(signature_of(o), o.place, o.channels_in.full, o.channels_out.full, o.out_positions) for o in found]
    return sorted(rows, key=lambda row: (row[1], row[0].key))


class ChoiceContract:
    """Subclass it, set ``kind`` (registered in the group ``compressor.choices``), and give a network that has some."""

    kind: ClassVar[str]

    def network(self) -> nn.Module:
        """A network with choices of this kind."""
        raise NotImplementedError

    def example(self) -> Any:
        """Its inputs."""
        raise NotImplementedError

    def found(self) -> tuple[nn.Module, Graph]:
        """The network and its trace, choices included."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.network().eval()
        graph = capture(model, self.example())
        add_choices(model, graph, [self.kind])
        return model, graph

    def test_it_is_registered_and_finds_some(self) -> None:
        assert self.kind in CHOICES
        _, graph = self.found()
        assert graph.choices

    def test_what_the_network_has_costs_what_it_did(self) -> None:
        model, graph = self.found()
        for cost in ("flops", "params", "memory"):
            assert build(cost, graph).original == build(cost, capture(model, self.example())).original

    def test_every_alternative_applies_survives_json_and_costs_what_was_said(self) -> None:
        model, graph = self.found()
        shapes = {p.name: list(p.shape) for p in graph.parameters.values()}
        for choice in graph.choices:
            for index, alternative in enumerate(choice.alternatives):
                document = json.loads(json.dumps([edit.to_json() for edit in alternative.edits]))
                edits = tuple(edit_from_json(edit, "edit") for edit in document)
                assert edits == alternative.edits
                changed = Architecture(graph.model_class, shapes, edits).apply_(copy.deepcopy(model))
                inputs = self.example()
                changed(*(inputs if isinstance(inputs, tuple) else (inputs,)))
                units = graph.all_units()
                units[choice.units] = False
                units[choice.units[index]] = True
                traced = capture(changed, self.example())
                if choice.timed:
                    assert _operators(graph, units) == _operators(traced, traced.all_units()), choice.name
                for cost in ("flops", "params"):
                    said = float(build(cost, graph)(Sizes(graph, torch.from_numpy(units[:-1].astype("float64")))))
                    assert abs(said - build(cost, traced).original) <= 1e-6 * max(said, 1), (choice.name, cost)
