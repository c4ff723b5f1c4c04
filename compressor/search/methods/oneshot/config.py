"""Settings of the one-shot search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from compressor.options import Flag, Whole, option
from compressor.search.importance import MEASURE
from compressor.search.options import Method, MethodConfig

MEASURE_DOC = "What units are ranked by: the name of a measure, or in Python a function of a group (docs/importance.md)"


@dataclass(frozen=True)
class OneShotConfig(MethodConfig):
    """Settings of the search."""

    owner: ClassVar[str] = "oneshot"

    importance: str | Callable[..., Any] | None = option(
        None, MEASURE, f"{MEASURE_DOC}; sensitivity with data and magnitude without where none is given."
    )
    rounds: int = option(32, Whole(1, 10_000), "Rounds in which units are removed; more are finer and take longer.")
    batches: int = option(8, Whole(1), "Batches of 64 that sensitivity and taylor look at.")
    depth: bool = option(True, Flag(), "Whether whole residual blocks may go.")


METHOD = Method(
    "oneshot",
    OneShotConfig,
    "compressor.search.methods.oneshot.method:OneShot",
    trains=False,
    ranked_by="importance",
)
