"""How much the steps of a search say about an architecture: signal and noise of the task's gradients of masks.

    COMPRESSOR_DATA=DIR python -m benchmarks.speed.dnarch_signal [--write benchmarks/speed/dnarch_signal.md]

A CCNN that may grow is trained as in ``accuracy_dnarch.py``, with its masks held where they start, and the gradient of
the loss by every mask is noted in every step. Over some steps their mean is what the task says: ``t`` is that in
standard errors, so below 2 it may be chance. With the cost's gradient it tells what loss one per cent of the budget
saves, spent there.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.accuracy.accuracy_dnarch import TASKS, Task, load, make
from compressor.arrays import FloatArray
from compressor.costs import build
from compressor.data import Data
from compressor.graph import capture
from compressor.masks.ordered import FILTERED_EVERY
from compressor.search.constraints.constraint import Constraint
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dnarch.config import COMPONENTS, DnarchConfig
from compressor.search.methods.dnarch.learner import DnarchLearner
from compressor.storage.files import atomic_write_text


def batches(data: Data, task: Task) -> Iterator[tuple[Tensor, Tensor]]:
    count, epoch = 0, 0
    while True:
        for inputs, targets in data.train.batches(task.batch, shuffle_seed=epoch, drop_last=True):
            if count == task.steps:
                return
            yield inputs, targets
            count += 1
        epoch += 1


def gradients(task: Task, data: Data) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """By component: the task's gradients (steps, rows), and the gradient (rows,) of the share of the budget in use.
    Rows without either, those of blocks that are not there, are left out."""
    torch.manual_seed(0)
    base, model = make(task, data, 1), make(task, data, 2)
    limit = build("complexity", capture(base, data.example_inputs)).original
    graph = capture(model, data.example_inputs, kernels=True, resolution=True)
    projector = Projector(graph, [Constraint(build("complexity", graph), limit)])
    scores = np.zeros(graph.n_units), np.zeros(len(graph.blocks))
    masks = DnarchLearner(model, projector, DnarchConfig(grow=2), scores)
    masks.strengthen_()
    rows = dict(zip(COMPONENTS, masks.rows, strict=True))
    cost = projector.constraints[0].term(masks.sizes()) / limit
    prices = torch.autograd.grad(cost, [r.offsets for r in rows.values()], allow_unused=True)
    weights = [*model.parameters(), *(p for group in masks.param_groups() for p in group["params"])]
    optimizer = torch.optim.AdamW(weights, lr=task.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, task.lr, total_steps=task.steps + 1, pct_start=0.05)
    found: dict[str, list[FloatArray]] = {name: [] for name in COMPONENTS}
    model.train()
    for inputs, targets in batches(data, task):
        torch.nn.functional.cross_entropy(masks.forward(model, inputs), targets).backward()
        for name, each in rows.items():
            found[name].append(each.offsets.grad.numpy().copy())
            each.offsets.grad = None
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
    task_says = {name: np.stack(steps) for name, steps in found.items()}
    task_says["resolution"] /= FILTERED_EVERY  # each of these counts for so many steps
    there = {name: (steps != 0).any(0) for name, steps in task_says.items()}
    price = {n: np.zeros(len(r)) if p is None else p.numpy() for (n, r), p in zip(rows.items(), prices, strict=True)}
    return {n: s[:, there[n]] for n, s in task_says.items()}, {n: p[there[n]] for n, p in price.items()}


def t_value(samples: FloatArray) -> FloatArray:
    """Means over the first axis in standard errors."""
    error = samples.std(0, ddof=1) / math.sqrt(len(samples))
    value: FloatArray = samples.mean(0) / error
    return value


def lines(task: Task, data: Data) -> Iterator[str]:
    yield "| steps | masks over | masks | t of one | t of all together | loss that 1 % more of the budget saves |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    found, price = gradients(task, data)
    quarter = task.steps // 4
    for lo, hi in ((0, quarter), (quarter, 2 * quarter), (2 * quarter, task.steps)):
        for name, steps in found.items():
            some = steps[lo:hi]
            one = float(np.sqrt(np.mean(t_value(some) ** 2)))
            total, cost = some.sum(1), float(price[name].sum())
            worth = f"{-float(total.mean()) / cost / 100:+.5f}" if cost > 1e-6 else "free"
            yield f"| {lo}-{hi} | {name} | {some.shape[1]} | {one:.1f} | {float(t_value(total)):+.1f} | {worth} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="cifar10", choices=("cifar10", "fsdd"))
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    task = replace(TASKS[args.task], steps=args.steps)
    text = "\n".join(lines(task, load(task)))
    print(text)
    if args.write is not None:
        atomic_write_text(args.write, text + "\n")


if __name__ == "__main__":
    main()
