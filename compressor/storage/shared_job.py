"""A job of several processes: the first has the folder, and tells the others what lies in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.process.ranks import Ranks
from compressor.storage.job import Diary, Job, JobPart, StageResult

if TYPE_CHECKING:
    from torch import Tensor

NOWHERE = Path(".job")


@dataclass(frozen=True)
class _Told(StageResult):
    """The result of a stage whose tensors came with it."""

    held: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return self.held


class SharedJob:
    """See the methods of ``Job``. All processes call them in the same order.

    Args:
        job: in the first process; None in the others.
    """

    def __init__(self, ranks: Ranks, job: Job | JobPart | None) -> None:
        self._ranks, self._job = ranks, job

    def stage(self, name: str) -> StageResult | None:
        def read() -> tuple[dict[str, Any], dict[str, Tensor]] | None:
            found = None if self._job is None else self._job.stage(name)
            return None if found is None else (found.data, found.tensors)

        told = self._ranks.first(read)
        return None if told is None else _Told(told[0], held=told[1])

    def store(self, name: str, data: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> StageResult:
        if self._job is not None:
            self._job.store(name, data, tensors)
        return _Told(dict(data), held=dict(tensors or {}))

    def checkpoint(self, name: str) -> Path:
        """Where training keeps its checkpoint; it is the first process that does."""
        return NOWHERE / f"{name}.safetensors" if self._job is None else self._job.checkpoint(name)

    def part(self, name: str) -> SharedJob:
        return SharedJob(self._ranks, self._job.part(name) if isinstance(self._job, Job) else None)

    def diary(self, name: str) -> Diary | None:
        """Notes of the first process; None in the others, which have none to make."""
        return None if self._job is None else self._job.diary(name)


WholeJob = Job | SharedJob
"""A job that has parts."""
JobStages = Job | JobPart | SharedJob
"""Whoever stores the stages of a job, or of a part of one."""
