"""What one training for many budgets is worth: small networks on CIFAR-10.

    python -m benchmarks.accuracy.supernet DATA boundaries --seeds 0,1,2
    python -m benchmarks.accuracy.supernet DATA budgets --seeds 0,1,2
    python -m benchmarks.accuracy.supernet --table

DATA holds ``cifar10.npz``. Images are averaged to 16x16; 10,000 train, those held out choose, and 5,000 others test.

``boundaries`` trains a ResNet-14, or ``mobilenet_v2_space`` at a quarter of its widths, from random weights, with learned
boundaries and as a plain sandwich, with the same number of steps, networks in a step and subnets tried afterwards. What is compared is
the area under the front of multiply-adds and test accuracy between the lowest and the highest budget.

``budgets`` trains a ResNet-14 first, and from its weights a supernet; and for each of four budgets ``figs`` and
``oneshot`` by themselves, with a quarter of the supernet's epochs each.

Every run is one line of ``supernet.jsonl`` beside this file; what is there is not run again. Seconds are processor
times.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

import compressor
from benchmarks.accuracy.parts import fewer, smaller
from benchmarks.harness import append, read
from compressor.backbones.mobilenet_space import mobilenet_v2_space
from compressor.backbones.resnet_cifar import CifarResNet
from compressor.budget import parse_budgets
from compressor.data import Data, load_data
from compressor.nn.copying import deep_copy
from compressor.pipeline.rounds import round_settings, run_rounds
from compressor.pipeline.stages import Pipeline
from compressor.search.methods.supernet.evolution import hypervolume
from compressor.search.points import Point
from compressor.search.training.subnets import Subnets, subnet
from compressor.train import TrainConfig, Trainer, evaluate

ROWS = Path(__file__).with_suffix(".jsonl")
IMAGES, TESTED, BATCH = 10_000, 5_000, 64
LOWEST, HIGHEST = 0.1, 0.6
SELECTION = {"population": 24, "generations": 3}
NETWORKS = {"resnet14": lambda: CifarResNet(2), "mobilenet_v2_space": lambda: mobilenet_v2_space(width=0.25)}
BUDGETS = (0.2, 0.35, 0.5, 0.65)


def load(folder: Path) -> Data:
    """CIFAR-10 at half of its resolution, with a fifth of its training images."""
    return smaller(fewer(load_data(f"cifar10:{folder}"), IMAGES, TESTED), 2)


def trained(model: nn.Module, data: Data, epochs: int, highest: float, seed: int, **options: Any) -> Pipeline:
    """A supernet with its points."""
    rounds = round_settings(
        "supernet",
        options,
        epochs=epochs,
        budgets=parse_budgets({"flops": f"{100 * highest:g}%"}),
        finetune_epochs=0,
        batch_size=BATCH,
        seed=seed,
    )
    return run_rounds(model, data.example_inputs, rounds, data=data)[0]


def tested(found: Pipeline, point: Point, data: Data) -> float:
    """Test accuracy of a point as it would be picked."""
    network = subnet(found.searched, found.graph, point.units, point.gates)
    buffers = dict(network.named_buffers())
    with torch.no_grad():
        for name, value in point.statistics.items():
            buffers[name].copy_(value)
    assert data.test is not None
    return float(evaluate(network, data.test).score or 0.0)


def sliced(found: Pipeline, point: Point, data: Data) -> float:
    """Test accuracy of the same subnet inside the supernet, with the statistics of batches."""
    subnets = Subnets(found.searched, found.graph)
    assert data.test is not None

    def forward(model: nn.Module, inputs: Any) -> Any:
        return subnets.forward(inputs, point.units, point.gates, dropout=False)

    return float(evaluate(found.searched, data.test, batch_size=250, forward=forward).score or 0.0)


def front_of(found: Pipeline, data: Data) -> list[list[float]]:
    """Share of the multiply-adds and test accuracy of each point."""
    original = found.problem.terms["flops"].original
    return [[point.costs["flops"] / original, tested(found, point, data)] for point in found.decision.points]


def area(front: list[list[float]]) -> float:
    """Under the front between the budgets, of 1."""
    points = [(max(cost, LOWEST), accuracy) for cost, accuracy in front]
    return hypervolume(points, (HIGHEST, 0.0)) / (HIGHEST - LOWEST)


def boundaries(data: Data, network: str, epochs: int, seed: int, kind: str) -> None:
    """One supernet."""
    torch.manual_seed(seed)
    started = time.process_time()
    found = trained(
        NETWORKS[network](),
        data,
        epochs,
        HIGHEST,
        seed,
        boundaries=kind,
        lowest=f"flops={LOWEST:.0%}",
        lr=0.1,
        order="none",
        **SELECTION,
    )
    front = front_of(found, data)
    some = found.decision.points[:: max(1, len(found.decision.points) // 6)]
    gaps = [abs(tested(found, point, data) - sliced(found, point, data)) for point in some]
    append(
        ROWS,
        {
            "kind": "boundaries",
            "network": network,
            "epochs": epochs,
            "seed": seed,
            "boundaries": kind,
            "front": front,
            "area": area(front),
            "largest gap to the slice": max(gaps),
            "policies": found.decision.history[-1]["policies"],
            "seconds": time.process_time() - started,
        },
    )
    print(kind, seed, area(front), max(gaps), time.process_time() - started, flush=True)


def resnet(data: Data, seed: int, epochs: int) -> nn.Module:
    """A ResNet-14 trained from random weights."""
    torch.manual_seed(seed)
    model = CifarResNet(2)
    config = TrainConfig(epochs=epochs, batch_size=BATCH, lr=0.1, seed=seed)
    Trainer(model, data, config).run()
    return model


def budgets(data: Data, epochs: int, seed: int, known: set[str]) -> None:
    """The supernet, and a network for each budget by itself, from the same weights."""
    if {"supernet", "figs", "oneshot"} <= known:
        return
    model = resnet(data, seed, 2 * epochs)
    assert data.test is not None
    original = evaluate(model, data.test).score
    row: dict[str, Any] = {"kind": "budgets", "epochs": epochs, "seed": seed, "original": original}
    if "supernet" not in known:
        started = time.process_time()
        found = trained(
            deep_copy(model), data, epochs, BUDGETS[-1], seed, lowest=f"flops={BUDGETS[0]:.0%}", **SELECTION
        )
        flops, rows = found.problem.terms["flops"].original, []
        for budget in BUDGETS:
            within = [p for p in found.decision.points if p.costs["flops"] <= budget * flops]
            best = max(within, key=lambda point: point.score)
            rows.append([budget, best.costs["flops"] / flops, tested(found, best, data)])
        append(ROWS, {**row, "method": "supernet", "rows": rows, "seconds": time.process_time() - started})
        print(seed, "supernet", rows, flush=True)
    each = epochs // len(BUDGETS)
    for method, search, finetune in (("figs", each - each // 3, each // 3), ("oneshot", 0, each)):
        if method in known:
            continue
        started, rows = time.process_time(), []
        for budget in BUDGETS:
            result = compressor.compress(
                deep_copy(model),
                data.example_inputs,
                {"flops": f"{budget:.0%}"},
                data=data,
                search=method,
                importance="magnitude" if method == "oneshot" else None,
                training=compressor.Training(
                    search_epochs=search or None, finetune_epochs=finetune, batch_size=BATCH, seed=seed, tune="none"
                ),
            )
            cost = next(c for c in result.report.costs if c.name == "flops")
            rows.append([budget, cost.reached / cost.original, evaluate(result.model, data.test).score])
        append(ROWS, {**row, "method": method, "rows": rows, "seconds": time.process_time() - started})
        print(seed, method, rows, flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    """What the rows say."""
    lines = [
        "| network | boundaries | epochs | seed | area | points | largest gap to the slice | seconds |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        if row["kind"] == "boundaries":
            lines.append(
                f"| {row['network']} | {row['boundaries']} | {row['epochs']} | {row['seed']} | {100 * row['area']:.2f} % | {len(row['front'])} | "
                f"{100 * row['largest gap to the slice']:.2f} | {row['seconds']:.0f} |"
            )
    lines += ["", "| method | seed | original | " + " | ".join(f"{b:.0%}" for b in BUDGETS) + " | seconds |",
              "| --- | ---: | ---: |" + " ---: |" * (len(BUDGETS) + 1)]  # fmt: skip
    means: dict[str, list[list[float]]] = defaultdict(list)
    for row in rows:
        if row["kind"] == "budgets":
            found = [100 * accuracy for _, _, accuracy in row["rows"]]
            means[row["method"]].append(found)
            lines.append(
                f"| {row['method']} | {row['seed']} | {100 * row['original']:.2f} | "
                + " | ".join(f"{accuracy:.2f}" for accuracy in found)
                + f" | {row['seconds']:.0f} |"
            )
    for method, found in means.items():
        columns = " | ".join(f"{statistics.mean(column):.2f}" for column in zip(*found, strict=True))
        lines.append(f"| {method}, mean | | | {columns} | |")
    return "\n".join(lines)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("what", nargs="?", choices=("boundaries", "budgets"))
    parser.add_argument("--network", choices=tuple(NETWORKS), default="resnet14", help="of boundaries")
    parser.add_argument("--epochs", type=int, default=12, help="of a supernet")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.what is not None:
        data = load(given.data)
        for seed in map(int, given.seeds.split(",")):
            same = {"kind": given.what, "epochs": given.epochs, "seed": seed}
            known = [row for row in read(ROWS) if same.items() <= row.items()]
            if given.what == "budgets":
                budgets(data, given.epochs, seed, {row["method"] for row in known})
                continue
            for kind in ("both", "none"):
                if not any((row["network"], row["boundaries"]) == (given.network, kind) for row in known):
                    boundaries(data, given.network, given.epochs, seed, kind)
    if given.table:
        print(table(read(ROWS)))


if __name__ == "__main__":
    main()
