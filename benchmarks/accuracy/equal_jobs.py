"""Whole jobs at the same total number of epochs: every method as a user gets it, under any one budget.

    python -m benchmarks.accuracy.equal_jobs DATA CACHE --tasks resnet20,wrn1d --budgets latency=50%,flops=25% --seeds 1,2
    python -m benchmarks.accuracy.equal_jobs --table

Networks and data are those of ``benchmarks.accuracy.trained``, whose weights CACHE keeps. Methods that train search for
three of five epochs, with ``supernet`` one training of three epochs for the one budget; a cut is trained for all five.
``uniform`` has the same share of every group's channels. Latency is that in ONNX Runtime on one thread, timed at the end
of each job. Test accuracy is on samples that no training and no choice saw. Every run is one line of
``equal_jobs.jsonl`` beside this file; what is there is not run again. Seconds are processor times of whole jobs, those of
measuring the device included.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import compressor
from benchmarks.accuracy.equal_training import BATCH, DISTILL, IMAGES, TESTED
from benchmarks.accuracy.trained import TASKS, load
from benchmarks.harness import append, read
from compressor.errors import CompressorError
from compressor.latency.target import TargetSettings
from compressor.train import evaluate

ROWS = Path(__file__).with_suffix(".jsonl")
EPOCHS, OF_SEARCH = 5, 3
CUTS = ("magnitude", "taylor", "sensitivity")
OPTIONS: dict[str, dict[str, Any]] = {
    "figs": {"least_steps": 0},
    "dnarch": {"learn": "width"},
    "supernet": {},
    "pooling": {},
}
BASE = "sensitivity"


def run(name: str, method: str, budget: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One job: what it comes to, and what it takes."""
    model, data, task = load(name, args.data, args.cache)
    assert data.test is not None
    parts: Any = data.train, data.test
    data = replace(
        data,
        train=parts[0].subset(torch.arange(min(IMAGES, len(data.train)))),
        test=parts[1].subset(torch.arange(min(TESTED, len(data.test)))),
    )
    cost, _, amount = budget.partition("=")
    cut = method in CUTS
    training = compressor.Training(
        search_epochs=0 if cut else OF_SEARCH,
        finetune_epochs=EPOCHS if cut else EPOCHS - OF_SEARCH,
        batch_size=BATCH,
        lr=task.tuned_lr,
        distill=DISTILL,
        seed=seed,
        tune="none",
    )
    told = {"task": name, "method": method, "budget": budget, "seed": seed}
    started = time.process_time()
    try:
        result = compressor.compress(
            model,
            data.example_inputs,
            {cost: amount},
            data=data,
            search="oneshot" if cut else method,
            importance=method if cut else None,
            options=None if cut else OPTIONS[method],
            training=training,
            target=TargetSettings("onnxruntime-cpu", args.cache / "lut.sqlite", threads=1)
            if cost == "latency"
            else None,
        )
    except CompressorError as error:
        return {**told, "failed": str(error)[:300]}
    reached = next(each for each in result.report.budgets if each.cost == cost)
    return {
        **told,
        "original": evaluate(model, data.test).accuracy,
        "after": evaluate(result.model, data.test).accuracy,
        "reached": reached.reached / reached.original,
        "costs": {each.name: each.reached / each.original for each in result.report.costs},
        "seconds": time.process_time() - started,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, and paired differences from a cut by sensitivity with their standard errors."""
    lines = [
        f"| network | budget | method | seeds | reached | multiply-adds | parameters | accuracy, % | against {BASE}, points | s |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    found = {(r["task"], r["budget"], r["method"], r["seed"]): r for r in rows}
    for task, budget in sorted({(r["task"], r["budget"]) for r in rows}):
        for method in (*CUTS, *OPTIONS):
            mine = [r for (*which, _), r in found.items() if which == [task, budget, method]]
            if not mine:
                continue
            if any("failed" in r for r in mine):
                lines.append(f"| {task} | {budget} | {method} | {len(mine)} | fails | | | | | |")
                continue
            pairs = [
                100 * (r["after"] - base["after"])
                for r in mine
                if (base := found.get((task, budget, BASE, r["seed"]))) is not None
            ]
            against = f"{statistics.mean(pairs):+.2f}" if pairs and method != BASE else ""
            if against and len(pairs) > 1:
                against += f" ({statistics.stdev(pairs) / len(pairs) ** 0.5:.2f})"

            def mean(pick: Any, mine: list[dict[str, Any]] = mine) -> float:
                return statistics.mean(pick(r) for r in mine)

            lines.append(
                f"| {task} | {budget} | {method} | {len(mine)} | {mean(lambda r: r['reached']):.1%} | "
                f"{mean(lambda r: r['costs']['flops']):.1%} | {mean(lambda r: r['costs']['params']):.1%} | "
                f"{100 * mean(lambda r: r['after']):.1f} | {against} | {mean(lambda r: r['seconds']):.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("cache", type=Path, nargs="?")
    parser.add_argument("--tasks", default="resnet20,wrn1d")
    parser.add_argument("--methods", default=",".join((*CUTS, *OPTIONS)))
    parser.add_argument("--budgets", default="latency=50%,flops=25%")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    rows = read(ROWS)
    if args.table:
        print(table(rows))
        return
    if args.data is None or args.cache is None or not set(args.tasks.split(",")) <= set(TASKS):
        parser.error(f"DATA and CACHE are needed, and tasks of {', '.join(TASKS)}.")
    torch.set_num_threads(1)
    np.seterr(divide="ignore")
    done = {(r["task"], r["method"], r["budget"], r["seed"]) for r in rows}
    for seed in map(int, args.seeds.split(",")):
        for name in args.tasks.split(","):
            for budget in args.budgets.split(","):
                for method in args.methods.split(","):
                    if (name, method, budget, seed) not in done:
                        row = run(name, method, budget, seed, args)
                        append(ROWS, row)
                        told = row.get("failed") or f"{row['reached']:.3f} {row['after']:.4f} {row['seconds']:.0f} s"
                        print(name, method, budget, seed, told, flush=True)


if __name__ == "__main__":
    main()
