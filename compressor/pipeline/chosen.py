"""A network with its choices made, before anything is trimmed: the original that the trim starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.edits import Edit
from compressor.arrays import BoolArray, UnitMask
from compressor.costs import build
from compressor.errors import VerificationError
from compressor.graph import Graph
from compressor.nn.copying import deep_copy
from compressor.nn.tensors import fill
from compressor.search.constraints.constraint import hard_sizes
from compressor.search.result import SearchResult
from compressor.trim import TrimResult

#: Costs that a choice must say exactly, and those that it may say too high: alternatives may do without a buffer.
_EXACT, _AT_MOST = ("flops", "params"), ("memory",)
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Chosen:
    """``architecture`` made ``model`` of the original; ``units`` and ``gates`` are of ``graph``, its own trace."""

    model: nn.Module
    graph: Graph
    units: UnitMask
    gates: BoolArray | None
    architecture: Architecture | None = None

    def cost(self, name: str) -> float:
        """A cost of what was decided, by the trace of the network that it was trimmed from."""
        with torch.no_grad():
            return float(build(name, self.graph)(hard_sizes(self.graph, self.units, self.gates)))

    def whole(self, result: TrimResult) -> TrimResult:
        """A trim of ``model`` as one of the original."""
        if self.architecture is None:
            return result
        return replace(result, architecture=self.architecture.then(result.architecture))


def with_choices(
    model: nn.Module, graph: Graph, decision: SearchResult, capture: Callable[[nn.Module], Graph]
) -> Chosen:
    """``model`` with the alternatives that ``decision`` takes, on a copy; itself where these are what it has.

    Raises:
        UsageError: an edit does not fit.
        VerificationError: with it the network has other groups, or costs other than was said.
    """
    edits: list[Edit] = []
    trained: dict[str, Tensor] = {}
    for choice in graph.choices:
        alternative = choice.alternatives[choice.chosen(decision.units)]
        edits += alternative.edits
        trained |= decision.weights.get(choice.name, {}).get(alternative.name, {})
    if not edits:
        return Chosen(model, graph, decision.units, decision.gates)
    first = Architecture(
        graph.model_class,
        {p.name: list(p.shape) for p in graph.parameters.values()},
        tuple(edits),
        aliases={p.name: list(p.names) for p in graph.parameters.values() if len(p.names) > 1},
    )
    changed = first.apply_(deep_copy(model))
    fill(changed, trained)
    traced = capture(changed)
    groups = [group for group in graph.groups if group not in graph.choices]
    if _names(traced) != [(group.name, len(group)) for group in groups]:
        raise VerificationError(
            f"With {_listed(edits)} the network has other groups of channels than before, so what was decided about "
            "them does not hold; the choice's finder must leave such sites out."
        )
    units = traced.all_units()
    for mine, own in zip(groups, traced.groups, strict=True):
        units[own.units] = decision.units[mine.units]
    gates = _gates(graph, traced, decision.gates)
    _require_costs(graph, decision, traced, units, gates, edits)
    return Chosen(changed, traced, units, gates, first)


def _names(graph: Graph) -> list[tuple[str, int]]:
    return [(group.name, len(group)) for group in graph.groups]


def _gates(graph: Graph, traced: Graph, gates: BoolArray | None) -> BoolArray | None:
    """Which blocks of the changed network are kept: the same by name; where one cannot go there, it has to be kept."""
    names = [block.name for block in traced.blocks]
    if gates is None or names == [block.name for block in graph.blocks]:
        return gates
    kept = {block.name: bool(gates[block.index]) for block in graph.blocks}
    lost = [name for name, stays in kept.items() if not stays and name not in names]
    if lost:
        raise VerificationError(
            f"{', '.join(lost[:3])} was to be taken out, and with the alternatives chosen it cannot be: decide on "
            "blocks and on these choices one after the other."
        )
    return np.array([kept.get(name, True) for name in names], dtype=np.bool_)


def _require_costs(
    graph: Graph,
    decision: SearchResult,
    traced: Graph,
    units: UnitMask,
    gates: BoolArray | None,
    edits: list[Edit],
) -> None:
    for name in (*_EXACT, *_AT_MOST):
        with torch.no_grad():
            said = float(build(name, graph)(hard_sizes(graph, decision.units, decision.gates)))
            is_ = float(build(name, traced)(hard_sizes(traced, units, gates)))
        off = is_ - said if name in _AT_MOST else abs(is_ - said)
        if off > _TOLERANCE * max(abs(is_), 1.0):
            raise VerificationError(
                f"With {_listed(edits)} the {name} are {is_:.6g}, and the choice said {said:.6g}; the choice's finder "
                "must say how they change (``scaled``)."
            )


def _listed(edits: list[Edit]) -> str:
    names = [f"{edit.kind} of {edit.subject}" for edit in edits]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more edits" if len(names) > 3 else "")
