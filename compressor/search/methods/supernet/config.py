"""Settings of the search in a supernet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.budget import Budget, parse_budgets
from compressor.errors import UnsupportedModelError, UsageError
from compressor.options import Called, Either, Number, OneOf, SomeOf, Text, Whole, option
from compressor.search.importance import MEASURES
from compressor.search.options import Method, TrainedConfig

if TYPE_CHECKING:
    from compressor.graph.graph import Graph

COMPONENTS = ("width", "depth", "kernel", "squeeze", "activation")


def _orders() -> list[str]:
    return [*MEASURES.names(), "none"]


@dataclass(frozen=True)
class SupernetConfig(TrainedConfig):
    """Settings of the search; the training's own are ``TrainConfig``'s."""

    owner: ClassVar[str] = "supernet"

    rates: ClassVar[Mapping[str, float]] = {"sgd": 0.05, "adamw": 0.001}

    lr: float | None = option(
        None, Number(above=0), "Learning rate of the weights (cosine schedule); by default 0.05, with adamw 0.001."
    )
    weight_decay: float = option(5e-4, Number(least=0), "Weight decay of the weights.")
    warmup: float = option(0.04, Number(least=0, below=1), "Share of the epochs over which the rate rises.")
    learn: tuple[str, ...] = option(
        ("width", "depth", "kernel", "squeeze"),
        SomeOf(COMPONENTS),
        "What subnets differ in, as far as the model has it: the channels of a layer, the blocks of a stage, the "
        "kernel size of a stage, whether its squeeze-and-excite modules are there, and its activation function.",
    )
    choices: int = option(8, Whole(2, 64), "Widths that a layer may have, evenly spaced up to its own.")
    smallest_kernel: int = option(3, Whole(1, 99), "Smallest kernel size that a larger one may be cropped to.")
    order: str | Callable[..., Any] = option(
        "magnitude",
        Either(OneOf(_orders), Called("importance(group)")),
        "Which channels the narrow networks have: those that matter most by a measure of importance "
        "(docs/importance.md), or none for the first ones.",
    )
    boundaries: str = option(
        "both",
        OneOf(("both", "min", "none")),
        "Boundaries of the search space that are learned: of the largest and the smallest networks, of the smallest "
        "alone, or none (the plain sandwich).",
    )
    lowest: str | None = option(
        None,
        Text(),
        "Lowest budgets of interest, such as flops=25%,params=1M; the highest ones are the job's own. By default the "
        "same, which asks the smallest networks to be within them.",
    )
    penalty: float = option(5.0, Number(least=0), "Weight of the hinge that keeps the boundaries around the budgets.")
    temperature: float = option(0.1, Number(above=0), "Temperature of the policies' softmax.")
    threshold: float = option(
        0.5, Number(above=0, below=1), "Probability from which on a choice is within a boundary of the space."
    )
    policy_lr: float | None = option(
        None,
        Number(above=0),
        "Learning rate of the policies (Adam); by default 5e-4 as in the paper, or 4 / steps where that is more, as "
        "short trainings have few steps, and 0.02 at most.",
    )
    randoms: int = option(2, Whole(0, 16), "Random subnets in a step, beside the largest and the smallest.")
    lesson_temperature: float = option(
        1.0, Number(above=0), "Temperature of the distillation from the largest network to the others."
    )
    population: int = option(48, Whole(4, 4096), "Subnets in a generation of the evolutionary search.")
    generations: int = option(6, Whole(0, 1000), "Generations after the first.")
    mutation: float = option(0.1, Number(above=0, most=1), "Probability that a dimension of a subnet is changed.")
    scored_on: int = option(1000, Whole(1), "Held-out samples that subnets are scored on; the best ones on all.")
    recalibration: int = option(
        4, Whole(1), "Batches of 128 samples that statistics of normalisations are taken from, per subnet."
    )
    workers: int = option(1, Whole(1, 256), "Processes that subnets are scored in; says nothing about the result.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.lowest_budgets()

    @property
    def decides(self) -> frozenset[str]:
        return frozenset(self.learn)

    def choice_options(self, include: Sequence[str], exclude: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        return {"activation": {"include": include, "exclude": exclude}}

    def lowest_budgets(self) -> tuple[Budget, ...]:
        """``lowest``, read. Raises ``UsageError`` for what is no budget."""
        if self.lowest is None:
            return ()
        parts = [part.partition("=") for part in self.lowest.split(",")]
        try:
            return parse_budgets({name.strip(): text.strip() for name, _, text in parts})
        except UsageError as error:
            raise UsageError(f"lowest takes budgets such as flops=25%,params=1M: {error}") from error

    def require(self, graph: Graph) -> None:
        if not graph.groups and not graph.blocks:
            raise UnsupportedModelError(f"{graph.model_class} has nothing that subnets could differ in.")


METHOD = Method(
    "supernet",
    SupernetConfig,
    "compressor.search.methods.supernet.method:Supernet",
    trains=True,
    improves=True,
    points=True,
    distils=True,
)
