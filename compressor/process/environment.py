"""What ``torchrun``, or whoever starts several processes as it does, says in the environment.

Nothing here imports torch before it has to.
"""

from __future__ import annotations

import os

from compressor.errors import UsageError

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
    import torch

    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto" and not there:
        return "cpu"
    if local >= there:
        raise UsageError(
            f"Process {local} of this machine has no GPU of its own: there are {there}. Start at most one process for "
            "each (--nproc-per-node), or pass --device cpu."
        )
    return f"cuda:{local}"
