"""The interface of a tracker."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PROJECT = "compressor"
"""The project, or experiment, that runs belong to where the tracker's own settings name none."""


@dataclass(frozen=True)
class Run:
    """What a tracker is told of a job.

    Attributes:
        name: what to call it.
        id: the same when the job goes on after it was cut off: the same run is to go on, then.
        folder: where files may go; None if the job writes none.
    """

    name: str
    id: str
    folder: Path | None = None


class Tracker(Protocol):
    """A class with one instance for each run, made with its ``Run``.

    All calls come from one thread, one after the other, and may take their time or raise: a tracker that does is
    dropped with a warning, and the job goes on. Loading the class must not import the tracker's own package.
    """

    def __init__(self, run: Run) -> None: ...

    @staticmethod
    def missing() -> str | None:
        """Why it cannot be used here and what to do, in a sentence; None if it can."""
        ...

    def store_configuration(self, configuration: Mapping[str, Any]) -> None:
        """What the job is told, as JSON values. Called once, first."""
        ...

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name, such as ``{"finetune/loss": 0.7, "finetune/lr": 0.05}``; those of one call begin with the
        same word. ``step`` counts on from 0 for each such word, and goes back where a job was cut off and goes on."""
        ...

    def finish(self, status: str) -> None:
        """The job is ``"done"``, ``"failed"`` or ``"interrupted"``. Nothing is called after."""
        ...


def missing_package(package: str, extra: str) -> str | None:
    """What ``Tracker.missing`` says of a package that is installed by an extra of this program."""
    if importlib.util.find_spec(package) is not None:
        return None
    return f"{package} is not installed; install it: pip install 'compressor[{extra}]'."


def flat(configuration: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings side by side: ``{"figs.lr": 0.01}``; lists as text."""
    found: dict[str, Any] = {}
    for name, value in configuration.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
    return found
