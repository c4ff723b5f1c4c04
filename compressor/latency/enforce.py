"""From a search's decision to a network that the device runs within its latency budget.

A device's time per channel is a staircase, and predictions err by a few percent, so the budget is met by trial: around
the search's decision there are many networks with about the same predicted latency. They are decided on with the
search's own ranking, on the grid of widths that the device likes, and on finer ones where that leaves a gap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from compressor.budget import Budget
from compressor.errors import UnreachableBudgetError
from compressor.graph.graph import Graph
from compressor.latency.refinement import RefinementLog, hold
from compressor.latency.target import LatencySession
from compressor.search.constraints.constraint import Constraint, RoundTo, hard_sizes
from compressor.search.constraints.greedy import shrink
from compressor.search.constraints.neighbours import closer
from compressor.search.constraints.projector import Projector
from compressor.search.result import SearchResult
from compressor.storage.job import Diary
from profilers.in_turn import OnDevice

#: A network may be predicted to be this much faster than the goal before finer grids are tried.
_CLOSE = 0.007


class Enforcer:
    """Finds the network.

    Args:
        constraints: all that hold in the search; the limit of the latency is set anew for every try.
        projector: makes one under ``constraints`` for a grid of widths.
        trim: trims a decision exactly and returns the decision it had to come to, and the model.
        grids: grids of widths to decide on, the preferred one first.
        diary: keeps what was measured, so that a job that was killed does not measure it again.
    """

    def __init__(
        self,
        device: LatencySession,
        budget: Budget,
        constraints: list[Constraint],
        projector: Callable[[RoundTo], Projector],
        trim: Callable[[SearchResult], tuple[SearchResult, nn.Module]],
        grids: list[RoundTo],
        diary: Diary | None = None,
    ) -> None:
        self.device, self.budget, self.graph = device, budget, device.graph
        self._constraints, self._projector, self._trim = constraints, projector, trim
        self._grids, self._diary = grids, diary
        self._unit = 1.0
        """Milliseconds that the device takes now for one of the table's, which are those of an undisturbed device."""
        earlier = diary.read() if diary is not None else None
        self._earlier: list[dict[str, Any]] = earlier["measured"] if earlier is not None else []
        self._measured: list[dict[str, Any]] = []

    def run(self, first: SearchResult, warn: Callable[[str], None]) -> tuple[RefinementLog, SearchResult]:
        """Time networks until one is as close to the budget as can be.

        Args:
            warn: told why, if none under the budget was found, and if the machine was too noisy.

        Returns:
            What was timed, and the network to go on with: the original if none was faster.

        Raises:
            ExporterError, ProfilerError: as ``LatencySession.compare``.
        """
        held = self._hold(first)
        self._limit(held.rounds[held.kept].limit_ms / self._unit)
        if (noise := held.noise(self.device.timer.place)) is not None:
            warn(noise)
        if held.best is None:
            warn(held.failure(self.device.prediction.target))
        if held.hopeless:
            return held, SearchResult(self.graph.all_units(), first.priority, first.history)
        return held, held.networks[held.kept]

    def _limit(self, limit_ms: float) -> None:
        term = self.device.term
        self._constraints[:] = [Constraint(term, limit_ms) if c.term is term else c for c in self._constraints]

    def _hold(self, first: SearchResult) -> RefinementLog:

        def measure(network: SearchResult) -> OnDevice:
            path = partial(self.device.write, network.units, network.gates)
            return self._noted(network, lambda: self.device.compare(path(), self.budget))

        def confirm(network: SearchResult) -> tuple[SearchResult, OnDevice]:
            settled, model = self._trim(network)
            return settled, self._noted(settled, lambda: self.device.compare(self.device.export(model), self.budget))

        return hold(
            self.budget,
            first,
            self.predict,
            measure,
            lambda goal, known: self._decide(first, goal, known),
            confirm,
        )

    def predict(self, network: SearchResult) -> float:
        """Predicted ms, of the device as it is in the first round: to be compared with what is measured."""
        with torch.no_grad():
            return self._unit * float(self.device.term(hard_sizes(self.graph, network.units, network.gates)))

    def _decide(self, first: SearchResult, goal_ms: float, known: list[SearchResult]) -> SearchResult | None:
        """A new network just under ``goal_ms``; if there is none on any grid, the new one closest to it."""
        seen = {_key(self.graph, network) for network in known}
        best: tuple[float, SearchResult] | None = None
        for network in self._candidates(first, goal_ms):
            if _key(self.graph, network) in seen:
                continue
            gap = 1.0 - self.predict(network) / goal_ms
            if 0 <= gap <= _CLOSE:
                return network
            if gap >= 0 and (best is None or gap < best[0]):
                best = gap, network
        return None if best is None else best[1]

    def _candidates(self, first: SearchResult, goal_ms: float) -> Iterator[SearchResult]:
        scores = first.priority.numpy() - first.priority.numpy().min() + 1e-6
        for grid in self._grids:
            self._limit(goal_ms / self._unit)
            projector = self._projector(grid)
            try:
                projector.check_reachable()
            except UnreachableBudgetError:
                continue
            start = shrink(projector, first)
            if not projector.fits(start.units, start.gates):
                continue
            whole = bool((projector.counts(start.units) == projector.most).all())
            if projector.only_choices or (projector.free_choices and whole):
                # Of alternatives, what is closer to the budget is not better, as it is of channels.
                yield start
                return
            for units in closer(projector, start.units, scores, gates=start.gates, slack=_CLOSE):
                yield replace(start, units=units)

    def _noted(self, network: SearchResult, measure: Callable[[], OnDevice]) -> OnDevice:
        """A measurement, or what the diary has in its place."""
        index, key = len(self._measured), _key(self.graph, network)
        if index < len(self._earlier) and self._earlier[index]["network"] == key:
            entry = self._earlier[index]
        else:
            self._earlier = self._earlier[:index]
            entry = {"network": key, **asdict(measure())}
        if not self._measured:
            self._unit = entry["original_ms"] / self.device.original_ms
        self._measured.append(entry)
        if self._diary is not None and index >= len(self._earlier):
            self._diary.write({"measured": self._measured})
        return OnDevice(**{name: value for name, value in entry.items() if name != "network"})


def finer(grid: RoundTo, whole: int = 1) -> list[RoundTo]:
    """The grid, and finer ones down to single channels."""
    found: list[RoundTo] = [grid]
    while isinstance(grid, Mapping) and any(step > whole for step in grid.values()) and len(found) < 3:
        grid = {name: max(whole, step // 2) for name, step in grid.items()}
        found.append(grid)
    return found


def _key(graph: Graph, network: SearchResult) -> str:
    gates = graph.gates(network.gates)
    return hashlib.sha256(np.packbits(np.concatenate([network.units[: graph.n_units], gates])).tobytes()).hexdigest()
