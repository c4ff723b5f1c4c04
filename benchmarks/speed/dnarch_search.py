"""Whole DNArch searches: is the budget met, and what does a search cost beside training the base network as long?

    python -m benchmarks.speed.dnarch_search [--data digits cifar10:DIR] [--steps 200] [--write benchmarks/speed/dnarch_search.md]

A search of a new network and the training of an equal one go side by side, step by step in turn, on the same batches,
so that other load on the machine falls on both. The network is a ResNet-20 with a budget on its multiply-adds, or,
with ``--channels``, a CCNN of 4 blocks with one on its complexity; where its widths or depth are learned, the search
starts at the base's size in a network twice as wide and deep. A step is forward, loss, backward and all optimizers, on
images with their channels last where the program's own training lays them out so. Both start with random weights: what
counts here is cost, not accuracy. The final cost is that of the network decided on, whose widths are even, as is the
program's default. Seconds are processor time, which other load on the machine hardly touches. ``--trimmed`` sets the
step of the trimmed network, trained as any other, beside the base's: less than that no search can take.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compressor.backbones.ccnn_search import SearchableCCNN
from compressor.costs import build
from compressor.data import Data, load_data
from compressor.graph import capture
from compressor.models import load_model
from compressor.nn.generated import computed
from compressor.search.constraints.constraint import Constraint
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.learner import DnarchLearner
from compressor.search.training.decided_network import Trimmed
from compressor.train import Hooks, TrainConfig
from compressor.train.generated import ComputedWeights
from compressor.train.layout import channels_last
from compressor.train.optim import build_optimizer, load_named_state, named_state
from compressor.trim import trim_verified


@dataclass
class Row:
    """One search: budget and final cost as shares of the base network's, and seconds of both trainings."""

    network: str
    data: str
    learn: str
    budget: float
    reached: float
    search_s: float
    plain_s: float
    trimmed: float | None = None
    """Step of the trimmed network, trained as any other, as a share of the base's."""


class Runner:
    """One network with its optimizers and hooks."""

    def __init__(self, model: nn.Module, hooks: Hooks) -> None:
        self.model, self.hooks, self.seconds = model.train(), hooks, 0.0
        config = TrainConfig(1, optimizer="sgd" if computed(model) is None else "adamw", lr=0.01)
        main = build_optimizer(model, config, hooks)
        assert main is not None
        self.optimizers = [main, *hooks.optimizers().values()]

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

    def trimmed(self, session: DnarchLearner) -> Runner:
        """What the program trains for the rest of the steps, the time that it takes to get there included."""
        started = time.process_time()
        session.settle()
        trimmed = Trimmed(self.model, session.graph, session.decide())
        small = Runner(trimmed.model, Hooks())
        load_named_state(
            trimmed.model, small.optimizers[0], trimmed.optimizer_state(named_state(self.model, self.optimizers[0]))
        )
        small.seconds = self.seconds + time.process_time() - started
        return small


