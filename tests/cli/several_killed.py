"""A job on one or two processes, begun again and again: one is killed at a random moment, and the other has to end.

What is imported is imported once, and the processes of each attempt are forked. Arguments: folder, processes, kills,
seed, and further words of the command line. Prints how each attempt ended, as JSON lines: with what the process that
was left alone said, whether anything could not be compiled, and a digest of the result where there is one.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import compressor.jobs.run  # noqa: F401  (before the fork)
from compressor.cli import main
from compressor.data import Data, from_tensors

JOB = shlex.split(
    "--model tests.cli.several_killed:tiny --weights none --data tests.cli.several_killed:few --budget-flops 50% "
    "--search figs --figs.least-steps 0 --train-epochs 2 --search-epochs 3 --finetune-epochs 2 "
    "--batch-size 16 --lr 0.02 --accumulate 2 "
    "--distill 0.2 --tune.lr 0.05,0.01 --bench-seconds 0 --export none"
)


class Branch(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.last(torch.relu(self.norm(self.first(x)))))


def tiny(num_classes: int = 10, in_channels: int = 1) -> nn.Module:
    """Batch statistics, a residual branch and noise."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        Branch(8),
        nn.MaxPool2d(2),
        Branch(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(8, num_classes),
    )


def unlike(num_classes: int = 10, in_channels: int = 1) -> nn.Module:
    """The same without batch statistics, which are not compiled on several processes."""
    net = tiny(num_classes, in_channels)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(1, child.num_features))
    return net


def few() -> Data:
    """Small images whose class shows in where they are bright."""
    draw = torch.Generator().manual_seed(0)
    y = torch.randint(10, (400,), generator=draw)
    x = torch.randn(400, 1, 8, 8, generator=draw)
    x[torch.arange(400), 0, y % 8, y % 8] += 4
    return from_tensors((x[:320], y[:320]), (x[320:360], y[320:360]), (x[360:], y[360:]), name="bright")


def begin(out: Path, size: int, words: list[str]) -> list[int]:
    """The ids of all processes."""
    found, port = [], free_port()
    for rank in range(size):
        if not (process := os.fork()):
            torch.set_num_threads(1)  # a fork's pool of threads is made anew, here and not by two threads at once
            if size > 1:
                os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            said = os.open(out.parent / f"said-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os._exit(main([*JOB, *words, "--out", str(out)]))
        found.append(process)
    return found


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def digest(out: Path) -> str:
    """Of the bits that kills must not change."""
    files = [out / name for name in ("model.safetensors", "architecture.json")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def attempt(out: Path, size: int, words: list[str], after_s: float | None = None, victim: int = 0) -> dict[str, Any]:
    """One run, in which a process is killed ``after_s`` seconds from the beginning, unless it is over before."""
    processes = begin(out, size, words)
    left = dict(enumerate(processes))
    codes: dict[int, int] = {}
    started = time.monotonic()
    killed = None
    while left:
        for rank, process in list(left.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                codes[rank] = os.waitstatus_to_exitcode(status)
                del left[rank]
        if after_s is not None and killed is None and victim in left and time.monotonic() - started > after_s:
            os.kill(left[victim], signal.SIGKILL)
            killed = time.monotonic()
        time.sleep(0.01)
    said = [(out.parent / f"said-{rank}").read_text(errors="replace") for rank in range(size)]
    return {
        "codes": [codes[rank] for rank in range(size)],
        "killed": killed is not None,
        "seconds": round(time.monotonic() - (killed or started), 2),
        "said": said[(victim + 1) % size][-1500:],
        "as_written": any("runs as it is written" in each for each in said),
        "digest": digest(out) if (out / "report.json").exists() else None,
    }


def attempts(folder: Path, size: int, kills: int, seed: int, words: list[str]) -> None:
    torch.set_num_threads(1)
    few()  # imports what reads the data, too
    draw = random.Random(seed)
    alone, killed = folder / "alone" / "out", folder / "killed" / "out"
    for place in (alone, killed):
        place.parent.mkdir()
    whole = attempt(alone, size, words)
    print(json.dumps(whole), flush=True)
    done, takes = 0, whole["seconds"]
    while done < kills:
        if (killed / "report.json").exists():  # it was over before the kills were: begin again
            shutil.rmtree(killed)
        found = attempt(killed, size, words, draw.uniform(0.05, 0.7) * takes, draw.randrange(size))
        if found["killed"]:
            done += 1
        else:
            takes = min(takes, found["seconds"])  # once what compilers keep is there, a run is short
        print(json.dumps(found), flush=True)
    print(json.dumps(attempt(killed, size, words)), flush=True)


if __name__ == "__main__":
    attempts(Path(sys.argv[1]), *map(int, sys.argv[2:5]), sys.argv[5:])
