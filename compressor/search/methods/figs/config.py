"""Settings of FiGS."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from compressor.options import Flag, Number, Whole, option
from compressor.search.options import Method, TrainedConfig

LOGITS = 8.0
"""Logits stay within plus and minus this."""


@dataclass(frozen=True)
class FigsConfig(TrainedConfig):
    """Settings of the search; the training's own are ``TrainConfig``'s."""

    owner: ClassVar[str] = "figs"
    not_in_own_loop: ClassVar[Mapping[str, str]] = {
        "live": "the optimizer of your loop holds the full weights",
        "least_steps": "your loop makes as many steps as it says",
    }

    rates: ClassVar[Mapping[str, float]] = {"sgd": 0.01, "adamw": 0.001}

    lr: float | None = option(
        None, Number(above=0), "Learning rate of the weights (cosine schedule); by default 0.01, with adamw 0.001."
    )
    logit_lr: float = option(0.05, Number(above=0), "Learning rate of the logits (Adam).")
    start: float = option(2.5, Number(least=-LOGITS, most=LOGITS), "Initial logit: a keep probability of 0.924.")
    depth: bool = option(True, Flag(), "Whether whole residual blocks may go.")
    block_start: float = option(
        4.0,
        Number(least=-LOGITS, most=LOGITS),
        "Initial logit of a block: 0.982, as a block that is missing costs more than a channel.",
    )
    tau: float = option(0.001, Number(above=0), "Temperature of the masks that are drawn.")
    gradient_temperature: float = option(0.5, Number(above=0), "Temperature of the slope in the backward pass.")
    reach: float = option(
        0.5, Number(above=0, most=1), "Share of the steps after which the expected cost is asked to be at the budget."
    )
    settle: float = option(
        0.65,
        Number(above=0, most=1),
        "Share of the steps after which the decision stands and only weights are trained; 1 leaves it to the end.",
    )
    negligible: float = option(0.01, Number(least=0, below=1), "Keep probability below which a unit or block fades.")
    patience: int = option(100, Whole(), "Steps in a row after which what fades is gone; 0 keeps all to the end.")
    live: bool = option(True, Flag(), "Whether only what is left is computed: the cost of a step, not its result.")
    least_steps: int | None = option(
        None,
        Whole(),
        "With fewer steps what is kept is decided as oneshot does, and all steps train that; 0: never. By default as "
        "many as a logit needs to fall to zero before the decision; 400 where no search is named.",
    )

    @property
    def needed_steps(self) -> int:
        """Steps below which the search leaves the decision to one shot."""
        if self.least_steps is not None:
            return self.least_steps
        return math.ceil(max(0.0, self.start) / (self.logit_lr * self.settle))


METHOD = Method("figs", FigsConfig, "compressor.search.methods.figs.method:Figs", trains=True, own_loop=True)
