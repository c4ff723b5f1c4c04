"""TensorBoard: event files in the job's folder, or below ``runs``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.integrations.trackers.base import Run, missing_package

FOLDER = "tensorboard"


class TensorBoard:
    """Scalars by step; the configuration as text."""

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        place = Path("runs") / f"{run.name}-{run.id}" if run.folder is None else run.folder / FOLDER
        self._writer: Any = SummaryWriter(str(place))

    @staticmethod
    def missing() -> str | None:
        return missing_package("tensorboard", "tensorboard")

    def store_configuration(self, configuration: Mapping[str, Any]) -> None:
        text = json.dumps(configuration, indent=2, ensure_ascii=False)
        self._writer.add_text("configuration", f"```json\n{text}\n```")

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, status: str) -> None:
        self._writer.add_text("status", status)
        self._writer.close()
