"""What a training run is told: every number, checked when it is set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from compressor.errors import UsageError
from compressor.options.shared import OPTIMIZER, WEIGHT_DECAYS

OPTIMIZERS = tuple(OPTIMIZER.choices)
SCHEDULES = ("cosine", "steps")


@dataclass(frozen=True)
class StepSettings:
    """What a job says about every step that it trains, whatever is trained; see ``TrainConfig``."""

    accumulate: int = 1
    clip_norm: float | None = None
    amp: bool | None = None
    compile: bool = False
    optimizer: str = "sgd"
    """Of the weights, where what is trained asks for no other."""

    def told(self) -> dict[str, Any]:
        """By name, as ``TrainConfig`` takes them, but for the optimizer: rates and decays go with it."""
        return {
            "accumulate": self.accumulate,
            "grad_clip": self.clip_norm,
            "amp": self.amp,
            "compile": self.compile,
        }


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run. Raises ``UsageError`` for a value that makes no sense."""

    epochs: int
    """Passes over the training split; 0 trains nothing."""
    batch_size: int = 64
    """Samples in a batch, over all processes that train together."""
    accumulate: int = 1
    """Batches that make one step, whose gradients are those of a batch as large as all of them."""
    lr: float = 0.05
    """Peak learning rate; ``schedule`` says how it falls from there."""
    optimizer: str = "sgd"
    """``"sgd"`` (with momentum) or ``"adamw"``."""
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = WEIGHT_DECAYS["sgd"]
    decay_norm_and_bias: bool = True
    """Whether weight decay reaches normalisation parameters and biases too."""
    warmup_epochs: float = 0.0
    """Linear warm-up before the schedule, in epochs (a fraction is fine)."""
    schedule: str = "cosine"
    """``"cosine"`` falls along half a cosine to ``final_lr_fraction`` of the peak; ``"steps"`` is multiplied by
    ``decay`` at every milestone."""
    milestones: tuple[float, ...] = ()
    """Fractions of the run, in (0, 1) and rising, at which ``"steps"`` falls."""
    decay: float = 0.1
    """Factor of ``"steps"`` at every milestone, in (0, 1]."""
    final_lr_fraction: float = 0.0
    """Of ``"cosine"``."""
    label_smoothing: float = 0.0
    """Used by the default loss only."""
    distill: float = 0.0
    """Weight in [0, 1] of the teacher's loss; the task's loss weighs the rest."""
    temperature: float = 4.0
    """Distillation temperature."""
    grad_clip: float | None = None
    """Largest global norm of the model's gradients."""
    amp: bool | None = None
    """Mixed precision; None: on CUDA only."""
    compile: bool = False
    """Whether the model is compiled (``torch.compile``) where it runs as it is, without masks."""
    channels_last: bool | None = None
    """Memory layout of images; None: channels last, which is faster, unless the model cannot run with it."""
    seed: int = 0
    augment: bool = True
    max_steps: int | None = None
    """Stop after so many steps; the schedule then ends there as well."""
    steps_before: int = 0
    """Steps of another run that this one goes on with: the schedule is that of both."""
    steps_after: int = 0
    """Steps of a run that will go on with this one's schedule."""
    log_every: int | None = None
    """Steps between entries of the history, beside the one at each epoch's end."""
    evaluate_every: int = 0
    """Epochs between evaluations on the validation split; 0: never."""
    checkpoint_seconds: float = 20.0
    """Seconds between checkpoints; they are also written at the ends of epochs, while that costs little. 0: after
    every step."""

    def __post_init__(self) -> None:
        _check_whole("epochs", self.epochs, 0)
        _check_whole("batch_size", self.batch_size, 1)
        _check_whole("accumulate", self.accumulate, 1)
        for name in ("evaluate_every", "steps_before", "steps_after"):
            _check_whole(name, getattr(self, name), 0)
        for name in ("max_steps", "log_every"):
            if (value := getattr(self, name)) is not None:
                _check_whole(name, value, 1)
        for name in ("lr", "temperature"):
            _check_range(name, getattr(self, name), above=0.0)
        for name in ("weight_decay", "warmup_epochs", "checkpoint_seconds"):
            _check_range(name, getattr(self, name), least=0.0)
        for name in ("momentum", "label_smoothing", "distill", "final_lr_fraction"):
            _check_range(name, getattr(self, name), least=0.0, most=1.0)
        if self.grad_clip is not None:
            _check_range("grad_clip", self.grad_clip, above=0.0)
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}.")
        self._check_schedule()

    def _check_schedule(self) -> None:
        if self.schedule not in SCHEDULES:
            raise UsageError(f"schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}.")
        given = self.milestones
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise UsageError(f"milestones must be fractions of the run, such as (0.5, 0.75), not {given!r}.")
        object.__setattr__(self, "milestones", tuple(given))
        for milestone in self.milestones:
            _check_range("milestones", milestone, above=0.0, most=1.0)
        edges = (0.0, *self.milestones, 1.0)
        if any(a >= b for a, b in pairwise(edges)):
            raise UsageError(f"milestones must rise between 0 and 1, not {given!r}.")
        _check_range("decay", self.decay, above=0.0, most=1.0)
        steps = self.schedule == "steps"
        if steps != bool(self.milestones):
            wanted = "needs milestones, such as (0.6,)" if steps else "has no milestones; set schedule to 'steps'"
            raise UsageError(f"The schedule {self.schedule!r} {wanted}.")
        if steps and self.final_lr_fraction:
            raise UsageError("final_lr_fraction is of the schedule 'cosine'; with 'steps' set decay.")

    def fingerprint(self) -> dict[str, Any]:
        """The settings that decide the weights that come out: all but how often they are saved."""
        values = asdict(self)
        del values["checkpoint_seconds"]
        # Left out where nothing differs from versions that had the cosine alone and one batch in a step, so that their
        # checkpoints go on.
        if self.schedule == "cosine":
            for name in ("schedule", "milestones", "decay"):
                del values[name]
        for name, default in (("accumulate", 1), ("compile", False), ("steps_before", 0), ("steps_after", 0)):
            if values[name] == default:
                del values[name]
        return values


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, not {value!r}.")


def _check_range(
    name: str, value: object, *, above: float | None = None, least: float | None = None, most: float | None = None
) -> None:
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if above is not None and not (number > above and math.isfinite(number)):
        raise UsageError(f"{name} must be a number above {above:g}, not {value!r}.")
    if least is not None and not (number >= least and math.isfinite(number)):
        raise UsageError(f"{name} must be a number of at least {least:g}, not {value!r}.")
    if most is not None and number > most:
        raise UsageError(f"{name} must be at most {most:g}, not {value!r}.")
