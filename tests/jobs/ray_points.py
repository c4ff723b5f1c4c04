"""Points of a sweep whose process is killed in the middle."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from compressor.jobs.config import JobConfig
from compressor.jobs.run import run_job
from compressor.jobs.sweeps.outcome import Found, point_row
from compressor.pipeline.events import Event, Events, StageBegan, Step
from compressor.storage.codec import encode


class Dies:
    """A listener that kills the process in the middle of a stage, the first time."""

    steps = True

    def __init__(self, out: Path, stage: str) -> None:
        self.mark, self.stage = out.with_name(f"{out.name}.died"), stage

    def __call__(self, event: Event) -> None:
        if isinstance(event, (StageBegan, Step)) and event.stage == self.stage and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def run_point_that_dies(config: dict[str, Any], trained: str | None, searches: bool, quiet: bool) -> Any:
    """A point of a sweep whose process is killed when fine-tuning begins."""
    out = Path(config["out"])
    report = run_job(JobConfig.from_json(config), events=Events(Dies(out, "finetune")), trained=trained)
    return encode(Found(row=None if searches else point_row(report)))
