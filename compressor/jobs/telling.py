"""Who is told of a job: its folder, and the trackers that were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.integrations.trackers.listener import TrackerListener
from compressor.jobs.config import JobConfig
from compressor.jobs.recipes.write import recipe_values
from compressor.pipeline.events import Events, JobBegan, Listener
from compressor.pipeline.journal import Journal
from compressor.process.ranks import current
from compressor.storage.job import Job
from compressor.storage.places import EVENTS, TRACKING


@contextmanager
def telling(config: JobConfig, job: Job, events: Events) -> Iterator[None]:
    """Inside, what happens goes into the job's folder and to its trackers; of several processes the first tells."""
    began = JobBegan(Path(config.out).name, recipe_values(config), job.id, str(job.beside(TRACKING)))
    listeners: list[Listener] = []
    if current().is_first:
        listeners += [TrackerListener(name) for name in config.track]
        listeners.append(Journal(job.beside(EVENTS), append=job.resumed))  # last: it hears what becomes of the others
    with events.job(began, *listeners):
        yield
