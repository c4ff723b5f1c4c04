"""What search methods share: the context they run in, the constraints, the result."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from compressor.graph.graph import Graph
from compressor.search.constraints.constraint import Constraint, RoundTo
from compressor.search.constraints.projector import Projector
from compressor.search.constraints.wanted import Wanted
from compressor.search.result import SearchResult
from compressor.train.config import StepSettings
from exporters.example import Example


@dataclass
class SearchContext:
    """Everything a method may use.

    Attributes:
        model: the network; ``oneshot`` leaves it alone, ``figs`` trains its weights in place.
        graph: its trace.
        constraints: all hold at the end.
        data: splits to learn from, or ``None``.
        round_to: widths are multiples of this (or stay what they were); by group's name, or one for all;
            None: even ones where the budgets allow it (``even.even_widths``).
        loss_fn: ``loss_fn(outputs, targets)``; default that of the data's task.
        teacher: the network as it was, which a method that trains also learns from.
        distill: weight in [0, 1] of what the teacher says in the loss.
        steps: how every step is made: of how many batches, with which precision and optimizer.
        lr: learning rate of the job's other trainings; ``None`` where there are none.
        steps_after: steps of fine-tuning that go on with the search's schedule.
        checkpoint: where the method keeps its state, to go on after a kill.
        options: the method's own settings.
        example: inputs that the model was traced with; ``importance`` looks at weights as a forward uses them.
        wanted: what the user wants kept in any case.
        decides: components of the network that the method decides on; ``None`` for all. What is none of them stays as
            it is, see ``constraints.projector.Projector``.
        warn: tells the user what must not be missed.
        tell: tells the user what is worth knowing.
    """

    model: nn.Module
    graph: Graph
    constraints: list[Constraint]
    data: Any = None
    round_to: RoundTo = 1
    seed: int = 0
    loss_fn: Callable[[Any, Tensor], Tensor] | None = None
    teacher: nn.Module | None = None
    distill: float = 0.0
    steps: StepSettings = field(default_factory=StepSettings)
    lr: float | None = None
    steps_after: int = 0
    checkpoint: Path | None = None
    progress: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    example: Example | None = None
    wanted: Wanted | None = None
    decides: frozenset[str] | None = None
    warn: Callable[[str], None] = warnings.warn
    tell: Callable[[str], None] = lambda text: None

    def projector(self, decides: frozenset[str] | None = None, *, depth: bool = True) -> Projector:
        """Makes hard choices under all constraints, with what the user wants kept.

        Args:
            decides: components that the method decides on; ``None`` for the context's.
            depth: whether blocks may go.
        """
        return Projector(
            self.graph,
            self.constraints,
            round_to=self.round_to,
            decides=self.decides if decides is None else decides,
            depth=depth,
            wanted=self.wanted,
        )


class SearchMethod(Protocol):
    """A search method: ``run`` decides what is kept under all constraints. See ``search.options.Method``, too."""

    def run(self, context: SearchContext) -> SearchResult:
        """Search. Raises ``UnreachableBudgetError`` before any work if a budget cannot be met."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """A search method that cannot bring every network as far down as is possible."""

    def require_reachable(self, context: SearchContext) -> None:
        """Raise ``UnreachableBudgetError`` for a budget that ``run`` could not meet; called before any training."""
        ...
