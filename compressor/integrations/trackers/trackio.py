"""Trackio: a run in its local store, or the Space that its own environment variables name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from compressor.integrations.trackers.base import PROJECT, Run, missing_package


class Trackio:
    """Metrics by step. The configuration is that of the run, so the run begins when it is known."""

    def __init__(self, run: Run) -> None:
        self._told = run
        self._run: Any = None

    @staticmethod
    def missing() -> str | None:
        return missing_package("trackio", "trackio")

    def store_configuration(self, configuration: Mapping[str, Any]) -> None:
        import trackio

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT") or PROJECT,
            name=f"{self._told.name}-{self._told.id}",
            config=dict(configuration),
            resume="allow",
            embed=False,
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, status: str) -> None:
        self._run.log({"status": status})
        self._run.finish()
