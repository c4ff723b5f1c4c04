"""What the stages of a job are told, and the scores they find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from compressor.config import Budget
from compressor.search import METHODS

if TYPE_CHECKING:
    from compressor.graph.inputs import BatchAxis
    from compressor.latency.session import TargetSettings
    from compressor.report.records import BlockShape


@dataclass(frozen=True)
class Base:
    """The network that a grown one starts from, which the result is compared with."""

    model: nn.Module
    costs: Mapping[str, float]
    blocks: Mapping[str, BlockShape]
    """Its rows in the outline, by name; nothing is changed in them."""


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
    round_to: int | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    keep_outputs: tuple[str, ...] = ()
    batch_axis: BatchAxis = "auto"
    seed: int = 0
    loss_fn: Callable[[Any, Tensor], Tensor] | None = None
    target: TargetSettings | None = None
    base: Base | None = None
    """Where the network searched in is a grown one."""


@dataclass
class Scores:
    """What ``metric`` (a name in ``train.METRICS``) says on ``split``; ``None`` where nothing was evaluated."""

    metric: str = ""
    split: str = "test"
    samples: int | None = None
    before: float | None = None
    after_search: float | None = None
    after_finetune: float | None = None


def measured_on(
    target: str | TargetSettings | None, lut: str | Path | None, threads: int | None = None
) -> TargetSettings | None:
    """Where latency is measured. Raises now if it cannot be measured there: not after hours of training."""
    if target is None:
        return None
    from compressor.latency.session import TargetSettings

    settings = TargetSettings(target, lut, threads) if isinstance(target, str) else target
    settings.runtime()
    return settings


def method_options(search: str, given: Mapping[str, Any] | None, epochs: int, batch_size: int) -> dict[str, Any]:
    """A search method's settings, with what the job says about training. Raises ``UsageError`` for unknown ones."""
    options = dict(given or {})
    if METHODS.get(search).trains:
        options.setdefault("epochs", epochs)
        options.setdefault("batch_size", batch_size)
    METHODS.get(search).check_options(options)
    return options
