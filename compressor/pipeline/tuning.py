"""The stage between trim and fine-tuning: short trials choose what fine-tuning is told.

Every trial trains a copy of the trimmed network on a share of the training data, and is scored on samples that neither
it nor the report's score has to do with. As Shen et al., "Efficient Architecture Search for Diverse Tasks", 2022,
section 3.3, do between search and retraining.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import nn

from compressor.data.apart import hold_out
from compressor.data.subsampled import Subsampled
from compressor.errors import UsageError
from compressor.nn.generated import computed
from compressor.pipeline.events import Events, TrialEnded
from compressor.pipeline.grid import AXES, Hyperparameters, grid_points
from compressor.pipeline.training import own_hyperparameters
from compressor.pipeline.trial import Ground, TrialData, has_dropout, run_trial, set_dropout_
from compressor.pipeline.trial_workers import NotHandedOver, run_side_by_side
from compressor.process.ranks import current
from compressor.report.tuning import Trial, Tuning
from compressor.storage.codec import decode, encode
from compressor.train import METRICS

if TYPE_CHECKING:
    from pathlib import Path

    from compressor.data import Data
    from compressor.pipeline.settings import Settings
    from compressor.storage.shared_job import JobStages

__all__ = ["chosen_hyperparameters", "set_dropout_", "tuned"]


def tuned(
    model: nn.Module, data: Data, settings: Settings, *, teacher: nn.Module, job: JobStages | None, events: Events
) -> Tuning:
    """Run the trials of ``settings.grid`` that are not stored yet, and choose.

    Args:
        model: the trimmed network; it is not changed.
        teacher: the original, which distillation learns from.

    Raises:
        DataError: there is too little data to hold something out.
        CompressorError: a process that ran a trial died.
    """
    result = _stored_tuning(job)
    if result is None:
        result = _try_all(model, data, settings, teacher=teacher, job=job, events=events)
        if job is not None:
            job.store("tune", encode(result))
    if result.winner is None:
        count = len(result.trials)
        events.warn(f"All {count} trials of the tuning were lost, so fine-tuning keeps the job's own settings.")
    else:
        events.info(f"  fine-tuning takes {chosen_hyperparameters(result)} (trial {result.won})")
    return result


def _try_all(
    model: nn.Module, data: Data, settings: Settings, *, teacher: nn.Module, job: JobStages | None, events: Events
) -> Tuning:
    grid = settings.grid
    points = grid_points(
        grid,
        own_hyperparameters(settings),
        momentum=computed(model) is None and settings.optimizer == "sgd",
        dropout=has_dropout(model),
        optimizer=settings.optimizer,
    )
    held_out, split, train = data.val, "val", data.train
    if data.test is None:  # then the report quotes the validation split
        train, held_out = hold_out(data.train, settings.batch_size)
        split = "train"
    in_step = settings.batch_size * settings.accumulate
    share = min(1.0, max(settings.tune_samples, in_step / max(1, len(train))))
    ground = Ground(
        model=model,
        teacher=teacher if settings.distill else None,
        data=TrialData(Subsampled(train, share), held_out, data.task),
        epochs=settings.trial_epochs,
        lr=settings.lr,
        batch_size=settings.batch_size,
        distill=settings.distill,
        seed=settings.seed,
        loss_fn=settings.loss_fn,
        steps=settings.steps,
    )
    where = "the validation split" if split == "val" else "the training data, held out"
    events.info(
        f"  {len(points)} trials of {ground.epochs} epoch{'s' if ground.epochs > 1 else ''} with "
        f"{len(ground.data.train)} samples, scored on {len(held_out)} of {where}"
    )
    rows = _Rows(points, job, events)
    _run(ground, rows, settings.trial_workers, events)
    metric = next((METRICS[trial.metric] for trial in rows.trials if trial.metric), None)
    lower = metric is not None and metric.lower_is_better
    return Tuning(
        grid=grid if isinstance(grid, str) else "own",
        metric=metric.name if metric is not None else "",
        lower_is_better=lower,
        split=split,
        held_out=len(held_out),
        won=best(rows.trials, lower_is_better=lower),
        trials=rows.trials,
    )


def best(trials: Sequence[Trial], *, lower_is_better: bool) -> int | None:
    """The number of the trial with the best score, the first of several; None if all are lost."""
    scored = [trial for trial in trials if trial.score is not None]
    sign = 1.0 if lower_is_better else -1.0
    return min(scored, key=lambda trial: sign * (trial.score or 0.0)).number if scored else None


def chosen_hyperparameters(tuning: Tuning | None) -> Hyperparameters | None:
    """What won; None if nothing did, and the job's own settings are to be taken."""
    winner = tuning.winner if tuning is not None else None
    return None if winner is None else Hyperparameters(**{axis: getattr(winner, axis) for axis in AXES})


