"""A job's folder: what is finished stays finished, whenever the process is killed.

A job is a row of named stages. Each stores its result when it ends, and a job opened again with the same fingerprint
finds the results there. What the job needs for that lies under ``<out>/.job``:

    job.json                   the fingerprint: what was asked for, and the schema version
    lock                       held (by the kernel, so never stale) while a process works in the folder
    stages/<name>.json         a finished stage; written last, so its presence is the commit
    stages/<name>.safetensors  the stage's tensors, if it has any
    checkpoints/<name>.*       for training inside a stage, dropped when the stage is stored

A stage's JSON holds checksums of itself and of the tensors. What does not agree with them is not trusted: the stage is
done again. What a killed process left half written is taken away when the job is opened and when it ends.

A job that fails before it has stored anything leaves nothing behind, so a mistyped option does not claim the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from compressor.errors import UsageError
from compressor.storage.files import (
    atomic_save_safetensors,
    atomic_write_json,
    load_safetensors,
    remove_dead_temporaries,
    remove_stale_temporaries,
    storage_errors,
)
from compressor.storage.lock import FolderLock
from compressor.storage.places import DEFAULT_FOLDER, EVENTS, RECIPE, TRACKING
from compressor.storage.reading import LARGE, read_json, sha256

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA_VERSION = 1
_FOLDER = ".job"
_STAGE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclass(frozen=True)
class StageResult:
    """What a finished stage left behind. ``data`` is JSON; ``tensors`` are read from the disk on first use."""

    data: dict[str, Any]
    path: Path | None = field(default=None, repr=False)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The stage's tensors by name, on the CPU; empty if it stored none."""
        return {} if self.path is None else load_safetensors(self.path)[0]


