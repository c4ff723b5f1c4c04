"""MLflow: a run in the experiment and the store that its own environment variables name."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from compressor.integrations.trackers.base import PROJECT, Run, flat, missing_package

_TAG = "compressor.run"
_STATUS = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_AT_ONCE, _LONGEST = 100, 500  # parameters in a request, and characters of one: what every version's server takes
_STRANGE = re.compile(r"[^\w\-./ ]")  # what a name cannot have


class MLflow:
    """Metrics by step and the configuration as parameters. The client is its own: the active run of the process, which
    may be the user's, stays as it is."""

    def __init__(self, run: Run) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        experiment = self._experiment()
        found = self._client.search_runs([experiment], f"tags.`{_TAG}` = '{run.id}'", max_results=1)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            self._run = self._client.create_run(experiment, tags={_TAG: run.id}, run_name=run.name).info.run_id

    @staticmethod
    def missing() -> str | None:
        return missing_package("mlflow", "mlflow")

    def store_configuration(self, configuration: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        known = self._client.get_run(self._run).data.params  # a parameter is said once
        params = [
            Param(_STRANGE.sub("_", name), str(value)[:_LONGEST])
            for name, value in flat(configuration).items()
            if _STRANGE.sub("_", name) not in known
        ]
        for start in range(0, len(params), _AT_ONCE):
            self._client.log_batch(self._run, params=params[start : start + _AT_ONCE])

    def log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_STRANGE.sub("_", name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def finish(self, status: str) -> None:
        self._client.set_terminated(self._run, status=_STATUS[status])

    def _experiment(self) -> str:
        """The id of the experiment that the environment names, which is made if there is none."""
        if identifier := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return identifier
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        known = self._client.get_experiment_by_name(name)
        return str(known.experiment_id) if known is not None else str(self._client.create_experiment(name))
