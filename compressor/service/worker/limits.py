"""What a job may use of its worker's machine.

Open files and the size of a file are limits of the kernel, which the child sets for itself before it imports anything
else. Memory is that of all processes of the job together, which no such limit covers (address space is no measure:
torch reserves many times what it uses). The kernel holds it where it lets the worker make a control group
(``cgroups.py``). The worker looks at it anyway, as at the folder and the time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compressor.errors import UsageError
from compressor.service.worker.processes import Group

GIB = 1 << 30
_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_LEAST_MEMORY = 256 << 20
_CURE = "(--memory of the worker); use a smaller model, input or batch."


@dataclass(frozen=True)
class Limits:
    """What a job may use at most.

    Attributes:
        memory_bytes: of all its processes together.
        seconds: of one attempt, by the clock on the wall.
        file_bytes: of one file.
        folder_bytes, folder_files: of its folder, temporary files included.
        open_files: at a time, in one process.
        processes: at a time.
    """

    memory_bytes: int = 8 * GIB
    seconds: float = 24 * 3600.0
    file_bytes: int = 16 * GIB
    folder_bytes: int = 32 * GIB
    folder_files: int = 20_000
    open_files: int = 4096
    processes: int = 256

    def to_json(self) -> dict[str, Any]:
        """The limits as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Limits:
        """What ``to_json`` gave."""
        return cls(**values)


def read_bytes(text: str, what: str) -> int:
    """``8GiB``, ``500MB``, ``2G`` or a number of bytes; K, M, G and T are powers of 1024.

    Raises:
        UsageError: it is nothing of the kind, or not above 0.
    """
    digits = text.strip().upper().removesuffix("IB").removesuffix("B").strip()
    unit = digits[-1:] if digits[-1:] in _UNITS and digits[-1:] else ""
    try:
        found = int(float(digits.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, OverflowError):
        found = 0
    if found <= 0:
        raise UsageError(f"{what} takes an amount such as 8GiB, not {text!r}.")
    return found


def require_usable(limits: Limits) -> None:
    """Raise ``UsageError`` for limits that no job can live with."""
    if limits.memory_bytes < _LEAST_MEMORY:
        raise UsageError(
            f"--memory {shown_bytes(limits.memory_bytes)} is less than PyTorch needs; 256 MiB is the least."
        )
    if limits.seconds <= 0:
        raise UsageError("--hours must be above 0.")


def shown_bytes(count: float) -> str:
    """``8 GiB``, ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


def shown_seconds(seconds: float) -> str:
    """``24 h``, ``90 s``."""
    return f"{seconds / 3600:.4g} h" if seconds >= 600 else f"{seconds:.4g} s"


def out_of_memory(limits: Limits) -> str:
    """What to say of a job that the kernel ended because its memory was used up."""
    return f"The job used more memory than the limit of {shown_bytes(limits.memory_bytes)} {_CURE}"


def restrict(limits: Limits) -> None:
    """Set what the kernel watches over, for this process and those that it will start."""
    if os.name != "posix":
        return
    import resource

    for kind, most in (
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))


class Watch:
    """Looks at a job from outside.

    Args:
        folder: what it may write to.
        clock: seconds, never going back.
    """

    def __init__(self, limits: Limits, group: Group, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._group, self._folder, self._clock = limits, group, folder, clock
        self._began = clock()
        self._look_at_folder = self._began
        self._before = measured(folder)  # what it was given to read

    def exceeded(self) -> str | None:
        """Which limit the job is past, in a line; None if none. Takes a millisecond or two."""
        limits, now = self._limits, self._clock()
        if now - self._began > limits.seconds:
            return (
                f"The job ran longer than the time limit of {shown_seconds(limits.seconds)} (--hours of the worker); "
                "a retry goes on from its last stage."
            )
        processes = self._group.processes()
        if len(processes) > limits.processes:
            return f"The job had {len(processes)} processes at a time, more than the limit of {limits.processes}."
        used = self._group.memory(processes, above=limits.memory_bytes)
        if used > limits.memory_bytes:
            return (
                f"The job used {shown_bytes(used)} of memory, more than the limit of "
                f"{shown_bytes(limits.memory_bytes)} {_CURE}"
            )
        if now >= self._look_at_folder:
            found = self._folder_exceeded()
            took = self._clock() - now
            self._look_at_folder = self._clock() + max(2.0, 20 * took)  # large folders are looked at less often
            return found
        return None

    def _folder_exceeded(self) -> str | None:
        files, size = (now - before for now, before in zip(measured(self._folder), self._before, strict=True))
        if files > self._limits.folder_files:
            return f"The job's folder had {files} files, more than the limit of {self._limits.folder_files}."
        if size > self._limits.folder_bytes:
            return (
                f"The job's folder had {shown_bytes(size)}, more than the limit of "
                f"{shown_bytes(self._limits.folder_bytes)}."
            )
        return None


def measured(folder: Path) -> tuple[int, int]:
    """Files in a folder and all below it, and their bytes on the disk. Links are not followed."""
    files = size = 0
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    files += 1
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        status = entry.stat(follow_symlinks=False)
                        size += min(status.st_size, getattr(status, "st_blocks", 1 << 60) * 512)
        except OSError:
            continue  # gone meanwhile
    return files, size
