"""What learning more of an architecture is worth: CCNNs of equal cost, trained for equally many steps.

    COMPRESSOR_DATA=DIR python -m benchmarks.accuracy.accuracy_dnarch [--tasks fsdd cifar10 darcy]

The base is a CCNN of 4 blocks with kernels over the whole input, trained as it is. Beside it stand DNArch searches
that learn some of its components: ``K`` kernel sizes, ``W`` widths, ``D`` depth, ``R`` resolution. ``(K)`` is the
network that a search starts from: the base with kernels under masks as wide as they start, which stay so. Where widths
and depth are learned, the network is twice as wide and as deep and starts at the base's size. All are trained from
scratch, with the same optimizer, the same batches and for as many steps; the budget is the base's complexity
(``--budget-complexity``, which counts long convolutions as through the FFT). What is tested is the trimmed network
after recalibration of its batch norms, without any further training.

Every run is one line of a JSON-lines file, so the benchmark can be stopped and continued; ``--table`` prints it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.accuracy.parts import held_out
from benchmarks.harness import append, read
from compressor.backbones.ccnn_search import SearchableCCNN
from compressor.costs import build
from compressor.data import Data, Split, load_data
from compressor.data.memory import TensorSplit
from compressor.graph import capture
from compressor.nn.generated import computed, settle_
from compressor.search.base import SearchContext
from compressor.search.constraints.constraint import Constraint, hard_sizes
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.learner import DnarchLearner
from compressor.search.methods.dnarch.method import Dnarch
from compressor.search.result import SearchResult
from compressor.search.training.learner import learn as train
from compressor.train import TrainConfig, Trainer, evaluate, recalibrate_batchnorm
from compressor.train.generated import ComputedWeights
from compressor.trim import trim_verified

BLOCKS = 4
ARMS = {
    "base": (),
    "K": ("kernel",),
    "K,W,D": ("kernel", "width", "depth"),
    "K,R,W,D": ("kernel", "resolution", "width", "depth"),
    "by hand": ("resolution", "width"),
}


@dataclass(frozen=True)
class Task:
    """What is trained on, how large the base is, and for how long."""

    data: str
    channels: int
    steps: int
    batch: int
    lr: float = 0.01
    pool: int = 1
    """So many pixels along each axis are averaged into one."""


TASKS = {
    "fsdd": Task("fsdd:{},rate=2000", channels=32, steps=800, batch=32),
    "cifar10": Task("cifar10:{}", channels=32, steps=2400, batch=32, pool=2),
    "darcy": Task("darcy:{}", channels=32, steps=1200, batch=16),
}


def load(task: Task) -> Data:
    """The data of a task, as small as it is to be."""
    data = load_data(task.data.format(os.environ["COMPRESSOR_DATA"]))
    if task.pool == 1:
        return data

    def pooled(split: Split) -> Split:
        inputs, targets = zip(
            *((nn.functional.avg_pool2d(x, task.pool), y) for x, y in split.batches(500)), strict=True
        )
        return TensorSplit(torch.cat(inputs), torch.cat(targets))

    test = None if data.test is None else pooled(data.test)
    example = nn.functional.avg_pool2d(data.example_inputs, task.pool)
    return replace(data, train=pooled(data.train), val=pooled(data.val), test=test, example_inputs=example)


def make(task: Task, data: Data, grow: int, deeper: bool = True) -> SearchableCCNN:
    """The network of a task, ``grow`` times as wide, and as deep, as the base."""
    shape = data.example_inputs.shape
    return SearchableCCNN(
        BLOCKS * grow if deeper else BLOCKS,
        task.channels * grow,
        shape[2:],
        num_classes=data.num_classes or data.task.outputs or 1,
        in_channels=shape[1],
        dense=data.task.dense,
    )


def chosen_by_hand(projector: Projector) -> SearchResult:
    """Half of the frequencies, and the largest share of all channels that the budget allows."""
    graph = projector.graph
    for share in np.arange(1, 0, -1 / 64):
        units = graph.all_units()
        for group in graph.groups:
            kept = len(group) // 2 if group.kind == "resolution" else round(share * len(group))
            units[group.units[kept:]] = False
        if projector.fits(units):
            return SearchResult(units, torch.zeros(graph.n_units), [])
    raise ValueError("No width fits the budget.")


def trained_by_hand(context: SearchContext) -> SearchResult:
    """The training of a network that is chosen from the start, on the code of a search."""
    projector = Projector(context.graph, context.constraints)
    decision = chosen_by_hand(projector)
    config = DnarchConfig.from_options({**context.options, "settle": 1 - 1e-6})  # no masks are learned
    scores = np.zeros(context.graph.n_units), np.zeros(len(context.graph.blocks))
    session = DnarchLearner(context.model, projector, config, scores)
    session.settled.decision = decision
    assert context.data is not None
    train(context, context.data, config, session, "adamw")
    session.fold_(decision)
    return decision


def run(name: str, task: Task, arm: str, seed: int, data: Data) -> dict[str, Any]:
    """One network, from scratch to its score on the test split."""
    learn = ARMS[arm]
    torch.manual_seed(seed)
    base = make(task, data, 1)
    result: nn.Module = base
    plain = capture(base, data.example_inputs)
    limits = {cost: build(cost, plain).original for cost in ("complexity", "flops")}
    epochs = -(-task.steps * task.batch // len(data.train)) + 1
    row: dict[str, Any] = {"task": name, "arm": arm, "seed": seed, "steps": task.steps, "channels": task.channels}
    if not learn:
        source = computed(base)
        assert source is not None
        config = TrainConfig(
            epochs, batch_size=task.batch, lr=task.lr, optimizer="adamw", seed=seed, max_steps=task.steps
        )
        started = time.process_time()
        Trainer(base, data, config, hooks=ComputedWeights(source)).run()
        seconds = time.process_time() - started
        settle_(base)
        row["cost_share"], row["macs_share"] = 1.0, 1.0
    else:
        grow = 2 if "width" in learn else 1
        model = make(task, data, grow, deeper="depth" in learn) if grow > 1 else base
        graph = capture(model, data.example_inputs, kernels="kernel" in learn, resolution="resolution" in learn)
        terms = {cost: build(cost, graph) for cost in limits}
        context = SearchContext(
            model,
            graph,
            [Constraint(terms["complexity"], limits["complexity"])],
            data=data,
            seed=seed,
            options={
                "learn": learn,
                "grow": grow,
                "epochs": epochs,
                "max_steps": task.steps,
                "batch_size": task.batch,
                "lr": task.lr,
                "order": "none",
            },
        )
        started = time.process_time()
        decision = trained_by_hand(context) if arm == "by hand" else Dnarch().run(context)
        seconds = time.process_time() - started
        sizes = hard_sizes(graph, decision.units, decision.gates)
        row["cost_share"] = float(terms["complexity"](sizes)) / limits["complexity"]
        row["macs_share"] = float(terms["flops"](sizes)) / limits["flops"]
        row["blocks"] = int(decision.gates_or_all(graph).sum())
        trimmed = trim_verified(model, graph, decision.units, data.example_inputs, gates=decision.gates)
        result, row["verification_error"] = trimmed.model, trimmed.check.error
    row["cpu_seconds"] = round(seconds, 1)
    recalibrate_batchnorm(result, data.train, seed=seed)
    found = evaluate(result, held_out(data), task=data.task)
    row["score"] = found.accuracy if found.accuracy is not None else found.loss
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Scores by seed and their mean, as Markdown."""
    seeds = sorted({row["seed"] for row in rows})
    heads = " | ".join(f"seed {seed}" for seed in seeds)
    lines = [
        f"| task | learned | {heads} | mean | of the budget | multiply-adds | blocks | time |",
        "| --- | --- |" + " ---: |" * (len(seeds) + 5),
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        alone = [row["cpu_seconds"] for row in rows if (row["task"], row["arm"]) == (task, "base")]
        for arm in ARMS:
            some = {row["seed"]: row for row in rows if (row["task"], row["arm"]) == (task, arm)}
            if not some:
                continue
            digits = 4 if task == "darcy" else 3
            scores = [f"{some[s]['score']:.{digits}f}" if s in some else "" for s in seeds]
            mean = statistics.mean(row["score"] for row in some.values())
            cost, macs = (statistics.mean(r[key] for r in some.values()) for key in ("cost_share", "macs_share"))
            blocks = "/".join(str(some[s].get("blocks", BLOCKS)) for s in seeds if s in some)
            seconds = statistics.mean(row["cpu_seconds"] for row in some.values())
            ratio = f"{seconds:.0f} s ({seconds / statistics.mean(alone):.2f})" if alone else f"{seconds:.0f} s"
            lines.append(
                f"| {task} | {arm} | {' | '.join(scores)} | **{mean:.{digits}f}** | {cost:.3f} | {macs:.2f} "
                f"| {blocks} | {ratio} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("accuracy_dnarch.jsonl"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the results as a table and stop")
    args = parser.parse_args()
    rows = read(args.results)
    if args.table:
        print(table(rows))
        return
    torch.set_num_threads(args.threads)
    done = {(row["task"], row["arm"], row["seed"]) for row in rows}
    for seed in args.seeds:
        for name in args.tasks:
            data = load(TASKS[name])
            for arm in args.arms:
                if (name, arm, seed) in done:
                    continue
                row = run(name, TASKS[name], arm, seed, data)
                append(args.results, row)
                print(row, flush=True)


if __name__ == "__main__":
    main()
