"""Work in several processes that form one group, as ``torchrun`` would start them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _work(rank: int, folder: str, size: int, work: Callable[..., Any]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=size)
    torch.save(work(rank), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def in_processes(folder: Path, work: Callable[..., Any], size: int = 2) -> list[Any]:
    """What ``work(rank)`` gives in each of ``size`` processes of one gloo group; ``work`` is a function of a module."""
    mp.spawn(_work, (str(folder), size, work), nprocs=size)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]
