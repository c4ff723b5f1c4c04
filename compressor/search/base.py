"""What search methods share: the context they run in, the constraints, the result."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from compressor.costs import CostTerm, Sizes
from compressor.errors import UnreachableBudgetError
from compressor.graph.graph import Graph, UnitMask
from compressor.graph.labels import BoolArray
from compressor.search.wanted import Wanted
from exporters.example import Example


@dataclass(frozen=True)
class Constraint:
    """A cost that must not exceed ``limit`` (in the term's unit)."""

    term: CostTerm
    limit: float

    @property
    def name(self) -> str:
        return self.term.name


RoundTo = int | Mapping[str, int] | None


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
        loss_fn: ``loss_fn(outputs, targets)``; default cross entropy.
        teacher: the network as it was, which a method that trains also learns from.
        distill: weight in [0, 1] of what the teacher says in the loss.
        checkpoint: where the method keeps its state, to go on after a kill.
        options: the method's own settings.
        example: inputs that the model was traced with; ``importance`` looks at weights as a forward uses them.
        wanted: what the user wants kept in any case.
        warn: tells the user.
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
    checkpoint: Path | None = None
    progress: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    example: Example | None = None
    wanted: Wanted | None = None
    warn: Callable[[str], None] = warnings.warn


@dataclass
class SearchResult:
    """The decision: ``units`` of shape (n_units + 1,), the last entry true.

    ``priority`` ranks units from first to last to be removed (low to high), so that the decision can be made again
    when some groups must stay whole. ``history`` is the cost during the search, as fractions of the original.
    """

    units: UnitMask
    priority: Tensor
    history: list[dict[str, Any]]
    gates: BoolArray | None = None
    """Which blocks are kept, shape (n_blocks,); ``None`` keeps all."""
    block_priority: Tensor | None = None
    """Ranks blocks like ``priority`` ranks units; ``None`` if the method does not decide on blocks."""

    def gates_or_all(self, graph: Graph) -> BoolArray:
        return np.ones(len(graph.blocks), dtype=np.bool_) if self.gates is None else self.gates

    def tensors(self, graph: Graph) -> dict[str, Tensor]:
        """All but the history, for storing."""
        found = {"units": torch.from_numpy(self.units), "priority": self.priority}
        found["gates"] = torch.from_numpy(self.gates_or_all(graph))
        if self.block_priority is not None:
            found["block_priority"] = self.block_priority
        return found

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor], history: list[dict[str, Any]]) -> SearchResult:
        """What ``tensors`` gave."""
        return SearchResult(
            tensors["units"].numpy().astype(np.bool_),
            tensors["priority"],
            history,
            gates=tensors["gates"].numpy().astype(np.bool_),
            block_priority=tensors.get("block_priority"),
        )


class SearchMethod(Protocol):
    """A search method: ``run`` decides which units are kept under all constraints.

    ``trains`` says whether it changes the weights of ``context.model``. A method that ranks by importance has, as
    ``ranked_by``, the name of the option that says by which.
    """

    trains: ClassVar[bool]

    @staticmethod
    def check_options(options: dict[str, Any]) -> None:
        """Refuse unusable options before any work. Raises ``UsageError``."""
        ...

    @staticmethod
    def traces(options: dict[str, Any]) -> frozenset[str]:
        """What ``capture`` is to look for besides channels and blocks: "kernel", "resolution"."""
        ...

    def run(self, context: SearchContext) -> SearchResult:
        """Search. Raises ``UnreachableBudgetError`` before any work if a budget cannot be met."""
        ...


def hard_sizes(graph: Graph, units: UnitMask, gates: BoolArray | None = None) -> Sizes:
    """Sizes of a hard choice."""
    weights = None if gates is None else torch.from_numpy(gates.astype("float64"))
    return Sizes(graph, torch.from_numpy(units[: graph.n_units].astype("float64")), weights)


def unreachable(term: CostTerm, limit: float, smallest: float, wanted: Wanted | None = None) -> UnreachableBudgetError:
    """The error that names the smallest cost the model can be brought to, with what is ``wanted`` kept."""
    kept = f" with {wanted.describe()}" if wanted else ""
    less = " ask to keep less," if wanted else ""
    share = 100 * smallest / term.original if term.original else 0.0
    return UnreachableBudgetError(
        f"The {term.name} budget of {readable(limit, term.unit)} cannot be reached: the smallest this model can be "
        f"brought to{kept} is {readable(smallest, term.unit)} ({share:.1f} % of the original). Raise the budget,{less} "
        "or free layers that patterns or operators hold fixed ('compress inspect' lists them)."
    )


def readable(value: float, unit: str) -> str:
    """A number with a prefix and its unit: ``1.83 GMACs``."""
    names = {"macs": "MACs", "params": "parameters", "bytes": "B", "ms": "ms"}
    if unit == "ms":
        return f"{value:.3g} ms"
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g} {prefix}{names.get(unit, unit)}"
    return f"{value:.4g} {names.get(unit, unit)}"
