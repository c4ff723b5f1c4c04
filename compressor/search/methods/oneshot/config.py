"""Settings of the one-shot search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from compressor.options import Called, Either, Flag, OneOf, Options, Whole, option
from compressor.search.importance import MEASURES

MEASURE = Either(OneOf(MEASURES.names), Called("importance(group)"))
MEASURE_DOC = "What units are ranked by: the name of a measure, or in Python a function of a group (docs/importance.md)"


@dataclass(frozen=True)
class OneShotConfig(Options):
    """Settings of the search."""

    owner: ClassVar[str] = "oneshot"

    importance: str | Callable[..., Any] | None = option(
        None, MEASURE, f"{MEASURE_DOC}; taylor with data and magnitude without where none is given."
    )
    rounds: int = option(32, Whole(1, 10_000), "Rounds in which units are removed; more are finer and take longer.")
    batches: int = option(8, Whole(1), "Batches of 64 that taylor looks at.")
    depth: bool = option(True, Flag(), "Whether whole residual blocks may go.")
