"""What every tracker must do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import pytest

from compressor.integrations.trackers import TRACKERS
from compressor.integrations.trackers.base import Run, Tracker
from compressor.integrations.trackers.listener import TrackerListener
from compressor.pipeline.events import Decision, Events, JobBegan, Metric, Step, StepEvents

CONFIGURATION = {
    "model": "resnet18",
    "budgets": {"flops": "50%"},
    "include": ["layer1*", "layer2*"],
    "nothing": None,
    "depth": True,
    "figs": {"lr": 0.01, "deeper": {"still": 1}},
    "a name with: signs?": "x" * 2000,
    "empty": {},
}


class TrackerContract:
    """Subclass it and set ``name``, under which the tracker is registered (the group ``compressor.trackers``).

    ``prepare`` sets what the tracker needs to work by itself below a folder; ``logged`` reads what it has stored.
    """

    name: ClassVar[str]

    def prepare(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Before each test: environment variables, say."""

    def logged(self, run: Run) -> Mapping[str, Mapping[int, float]] | None:
        """The numbers of a finished run by name and step; None where they cannot be read."""
        return None

    def begin(self, folder: Path, monkeypatch: pytest.MonkeyPatch, run: str = "run1") -> tuple[Run, Tracker]:
        """A run of the tracker, which begins."""
        self.require(folder, monkeypatch)
        told = Run("a job", run, folder / "job")
        return told, TRACKERS.get(self.name)(told)

    def require(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Skip the test where the tracker is not installed; else prepare it."""
        if (why := TRACKERS.get(self.name).missing()) is not None:
            pytest.skip(why)
        monkeypatch.chdir(folder)
        self.prepare(folder, monkeypatch)

    def test_it_is_registered_and_says_what_is_missing(self) -> None:
        why = TRACKERS.get(self.name).missing()
        assert why is None or (why.strip().endswith(".") and "\n" not in why)

    def test_it_keeps_every_number(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run, tracker = self.begin(tmp_path, monkeypatch)
        tracker.store_configuration(CONFIGURATION)
        for step in range(1, 6):
            tracker.log({"search/loss": 1 / step, "search/lr": 0.5}, step)
        for step in range(1, 4):  # the next training counts anew
            tracker.log({"finetune/loss": 2.0 * step}, step)
        tracker.log({"top-1 accuracy/after-search": 0.25}, 0)
        tracker.finish("done")
        found = self.logged(run)
        if found is not None:
            assert {step: round(x, 5) for step, x in found["search/loss"].items()} == {
                step: round(1 / step, 5) for step in range(1, 6)
            }
            assert found["finetune/loss"] == {1: 2.0, 2: 4.0, 3: 6.0}
            assert list(found["top-1 accuracy/after-search"].values()) == [0.25]

    def test_a_job_goes_on_in_the_same_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run, tracker = self.begin(tmp_path, monkeypatch)
        tracker.store_configuration(CONFIGURATION)
        tracker.log({"search/loss": 3.0}, 1)
        tracker.log({"search/loss": 2.0}, 2)
        tracker.finish("interrupted")
        _, again = self.begin(tmp_path, monkeypatch)
        again.store_configuration({**CONFIGURATION, "track": [self.name]})
        again.log({"search/loss": 2.0}, 2)  # from its checkpoint on
        again.log({"search/loss": 1.0}, 3)
        again.finish("done")
        found = self.logged(run)
        if found is not None:
            assert found["search/loss"] == {1: 3.0, 2: 2.0, 3: 1.0}

    def test_jobs_side_by_side_do_not_mix(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.require(tmp_path, monkeypatch)
        runs = [Run(f"job {number}", f"side{number}", tmp_path / f"job{number}") for number in range(2)]
        jobs = [Events() for _ in runs]
        with ExitStack() as stack:
            for number, (run, events) in enumerate(zip(runs, jobs, strict=True)):
                began = JobBegan(run.name, {"seed": number}, run.id, str(run.folder))
                stack.enter_context(events.job(began, TrackerListener(self.name)))
            for step in (1, 2):
                for number, events in enumerate(jobs):
                    events.emit(Step("search", step, 2, {"loss": 10.0 * number + step}))
        for number, (run, events) in enumerate(zip(runs, jobs, strict=True)):
            assert events.warnings == []
            found = self.logged(run)
            assert found is None or found["search/loss"] == {step: 10.0 * number + step for step in (1, 2)}

    def test_numbers_that_are_not_finite_and_every_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for status in ("done", "failed", "interrupted"):
            _, tracker = self.begin(tmp_path, monkeypatch, status)
            tracker.store_configuration({})
            tracker.log({"search/loss": math.nan}, 1)
            tracker.log({"search/loss": math.inf}, 2)
            tracker.finish(status)

    def test_it_hears_of_a_job(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.require(tmp_path, monkeypatch)
        run = Run("a job", "heard", tmp_path / "job")
        events = Events()
        began = JobBegan(run.name, CONFIGURATION, run.id, str(run.folder))
        with events.job(began, TrackerListener(self.name)), events.stage("search"):
            progress = StepEvents(events, "search")
            progress.start(2, 0)
            progress.advance(1, loss=4.0, lr=0.1)
            progress.advance(2, loss=3.0, lr=0.1)
            progress.close()
            events.emit(Metric("after-search", "top-1 accuracy", 0.5))
            events.emit(Decision({"flops": 100.0}, 3, 4, 1, 2))
        assert events.warnings == []
        found = self.logged(run)
        if found is not None:
            assert found["search/loss"] == {1: 4.0, 2: 3.0}
            assert list(found["result/flops"].values()) == [100.0]
            assert list(found["result/units"].values()) == [0.75]
