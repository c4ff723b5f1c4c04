"""Start the process of a job, in a sandbox or in a process group, and hold on to all that becomes of it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from compressor.process.groups import kill_group
from compressor.service.worker.cgroups import MemoryGroup, MemoryGroups
from compressor.service.worker.config import WorkerConfig, data_place
from compressor.service.worker.errors import SandboxError
from compressor.service.worker.log import CappedLog
from compressor.service.worker.processes import Group
from compressor.service.worker.sandbox import HOME, Sandbox
from compressor.service.worker.surroundings import caches, environment

JOB = "job.json"
"""What a child is to do, written into its folder before it is told to go."""
MADE = ("result", "tmp", "home", "cache", "uploads", "parent")
"""Folders that every job's folder has."""


@dataclass
class Running:
    """A child. It ends with the thread that started it, however that ends.

    Attributes:
        folder: of the job.
        events: what it says, JSON lines; ends with it.
        log: what it wrote to stdout and stderr.
        out_of_memory: whether the kernel ended something of it for its memory; told once it is ``gone``.
        memory: the control group that limits its memory, where there is one.
    """

    folder: Path
    process: subprocess.Popen[bytes]
    group: Group
    events: IO[bytes]
    log: CappedLog
    memory: MemoryGroup | None = None
    gone: bool = False
    out_of_memory: bool = False

    def go(self) -> None:
        """Tell it that its job lies in its folder."""
        assert self.process.stdin is not None
        with suppress(OSError):  # it is dead already, which its end tells
            self.process.stdin.write(b"go\n")
            self.process.stdin.close()

    def exit_code(self) -> int | None:
        """As of ``subprocess``: negative for a signal; None while it runs. A sandbox gives 128 + signal."""
        code = self.process.poll()
        return code if code is None or self.group.inner is None or not 128 < code < 160 else 128 - code

    def kill(self) -> None:
        """End it with all processes that it began; returns when they are gone. Again does nothing: their ids may be
        those of others by then."""
        if self.gone:
            return
        self.gone = True
        if self.group.inner is None or self.process.poll() is None:
            self.group.kill()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # a process that hangs in the kernel, or a first one that was not found
            kill_group(self.process.pid)
            with suppress(subprocess.TimeoutExpired):  # it hangs in the kernel; nobody can do more
                self.process.wait(timeout=10)
        self.log.close()
        if self.memory is not None:
            self.out_of_memory = self.memory.killed()
            self.memory.close()


def make_folder(folder: Path) -> None:
    """The empty folder of a job."""
    for name in MADE:
        (folder / name).mkdir(parents=True, exist_ok=True)


def launch(config: WorkerConfig, sandbox: Sandbox | None, folder: Path, groups: MemoryGroups | None = None) -> Running:
    """Start a child that imports what it needs and waits for ``go``.

    Call it in a thread that outlives the child: the kernel ends the child with the thread.

    Args:
        folder: made by ``make_folder``.
        groups: where a control group for its memory can be made.
    """
    mark = secrets.token_hex(8)
    said, tell = os.pipe()
    given = json.dumps(config.limits.to_json())
    command = [sys.executable, "-m", "compressor.service.worker.child", str(tell), config.work, given]
    own = config.python_path if config.code != "no" else ()
    informed: int | None = None
    passed, home = [tell], str(folder)
    if sandbox is not None:
        home = HOME
        informed, inform = os.pipe()
        passed.append(inform)
        places = [*caches(), *own, *_of_datasets(config)]
        hidden = [config.scratch, *config.hidden]
        command = sandbox.command(folder, command, readable=places, hidden=hidden, info=inform)
    memory = groups.make(config.limits.memory_bytes) if groups is not None else None
    if memory is not None:
        command = memory.command(command)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=passed,
            cwd=folder,
            env=environment(home, mark, python_path=own),
            start_new_session=True,
        )
    except OSError as error:
        for each in (said, *([informed] if informed is not None else [])):
            os.close(each)
        if memory is not None:
            memory.close()
        raise SandboxError(f"The process of a job cannot be started: {error.strerror or error}.") from error
    finally:
        for each in passed:
            os.close(each)
    assert process.stdout is not None
    inner = None if informed is None else _first_process(informed)
    log = CappedLog(process.stdout)
    return Running(folder, process, Group(process.pid, mark, inner), os.fdopen(said, "rb"), log, memory)


def _first_process(informed: int) -> int | None:
    """The id that bubblewrap tells of the first process in its sandbox; None if it ended before there was one."""
    with os.fdopen(informed, "rb") as file, suppress(ValueError, KeyError, TypeError):  # it ended before it told
        return int(json.load(file)["child-pid"])
    return None


def _of_datasets(config: WorkerConfig) -> list[str]:
    """Files and folders that registered data sets are read from."""
    places = [data_place(spec) for spec in config.datasets.values()]
    return [place for place in places if place is not None and os.path.exists(place)]
