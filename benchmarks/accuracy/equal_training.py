"""Cuts and searches at the same total number of epochs, on small trained networks and images that no training saw.

    python -m benchmarks.accuracy.equal_training DATA CACHE cuts --shares 0.75,0.5,0.25,0.1
    python -m benchmarks.accuracy.equal_training DATA CACHE trained --shares 0.5,0.25 --epochs 3 --seeds 1,2
    python -m benchmarks.accuracy.equal_training DATA CACHE table

Networks and data are those of ``benchmarks.accuracy.trained``, whose weights CACHE keeps. ``cuts`` scores what is cut
out, with its batch norms recalibrated, before any training; ``trained`` trains every method for as many epochs of
10,000 samples, those of its search included (``figs`` searches for 60 % of them, ``dnarch`` decides after a fifth and
trains what it kept in the others under the same schedule), with distillation from the original. Every run is one line of ``equal_training.jsonl`` beside this file; what is there is not run again.
Seconds are processor times, of search and training.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.accuracy.accuracy_cifar import torch_pruning, uniform
from benchmarks.accuracy.fastnas import fastnas
from benchmarks.accuracy.trained import TASKS, Task, load
from benchmarks.harness import append, read
from compressor.costs import build
from compressor.data import Data
from compressor.graph import capture
from compressor.search import METHODS as SEARCHES
from compressor.search.base import SearchContext
from compressor.search.constraints.constraint import Constraint
from compressor.train import TrainConfig, Trainer, evaluate, recalibrate_batchnorm
from compressor.train.splits import steps_per_epoch
from compressor.trim import trim_verified

ROWS = Path(__file__).with_suffix(".jsonl")
CUTS = ("uniform", "torch-pruning", "fastnas", "magnitude", "taylor", "sensitivity")
OTHERS = ("torch-pruning", "fastnas")
SEARCHED = ("figs", "dnarch")
OPTIONS: dict[str, dict[str, Any]] = {
    "figs": {"least_steps": 0},
    "dnarch": {"learn": "width", "settle": 0.8, "every": 1},
}
IMAGES, TESTED, BATCH, DISTILL = 10_000, 5_000, 64, 0.7
SEARCH_SHARE = {"figs": 0.6, "dnarch": 1.0}


def compressed(method: str, model: nn.Module, data: Data, task: Task, share: float, steps: int, seed: int) -> nn.Module:
    """The network within the budget; ``steps`` are those of a search that trains."""
    if method == "torch-pruning":
        return torch_pruning(model, data, share, most=0.98, steps=300)
    if method == "fastnas":
        return fastnas(model, data, share, seed=seed)
    searched = copy.deepcopy(model)
    graph = capture(searched, data.example_inputs)
    flops = build("flops", graph)
    constraint = Constraint(flops, share * flops.original)
    gates: Any = None
    if method == "uniform":
        units = uniform(searched, graph, constraint)
    else:
        trains = method in SEARCHED
        options: dict[str, Any] = {"importance": method}
        if trains:
            epochs = -(-steps // steps_per_epoch(data.train, BATCH))
            options = {"epochs": epochs, "max_steps": steps, **OPTIONS[method]}
        context = SearchContext(
            searched,
            graph,
            [constraint],
            data=data,
            seed=seed,
            lr=task.tuned_lr,
            teacher=model if trains else None,
            distill=DISTILL if trains else 0.0,
            options=options,
        )
        found = SEARCHES.get(method if trains else "oneshot")().run(context)
        units, gates = found.units, found.gates
    return trim_verified(searched, graph, units, data.example_inputs, gates=gates).model


def run(name: str, method: str, share: float, epochs: int, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One method: what it is before training, and after ``epochs`` in all."""
    model, data, task = load(name, args.data, args.cache)
    test, train = data.test, data.train
    assert test is not None
    parts: Any = test, train
    test = parts[0].subset(torch.arange(min(TESTED, len(test))))
    data = replace(data, train=parts[1].subset(torch.arange(min(IMAGES, len(train)))))
    steps = epochs * steps_per_epoch(data.train, BATCH)
    of_search = round(SEARCH_SHARE.get(method, 0.0) * steps)
    started = time.process_time()
    try:
        small = compressed(method, model, data, task, share, of_search, seed)
    except RuntimeError as error:
        if method not in OTHERS:
            raise
        told = {"task": name, "method": method, "share": share, "epochs": epochs, "seed": seed}
        return {**told, "original": evaluate(model, test).accuracy, "failed": str(error)[:200]}
    recalibrate_batchnorm(small, data.train, batches=20, seed=seed)
    before = evaluate(small, test).accuracy
    if steps > of_search:
        config = TrainConfig(
            epochs=epochs, max_steps=steps - of_search, batch_size=BATCH, lr=task.tuned_lr, distill=DISTILL, seed=seed
        )
        Trainer(small, data, config, teacher=model).run()
    graph = capture(small, data.example_inputs)
    return {
        "task": name,
        "method": method,
        "share": share,
        "epochs": epochs,
        "seed": seed,
        "macs_share": build("flops", graph).original / build("flops", capture(model, data.example_inputs)).original,
        "params": build("params", graph).original,
        "original": evaluate(model, test).accuracy,
        "before": before,
        "after": evaluate(small, test).accuracy if steps else None,
        "seconds": time.process_time() - started,
    }


