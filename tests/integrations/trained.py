"""A small network on small data, and what two trainings have in common, for every framework."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from tests.own_loop.loops import EXAMPLE, Net, made

ROOT = Path(__file__).resolve().parents[2]
BUDGET = {"flops": "50%"}
SAMPLES = 40


def data() -> TensorDataset:
    """Vectors (40, 12) and their three classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, 12, generator=generator)
    return TensorDataset(x, x[:, :3].argmax(1))


class Endless(IterableDataset[Any]):
    """The same without a length."""

    def __iter__(self) -> Any:
        samples: Dataset[Any] = data()
        return (samples[i % SAMPLES] for i in range(10**6))


def network() -> nn.Module:
    net: nn.Module = made(Net)
    return net


def assert_same(one: nn.Module, other: nn.Module) -> None:
    """Bit for bit the same network."""
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


def assert_small(small: nn.Module) -> None:
    whole, left = (sum(p.numel() for p in net.parameters()) for net in (Net(), small))
    assert left < 0.75 * whole
    assert small(EXAMPLE).shape == (2, 3)


def kill_after(step: int) -> None:
    """End this process as the kernel does when memory is short."""
    if step == int(os.environ.get("KILL_AFTER", "-1")):
        os.kill(os.getpid(), signal.SIGKILL)


def run(script: str, folder: Path, *arguments: str, kill_after: int | None = None) -> None:
    """Run a module of these tests in a process of its own, which dies there after a step or ends well."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if kill_after is not None:
        environment["KILL_AFTER"] = str(kill_after)
    found = subprocess.run(
        [sys.executable, "-m", script, str(folder), *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == (0 if kill_after is None else -signal.SIGKILL), found.stderr
