"""Settings of DASH."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.options import Flag, Number, OneOf, Wholes, option
from compressor.search.options import Method, TrainedConfig

if TYPE_CHECKING:
    from compressor.graph.graph import Graph

FORMS = ("auto", "results", "weights", "fft")


@dataclass(frozen=True)
class DashConfig(TrainedConfig):
    """Settings of the search; the training's own are ``TrainConfig``'s."""

    owner: ClassVar[str] = "dash"

    kernel_sizes: tuple[int, ...] | None = option(
        None,
        Wholes(1, 1023, odd=True),
        "Kernel sizes to choose from; by default 3,5,7,9, and 3,7,11,15,19 in one dimension.",
    )
    dilations: tuple[int, ...] | None = option(
        None,
        Wholes(1, 65535),
        "Dilations to choose from; by default 1,3,7,15, without what reaches beyond the input.",
    )
    lr: float | None = option(
        None,
        Number(above=0),
        "Learning rate of the weights; by default 0.1, 0.01 for predictions at every position, and 0.001 with adamw.",
    )
    architecture_lr: float | None = option(
        None,
        Number(above=0),
        "Learning rate of the architecture weights, by the optimizer of the weights; by default half of theirs, and "
        "0.05 with adamw.",
    )
    share: float = option(0.2, Number(above=0, most=1), "Share of the training samples in an epoch, drawn anew each.")
    temperature: float = option(1.0, Number(above=0), "Of the Gumbel-softmax that architecture weights are drawn by.")
    decay_at: float = option(0.6, Number(least=0, most=1), "Share of the steps after which the rates fall.")
    decay: float = option(0.2, Number(above=0, most=1), "What they fall to, as a share.")
    clip: float = option(1.0, Number(above=0), "Largest norm of the gradients of the weights.")
    doubt: float = option(
        3.0,
        Number(least=0),
        "Standard errors within which another kernel counts as good as the one that is there, as its lead may be "
        "chance; 0 takes the likeliest, as in the paper.",
    )
    reach: float = option(
        0.5, Number(above=0, most=1), "Share of the steps after which the expected cost is asked to be at the budget."
    )
    warm: bool = option(
        True,
        Flag(),
        "Whether every kernel starts from the taps of the convolution that is there, not from a draw of its own as in "
        "the paper.",
    )
    fresh: bool = option(
        False,
        Flag(),
        "Whether the network found starts from the weights before the search, as in the paper, not from those after.",
    )
    form: str = option(
        "auto", OneOf(FORMS), "How mixtures are computed; auto measures once for every shape and takes the fastest."
    )

    @property
    def decides(self) -> frozenset[str]:
        return frozenset({"convolution"})

    def require(self, graph: Graph) -> None:
        from compressor.graph.convolution_choices import require_some

        require_some(graph)

    def choice_options(self, include: Sequence[str], exclude: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        return {
            "convolution": {
                "kernel_sizes": self.kernel_sizes,
                "dilations": self.dilations,
                "include": include,
                "exclude": exclude,
            }
        }


METHOD = Method(
    "dash", DashConfig, "compressor.search.methods.dash.method:Dash", trains=True, improves=True, tune="short"
)
