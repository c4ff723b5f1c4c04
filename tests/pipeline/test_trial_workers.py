"""Trials side by side: the rows of trials one after the other, and errors that find their way back."""

from __future__ import annotations

import os
import signal
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import CompressorError
from compressor.pipeline.events import Events
from compressor.pipeline.grid import Hyperparameters
from compressor.pipeline.trial import Ground, TrialData
from compressor.pipeline.trial_workers import NotHandedOver, run_side_by_side
from compressor.report.tuning import Trial
from compressor.storage.job import Job
from tests.api_models import net
from tests.pipeline.test_tuning import bare, data, pipeline, ran, settings

TWO = {"lr": [0.05, 0.01, 1e30]}


def dies_at_high_rates(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss that ends the process once training has gone astray."""
    if not bool(torch.isfinite(outputs).all()):
        os._exit(9)
    return nn.functional.cross_entropy(outputs, targets)


def never_ends(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss that asks the job to be interrupted, and waits for its end."""
    os.kill(os.getppid(), signal.SIGINT)
    threading.Event().wait()
    return outputs.sum()


def test_two_workers_give_the_rows_of_one(tmp_path: Path) -> None:
    alone = pipeline(settings(tune=TWO))
    with Job.open(tmp_path, {"a": 1}) as job:
        beside = pipeline(settings(tune=TWO, trial_workers=2), job)
        assert ran(beside) == ran(alone)
        assert bare(alone.tuning).trials[2].lost is not None
        assert all(job.stage(f"tune-{number}") is not None for number in (1, 2, 3))
        assert not any(job.checkpoint("x").parent.glob("tune*"))
    mine, other = alone.compressed.state_dict(), beside.compressed.state_dict()
    assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_what_cannot_be_handed_over_runs_one_after_the_other() -> None:
    events = Events()
    how = settings(tune={"lr": [0.05, 0.01]}, trial_workers=2, loss_fn=lambda o, t: nn.functional.cross_entropy(o, t))
    found = ran(pipeline(how, events=events))
    assert [trial.score is not None for trial in found.trials] == [True, True]
    assert any("one after the other" in warning for warning in events.warnings)


def ground(loss_fn: Any) -> Ground:
    splits = data()
    return Ground(net(), None, TrialData(splits.train, splits.val, splits.task), 1, 0.05, 16, 0.0, 0, loss_fn)


def test_what_is_not_found_in_the_worker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    here = types.ModuleType("only_here")
    here.loss, loss.__module__, loss.__qualname__ = loss, "only_here", "loss"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "only_here", here)
    tasks = [(1, Hyperparameters(0.05, 0.0, 0.9), None), (2, Hyperparameters(0.01, 0.0, 0.9), None)]
    with pytest.raises(NotHandedOver, match="only_here"):
        run_side_by_side(ground(loss), tasks, 2, lambda _: None)


def test_a_worker_that_dies_is_named_and_the_finished_rows_stay(tmp_path: Path) -> None:
    how = settings(tune={"lr": [0.01, 1e30, 0.02]}, trial_workers=2, tune_epochs=1, loss_fn=dies_at_high_rates)
    with Job.open(tmp_path, {"a": 1}) as job:
        with pytest.raises(CompressorError, match=r"trial 2 of the tuning \(lr 1e\+30.* died"):
            pipeline(how, job).run()
        assert job.stage("tune-2") is None
        assert job.stage("tune") is None


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to a process by number")
def test_an_interrupt_stops_the_workers() -> None:
    rows: list[Trial] = []
    tasks = [(1, Hyperparameters(0.05, 0.0, 0.9), None), (2, Hyperparameters(0.01, 0.0, 0.9), None)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            run_side_by_side(ground(never_ends), tasks, 2, rows.append)
    finally:
        signal.signal(signal.SIGINT, before)
    assert rows == []