def cut_table(rows: list[dict[str, Any]]) -> str:
    """Accuracy before training, a line for each network and budget."""
    found = {(r["task"], r["share"], r["method"]): r for r in rows if not r["epochs"]}
    cuts = [method for method in CUTS if any(each == method for *_, each in found)]
    lines = [f"| network | original | budget | {' | '.join(cuts)} |", "| --- | ---: | ---: |" + " ---: |" * len(cuts)]
    for task in TASKS:
        for share in sorted({share for name, share, _ in found if name == task}, reverse=True):
            each = [found.get((task, share, method)) for method in cuts]
            original = next(row["original"] for row in each if row)
            cells = ["" if row is None else "fails" if "failed" in row else f"{row['before']:.1%}" for row in each]
            lines.append(f"| {task} | {original:.1%} | {share:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def trained_table(rows: list[dict[str, Any]]) -> str:
    """Accuracy after training, and paired differences from ``sensitivity`` with their standard errors."""
    lines = ["| network | budget | epochs | method | seeds | before | after | against sensitivity | s |"]
    lines.append("| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    groups: dict[tuple[str, float, int], dict[str, dict[int, Any]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row["epochs"] and "failed" not in row:
            groups[row["task"], row["share"], row["epochs"]][row["method"]][row["seed"]] = row
    for (task, share, epochs), methods in sorted(
        groups.items(), key=lambda item: (item[0][0], -item[0][1], item[0][2])
    ):
        base = methods.get("sensitivity", {})
        for method in (*CUTS, *SEARCHED):
            if not (seeds := methods.get(method)):
                continue
            pairs = [100 * (row["after"] - base[seed]["after"]) for seed, row in seeds.items() if seed in base]
            against = "" if method == "sensitivity" or not pairs else f"{statistics.mean(pairs):+.2f}"
            if against and len(pairs) > 1:
                against += f" ({statistics.stdev(pairs) / len(pairs) ** 0.5:.2f})"
            before, after, s = (
                statistics.mean(r[key] for r in seeds.values()) for key in ("before", "after", "seconds")
            )
            lines.append(
                f"| {task} | {share:.0%} | {epochs} | {method} | {len(seeds)} | {before:.1%} | {after:.1%} | {against} | {s:.0f} |"
            )
    return "\n".join(lines)


def time_table(rows: list[dict[str, Any]], epochs: int = 3) -> str:
    """Paired differences from a cut by ``sensitivity`` that is trained for as long, by processor time.

    Its accuracy in that time lies on the line between its trainings of ``epochs`` and of one more.
    """
    lines = ["| network | budget | method | seeds | s | after | sensitivity in that time | difference |"]
    lines.append("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    found = {(r["task"], r["share"], r["epochs"], r["method"], r["seed"]): r for r in rows if "failed" not in r}
    for task, share in sorted({(r["task"], r["share"]) for r in rows if r["epochs"] == epochs + 1}):
        seeds = [seed for t, s, e, m, seed in found if (t, s, e, m) == (task, share, epochs + 1, "sensitivity")]
        shorter, longer = (
            {seed: row for seed in seeds if (row := found.get((task, share, many, "sensitivity", seed)))}
            for many in (epochs, epochs + 1)
        )
        low, high = (statistics.mean(row["seconds"] for row in each.values()) for each in (shorter, longer))
        for method in (*CUTS, *SEARCHED):
            mine = {seed: row for seed in shorter if (row := found.get((task, share, epochs, method, seed)))}
            if not mine or method == "sensitivity":
                continue
            seconds = statistics.mean(row["seconds"] for row in mine.values())
            part = min(max((seconds - low) / (high - low), 0.0), 1.0)
            base = {s: (1 - part) * shorter[s]["after"] + part * longer[s]["after"] for s in mine}
            pairs = [100 * (row["after"] - base[seed]) for seed, row in mine.items()]
            error = f" ({statistics.stdev(pairs) / len(pairs) ** 0.5:.2f})" if len(pairs) > 1 else ""
            after = statistics.mean(row["after"] for row in mine.values())
            lines.append(
                f"| {task} | {share:.0%} | {method} | {len(mine)} | {seconds:.0f} | {after:.1%} | "
                f"{statistics.mean(base.values()):.1%} | {statistics.mean(pairs):+.2f}{error} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("cache", type=Path, nargs="?")
    parser.add_argument("what", choices=["cuts", "trained", "table"])
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--methods", default=None)
    parser.add_argument("--shares", default="0.5,0.25")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", default="1")
    args = parser.parse_args()
    rows = read(ROWS)
    if args.what == "table":
        print("\n\n".join([cut_table(rows), trained_table(rows), time_table(rows)]))
        return
    torch.set_num_threads(1)
    np.seterr(divide="ignore")
    epochs = args.epochs if args.what == "trained" else 0
    methods = args.methods.split(",") if args.methods else [*CUTS, *(SEARCHED if epochs else ())]
    done = {(r["task"], r["method"], r["share"], r["epochs"], r["seed"]) for r in rows}
    for seed in map(int, args.seeds.split(",") if epochs else ["0"]):
        for name in args.tasks.split(","):
            for share in map(float, args.shares.split(",")):
                for method in methods:
                    if (name, method, share, epochs, seed) not in done:
                        row = run(name, method, share, epochs, seed, args)
                        append(ROWS, row)
                        told = row.get("failed") or f"{row['before']:.4f} {row['after']} {row['seconds']:.0f} s"
                        print(name, method, share, seed, told, flush=True)


if __name__ == "__main__":
    main()
