"""All processes of a job: found, weighed, held still and killed as one.

In a sandbox they are what descends from it, and the kernel kills them all with its first process. Elsewhere each has a
mark in its environment, so that one which left the process group is found, too.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from compressor.process.groups import kill_group

MARK = "COMPRESSOR_JOB_MARK"
_PROC = Path("/proc")


@dataclass(frozen=True)
class Group:
    """The processes of one job.

    Attributes:
        leader: the process that the worker started, which leads a process group of its own.
        mark: what stands under ``MARK`` in the environment of each.
        inner: the first process of the job's own process namespace, if it has one.
    """

    leader: int
    mark: str
    inner: int | None = None

    def processes(self) -> list[int]:
        """Their ids, without the leader of a sandbox, which waits for them. Where /proc is missing, the leader."""
        parents = _parents()
        if not parents:
            return [self.leader]
        found, pending = [], [self.leader]
        children: dict[int, list[int]] = {}
        for child, parent in parents.items():
            children.setdefault(parent, []).append(child)
        while pending:
            here = pending.pop()
            found.append(here)
            pending += children.get(here, [])
        if self.inner is None:
            wanted = f"{MARK}={self.mark}".encode()
            found += [each for each in parents if each not in found and _has_mark(each, wanted)]
        return [each for each in found if each in parents and each != (self.leader if self.inner else None)]

    def memory(self, processes: list[int], *, above: float) -> float:
        """Bytes that they hold for themselves. What several share is told apart where the sum is ``above`` a number:
        that takes longer."""
        used = sum(_resident(each) for each in processes)
        return used if used <= above else float(sum(_proportional(each) for each in processes))

    def stop(self, *, within: float = 2.0) -> list[int]:
        """Hold them still; returns those that do. What takes longer than ``within`` seconds runs on."""
        stopped: set[int] = set()
        end = time.monotonic() + within
        while time.monotonic() < end:
            there = [each for each in self.processes() if each != self.inner]
            for each in set(there) - stopped:
                _signal(each, signal.SIGSTOP)
                stopped.add(each)
            if all(_is_still(each) for each in there) and not set(self.processes()) - stopped - {self.inner}:
                break
            time.sleep(0.002)
        return sorted(stopped)

    def go_on(self, stopped: list[int]) -> None:
        """Let those go on that ``stop`` held."""
        for each in stopped:
            _signal(each, signal.SIGCONT)

    def kill(self) -> None:
        """Kill them all."""
        if self.inner is not None:
            _signal(self.inner, signal.SIGKILL)  # the kernel kills all of its namespace, and the leader ends with it
            return
        kill_group(self.leader)
        for _ in range(100):  # one may fork while the list is made
            left = [each for each in self.processes() if each != self.leader and not _is_dead(each)]
            if not left:
                return
            for each in left:
                _signal(each, signal.SIGKILL)
            time.sleep(0.01)


def _parents() -> dict[int, int]:
    """The parent of every process; empty where there is no /proc."""
    found = {}
    with suppress(OSError):  # there is no /proc
        for name in os.listdir(_PROC):
            if name.isdigit() and (fields := _stat(int(name))) is not None:
                found[int(name)] = int(fields[1])
    return found


def _stat(process: int) -> list[str] | None:
    """State, parent and so on, what follows the name, which may hold anything."""
    try:
        text = (_PROC / str(process) / "stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _is_still(process: int) -> bool:
    fields = _stat(process)
    return fields is None or fields[0] in "TtZX"


def _is_dead(process: int) -> bool:
    fields = _stat(process)
    return fields is None or fields[0] in "ZX"


def _has_mark(process: int, wanted: bytes) -> bool:
    try:
        return wanted in (_PROC / str(process) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _resident(process: int) -> int:
    """Bytes of memory of its own: no files, which the kernel can drop."""
    found = 0
    with suppress(OSError, ValueError):  # it has ended meanwhile, and takes nothing
        for line in (_PROC / str(process) / "status").read_text(errors="replace").splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                found += int(line.split()[1]) * 1024
    return found


def _proportional(process: int) -> int:
    """The same, with its share of what it has together with others."""
    found, known = 0, False
    with suppress(OSError, ValueError):  # it has ended meanwhile, or the kernel is older
        for line in (_PROC / str(process) / "smaps_rollup").read_text(errors="replace").splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                found += int(line.split()[1]) * 1024
                known = True
    return found if known else _resident(process)


def _signal(process: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has ended meanwhile
        os.kill(process, number)
