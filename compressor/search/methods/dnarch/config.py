"""Settings of DNArch, and which components of a model they let it learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.errors import UsageError
from compressor.options import Called, Either, Flag, Number, OneOf, SomeOf, Text, Whole, option, shown
from compressor.search.importance import MEASURES
from compressor.search.options import Method, TrainedConfig

if TYPE_CHECKING:
    from compressor.graph.graph import Graph

COMPONENTS = ("width", "depth", "kernel", "resolution")

WIDTH_TAU, DEPTH_TAU = 25.0, 8.0  # of networks that do not grow
ACROSS = 50
"""Steps that a mask takes from one end to the other at its fastest pace, with the rise and fall of that."""


def _orders() -> list[str]:
    return [*MEASURES.names(), "none"]


@dataclass(frozen=True)
class DnarchConfig(TrainedConfig):
    """Settings of the search; the training's own are ``TrainConfig``'s."""

    owner: ClassVar[str] = "dnarch"
    not_in_own_loop: ClassVar[Mapping[str, str]] = {
        "grow": "budgets would be shares of the larger network",
        "compiler": "compile your own model instead",
        "least_steps": "your loop makes as many steps as it says",
        "live": "the optimizer of your loop holds the full weights",
    }

    lr: float | None = option(
        None,
        Number(above=0),
        "Learning rate of the weights; by default the job's (--lr). It falls along one cosine over search and "
        "fine-tuning.",
    )
    optimizer: str | None = option(
        None,
        OneOf(("sgd", "adamw")),
        "Of the weights: sgd (with momentum) or adamw; by default the job's (--optimizer), and adamw where a network "
        "computes the kernels.",
    )
    mask_lr: float | None = option(
        None,
        Number(above=0),
        "Learning rate of the masks' offsets, falling to 0 over the steps in which masks learn; by default 8 / (those "
        "steps), between 0.003 and 0.05.",
    )
    priced: bool = option(
        True,
        Flag(),
        "Whether a mask's gradient is divided by what the mask saves, so that all shrink alike where the task has no "
        "say; off as in the paper: what saves most shrinks first.",
    )
    learn: tuple[str, ...] | None = option(
        None, SomeOf(COMPONENTS), "What to learn; by default all that the model has."
    )
    width_tau: float | None = option(
        None,
        Number(above=5),
        "Steepness of the masks over channels; by default 25 times grow, so that the edge of a mask spans as many "
        "channels as in the network to start from. At 25 a layer keeps at least 10.3 % of its channels, at 50 5.1 %.",
    )
    depth_tau: float | None = option(
        None,
        Number(above=5),
        "Steepness of the masks over blocks; by default 8 times grow. At 8 at least 32 % of the blocks stay, at 16 "
        "16 %.",
    )
    resolution_tau: float = option(
        25.0,
        Number(above=5),
        "Steepness of the masks over frequencies. At 25 a branch keeps at least 10.3 % of its samples along an axis, "
        "at 50 5.1 %, at 100 2.6 %.",
    )
    depth_over: str = option(
        "network",
        OneOf(("network", "stage")),
        "network: one mask over all removable blocks; stage: one for the blocks on each residual stream.",
    )
    order: str | Callable[..., Any] | None = option(
        None,
        Either(OneOf(_orders), Called("importance(group)")),
        "What goes last: a measure of importance (docs/importance.md), or none for the order in which things stand. By "
        "default sensitivity, in a loop of your own magnitude, and in networks that may grow as they stand, as their "
        "weights say nothing yet, and what one part writes first is what the next reads first.",
    )
    penalty: float | None = option(
        None,
        Number(above=0),
        "Fixed weight of (cost / budget - 1)^2, as in the paper (0.1 to 5); by default multipliers that follow the "
        "budgets.",
    )
    penalty_ramp: float = option(
        0.0,
        Number(least=0, most=1),
        "Share of the steps before the decision over which the fixed weight rises from zero.",
    )
    grow: int = option(
        1,
        Whole(1, 1000),
        "The network is this many times as wide and as deep as the one to start from: widths and depth start at that "
        "share of it, and can grow as well as shrink.",
    )
    live: bool = option(
        True, Flag(), "Whether only what the masks keep is computed; the result is the same up to rounding."
    )
    compiler: str | Callable[..., Any] | None = option(
        None,
        Either(Text(), Called("backend(graph, inputs)")),
        "Backend of torch.compile, such as inductor, for what is computed live; not with a learned resolution.",
    )
    reach: float = option(
        0.1,
        Number(above=0, most=1),
        "Share of the steps after which the cost is asked to be at the budget; less where that is above half of the "
        "cost to start from, in proportion to how far there is to go.",
    )
    settle: float = option(
        0.6,
        Number(least=0, below=1),
        "Share of the steps, the last, that train the network decided on; masks learn in those before.",
    )
    every: int = option(
        2,
        Whole(1),
        "Masks learn in one of so many steps; in the others only the weights do, which is cheaper.",
    )
    least_steps: int | None = option(
        None,
        Whole(),
        "Where masks would learn in fewer steps, what is kept is decided as oneshot does, and all steps train that; 0: "
        f"never. By default {ACROSS}, which a mask takes from one end to the other; what oneshot cannot decide is "
        "searched in any case.",
    )

    def __post_init__(self) -> None:
        if self.learn is not None:
            _check_learn(self.learn)
        super().__post_init__()
        if self.penalty_ramp and self.penalty is None:
            raise UsageError(f"penalty_ramp must be given beside a penalty, not by itself as {self.penalty_ramp!r}.")
        if self.compiler is not None and not self.live:
            raise UsageError("compiler is for what is computed live; leave it out, or live on.")
        if isinstance(self.compiler, str):
            _check_compiler(self.compiler)

    @property
    def decides(self) -> frozenset[str]:
        return frozenset(self.learn or COMPONENTS)

    @property
    def growth(self) -> int:
        return self.grow

    def searching_steps(self, total_steps: int) -> int:
        """The steps of a search before its decision."""
        return min(max(1, round((1 - self.settle) * total_steps)), total_steps)

    def learning_steps(self, total_steps: int) -> int:
        """Those in which masks learn."""
        return -(-self.searching_steps(total_steps) // self.every)

    def needed_steps(self, components: Set[str]) -> int:
        """Steps of masks over ``components`` below which the search leaves the decision to one shot."""
        if self.grow > 1 or "width" not in components or components - {"width", "depth"}:
            return 0
        return ACROSS if self.least_steps is None else self.least_steps

    @property
    def taus(self) -> tuple[float, float]:
        """Steepness of the masks over channels and over blocks."""
        return self.width_tau or WIDTH_TAU * self.grow, self.depth_tau or DEPTH_TAU * self.grow

    def measure(self, *, with_data: bool) -> str | Callable[..., Any] | None:
        """The measure that things are ordered by; ``None`` for none."""
        order = self.order or ("none" if self.grow > 1 else "sensitivity" if with_data else "magnitude")
        return None if order == "none" else order

    def require(self, graph: Graph) -> None:
        self.components(graph)

    def components(self, graph: Graph) -> set[str]:
        """What is learned of this model. Raises ``UsageError`` for a component that it does not have."""
        there = dict.fromkeys(COMPONENTS, False) | {group.component: True for group in graph.groups}
        there["depth"] = bool(graph.blocks)
        why = {
            "width": "every channel is held fixed",
            "depth": "it has no residual block that can be taken out",
            "kernel": why_whole(graph.whole_kernels, " has ") or "it has no convolution with a kernel above 1",
            "resolution": why_whole(graph.whole_resolutions, ": ") or "it has no residual block that can be taken out",
        }
        for name in self.learn or ():
            if not there[name]:
                have = ", ".join(c for c in COMPONENTS if there[c]) or "nothing to learn"
                raise UsageError(f"{graph.model_class} has no {name} to learn: {why[name]}. It has {have}.")
        return {name for name in self.learn or COMPONENTS if there[name]}


def _check_learn(asked: object) -> None:
    parts = [part.strip() for part in asked.split(",")] if isinstance(asked, str) else asked
    if not isinstance(parts, (list, tuple, set, frozenset)):
        raise UsageError(f"learn must name components, of {', '.join(COMPONENTS)}, not {shown(asked)}.")
    for name in parts:
        if name and name not in COMPONENTS:
            raise UsageError(f"dnarch cannot learn {shown(name)}; it learns {', '.join(COMPONENTS)}.")
    if not any(parts):
        raise UsageError(f"learn is empty; name components to learn, of {', '.join(COMPONENTS)}.")


def _check_compiler(name: str) -> None:
    from torch.compiler import list_backends

    if name not in list_backends(exclude_tags=()):
        usual = ", ".join(list_backends())
        raise UsageError(f"compiler: torch.compile has no backend {shown(name)} here; it has {usual}.")


def why_whole(reasons: Mapping[str, str], verb: str) -> str:
    """Why nothing of this kind can change, by the first few."""
    found = [f"{place or 'the model'}{verb}{reason}" for place, reason in reasons.items()]
    return ", ".join(found[:2]) + (f" and {len(found) - 2} more" if len(found) > 2 else "")


METHOD = Method(
    "dnarch",
    DnarchConfig,
    "compressor.search.methods.dnarch.method:Dnarch",
    trains=True,
    ranked_by="order",
    own_loop=True,
    continues=True,
)
