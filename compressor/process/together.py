"""How processes that were started for one job find each other, and how they part.

``torchrun`` says in the environment who there is, and a script of the user's own may have a process group already.
Either way the job has groups of its own, so that the user's is left as it was: one for tensors, and one, on the CPU,
for words. Whoever fails leaves them, and the others, waiting for it, get an error at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch

from compressor.errors import UsageError
from compressor.process.ranks import ALONE, Ranks, working

MEETING = timedelta(seconds=60)
"""How long the first waits for the others to come."""
_WORK = timedelta(days=7)  # the others wait for what one does by itself; who has died is known without any clock
_SAID = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def launched_size() -> int:
    """How many processes ``torchrun``, or whoever sets its variables, started; 1 where nobody did.

    Raises:
        UsageError: the variables say nothing that can be.
    """
    if not all(name in os.environ for name in _SAID):
        return 1
    said = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    if not all(value.isdecimal() for value in said.values()) or not 0 <= int(said["RANK"]) < int(said["WORLD_SIZE"]):
        shown = ", ".join(f"{name}={value}" for name, value in said.items())
        raise UsageError(f"The environment names no process of a group ({shown}); start with torchrun, or unset these.")
    return int(said["WORLD_SIZE"])


def launched_rank() -> int:
    """Which of the processes that were started together this is, from 0."""
    return int(os.environ["RANK"]) if launched_size() > 1 else 0


def own_device(name: str) -> str:
    """The device of this process among several on one machine, for a job on ``name``.

    Raises:
        UsageError: all would share one, or there are too few.
    """
    if launched_size() == 1 or name == "cpu":
        return name
    if name == "mps" or name.startswith("cuda:"):
        raise UsageError(
            f"--device {name} is one device, and {launched_size()} processes train together; pass cuda, and each takes "
            "one of its own, or cpu."
        )
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto" and not there:
        return "cpu"
    if local >= there:
        raise UsageError(
            f"Process {local} of this machine has no GPU of its own: there are {there}. Start at most one process for "
            "each (--nproc-per-node), or pass --device cpu."
        )
    return f"cuda:{local}"


@contextmanager
def launched(device: torch.device) -> Iterator[None]:
    """Inside, there is the process group that the environment describes, made and ended here; none for one process, and
    where there is a group already it is left alone."""
    distributed = torch.distributed
    if launched_size() == 1 or not distributed.is_available() or distributed.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_WORK)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def together(group: Any = None, *, device: torch.device) -> Iterator[Ranks]:
    """Inside, this thread works together with the other processes of ``group``, which call this, too.

    Args:
        group: of ``torch.distributed``; None is all there are. In a group of one, or without any, a process is alone.
        device: what this process computes on.

    Raises:
        UsageError: not all processes of the group came.
    """
    if Ranks(group).size == 1:
        with working(ALONE) as ranks:
            yield ranks
        return
    distributed = torch.distributed
    members = distributed.get_process_group_ranks(group if group is not None else distributed.group.WORLD)
    words = _met(members)
    made = [words]
    try:
        tensors = words
        if device.type == "cuda":
            tensors = distributed.new_group(members, backend="nccl", use_local_synchronization=True)
            made.append(tensors)
        with working(Ranks(tensors, words)) as ranks:
            yield ranks
        distributed.barrier(words)
    finally:
        for each in reversed(made):
            with suppress(RuntimeError, ValueError):  # whoever has died cannot say goodbye
                distributed.destroy_process_group(each)


def _met(members: list[int]) -> Any:
    """A group for words, once all are here."""
    distributed = torch.distributed
    try:
        meeting: Any = distributed.new_group(members, MEETING, "gloo", use_local_synchronization=True)
        distributed.monitored_barrier(meeting, MEETING, wait_all_ranks=True)
        words = distributed.new_group(members, _WORK, "gloo", use_local_synchronization=True)
    except RuntimeError as error:
        raise UsageError(
            f"Of the {len(members)} processes of the group not all came within {MEETING.total_seconds():.0f} s. Every "
            "process of a group has to make the same call; for work that each does by itself pass process_group=, a "
            f"group of one ({str(error).strip().splitlines()[-1]})."
        ) from error
    distributed.destroy_process_group(meeting)
    return words
