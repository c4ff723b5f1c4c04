"""What the stages of a job are told, and the scores they find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from compressor.config import Budget

if TYPE_CHECKING:
    from compressor.latency.session import TargetSettings


@dataclass
class Settings:
    """What the stages need to know, however the job was asked for. See ``config.JobConfig`` and ``api.compress``."""

    budgets: tuple[Budget, ...]
    search: str = "oneshot"
    options: dict[str, Any] = field(default_factory=dict)
    train_epochs: int = 0
    finetune_epochs: int = 0
    batch_size: int = 64
    lr: float = 0.05
    distill: float = 0.0
    round_to: int = 1
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    keep_outputs: tuple[str, ...] = ()
    seed: int = 0
    loss_fn: Callable[[Any, Tensor], Tensor] | None = None
    target: TargetSettings | None = None


@dataclass
class Scores:
    """What ``metric`` (a name in ``train.METRICS``) says on ``split``; ``None`` where nothing was evaluated."""

    metric: str = ""
    split: str = "test"
    samples: int | None = None
    before: float | None = None
    after_search: float | None = None
    after_finetune: float | None = None