class Job:
    """An open job folder, locked until ``close`` (or the end of a ``with`` block, or of the process)."""

    def __init__(
        self,
        out: Path,
        lock: FolderLock,
        *,
        resumed: bool,
        took_over: bool,
        made: list[Path],
        warn: Callable[[str], None] | None,
    ) -> None:
        self.out = out
        self.resumed = resumed
        """Whether the folder held this job already, finished stages or not."""
        self._lock = lock
        self._took_over = took_over  # from a job that stored nothing: what it left beside goes with this one
        self._made = made
        self._warn = warn
        self._folder = out / _FOLDER
        self._beside: list[Path] = []

    @classmethod
    def open(
        cls,
        out: str | os.PathLike[str],
        fingerprint: Mapping[str, Any],
        *,
        force: bool = False,
        warn: Callable[[str], None] | None = None,
        upgrade: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> Job:
        """Open ``out`` for the job that ``fingerprint`` (JSON values) describes, making or continuing it.

        A folder whose job has stored nothing yet is taken over. With ``force``, a folder of another job loses what
        that job stored under ``.job``; other files stay until they are written again. A folder of the same job is
        continued with or without ``force``. ``warn`` is told of what is damaged and done again. ``upgrade`` turns a
        fingerprint that an earlier version wrote into today's.

        Raises:
            UsageError: ``out`` is a file, holds another job or other files, or another process works in it.
            CompressorError: the folder cannot be written.
        """
        folder = Path(out)
        with storage_errors(folder):
            if folder.exists() and not folder.is_dir():
                raise UsageError(f"{folder} is a file; name a folder to write to.")
        with storage_errors(folder):
            made = [place for place in (folder, *folder.parents) if not place.exists()]
        _refuse_foreign(folder, force)
        _refuse_links(folder / _FOLDER)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = FolderLock.acquire(folder / _FOLDER / "lock", folder)
        took_over = (folder / _FOLDER / "job.json").exists() and not _stored(folder / _FOLDER)
        try:
            resumed = _claim(folder / _FOLDER, folder, dict(fingerprint), force, upgrade)
        except BaseException:
            lock.release()
            raise
        remove_dead_temporaries(folder)
        return cls(folder, lock, resumed=resumed, took_over=took_over, made=made, warn=warn)

    def stage(self, name: str) -> StageResult | None:
        """The stored result of a stage, or None if it has not finished or is damaged: then it is to be done again."""
        path, stored = self._path("stages", name, ".json"), self._path("stages", name, ".safetensors")
        if not path.exists():
            return None
        try:
            data, tensors = _checked(path, stored)
        except UsageError as error:
            if self._warn is not None:
                self._warn(f"{error} The stage {name!r} is done again.")
            return None
        return StageResult(data, stored if tensors else None)

    def store(self, name: str, data: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> StageResult:
        """Record a stage as finished and drop its training checkpoint. Atomic: all of it is there, or none.

        Raises:
            CompressorError: the disk is full or the folder cannot be written.
        """
        commit, stored = self._path("stages", name, ".json"), self._path("stages", name, ".safetensors")
        with storage_errors(commit):
            commit.unlink(missing_ok=True)  # a result stored before must never meet the new tensors
        if tensors:
            atomic_save_safetensors(stored, tensors)
        plain = json.loads(json.dumps(dict(data)))
        # Measured values may be NaN (the loss of an untrained network, say); the file is read by this class alone.
        content = {
            "stage": name,
            "tensors": sha256(stored) if tensors else None,
            "sha256": _digest(plain),
            "data": plain,
        }
        atomic_write_json(commit, content, allow_nan=True)
        with storage_errors(commit):
            for checkpoint in self.checkpoint(name).parent.glob(f"{name}.*"):  # training in parts has one for each
                checkpoint.unlink(missing_ok=True)
            if not tensors:
                stored.unlink(missing_ok=True)
        return StageResult(plain, stored if tensors else None)

    def take_over(self, folder: str | os.PathLike[str], names: Mapping[str, str]) -> None:
        """Store what another job did in the same way, by the stages' names there and here.

        What is stored here already stays; what is not there, or is damaged, is left to be done.
        """
        for theirs, name in names.items():
            place = Path(folder) / _FOLDER / "stages"
            path, stored = place / f"{theirs}.json", place / f"{theirs}.safetensors"
            if not path.is_file() or self._path("stages", name, ".json").exists():
                continue
            with contextlib.suppress(UsageError):
                data, has_tensors = _checked(path, stored)
                self.store(name, data, load_safetensors(stored)[0] if has_tensors else None)

    def checkpoint(self, name: str) -> Path:
        """Where training inside the stage ``name`` keeps its checkpoint; in parts, ``<name>.<part>.safetensors``."""
        return self._path("checkpoints", name, ".safetensors")

    def part(self, name: str) -> JobPart:
        """The stages of one part of the job, apart from those of others."""
        return JobPart(self, name)

    def diary(self, name: str) -> Diary:
        """A stage that is stored again and again while it goes on."""
        return Diary(self, name)

    @property
    def id(self) -> str:
        """The same for as long as this job goes on; another job in the folder has another."""
        path = self._folder / "job.json"
        return hashlib.sha256(path.read_bytes() + str(path.stat().st_mtime_ns).encode()).hexdigest()[:12]

    def beside(self, name: str) -> Path:
        """Where something lies that goes with the job if it fails before it has stored anything, unless it was there
        before any job."""
        path = self.out / name
        if self._took_over or not path.exists():
            self._beside.append(path)
        return path

    def close(self) -> None:
        """Let other processes use the folder. Harmless when called again."""
        self._lock.release()

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        remove_stale_temporaries(self._folder)
        remove_dead_temporaries(self.out)
        if error is not None and not _stored(self._folder):
            self._forget()
        self.close()

    def _forget(self) -> None:
        """Take away what opening made; the lock file last, and the folder only if nothing else is in it."""
        with contextlib.suppress(OSError):  # another error is on its way out, and an empty folder does no harm
            for path in self._beside:  # before job.json, without which they are in the way of another job
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            (self._folder / "job.json").unlink(missing_ok=True)
            for kind in ("stages", "checkpoints"):
                if (self._folder / kind).is_dir():
                    (self._folder / kind).rmdir()
            (self._folder / "lock").unlink()
            self._folder.rmdir()
            self.out.rmdir()
            # What the job made on the way there, and the folder of all jobs: a killed one cannot have said so.
            for place in self.out.parents:
                if place not in self._made and place.name != DEFAULT_FOLDER:
                    break
                place.rmdir()

    def _path(self, kind: str, name: str, suffix: str) -> Path:
        if not _STAGE_NAME.fullmatch(name):
            raise UsageError(f"A stage cannot be called {name!r}; use lower-case letters, digits, '-', '_' and '.'.")
        return self._folder / kind / f"{name}{suffix}"


@dataclass(frozen=True)
class JobPart:
    """Stages of a job under names that begin with ``name``; see the methods of ``Job``."""

    job: Job
    name: str

    def stage(self, name: str) -> StageResult | None:
        return self.job.stage(f"{self.name}.{name}")

    def store(self, name: str, data: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> StageResult:
        return self.job.store(f"{self.name}.{name}", data, tensors)

    def checkpoint(self, name: str) -> Path:
        return self.job.checkpoint(f"{self.name}.{name}")

    def diary(self, name: str) -> Diary:
        return self.job.diary(f"{self.name}.{name}")


@dataclass(frozen=True)
class Diary:
    """Notes of a stage that is not finished yet."""

    job: Job
    name: str

    def read(self) -> dict[str, Any] | None:
        """What was written last, if anything that is not damaged."""
        stored = self.job.stage(self.name)
        return None if stored is None else stored.data

    def write(self, data: Mapping[str, Any]) -> None:
        """Keep ``data``, JSON, in the place of what was there. Raises ``CompressorError`` if the disk is full."""
        self.job.store(self.name, data)


def _checked(path: Path, stored: Path) -> tuple[dict[str, Any], bool]:
    """A stage's data, and whether it has tensors. Raises ``UsageError`` if either is not what was written."""
    cure = "it cannot be used"
    content = read_json(path, cure, limits=LARGE, allow_nan=True)
    if not isinstance(content, dict) or not isinstance(content.get("data"), dict):
        raise UsageError(f"{path} is no stage of a job; {cure}.")
    if content.get("sha256") != _digest(content["data"]):
        raise UsageError(f"{path} is damaged; {cure}.")
    expected = content.get("tensors")
    if expected is not None and expected != sha256(stored, cure):
        raise UsageError(f"{stored} is damaged; {cure}.")
    return content["data"], expected is not None


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _refuse_links(folder: Path) -> None:
    """A job's own folders are never links: what is in them gets deleted and overwritten."""
    for place in (folder, folder / "stages", folder / "checkpoints"):
        if place.is_symlink():
            raise UsageError(f"{place} is a symbolic link, no folder of a job; delete it, and run again.")
        if place.exists() and not place.is_dir():
            raise UsageError(f"{place} is a file, no folder of a job; delete it, and run again.")


def _refuse_foreign(out: Path, force: bool) -> None:
    """Refuse a folder with content that no job made, before anything is written into it."""
    if force or not out.is_dir() or (out / _FOLDER / "job.json").exists():
        return
    # A job killed right after it made its folder leaves ``.job`` with a lock alone, and that is no obstacle.
    other = sorted(entry.name for entry in out.iterdir() if entry.name != _FOLDER)
    if other:
        raise UsageError(
            f"The folder {out} is not empty ({other[0]!r} is there) and holds no job; "
            "choose another one, or pass --force to write into it."
        )


def _claim(
    folder: Path,
    out: Path,
    fingerprint: dict[str, Any],
    force: bool,
    upgrade: Callable[[dict[str, Any]], dict[str, Any]],
) -> bool:
    """Make the folder this job's; returns whether it was already. Called with the lock held."""
    wanted = json.loads(json.dumps(fingerprint))  # as it will read when it comes back
    path = folder / "job.json"
    found = _read_json(path) if path.exists() else None
    if found is not None and isinstance(found.get("fingerprint"), dict):
        found["fingerprint"] = upgrade(found["fingerprint"])
    if found is not None and found.get("schema_version") == SCHEMA_VERSION and found.get("fingerprint") == wanted:
        remove_stale_temporaries(folder)
        return True
    others = (entry for entry in out.iterdir() if entry != folder and entry.name not in (RECIPE, EVENTS, TRACKING))
    if path.exists() and not force and (_stored(folder) or any(others)):
        raise UsageError(
            f"The folder {out} holds another job ({_difference(found, wanted)}); "
            "choose another one, or pass --force to overwrite it."
        )
    with storage_errors(folder):
        path.unlink(missing_ok=True)  # first, so that nobody takes half of the old job for a whole one
        for kind in ("stages", "checkpoints"):
            if (folder / kind).exists():
                shutil.rmtree(folder / kind)
    remove_stale_temporaries(folder)
    atomic_write_json(path, {"schema_version": SCHEMA_VERSION, "fingerprint": wanted})
    return False


def _stored(folder: Path) -> bool:
    """Whether a stage or a checkpoint lies in a job's ``.job`` folder."""
    return any(any((folder / kind).glob("[!.]*")) for kind in ("stages", "checkpoints"))


def _difference(found: dict[str, Any] | None, wanted: dict[str, Any]) -> str:
    """What sets the job in the folder apart from this one, in a few words."""
    if found is None or not isinstance(found.get("fingerprint"), dict):
        return "its job.json is damaged"
    if found.get("schema_version") != SCHEMA_VERSION:
        return f"written with schema version {found.get('schema_version')}, this program writes {SCHEMA_VERSION}"
    old = found["fingerprint"]
    names = [name for name in {**wanted, **old} if old.get(name) != wanted.get(name)]
    shown = [f"{name} was {_short(old.get(name))}, now {_short(wanted.get(name))}" for name in names[:3]]
    return "; ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = read_json(path, "delete it")
    except UsageError:
        return None  # the callers say what a damaged file means
    return value if isinstance(value, dict) else None
