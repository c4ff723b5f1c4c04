"""How processes that were started for one job find each other, and how they part.

``torchrun`` says in the environment who there is, and a script of the user's own may have a process group already.
Either way the job has groups of its own, so that the user's is left as it was: one for tensors, and one, on the CPU,
for words. Whoever fails leaves them, and the others, waiting for it, get an error at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch

from compressor.errors import UsageError
from compressor.process.environment import launched_size
from compressor.process.ranks import ALONE, Ranks, working

MEETING = timedelta(minutes=3)
"""How long the first waits for the others to come."""
_WORK = timedelta(days=7)  # the others wait for what one does by itself; who has died is known without any clock


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
