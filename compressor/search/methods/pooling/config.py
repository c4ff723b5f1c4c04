"""Settings of the search for where to pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.options import Flag, Number, OneOf, Whole, option
from compressor.search.options import Method, TrainedConfig

if TYPE_CHECKING:
    from compressor.graph.graph import Graph


@dataclass(frozen=True)
class PoolingConfig(TrainedConfig):
    """Settings of the search; the training's own are ``TrainConfig``'s."""

    owner: ClassVar[str] = "pooling"

    rates: ClassVar[Mapping[str, float]] = {"sgd": 0.1, "adamw": 0.001}

    mixtures: int = option(1, Whole(1, 64), "Weight sets that configurations are divided among.")
    lr: float | None = option(
        None, Number(above=0), "Learning rate of the weights (cosine schedule); by default 0.1, with adamw 0.001."
    )
    weight_decay: float = option(1e-3, Number(least=0), "Weight decay of the weights.")
    beta: float = option(0.9, Number(least=0, below=1), "Of the moving average of what each weight set scores.")
    temperature: str = option(
        "linear", OneOf(("linear", "geometric")), "How the temperature falls from 1 to 1 / (100 mixtures)."
    )
    validation: float = option(
        0.125, Number(above=0, most=1), "Samples that a step is scored on, as a share of the batch."
    )
    evaluated: int = option(
        64, Whole(1), "Configurations that are scored on the whole held-out split; of more those of the best averages."
    )
    top_k: int = option(
        1, Whole(1, 64), "Best configurations that are trained on, each by itself, before one is taken."
    )
    top_epochs: int = option(3, Whole(1), "Epochs that each of them is trained for.")
    fresh: bool = option(
        False,
        Flag(),
        "Whether the network found starts from the weights before the search, as in the paper, not from those after.",
    )
    offload: bool = option(
        False, Flag(), "Whether weight sets that are not in use lie in the CPU's memory, where a GPU trains."
    )

    @property
    def decides(self) -> frozenset[str]:
        return frozenset({"pooling"})

    def require(self, graph: Graph) -> None:
        from compressor.graph.pooling_choices import require_some

        require_some(graph)

    def choice_options(self, include: Sequence[str], exclude: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        return {"pooling": {"include": include, "exclude": exclude}}


METHOD = Method(
    "pooling", PoolingConfig, "compressor.search.methods.pooling.method:Pooling", trains=True, improves=True
)
