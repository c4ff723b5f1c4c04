"""What the stages of a job are told, and the scores they find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from compressor.budget import Budget
from compressor.errors import UsageError
from compressor.options import OneOf, Place, Text, option, read, redeclared, shown
from compressor.options.shared import BATCH_SIZE, EPOCHS, THREADS
from compressor.pipeline.arguments import Scope, Training
from compressor.pipeline.grid import Grid
from compressor.pipeline.job_options import JobOptions
from compressor.search import METHODS, get_method, usable_methods
from compressor.search.importance import FROM_DATA, MEASURE
from compressor.search.options import Method, MethodConfig
from compressor.train.config import StepSettings

if TYPE_CHECKING:
    from compressor.graph.inputs.input_axes import BatchAxis
    from compressor.latency.target import TargetSettings
    from compressor.report.structure import BlockShape


@dataclass(frozen=True)
class Base:
    """The network that a grown one starts from, which the result is compared with."""

    model: nn.Module
    costs: Mapping[str, float]
    blocks: Mapping[str, BlockShape]
    """Its rows in the outline, by name; nothing is changed in them."""


@dataclass(frozen=True)
class Settings(JobOptions, Scope):
    """What the stages need to know, however the job was asked for. See ``config.JobConfig`` and ``api.compress``."""

    budgets: tuple[Budget, ...]
    search: str = option("oneshot", OneOf(METHODS.names), "Name of the search method.")
    options: Mapping[str, Any] = field(default_factory=dict)
    loss_fn: Callable[[Any, Tensor], Tensor] | None = redeclared(Training, "loss_fn", None)
    batch_axis: BatchAxis = "auto"
    target: TargetSettings | None = None
    base: Base | None = None
    """Where the network searched in is a grown one, or what an earlier search found."""
    at_least_original: bool = False
    """Whether a later search will meet the budgets: until then none is below what the network costs."""
    method: Method = field(init=False, repr=False, compare=False)
    config: MethodConfig = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "method", get_method(self.search))
        object.__setattr__(self, "config", self.method.read(self.options))
        if any(budget.cost == "latency" for budget in self.budgets) and self.target is None:
            raise UsageError(
                "A latency budget needs a target to measure on; pass --target (or target=), for example "
                "onnxruntime-cpu."
            )

    @property
    def steps(self) -> StepSettings:
        """How every step of the job is made."""
        return StepSettings(self.accumulate, self.clip_norm, self.amp, self.compile, self.optimizer)

    @property
    def measure(self) -> Any:
        """What the method was asked to rank by, if it ranks and was asked."""
        return self.options.get(self.method.ranked_by) if self.method.ranked_by else None

    @property
    def grid(self) -> str | Grid:
        """What is tried before fine-tuning: ``"none"``, ``"short"``, ``"paper"`` or a grid."""
        if not self.finetune_epochs:
            return "none"
        return self.method.tune if self.tune == "auto" else self.tune

    @property
    def trial_epochs(self) -> int:
        """Epochs of a trial; a fifth of those of fine-tuning unless asked for."""
        return self.tune_epochs if self.tune_epochs is not None else max(1, self.finetune_epochs // 5)

    def require_data_for(self, data: object) -> None:
        """Raise ``UsageError`` if what was asked for needs data and ``data`` is None."""
        if data is not None:
            return
        if self.method.trains:
            raise UsageError(f"{self.search} learns from data: pass --data (or data=), or use --search oneshot.")
        if self.measure in FROM_DATA:
            measure = self.measure
            raise UsageError(f"{measure} looks at data: pass --data (or data=), or rank by magnitude.")
        if self.train_epochs or self.finetune_epochs:
            raise UsageError("Epochs were asked for but there is no data to train on; pass --data (or data=).")


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
    read("lut", Place(), lut, optional=True)
    read("threads", THREADS, threads, optional=True)
    if target is None:
        return None
    from compressor.latency.target import TargetSettings

    if isinstance(target, str):
        target = TargetSettings(target, lut, threads)
    if not isinstance(target, TargetSettings):
        raise UsageError(f"target must be the name of a target or TargetSettings, not {shown(target)}.")
    target.runtime()
    return target


def method_options(
    search: str,
    given: Mapping[str, Any] | None,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    importance: Any = None,
) -> dict[str, Any]:
    """A search method's options, with what the job says about training and ranking.

    Raises:
        UsageError: an unknown method, an option that it does not have, or a value that the option does not take.
    """
    method = get_method(read("search", Text(), search))
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(f"options must be a mapping of names to values, not {shown(given)}.")
    options = dict(given or {})
    epochs = read("search_epochs", EPOCHS, epochs, optional=True)
    batch_size = read("batch_size", BATCH_SIZE, batch_size, optional=True)
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if method.trains and value is not None:
            options.setdefault(name, value)
    if importance is not None:
        ranked_by = method.ranked_by
        if ranked_by is None:
            raise UsageError(
                f"{search} ranks by nothing: it learns what to keep; leave importance out, or choose "
                f"{' or '.join(method.name for method in usable_methods() if method.ranked_by)}."
            )
        read("importance", MEASURE, importance)
        if options.setdefault(ranked_by, importance) != importance:
            raise UsageError(f"importance={shown(importance)} and {ranked_by}={shown(options[ranked_by])} contradict.")
    method.read(options)
    return options
