"""Weights & Biases: a run in the project and mode that its own environment variables name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from compressor.integrations.trackers.base import PROJECT, Run, missing_package


class WandB:
    """Each training has an axis of its own, ``search/step``, as steps of a run may only rise there."""

    def __init__(self, run: Run) -> None:
        import wandb

        if run.folder is not None:
            run.folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=os.environ.get("WANDB_NAME") or run.name,
            id=os.environ.get("WANDB_RUN_ID") or run.id,
            resume="allow",
            reinit="create_new",  # a run of the user's own goes on beside it
            dir=None if run.folder is None else str(run.folder),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._axes: set[str] = set()

    @staticmethod
    def missing() -> str | None:
        return missing_package("wandb", "wandb")

    def store_configuration(self, configuration: Mapping[str, Any]) -> None:
        self._run.config.update(dict(configuration), allow_val_change=True)

    def log(self, values: Mapping[str, float], step: int) -> None:
        axis = next(iter(values)).partition("/")[0]
        if axis not in self._axes:
            self._axes.add(axis)
            self._run.define_metric(f"{axis}/step")
            self._run.define_metric(f"{axis}/*", step_metric=f"{axis}/step")
        self._run.log({**values, f"{axis}/step": step})

    def finish(self, status: str) -> None:
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status == "done" else 1)
