"""What is left of the accuracy right after a cut without data, with and without means of removed channels taken up.

    python -m benchmarks.accuracy.absorbed DATA CACHE run --tasks resnet20_published,vgg
    python -m benchmarks.accuracy.absorbed DATA CACHE table

Jobs as the command line runs them without ``--data``: ``oneshot``, nothing recalibrated, nothing trained. Networks are
those of ``benchmarks.accuracy.trained``, whose weights CACHE keeps. Every run is one line of ``absorbed.jsonl`` beside
this file; what is there is not run again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

import compressor
from benchmarks.accuracy.trained import TASKS, load
from benchmarks.harness import append, read
from compressor.train import evaluate

ROWS = Path(__file__).with_suffix(".jsonl")
MEASURES = ("magnitude", "bn-scale")
SHARES = (0.9, 0.75, 0.5, 0.25)
SEEDS = (0, 1, 2)
TESTED = 5_000


def run(name: str, args: argparse.Namespace) -> None:
    """All cuts of one network."""
    model, data, _ = load(name, args.data, args.cache)
    test: Any = data.test
    test = test.subset(torch.arange(min(TESTED, len(test))))
    original = evaluate(model, test).accuracy
    done = {(r["task"], r["importance"], r["share"], r["absorb"], r["seed"]) for r in read(ROWS)}
    norms = any(isinstance(module, _BatchNorm) for module in model.modules())
    for importance in MEASURES if norms else MEASURES[:1]:
        for share in SHARES:
            for absorb, seed in [(False, 0), *((True, seed) for seed in SEEDS)]:
                if (name, importance, share, absorb, seed) in done:
                    continue
                started = time.process_time()
                result = compressor.compress(
                    model,
                    data.example_inputs,
                    {"flops": f"{share:.0%}"},
                    importance=importance,
                    scope=compressor.Scope(absorb=absorb),
                    training=compressor.Training(seed=seed),
                )
                row = {"task": name, "importance": importance, "share": share, "absorb": absorb, "seed": seed}
                seconds = time.process_time() - started
                accuracy = evaluate(result.model, test).accuracy
                append(ROWS, {**row, "original": original, "accuracy": accuracy, "seconds": seconds})


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each network, measure and budget; with means the range over seeds."""
    lines = [
        "| network | original | ranked by | budget | without | with |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for name in TASKS:
        for importance in MEASURES:
            for share in SHARES:
                own = [r for r in rows if (r["task"], r["importance"], r["share"]) == (name, importance, share)]
                taking = sorted(r["accuracy"] for r in own if r["absorb"])
                plain = [r["accuracy"] for r in own if not r["absorb"]]
                if not taking or not plain:
                    continue
                told = f"{taking[0]:.1%} to {taking[-1]:.1%}" if taking[0] < taking[-1] else f"{taking[0]:.1%}"
                start = f"| {name} | {own[0]['original']:.1%} | {importance} | {share:.0%} |"
                lines.append(f"{start} {plain[0]:.1%} | {told} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--tasks", default="resnet20_published,resnet56_published")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "table":
        print(table(read(ROWS)))
        return
    for name in args.tasks.split(","):
        run(name, args)


if __name__ == "__main__":
    main()
