"""What kernels that were searched for are worth: the backbone as it is and as DASH leaves it, trained alike.

    python -m benchmarks.accuracy.dash DATA --tasks digits,darcy --budgets 100%,200% --seeds 0,1,2 --json dash.json
    python -m benchmarks.accuracy.dash DATA --tasks digits --budgets latency=100% --threads 1 --json latency.json

DATA holds ``fsdd.npz``, ``darcy.npz`` and ``cifar10.npz``. For every task and seed the backbone is trained from random
weights; the same backbone, from the same weights, is searched under every budget (of multiply-adds, where no cost is named; latency
is that in ONNX Runtime), and what comes out is trained for as many epochs with the same settings, from those same random
weights as in the paper. With a latency budget the exported files are timed in turn at the end of the search. Scores are on the test
and validation splits, which no training and no choice saw. Times are processor time, as other work on a machine stretches the clock's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import compressor
from benchmarks.accuracy.parts import fewer, held_out, smaller
from compressor.budget import parse_budgets
from compressor.data import Data, load_data
from compressor.latency.target import TargetSettings
from compressor.models import load_model
from compressor.pipeline.settings import Settings
from compressor.pipeline.training import fit, score


@dataclass(frozen=True)
class Task:
    """A backbone, its data, and how long both are trained."""

    model: str
    data: str
    epochs: int
    search_epochs: int
    batch_size: int
    lr: float
    options: tuple[tuple[str, Any], ...] = (("fresh", True),)
    images: int | None = None
    """So many of the training split are trained on, at half of their size, and the test split is of others of it."""


TASKS = {
    "digits": Task("wrn1d", "fsdd:{data},rate=2000", 20, 20, 64, 0.05),
    "darcy": Task("wrn_16_1", "darcy:{data}", 40, 20, 16, 0.01),
    "cifar10": Task("wrn_16_1", "cifar10:{data}", 10, 10, 64, 0.05, images=10_000),
}


def plain(task: Task, model: nn.Module, data: Data, seed: int) -> tuple[float, float]:
    """Test score of the backbone as it is, and the processor time it took to train."""
    settings = Settings(budgets=parse_budgets({"flops": "100%"}), batch_size=task.batch_size, lr=task.lr, seed=seed)
    started = time.process_time()
    fit(model, data, settings, task.epochs, teacher=None, checkpoint=None, progress=None)
    return float(score(model, data, settings)["score"]), time.process_time() - started


def searched(
    task: Task, model: nn.Module, data: Data, seed: int, budget: str
) -> tuple[float, float, compressor.Result]:
    """Test score of what the search leaves, the processor time of search and training, and the result."""
    training = compressor.Training(
        search_epochs=task.search_epochs,
        finetune_epochs=task.epochs,
        batch_size=task.batch_size,
        lr=task.lr,
        seed=seed,
        tune="none",
    )
    cost, _, amount = budget.rpartition("=")
    started = time.process_time()
    result = compressor.compress(
        model,
        data.example_inputs,
        {cost or "flops": amount},
        data=data,
        search="dash",
        options=dict(task.options),
        training=training,
        target=TargetSettings("onnxruntime-cpu", threads=torch.get_num_threads()) if cost == "latency" else None,
    )
    found = result.report.score
    assert found is not None
    assert found.after_finetune is not None
    return found.after_finetune, time.process_time() - started, result


def load(name: str, task: Task, folder: Path, seed: int) -> tuple[nn.Module, Data]:
    """The backbone with random weights, and its data."""
    data = load_data(task.data.format(data=folder))
    if task.images is not None:
        data = smaller(fewer(data, task.images), 2)
    data = replace(data, test=held_out(data))
    loaded = load_model(
        task.model,
        weights="none",
        num_classes=data.outputs,
        example_shape=data.input_shape,
        dense=data.task.dense,
        seed=seed,
    )
    return loaded.model, data


def run(name: str, task: Task, folder: Path, seed: int, budget: str) -> dict[str, Any]:
    """Score and times of one search, and the kernels found."""
    model, data = load(name, task, folder, seed)
    after, whole, result = searched(task, model, data, seed, budget)
    stages = result.report.stage_seconds
    limits = [each for each in result.report.budgets if each.cost == "latency"]
    return {
        "task": name,
        "seed": seed,
        "budget": budget,
        "searched": after,
        "searched_s": whole,
        "search_s": stages.get("search"),
        "finetune_s": stages.get("finetune"),
        "kernels": {n: (k.kernel_size[-1], k.dilation[-1]) for n, k in result.report.operators.items()},
        "costs": {c.name: c.reached / c.original for c in result.report.costs}
        | {each.cost: each.reached / each.original for each in limits},
        "metric": result.report.score.metric if result.report.score else "",
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, paired."""
    lines = [
        "| task | budget | seeds | as it is | searched | difference (s.e.) | by seed | multiply-adds | parameters | "
        "latency | search and retraining / training |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, budget in dict.fromkeys((row["task"], row["budget"]) for row in rows):
        own = [row for row in rows if (row["task"], row["budget"]) == (name, budget)]
        gains = [row["searched"] - row["plain"] for row in own]
        error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
        mean = {key: statistics.mean(row[key] for row in own) for key in ("plain", "searched")}
        flops, params = (statistics.mean(row["costs"][cost] for row in own) for cost in ("flops", "params"))
        ratio = statistics.median(row["searched_s"] / row["plain_s"] for row in own)
        latency = [row["costs"]["latency"] for row in own if "latency" in row["costs"]]
        took = f"{statistics.mean(latency):.2f} x" if latency else ""
        lines.append(
            f"| {name} | {budget} | {len(own)} | {mean['plain']:.4f} | {mean['searched']:.4f} | "
            f"{statistics.mean(gains):+.4f} ({error:.4f}) | {', '.join(f'{gain:+.4f}' for gain in gains)} | "
            f"{flops:.2f} x | {params:.2f} x | {took} | {ratio:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what the command line asks for; rows are kept as they come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("--tasks", default="digits,darcy")
    parser.add_argument("--budgets", default="100%,200%", help="of multiply-adds")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="another field of the tasks")
    parser.add_argument("--options", default="{}", help="options of the search, as JSON")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    changes = {name: json.loads(value) for name, value in (each.split("=", 1) for each in given.set)}
    if options := json.loads(given.options):
        changes["options"] = tuple(options.items())
    tasks = {name: replace(TASKS[name], **changes) for name in given.tasks.split(",")}
    rows: list[dict[str, Any]] = []
    before: dict[tuple[str, int], tuple[float, float]] = {}
    for budget, seed, name in itertools.product(given.budgets.split(","), map(int, given.seeds.split(",")), tasks):
        if (name, seed) not in before:
            before[name, seed] = plain(tasks[name], *load(name, tasks[name], given.data, seed), seed)
        row = run(name, tasks[name], given.data, seed, budget)
        rows.append(row | dict(zip(("plain", "plain_s"), before[name, seed], strict=True)))
        print(json.dumps(rows[-1]), flush=True)
        if given.json is not None:
            given.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
