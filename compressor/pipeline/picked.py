"""A network that an earlier search left, made ordinary: the stages of a job without a search."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compressor.errors import UsageError, WeightsError
from compressor.nn.tensors import fill, state
from compressor.pipeline.networks import Networks
from compressor.pipeline.settings import Settings
from compressor.pipeline.stages import Pipeline
from compressor.process.ranks import current
from compressor.search.front import Candidate
from compressor.search.points import Point
from compressor.search.result import SearchResult

if TYPE_CHECKING:
    from compressor.graph import Graph
    from compressor.latency.elsewhere import MeasuredElsewhere
    from compressor.latency.target import LatencySession

_TIMED = 6  # networks at most, until one holds a latency budget on the device


class Picked(Pipeline):
    """Takes the best of ``networks`` within the budgets. ``model`` is given the weights that they share.

    Other arguments are those of ``Pipeline``. Nothing is trained but by fine-tuning, if that is asked for, and nothing
    needs data. The running statistics are those that the search took for the network.

    Attributes:
        candidate: what was taken.

    Raises:
        UsageError: several processes work together. UnreachableBudgetError: no network is within the budgets.
        WeightsError: ``model`` is another network.
    """

    def __init__(
        self, networks: Networks, model: nn.Module, example_inputs: Any, settings: Settings, **others: Any
    ) -> None:
        if current().size > 1:
            raise UsageError(
                "A network is taken from the folder of a search by one process; start it without torchrun."
            )
        self.candidate: Candidate[Point] = networks.front.best(settings.budgets)
        super().__init__(model, example_inputs, settings, **others)
        self.problem.absorbs = False  # the search took the statistics of each network
        self.problem.searches = False
        self.networks = networks
        fill_checked(self.model, networks)

    @property
    def nothing_to_do(self) -> bool:
        """A network is taken in any case."""
        return False

    def traced(self) -> Graph:
        """The trace alone, with the choices that the method decides on."""
        self.problem.trace()
        return self.graph

    def train(self) -> None:
        """The weights are there already."""

    def assess(self) -> None:
        """What the search found of the original."""
        self.scores = replace(self.networks.scores, after_search=None, after_finetune=None)

    @property
    def trained_epochs(self) -> int:
        """Those of the search that left the networks, and of fine-tuning."""
        return self.settings.finetune_epochs + int(getattr(self.settings.config, "epochs", 0))

    def _search(self) -> SearchResult:
        self.searched = self.model
        self.events.info(f"  {self.candidate.name} is the best network within the budgets")
        return self._decided(self.candidate.found)

    def _decided(self, point: Point) -> SearchResult:
        if point.units.shape != self.graph.all_units().shape or point.gates.shape != (len(self.graph.blocks),):
            raise UsageError(
                f"The network {point.name} has {len(point.units) - 1} units, and the model {self.graph.n_units}: it "
                "was found in another model, or with other settings; search again."
            )
        return SearchResult(point.units, torch.zeros(self.graph.n_units, dtype=torch.float64), [], point.gates)

    def _set_statistics(self) -> None:
        if self.decision is not self.found:  # something had to stay whole, and the statistics are of another network
            if self.data is not None:
                super()._set_statistics()
            return
        own = dict(self.compressed.named_buffers())
        statistics = dict(self.candidate.found.statistics)
        for name, tensor in statistics.items():
            if name not in own or own[name].shape != tensor.shape:
                raise WeightsError(f"The network {self.candidate.name} has no place for the statistics {name}.")
        fill(self.compressed, statistics)

    def _hold_on_device(self, device: LatencySession | MeasuredElsewhere) -> None:
        """Time networks in turn, the best first, until one holds the latency budget."""
        from compressor.latency.refinement import RefinementLog
        from compressor.latency.target import LatencySession

        assert isinstance(device, LatencySession), "one process alone takes networks"
        (budget,) = (b for b in self.settings.budgets if b.cost == "latency")
        log, tried, left, least = RefinementLog(), dict[int, Candidate[Point]](), self.networks.front, float("inf")
        besides = [b for b in self.settings.budgets if b.cost != "latency"]
        while True:
            network = self.decision
            tried[len(log.rounds)] = self.candidate
            found = device.compare(device.export(self.compressed.eval()), budget)
            predicted = self.candidate.costs["latency"]
            last = log.note(budget, network, predicted, found, exported=True)
            least = min(least, predicted / last.used)
            others = [c for c in left.within(besides) if c.costs["latency"] < min(least, predicted)]
            if last.holds or not others or len(log.rounds) == _TIMED:
                break
            left = type(left)(others, left.original, lower_is_better=left.lower_is_better)
            self.candidate = left.best()
            self._take()
        if log.best is None:
            self.events.warn(log.failure(str(device.prediction.target)))
        if tried[log.kept] is not self.candidate:
            self.candidate = tried[log.kept]
            self._take()
        self.held = log

    def _take(self) -> None:
        self.found = self._decided(self.candidate.found)
        self._trim(self.found)


def fill_checked(model: nn.Module, networks: Networks) -> None:
    """Give ``model`` the weights of ``networks``. Raises ``WeightsError`` if it is another network."""
    own = state(model)
    strange = [name for name in (*own, *networks.weights) if name not in own or name not in networks.weights]
    strange += [name for name in own if name not in strange and own[name].shape != networks.weights[name].shape]
    if strange:
        raise WeightsError(
            f"The networks were found in another {type(model).__name__}: {len(strange)} tensors do not fit "
            f"({', '.join(strange[:3])}); pass the model that was searched in."
        )
    fill(model, dict(networks.weights))