class _Rows:
    """The trials of a grid, each stored in the job as soon as it is done."""

    def __init__(self, points: Sequence[Hyperparameters], job: JobStages | None, events: Events) -> None:
        self._points, self._job, self._events = points, job, events
        self._done: dict[int, Trial] = {}
        for number, point in enumerate(points, 1):
            trial = self._stored(number, point)
            if trial is not None:
                self._take(trial, stored=True)

    @property
    def trials(self) -> list[Trial]:
        """Those that are done, in the order of the grid."""
        return [self._done[number] for number in sorted(self._done)]

    def missing(self) -> Iterator[tuple[int, Hyperparameters, Path | None]]:
        """Number, settings and checkpoint of each that is left."""
        for number, point in enumerate(self._points, 1):
            if number not in self._done:
                yield number, point, None if self._job is None else self._job.checkpoint(_stage(number))

    def add(self, trial: Trial) -> None:
        """Keep one that has ended."""
        if self._job is not None:
            self._job.store(_stage(trial.number), encode(trial))
        self._take(trial, stored=False)

    def label(self, number: int) -> str:
        """``trial 2 of 6``."""
        return f"trial {number} of {len(self._points)}"

    def _take(self, trial: Trial, *, stored: bool) -> None:
        self._done[trial.number] = trial
        told = {axis: getattr(trial, axis) for axis in AXES}
        self._events.emit(
            TrialEnded(
                trial.number,
                len(self._points),
                told,
                trial.metric,
                trial.score,
                trial.seconds,
                trial.lost,
                stored,
            )
        )

    def _stored(self, number: int, point: Hyperparameters) -> Trial | None:
        stored = self._job.stage(_stage(number)) if self._job is not None else None
        if stored is None:
            return None
        try:
            trial = decode(Trial, stored.data, "trial")
        except UsageError:
            return None
        # A later version may have another grid under the same name.
        same = all(getattr(trial, axis) == getattr(point, axis) for axis in AXES)
        return trial if same and trial.number == number else None


def _run(ground: Ground, rows: _Rows, workers: int, events: Events) -> None:
    left = list(rows.missing())
    if workers > 1 and left and current().size > 1:
        events.warn("Trials run one after the other, each in all processes that train together.")
    elif workers > 1 and left:  # the last one that a cut-off job left, too: rounding goes with the number of threads
        try:
            run_side_by_side(ground, left, workers, rows.add)
        except NotHandedOver as error:
            events.warn(f"Trials run one after the other, as they cannot be handed to other processes: {error}")
    for number, point, checkpoint in list(rows.missing()):
        rows.add(run_trial(ground, number, point, checkpoint, events.progress(rows.label(number))))


def _stage(number: int) -> str:
    return f"tune-{number}"


def _stored_tuning(job: JobStages | None) -> Tuning | None:
    stored = job.stage("tune") if job is not None else None
    if stored is None:
        return None
    try:
        return decode(Tuning, stored.data, "tuning")
    except UsageError:
        return None
