"""A limit of memory that the kernel holds: a control group (version 2) for each job, where one may be made here.

Looking at a job twice a second misses a burst that takes the machine's memory in between. A group with ``memory.max``
does not: the kernel ends the job's processes, and ``memory.events`` says that it did. Groups may be made where whoever
runs this machine has handed a part of their tree over (systemd: ``Delegate=memory``). Elsewhere jobs are looked at.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)
ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_PREFIX = "compressor-job-"
_SUPERVISOR = "compressor-supervisor"
_DELEGATED = ("user.delegate", "trusted.delegate")
"""Attributes by which systemd marks what it has handed over."""
_TRIES, _PAUSE_SECONDS = 50, 0.02
# Joins the group before it becomes the job, so that all that the job starts is in it, too.
_JOIN = 'echo $$ > "$0"; exec "$@"'


class NoGroupsError(Exception):
    """Why no groups can be made here."""


@dataclass(frozen=True)
class MemoryGroup:
    """The control group of one job."""

    path: Path

    def command(self, command: list[str]) -> list[str]:
        """A command line that runs ``command`` inside."""
        return ["/bin/sh", "-c", _JOIN, str(self.path / "cgroup.procs"), *command]

    def killed(self) -> bool:
        """Whether the kernel ended something in it because its memory was used up."""
        with suppress(OSError):  # the group is gone, or the kernel does not count
            for line in (self.path / "memory.events").read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill" and count.strip().isdigit():
                    return int(count) > 0
        return False

    def close(self) -> None:
        """Remove it, once its processes are gone."""
        for _ in range(_TRIES):
            try:
                self.path.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:  # the last process is still being taken down
                time.sleep(_PAUSE_SECONDS)
        _log.warning("The control group %s cannot be removed.", self.path)


@dataclass(frozen=True)
class MemoryGroups:
    """Where control groups of jobs are made.

    Attributes:
        place: the group that they are made in.
    """

    place: Path

    def make(self, limit_bytes: int) -> MemoryGroup | None:
        """A group that holds at most ``limit_bytes``, swap and files in memory included; None where that fails."""
        path = self.place / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        try:
            _made(path, limit_bytes)
        except OSError as error:
            _log.warning("No control group for the job (%s); its memory is looked at instead.", error.strerror)
            return None
        return MemoryGroup(path)

    def clean(self) -> None:
        """Remove empty groups of workers that were killed."""
        for path in self.place.glob(f"{_PREFIX}*-*"):
            process = path.name.removeprefix(_PREFIX).partition("-")[0]
            if process.isdigit() and not os.path.exists(f"/proc/{process}"):
                with suppress(OSError):  # something still runs in it; the next worker tries again
                    path.rmdir()


def find_groups(root: Path = ROOT, own: Path = OWN) -> MemoryGroups:
    """Where this process may make groups, found by trying: beside its own one, or in it if it is alone there.

    Args:
        root: where the tree of groups is mounted. own: what says which group this process is in.

    Raises:
        NoGroupsError: nowhere, and why.
    """
    if sys.platform != "linux":
        raise NoGroupsError(f"control groups are of Linux, and this is {sys.platform}")
    try:
        listed = own.read_text()
        controllers = (root / "cgroup.controllers").read_text().split()
    except OSError:
        raise NoGroupsError(f"{root} is no tree of control groups of version 2") from None
    found = re.search(r"^0::(/.*)$", listed, re.MULTILINE)
    if found is None or "memory" not in controllers:
        raise NoGroupsError("control groups of version 2 do not limit memory here")
    here = root / found[1].lstrip("/")
    why = f"{here} is not handed over to this user (systemd: Delegate=memory)"
    for place in (here.parent, here) if here != root else (here,):
        if not _is_ours(place, root):
            continue
        try:
            if place == here:
                _step_down(here)
            _enable(place)
            path = place / f"{_PREFIX}{os.getpid()}-probe"
            _made(path, 1 << 30)
            path.rmdir()
        except OSError as error:
            why = f"{place} cannot be divided ({error.strerror})"
            continue
        return MemoryGroups(place)
    raise NoGroupsError(why)


def _is_ours(place: Path, root: Path) -> bool:
    """Whether a group was handed over. That it can be written to says too little: an administrator can write to all of
    them, and a user to those of a session, which systemd manages."""
    if not os.access(place / "cgroup.procs", os.W_OK) or not os.access(place, os.W_OK):
        return False
    for name in _DELEGATED:
        with suppress(OSError):  # the file system has no such attributes
            if os.getxattr(place, name) == b"1":
                return True
    # The top of a container's own tree; the top of a machine's has no type.
    return place == root and (root / "cgroup.type").exists()


def _step_down(here: Path) -> None:
    """Leave a group for one below it, since only groups without processes can be divided.

    Raises:
        OSError: others are in it, too, which are not to be moved.
    """
    there = [int(text) for text in (here / "cgroup.procs").read_text().split()]
    if there != [os.getpid()]:
        raise OSError(16, "other processes are in it")
    below = here / _SUPERVISOR
    below.mkdir(exist_ok=True)
    (below / "cgroup.procs").write_text(str(os.getpid()))


def _enable(place: Path) -> None:
    """Let groups in a place limit memory."""
    control = place / "cgroup.subtree_control"
    if "memory" not in control.read_text().split():
        control.write_text("+memory")


def _made(path: Path, limit_bytes: int) -> None:
    path.mkdir()
    try:
        (path / "memory.max").write_text(str(limit_bytes))
        for name, value in (("memory.swap.max", "0"), ("memory.oom.group", "1")):
            with suppress(OSError):  # no swap is accounted, or the kernel is older
                (path / name).write_text(value)
    except OSError:
        with suppress(OSError):  # the first error is the one to tell
            path.rmdir()
        raise
