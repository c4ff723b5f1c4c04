"""What kernels that were searched for are worth: the backbone as it is and as DASH leaves it, trained alike.

    python -m benchmarks.accuracy.dash DATA --tasks digits,darcy --seeds 0,1,2 --json dash.json

DATA holds ``fsdd.npz``, ``darcy.npz`` and ``cifar10.npz``. For every task and seed the backbone is trained from random
weights; the same backbone, from the same weights, is searched and what comes out is trained for as many epochs with the
same settings. Scores are on the test split, which no training and no choice saw.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import compressor
from compressor.budget import parse_budgets
from compressor.data import Data, load_data
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
    budgets: tuple[tuple[str, str], ...] = (("flops", "2000%"),)
    options: tuple[tuple[str, Any], ...] = ()


TASKS = {
    "digits": Task("wrn1d", "fsdd:{data},rate=2000", 30, 15, 64, 0.05),
    "darcy": Task("wrn_16_1", "darcy:{data}", 40, 20, 16, 0.01),
    "cifar10": Task("wrn_16_1", "cifar10:{data}", 10, 5, 64, 0.05),
}


def plain(task: Task, model: nn.Module, data: Data, seed: int) -> tuple[float, float]:
    """Test score of the backbone as it is, and the seconds it took to train."""
    settings = Settings(budgets=parse_budgets(dict(task.budgets)), batch_size=task.batch_size, lr=task.lr, seed=seed)
    started = time.perf_counter()
    fit(model, data, settings, task.epochs, teacher=None, checkpoint=None, progress=None)
    return float(score(model, data, settings)["score"]), time.perf_counter() - started


def searched(task: Task, model: nn.Module, data: Data, seed: int) -> tuple[float, float, compressor.Result]:
    """Test score of what the search leaves, the seconds of search and training, and the result."""
    training = compressor.Training(
        search_epochs=task.search_epochs,
        finetune_epochs=task.epochs,
        batch_size=task.batch_size,
        lr=task.lr,
        seed=seed,
        tune="none",
    )
    started = time.perf_counter()
    result = compressor.compress(
        model,
        data.example_inputs,
        dict(task.budgets),
        data=data,
        search="dash",
        options=dict(task.options),
        training=training,
    )
    found = result.report.score
    assert found is not None
    assert found.after_finetune is not None
    return found.after_finetune, time.perf_counter() - started, result


def run(name: str, folder: Path, seed: int, **changes: Any) -> dict[str, Any]:
    """One task and seed: both scores, times and the kernels found."""
    task = replace(TASKS[name], **changes)
    data = load_data(task.data.format(data=folder))
    loaded = load_model(
        task.model,
        weights="none",
        num_classes=data.outputs,
        example_shape=data.input_shape,
        dense=data.task.dense,
        seed=seed,
    )
    before, seconds = plain(task, copy.deepcopy(loaded.model), data, seed)
    after, whole, result = searched(task, copy.deepcopy(loaded.model), data, seed)
    stages = result.report.stage_seconds
    kernels = {n: (k.kernel_size[-1], k.dilation[-1]) for n, k in result.report.operators.items()}
    costs = {c.name: c.reached / c.original for c in result.report.costs}
    return {
        "task": name,
        "seed": seed,
        "plain": before,
        "searched": after,
        "plain_s": seconds,
        "searched_s": whole,
        "search_s": stages.get("search"),
        "finetune_s": stages.get("finetune"),
        "kernels": kernels,
        "costs": costs,
        "metric": result.report.score.metric if result.report.score else "",
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, paired."""
    lines = [
        "| task | seeds | as it is | searched | difference (s.e.) | multiply-adds | parameters | time of search and "
        "training over training |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == name]
        gains = [row["searched"] - row["plain"] for row in own]
        error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
        mean = {key: statistics.mean(row[key] for row in own) for key in ("plain", "searched")}
        flops, params = (statistics.mean(row["costs"][cost] for row in own) for cost in ("flops", "params"))
        ratio = statistics.median(row["searched_s"] / row["plain_s"] for row in own)
        lines.append(
            f"| {name} | {len(own)} | {mean['plain']:.4f} | {mean['searched']:.4f} | "
            f"{statistics.mean(gains):+.4f} ({error:.4f}) | {flops:.2f} x | {params:.2f} x | {ratio:.2f} x |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what the command line asks for; rows are kept as they come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("--tasks", default="digits,darcy")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="another field of the tasks")
    parser.add_argument("--options", default="{}", help="options of the search, as JSON")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    changes = {name: json.loads(value) for name, value in (each.split("=", 1) for each in given.set)}
    if "budgets" in changes:
        changes["budgets"] = tuple(changes["budgets"].items())
    if options := json.loads(given.options):
        changes["options"] = tuple(options.items())
    rows: list[dict[str, Any]] = []
    for seed in map(int, given.seeds.split(",")):
        for name in given.tasks.split(","):
            rows.append(run(name, given.data, seed, **changes))
            print(json.dumps(rows[-1]), flush=True)
            if given.json is not None:
                given.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
