"""Workers as tasks of Ray, wherever a cluster has room for them. The queue stays the service's: a worker whose node is
lost is begun anew elsewhere, and its job goes on from its last stage when its lease has run out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from compressor.jobs.executors.base import JobTask
from compressor.jobs.executors.ray import RayExecutor
from compressor.process.ray_cluster import RaySettings
from compressor.service.worker.config import WorkerConfig
from compressor.service.worker.limits import Limits

STOP_S = 20.0
"""How long workers have, when they are to stop, to store their jobs and give them back."""
_FOR_EVER = -1


def run_on_ray(config: WorkerConfig, workers: int, settings: RaySettings, *, jobs: int | None = None) -> int:
    """Keep workers running on Ray until they are interrupted; returns how many jobs they ran.

    Args:
        config: of each; their names get a number. The address of the server must lead to it from every node.
        workers: how many.
        jobs: how many each runs; None: until it is stopped.

    Raises:
        UsageError: no node has what a worker takes. Others are those of ``Worker`` and ``RayExecutor``.
    """
    with RayExecutor(replace(settings, tries=_FOR_EVER), workers=workers, stop_s=STOP_S) as executor:
        for number in range(1, workers + 1):
            own = replace(config, name=f"{config.name}-{number}")
            executor.submit(JobTask(own.name, f"{__name__}:work", {"config": to_json(own), "jobs": jobs}))
        return sum(done for _, done in executor.results())


def work(config: Mapping[str, Any], jobs: int | None) -> int:
    """In a process of Ray: one worker, until it is told to stop."""
    from compressor.service.worker.loop import Worker

    here = Worker(from_json(config), jobs=jobs)
    here.stop_on_signals()
    return here.run()


def to_json(config: WorkerConfig) -> dict[str, Any]:
    """A configuration as JSON values."""
    values = asdict(config)
    return {
        **values,
        "labels": list(config.labels),
        "scratch": str(config.scratch),
        "datasets": dict(config.datasets),
        "hidden": [str(path) for path in config.hidden],
        "python_path": list(config.python_path),
    }


def from_json(values: Mapping[str, Any]) -> WorkerConfig:
    """What ``to_json`` wrote."""
    lists = {
        each.name: tuple(values[each.name]) for each in fields(WorkerConfig) if isinstance(values[each.name], list)
    }
    hidden = tuple(Path(path) for path in values["hidden"])
    given = {
        **values,
        **lists,
        "hidden": hidden,
        "scratch": Path(values["scratch"]),
        "limits": Limits(**values["limits"]),
    }
    return WorkerConfig(**given)
