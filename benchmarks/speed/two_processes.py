"""What a step costs on two processes, beside one of ``DistributedDataParallel``; and under masks, beside the plain one.

    python -m benchmarks.speed.two_processes [--turns 20] [--batch 64] [--only resnet20_cifar,vit]

Steps of both kinds take turns in one run. Two processes of one thread each are connected by gloo. Prints rows of a table:
medians of seconds, and the median of the ratios of steps that follow each other.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import compressor
from compressor.backbones.resnet_cifar import resnet20_cifar
from compressor.process.together import together
from compressor.train import TrainConfig, Trainer

SHAPE = (3, 32, 32)


def vit() -> nn.Module:
    """0.14 M parameters: 4 layers of width 64 on 8 x 8 patches."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 4, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10)


MODELS: dict[str, Callable[[], nn.Module]] = {"resnet20_cifar": resnet20_cifar, "vit": vit}


class _Endless:
    """One batch, again and again."""

    def __init__(self, size: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.batch = torch.randn(size, *SHAPE, generator=draw), torch.arange(size) % 10

    def __len__(self) -> int:
        return 1000 * len(self.batch[0])

    def batches(self, batch_size: int, **told: Any) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield self.batch


class _Data:
    def __init__(self, size: int) -> None:
        self.train = self.val = _Endless(size)


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name]().train()


def plain_step(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Forward, backward and SGD, as any loop has them."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, fused=True)

    def step() -> None:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def masked_step(model: nn.Module, prepared: nn.Module, x: Tensor, y: Tensor, steps: int) -> Callable[[], None]:
    """The same under the masks of a session."""
    session = compressor.prepare(prepared, torch.randn(1, *SHAPE), {"flops": "50%"}, total_steps=steps)
    optimizer = torch.optim.SGD(prepared.parameters(), 0.01, momentum=0.9, fused=True)

    def step() -> None:
        (F.cross_entropy(model(x), y) + session.cost_loss()).backward()
        optimizer.step()
        optimizer.zero_grad()
        session.step()

    return step


def in_turn(one: Callable[[], None], other: Callable[[], None], turns: int) -> list[tuple[float, float]]:
    """Seconds of both, turn by turn."""
    found = []
    for turn in range(-3, turns):
        seconds = []
        for step in (one, other) if turn % 2 else (other, one):
            started = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - started)
        if turn >= 0:
            found.append((seconds[0], seconds[1]) if turn % 2 else (seconds[1], seconds[0]))
    return found


def row(what: str, name: str, found: list[tuple[float, float]]) -> None:
    ratios = sorted(other / one for one, other in found)
    low, high = ratios[len(ratios) // 4], ratios[(3 * len(ratios)) // 4]
    base, ours = (median(column) for column in zip(*found, strict=True))
    print(f"| {name} | {what} | {base:.4f} | {ours:.4f} | {median(ratios):.2f} ({low:.2f} to {high:.2f}) |", flush=True)


def _two(rank: int, folder: str, names: list[str], turns: int, batch: int) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=2)
    x, y = _Endless(batch).batch
    mine = x.chunk(2)[rank], y.chunk(2)[rank]
    for name in names:
        plain = plain_step(DistributedDataParallel(made(name)), *mine)
        with together(device=torch.device("cpu")):
            trainer = Trainer(made(name), _Data(batch), TrainConfig(epochs=1, batch_size=batch))
            found = in_turn(plain, training_step(trainer, (x, y)), turns)
        if rank == 0:
            row("the program's step, two processes / DDP", name, found)
        prepared = made(name)
        wrapped = DistributedDataParallel(prepared)
        found = in_turn(plain, masked_step(wrapped, prepared, *mine, steps=10 * turns), turns)
        if rank == 0:
            row("own loop with `prepare`, DDP / DDP", name, found)
    dist.barrier()
    dist.destroy_process_group()


def training_step(trainer: Trainer, batch: tuple[Tensor, Tensor]) -> Callable[[], None]:
    """Steps of the program's own training, one after the other."""
    count = itertools.count()
    return lambda: void(trainer._step(next(count), [batch]))


def void(found: object) -> None:
    """Forget it."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64, help="examples of a step, over all processes")
    parser.add_argument("--only", default=",".join(MODELS))
    told = parser.parse_args()
    names = told.only.split(",")
    print(
        "| model | step | its base, s | step, s | ratio (quartiles) |\n| --- | --- | ---: | ---: | ---: |", flush=True
    )
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    x, y = _Endless(told.batch).batch
    for name in names:
        prepared = made(name)
        found = in_turn(
            plain_step(made(name), x, y), masked_step(prepared, prepared, x, y, 10 * told.turns), told.turns
        )
        row("own loop with `prepare` / plain", name, found)
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_two, (folder, names, told.turns, told.batch), nprocs=2)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
