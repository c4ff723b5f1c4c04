"""Run a sweep: its points as jobs, one after the other or side by side, and the front of what they gave."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from compressor.errors import CompressorError
from compressor.jobs.config import JobConfig
from compressor.jobs.executors.base import Executor, JobTask
from compressor.jobs.executors.processes import ProcessExecutor
from compressor.jobs.executors.serial import SerialExecutor
from compressor.jobs.run import run_job
from compressor.jobs.sweeps.config import SweepConfig, comparable
from compressor.jobs.sweeps.outcome import PER_POINT, Failure, Found, Outcome, point_row, save_outcome
from compressor.jobs.sweeps.points import Planned, plan
from compressor.jobs.sweeps.reach import find_limits
from compressor.pipeline.console import Console
from compressor.pipeline.events import Events
from compressor.storage.codec import decode, encode
from compressor.storage.files import atomic_write_json
from compressor.storage.job import Job
from compressor.storage.version import VERSION

ASKED = "sweep.json"
SCHEMA_VERSION = 1


def run_sweep(
    sweep: SweepConfig, *, events: Events, quiet: bool = False, make: Callable[[Path], Executor] | None = None
) -> Outcome:
    """Run what of a sweep is not done yet; all of it lands in ``sweep.out``.

    Args:
        quiet: whether the jobs say nothing while they work.
        make: makes what runs the jobs, given a file of the sweep's folder that they must see; None: in ``workers``
            processes.

    A point that fails by itself (its loss is NaN, say) stops neither the others nor what does not begin at it.

    Raises:
        UnreachableBudgetError: a budget cannot be reached; found before anything is trained.
        UsageError: what was asked for cannot be had. CompressorError: a worker died. Others are those of ``run_job``,
            in the end if they are a point's own.
    """
    with Job.open(sweep.out, sweep.identity(), force=sweep.force, warn=events.warn, upgrade=comparable) as job:
        stored = job.stage("limits")
        if stored is None:
            stored = job.store("limits", {"limits": find_limits(sweep, events)})
        planned = plan(sweep, stored.data["limits"])
        _say_what(sweep, planned)
        outcome = Outcome(sweep, planned)
        if outcome.count == 1:
            events.info("One point alone: a plain job (compress without sweep) gives the same network.")
        workers = min(sweep.workers, len(planned))
        apart = make is not None or workers > 1
        with _executor(workers) if make is None else make(Path(sweep.out) / ASKED) as executor:
            for name, found in _run(executor, planned, quiet=quiet or apart):
                outcome.add(name, found)
                save_outcome(outcome)
                if found.failure is not None:
                    events.warn(f"{name} failed, and what does not begin at it goes on: {found.failure.message}")
                elif found.row is not None:
                    events.info(f"{name} is done ({len(outcome.rows)} of {outcome.count}): {outcome.said(name)}")
        save_outcome(outcome)
    if outcome.failed:
        raise _in_the_end(outcome)
    return outcome


def _in_the_end(outcome: Outcome) -> CompressorError:
    """The error of a sweep with points that failed, of the kind of the first."""
    (name, first), *others = outcome.failed.items()
    said = [f"{name} failed: {first.message}"]
    said += [f"So did {', '.join(other for other, _ in others)}."] if others else []
    left = [each for each in outcome.missing if each not in outcome.failed]
    said += [f"Not done, as they begin there: {', '.join(left)}."] if left else []
    if outcome.count > 1:
        said.append(
            f"{len(outcome.rows)} of {outcome.count} points are done; run the same command to try the rest again."
        )
    return first.error(" ".join(said))


def _executor(workers: int) -> Executor:
    return ProcessExecutor(workers) if workers > 1 else SerialExecutor()


def _run(executor: Executor, planned: list[Planned], *, quiet: bool) -> Iterator[tuple[str, Found]]:
    """Every job once it is ready; yields its name and what it gave as it ends."""
    waiting, done, ended = {point.name: point for point in planned}, set[str](), set[str]()

    def submit() -> None:
        for name, point in list(waiting.items()):
            if point.is_ready(done, ended):
                del waiting[name]
                executor.submit(_task(point, planned, quiet=quiet))

    submit()
    for task, result in executor.results():
        found = decode(Found, result, task.name)
        ended.add(task.name)
        if found.failure is None:
            done.add(task.name)
        submit()
        yield task.name, found


def _task(point: Planned, planned: list[Planned], *, quiet: bool) -> JobTask:
    by_name = {each.name: each for each in planned}
    source = point.trained or point.start
    if source is None or (point.start is not None and by_name[point.start].searches):
        trained = None
    else:
        trained = by_name[source].config.out
    arguments = {"config": point.config.to_json(), "trained": trained, "searches": point.searches, "quiet": quiet}
    return JobTask(point.name, f"{__name__}:run_point", arguments, _needs(point.config))


def _needs(config: JobConfig) -> dict[str, float]:
    """What a job needs for itself alone: a GPU that is named, and the device that latencies are measured on."""
    found = {"GPU": 1.0} if config.device.startswith("cuda") else {}
    return found if config.target is None else {**found, config.target: 1.0}


def run_point(config: dict[str, Any], trained: str | None, searches: bool, quiet: bool) -> dict[str, Any]:
    """One job of a sweep; returns a ``Found`` as JSON values. Raises what would meet other points, too."""
    return told_point(config, trained, searches, Events(Console(quiet=quiet)))


def told_point(config: dict[str, Any], trained: str | None, searches: bool, events: Events) -> dict[str, Any]:
    """``run_point`` that tells ``events`` what happens."""
    try:
        report = run_job(JobConfig.from_json(config), events=events, trained=trained)
    except PER_POINT as error:
        found = Found(failure=Failure(type(error).__name__, str(error)))
    else:
        found = Found(row=None if searches else point_row(report))
    encoded: dict[str, Any] = encode(found)
    return encoded


def _say_what(sweep: SweepConfig, planned: list[Planned]) -> None:
    """Write what was asked for."""
    identity = sweep.identity()
    text = json.dumps(identity, sort_keys=True)
    points = [{"name": p.name, "searches": p.searches, **p.notes} for p in planned]
    content = {
        "schema_version": SCHEMA_VERSION,
        "compressor": VERSION,
        "fingerprint": hashlib.sha256(text.encode()).hexdigest(),
        "asked": identity,
        "points": points,
    }
    atomic_write_json(Path(sweep.out) / ASKED, content)