def batches(data: Data, steps: int, size: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    index = 0
    while True:
        for batch in data.train.batches(size, shuffle_seed=index, augment=True, drop_last=True):
            if index == steps:
                return
            yield index, batch
            index += 1


def network(data: Data, channels: int | None, grow: int) -> nn.Module:
    """A new ResNet-20, or a CCNN ``grow`` times as wide and deep as that of so many channels."""
    torch.manual_seed(0)
    shape = tuple(data.example_inputs.shape[1:])
    if channels is None:
        return load_model("resnet20_cifar", weights="none", num_classes=data.num_classes, example_shape=shape).model
    classes = data.num_classes or 10
    return SearchableCCNN(4 * grow, channels * grow, shape[1:], num_classes=classes, in_channels=shape[0])


def measure(spec: str, data: Data, learn: tuple[str, ...] | None, budget: float, args: argparse.Namespace) -> Row:
    asked = {name: learn is None or name in learn for name in ("kernel", "resolution", "width", "depth")}
    cost = "flops" if args.channels is None else "complexity"
    grow = 2 if args.channels is not None and (asked["width"] or asked["depth"]) else 1
    base = network(data, args.channels, 1)
    original = build(cost, capture(base, data.example_inputs)).original
    model = network(data, args.channels, grow)
    graph = capture(model, data.example_inputs, kernels=asked["kernel"], resolution=asked["resolution"])
    projector = Projector(graph, [Constraint(build(cost, graph), budget * original)], round_to=None)
    scores = np.zeros(graph.n_units), np.zeros(len(graph.blocks))
    source = computed(base)
    plain = Runner(base, Hooks() if source is None else ComputedWeights(source))
    session = DnarchLearner(model, projector, DnarchConfig(learn=learn, grow=grow), scores)
    search = Runner(model, session)
    until = session.decides_after(args.steps)
    for index, (inputs, targets) in batches(data, args.steps, args.batch_size):
        inputs = channels_last(inputs) if args.channels is None else inputs
        if index == until:
            search = search.trimmed(session)
        for runner in (search, plain) if index % 2 else (plain, search):
            runner.step(inputs, targets, index, args.steps)
    decision = session.decide()
    reached = float(projector.costs(decision.units, decision.gates)[0] / original)
    name = "ResNet-20" if args.channels is None else f"CCNN(4, {args.channels})"
    learned = ",".join(learn) if learn else "all"
    row = Row(name, spec.partition(":")[0], learned, budget, reached, search.seconds, plain.seconds)
    if args.trimmed:
        session.fold_(decision)
        small = trim_verified(model, graph, decision.units, data.example_inputs, gates=decision.gates).model
        row.trimmed = alone(Runner(small, Hooks()), plain, data, args)
    return row


def alone(small: Runner, base: Runner, data: Data, args: argparse.Namespace) -> float:
    """The median step of one network, as a share of the other's, in turn."""
    seconds: dict[Runner, list[float]] = {small: [], base: []}
    for index, (inputs, targets) in batches(data, args.trimmed, args.batch_size):
        inputs = channels_last(inputs) if args.channels is None else inputs
        for runner, found in seconds.items():
            before = runner.seconds
            runner.step(inputs, targets, index, args.trimmed)
            found.append(runner.seconds - before)
    return statistics.median(seconds[small]) / statistics.median(seconds[base])


def table(rows: list[Row], steps: int, batch: int) -> str:
    more = any(r.trimmed is not None for r in rows)
    lines = [
        f"{steps} steps of {batch}, {torch.get_num_threads()} thread of a busy {platform.machine()} machine, torch "
        f"{torch.__version__}; searches and plain training step by step in turn.",
        "",
        "| network | data | learned | budget | final cost | of the budget | search | plain training | ratio |"
        + " trimmed alone |" * more,
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |" + " ---: |" * more,
    ]
    lines += [
        f"| {r.network} | {r.data} | {r.learn} | {r.budget:.0%} | {r.reached:.1%} | {r.reached / r.budget:.3f} "
        f"| {r.search_s:.1f} s | {r.plain_s:.1f} s | {r.search_s / r.plain_s:.2f} |"
        + (f" {r.trimmed:.2f} |" if r.trimmed is not None else "")
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["digits"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--learn", nargs="+", default=["all", "width,depth"])
    parser.add_argument("--channels", type=int, help="of a CCNN in place of ResNet-20")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--trimmed", type=int, default=0, metavar="STEPS", help="time the trimmed network alone, too")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    for spec in given.data:
        data = load_data(spec)
        for learn in given.learn:
            for budget in given.budgets:
                components = None if learn == "all" else tuple(learn.split(","))
                rows.append(measure(spec, data, components, budget, given))
                print(rows[-1], flush=True)
                if given.write is not None:
                    command = f"python -m benchmarks.speed.dnarch_search --data {' '.join(d.partition(':')[0] for d in given.data)} --steps {given.steps}"
                    given.write.write_text(
                        f"# Whole DNArch searches\n\n`{command}`\n\n{table(rows, given.steps, given.batch_size)}"
                    )


if __name__ == "__main__":
    main()
