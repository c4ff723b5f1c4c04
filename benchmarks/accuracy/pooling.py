"""What a ranking of pooling configurations is worth: small ResNets on CIFAR-10, every configuration trained by itself.

    python -m benchmarks.accuracy.pooling DATA truth --depth 14 --seeds 0,1,2
    python -m benchmarks.accuracy.pooling DATA search --depth 14 --mixtures 1,4 --budgets 900%,100% --seeds 0,1,2
    python -m benchmarks.accuracy.pooling --table

DATA holds ``cifar10.npz``. Images are averaged to 16x16; 10,000 train, those held out rank, and 15,000 others say how
good a configuration is. ``truth`` trains every configuration from random weights. ``search`` ranks them by the balanced
mixture, all searches with the same number of steps, and only those within a budget of the network's multiply-adds.
Every run is one line of ``pooling.jsonl`` beside this file; what is there is not run again, so it can be stopped and
continued. ``--table`` compares the rankings with the truth, and those of depth 20 with the published accuracies.
"""

from __future__ import annotations

import argparse
import itertools
import json
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
from compressor.backbones.resnet_cifar import CifarResNet
from compressor.data import Data, load_data
from compressor.graph import capture
from compressor.graph.choices import add_choices
from compressor.report import Ranked
from compressor.report.ranking import agreement
from compressor.search.methods.pooling.weight_sets import WeightSets
from compressor.train import TrainConfig, Trainer, evaluate

ROWS = Path(__file__).with_suffix(".jsonl")
PUBLISHED = Path(__file__).with_name("pooling_published.json")
IMAGES, BATCH, RATE, DECAY = 10_000, 64, 0.1, 1e-3


def load(folder: Path) -> Data:
    """CIFAR-10 at half of its resolution, with a fifth of its training images."""
    return smaller(fewer(load_data(f"cifar10:{folder}"), IMAGES), 2)


def backbone(depth: int, seed: int) -> nn.Module:
    """A CIFAR ResNet with random weights."""
    torch.manual_seed(seed)
    return CifarResNet((depth - 2) // 6)


def truth(data: Data, depth: int, epochs: int, seed: int, known: set[str]) -> None:
    """Train every configuration that is not known yet by itself."""
    model = backbone(depth, seed)
    graph = capture(model.eval(), data.example_inputs)
    add_choices(model, graph, ["pooling"])
    (choice,) = graph.choices
    sets = WeightSets(model, choice.alternatives, 1, free=None)
    for index in range(1, len(choice)):
        name = choice.alternatives[index].name
        if name in known:
            continue
        network = sets.rewritten(index, 0)
        config = TrainConfig(epochs=epochs, batch_size=BATCH, lr=RATE, weight_decay=DECAY, seed=seed)
        Trainer(network, data, config).run()
        assert data.test is not None
        found = {split: evaluate(network, each).score for split, each in (("val", data.val), ("test", data.test))}
        append(ROWS, {"kind": "truth", "depth": depth, "epochs": epochs, "seed": seed, "name": name, **found})
        print(depth, seed, name, found, flush=True)


def search(data: Data, depth: int, epochs: int, seed: int, mixtures: int, budget: str) -> None:
    """Rank the configurations within a budget."""
    started = time.process_time()
    result = compressor.compress(
        backbone(depth, seed),
        data.example_inputs,
        {"flops": budget},
        data=data,
        search="pooling",
        options={"mixtures": mixtures, "lr": RATE, "weight_decay": DECAY},
        training=compressor.Training(search_epochs=epochs, finetune_epochs=0, batch_size=BATCH, seed=seed),
    )
    ranking = [[each.name, each.score, each.average, each.costs["flops"]] for each in result.report.ranking]
    row = {"kind": "search", "depth": depth, "epochs": epochs, "seed": seed, "mixtures": mixtures, "budget": budget}
    append(ROWS, {**row, "ranking": ranking, "seconds": time.process_time() - started})
    print(row, ranking[0], flush=True)


def known_accuracies(rows: list[dict[str, Any]], depth: int) -> dict[str, list[float]]:
    """Test accuracies by configuration after the longest trainings that there are, of all seeds."""
    found: dict[str, list[float]] = defaultdict(list)
    truths = [row for row in rows if row["kind"] == "truth" and row["depth"] == depth]
    longest = max((row["epochs"] for row in truths), default=0)
    for row in truths:
        if row["epochs"] == longest:
            found[row["name"]].append(row["test"])
    return dict(found)


def table(rows: list[dict[str, Any]]) -> str:
    """Kendall's tau of each ranking, and what was taken beside the default configuration."""
    lines = [
        "| network | truth | weight sets | budget | seed | tau | taken | its accuracy | default's | best in budget's |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    published = json.loads(PUBLISHED.read_text())["accuracies"]
    for row in rows:
        if row["kind"] != "search":
            continue
        own = {name: statistics.mean(all_) for name, all_ in known_accuracies(rows, row["depth"]).items()}
        truths = {"trained here": own} | ({"published": published} if row["depth"] == 20 else {})
        names = [name for name, *_ in row["ranking"]]
        for told, truth_ in truths.items():
            if not set(names) <= set(truth_):
                continue
            within = {name: truth_[name] for name in names}
            tau = agreement([Ranked(name, 0.0) for name in names], within) if len(names) > 1 else float("nan")
            scale = 1.0 if told == "published" else 100.0
            third = row["depth"] // 6
            default = truth_[f"[{third + 1}, {third}, {third}]"]
            lines.append(
                f"| ResNet-{row['depth']} | {told} | {row['mixtures']} | {row['budget']} | {row['seed']} | {tau:.3f} | "
                f"{names[0]} | {scale * within[names[0]]:.2f} | {scale * default:.2f} | "
                f"{scale * max(within.values()):.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("what", nargs="?", choices=("truth", "search"))
    parser.add_argument("--depth", type=int, default=14)
    parser.add_argument("--epochs", type=int, default=10, help="of a training, or of a search")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--mixtures", default="1,4")
    parser.add_argument("--budgets", default="900%")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    if given.what is not None:
        data = load(given.data)
        for seed in seeds:
            rows = read(ROWS)
            if given.what == "truth":
                same = {"kind": "truth", "depth": given.depth, "epochs": given.epochs, "seed": seed}
                known = {row["name"] for row in rows if same.items() <= row.items()}
                truth(data, given.depth, given.epochs, seed, known)
                continue
            for budget, mixtures in itertools.product(given.budgets.split(","), map(int, given.mixtures.split(","))):
                same = {"kind": "search", "depth": given.depth, "epochs": given.epochs, "seed": seed}
                if not any((same | {"mixtures": mixtures, "budget": budget}).items() <= row.items() for row in rows):
                    search(data, given.depth, given.epochs, seed, mixtures, budget)
    if given.table:
        print(table(read(ROWS)))


if __name__ == "__main__":
    main()
