"""The end of a session: what was decided is trimmed exactly, and held on the device where that was asked for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.budget import Budget
from compressor.graph.graph import Graph
from compressor.nn.copying import deep_copy
from compressor.nn.tensors import example_of
from compressor.search.constraints.constraint import Constraint, RoundTo
from compressor.search.constraints.projector import Projector
from compressor.search.constraints.wanted import Wanted
from compressor.search.result import SearchResult
from compressor.trim import TrimResult, trim_verified

if TYPE_CHECKING:
    from compressor.latency.refinement import Held
    from compressor.latency.target import LatencySession, TargetSettings


def measured(model: nn.Module, graph: Graph, inputs: Any, kwargs: Any, target: TargetSettings) -> LatencySession:
    """The target, on a copy: the loop trains the model, and the files that are timed are compared with it."""
    from compressor.latency.target import LatencySession

    return LatencySession(deep_copy(model), graph, example_of(inputs, kwargs), target)


@dataclass
class End:
    """Ends one session. ``budget`` is that of latency; ``depth``: whether blocks may go."""

    model: nn.Module
    graph: Graph
    constraints: Sequence[Constraint]
    inputs: Any
    kwargs: dict[str, Any] | None
    round_to: RoundTo
    depth: bool
    wanted: Wanted
    device: LatencySession | None = None
    budget: Budget | None = None
    _whole: set[str] = field(default_factory=set)

    def run(self, found: SearchResult) -> tuple[TrimResult, Held | None]:
        """The trimmed model with its check, and how the latency budget was held."""
        decision, result = self._trimmed(found)
        if self.device is None or self.budget is None:
            return result, None
        held, network = self._enforced(self.device, self.budget, decision)
        if network is not decision:
            _, result = self._trimmed(network)
        self.device.close()
        return result, held

    def _projector(self, round_to: RoundTo) -> Projector:
        return Projector(
            self.graph,
            list(self.constraints),
            round_to=round_to,
            whole=self._whole,
            depth=self.depth,
            wanted=self.wanted,
        )

    def _enforced(
        self, device: LatencySession, budget: Budget, decision: SearchResult
    ) -> tuple[Held | None, SearchResult]:
        from compressor.latency.enforce import Enforcer, finer

        def projector(grid: RoundTo) -> Projector:
            return self._projector(self.round_to if grid is None else grid)

        def trim(network: SearchResult) -> tuple[SearchResult, nn.Module]:
            decision, result = self._trimmed(network)
            return decision, result.model

        constraints, grids = list(self.constraints), finer(self.round_to)
        return Enforcer(device, budget, constraints, projector, trim, grids).run(decision, warnings.warn)

    def _trimmed(self, decision: SearchResult) -> tuple[SearchResult, TrimResult]:
        """Trim exactly; returns the decision this had to come to, too."""
        from compressor.search.constraints.greedy import shrink

        while True:
            result = trim_verified(
                self.model, self.graph, decision.units, self.inputs, self.kwargs, gates=decision.gates
            )
            result.require_exact()
            if not result.refused:
                return decision, result
            self._whole |= set(result.refused)
            projector = self._projector(self.round_to)
            projector.check_reachable()
            decision = shrink(projector, decision)
