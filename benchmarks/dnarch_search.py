"""Whole DNArch searches: is the budget met, and what does a search cost beside training the base network as long?

    python benchmarks/dnarch_search.py [--data digits cifar10:DIR] [--steps 200] [--write benchmarks/dnarch_search.md]

A search of a new ResNet-20 and the training of an equal one go side by side, step by step in turn, on the same batches,
so that other load on the machine falls on both. A step is forward, loss, backward and all optimizers, on images with
their channels last, as the program's own training lays them out. Both start with random weights: what counts here is
cost, not accuracy. The final cost is that of the network decided on. Seconds are processor time, which other load on
the machine hardly touches.
"""

from __future__ import annotations

import argparse
import copy
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compressor.costs import build
from compressor.data import Data, load_data
from compressor.graph import capture
from compressor.models import load_model
from compressor.search.base import Constraint
from compressor.search.dnarch import DnarchConfig, DnarchSession
from compressor.search.project import Projector
from compressor.train import Hooks
from compressor.train.layout import channels_last

BATCH = 64


@dataclass
class Row:
    """One search: budget and final cost as shares of the base network's, and seconds of both trainings."""

    data: str
    learn: str
    budget: float
    reached: float
    search_s: float
    plain_s: float


class Runner:
    """One network with its optimizers and hooks."""

    def __init__(self, model: nn.Module, hooks: Hooks) -> None:
        self.model, self.hooks, self.seconds = model.train(), hooks, 0.0
        self.optimizers = [
            torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4),
            *hooks.optimizers().values(),
        ]

    def step(self, inputs: Tensor, targets: Tensor, index: int, total: int) -> None:
        started = time.process_time()
        self.hooks.before_step(index, total)
        loss = nn.functional.cross_entropy(self.hooks.forward(self.model, inputs), targets)
        penalty = self.hooks.penalty()
        (loss if penalty is None else loss + penalty).backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.hooks.after_step(index, total)
        self.seconds += time.process_time() - started


def batches(data: Data, steps: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    index = 0
    while True:
        for batch in data.train.batches(BATCH, shuffle_seed=index, augment=True, drop_last=True):
            if index == steps:
                return
            yield index, batch
            index += 1


def measure(spec: str, data: Data, learn: tuple[str, ...] | None, budget: float, steps: int) -> Row:
    torch.manual_seed(0)
    shape = tuple(data.example_inputs.shape[1:])
    model = load_model("resnet20_cifar", weights="none", num_classes=data.num_classes, example_shape=shape).model
    asked = {name: learn is None or name in learn for name in ("kernel", "resolution")}
    graph = capture(model, data.example_inputs, kernels=asked["kernel"], resolution=asked["resolution"])
    term = build("flops", graph)
    projector = Projector(graph, [Constraint(term, budget * term.original)])
    scores = np.zeros(graph.n_units), np.zeros(len(graph.blocks))
    plain = Runner(copy.deepcopy(model), Hooks())
    session = DnarchSession(model, projector, DnarchConfig(learn=learn), scores)
    search = Runner(model, session)
    for index, (inputs, targets) in batches(data, steps):
        for runner in (search, plain) if index % 2 else (plain, search):
            runner.step(channels_last(inputs), targets, index, steps)
    decision = session.decide()
    reached = float(projector.costs(decision.units, decision.gates)[0] / term.original)
    name = ",".join(learn) if learn else "all"
    return Row(spec.partition(":")[0], name, budget, reached, search.seconds, plain.seconds)


def table(rows: list[Row], steps: int) -> str:
    lines = [
        f"{steps} steps of {BATCH}, {torch.get_num_threads()} thread of a busy {platform.machine()} machine, torch "
        f"{torch.__version__}; searches and plain training step by step in turn.",
        "",
        "| data | learned | budget | final cost | of the budget | search | plain training | ratio |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r.data} | {r.learn} | {r.budget:.0%} | {r.reached:.1%} | {r.reached / r.budget:.3f} "
        f"| {r.search_s:.1f} s | {r.plain_s:.1f} s | {r.search_s / r.plain_s:.2f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["digits"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--learn", nargs="+", default=["all", "width,depth"])
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    rows = []
    for spec in given.data:
        data = load_data(spec)
        for learn in given.learn:
            for budget in given.budgets:
                components = None if learn == "all" else tuple(learn.split(","))
                rows.append(measure(spec, data, components, budget, given.steps))
                print(rows[-1], flush=True)
                if given.write is not None:
                    command = f"python benchmarks/dnarch_search.py --data {' '.join(d.partition(':')[0] for d in given.data)} --steps {given.steps}"  # noqa: E501
                    given.write.write_text(
                        f"# Whole DNArch searches of ResNet-20\n\n`{command}`\n\n{table(rows, given.steps)}"
                    )


if __name__ == "__main__":
    main()
