"""FiGS on the One-Shot space beside random subnets and uniform widths (figure 2 of the FiGS paper), small, on CIFAR-10.

    python -m benchmarks.accuracy.search_space DATA --seeds 0,1,2 --subnets 30
    python -m benchmarks.accuracy.search_space --table --figure

DATA holds ``cifar10.npz``. Images are averaged to 8x8; 5,000 train, 10,000 others test, and nothing is chosen by them.
The space is ``one_shot`` with four cells of one block, 16 channels in the first two, with each aggregator.

Every network gets the same epochs of SGD in the same order of samples under one cosine, from its part of the same random weights:

``figs``       searches, and from its decision on trains what it kept, all under that one cosine
``retrained``  what ``figs`` kept, from the start again for all epochs: its search comes on top, as in the paper
``uniform``    every group of channels at the same share, all operators
``random``     some operators, and widths drawn for each group by itself; trained at their size

Every run is one line of ``search_space.jsonl`` beside this file; what is there is not run again. Seconds are processor
times of search and training.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.accuracy.parts import fewer, smaller
from benchmarks.accuracy.search_space_figure import write
from benchmarks.accuracy.search_space_subnets import Space, drawn, even, packed, unpacked
from benchmarks.accuracy.search_space_table import table
from benchmarks.harness import append, read
from compressor.backbones.one_shot import AGGREGATORS
from compressor.data import Data, load_data
from compressor.errors import UsageError
from compressor.search.base import SearchContext
from compressor.search.methods.figs.method import Figs
from compressor.train import TrainConfig, Trainer, evaluate, recalibrate_batchnorm
from compressor.trim import trim_verified

ROWS = Path(__file__).with_suffix(".jsonl")
IMAGES, TESTED, BATCH, POOL, LR = 5_000, 10_000, 64, 4, 0.05
BUDGETS = (0.2, 0.1, 0.4)
STARTS = 3
"""Random weights that random subnets take turns to start with."""


def load(folder: Path) -> Data:
    """CIFAR-10 at a quarter of its resolution, with a tenth of its training images, shifted by up to a pixel."""
    return smaller(fewer(load_data(f"cifar10:{folder}"), IMAGES, TESTED), POOL, shift=1)


def planned(aggregators: list[str], seeds: list[int], subnets: int) -> Iterator[dict[str, Any]]:
    """The runs, so that whenever they are stopped there is something of everything."""
    chunk = max(1, -(-subnets // len(seeds))) if seeds else subnets
    for position, seed in enumerate(seeds):
        for aggregator in aggregators:
            for budget in BUDGETS:
                for kind in ("figs", "uniform", "retrained"):
                    yield {"aggregator": aggregator, "kind": kind, "budget": budget, "seed": seed}
            for index in range(position * chunk, min(subnets, (position + 1) * chunk)):
                yield {"aggregator": aggregator, "kind": "random", "index": index, "seed": index % STARTS}


def searched(space: Space, data: Data, epochs: int, run: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """What FiGS leaves, trained, and its decision."""
    context = SearchContext(
        space.model,
        space.graph,
        [space.constraint(run["budget"])],
        data=data,
        seed=run["seed"],
        options={"epochs": epochs, "batch_size": BATCH, "lr": LR, "least_steps": 0},
    )
    found = Figs().run(context)
    gates = found.gates_or_all(space.graph)
    network = trim_verified(space.model, space.graph, found.units, space.example, gates=gates).model
    return network, {"units": packed(found.units), "gates": packed(gates)}


def chosen(space: Space, run: dict[str, Any], decision: dict[str, Any] | None) -> nn.Module:
    """A subnet at its start; ``decision`` is the row of the search whose decision it is."""
    graph = space.graph
    if run["kind"] == "random":
        return space.network(*drawn(space, run["index"]))
    if run["kind"] == "uniform":
        return space.network(*even(space, run["budget"]))
    if decision is None:
        raise UsageError(f"There is no row of figs for {run}; let figs run before what retrains its decision.")
    units, gates = unpacked(decision["units"], graph.n_units + 1), unpacked(decision["gates"], len(graph.blocks))
    return space.network(units, gates)


def trained(data: Data, epochs: int, run: dict[str, Any], decision: dict[str, Any] | None) -> dict[str, Any]:
    """The row of one run: a network from its start to its test accuracy."""
    space = Space.of(run["aggregator"], run["seed"])
    macs, more = space.macs, dict[str, Any]()
    started = time.process_time()
    if run["kind"] == "figs":
        network, more = searched(space, data, epochs, run)
    else:
        network = chosen(space, run, decision)
        config = TrainConfig(epochs=epochs, batch_size=BATCH, lr=LR, seed=run["seed"])
        Trainer(network, data, config).run()
    seconds = time.process_time() - started
    recalibrate_batchnorm(network, data.train, batches=20, seed=run["seed"])
    assert data.test is not None
    cost = space.counted(network)
    return {
        **run,
        "epochs": epochs,
        "accuracy": evaluate(network, data.test).accuracy,
        **cost,
        "share": cost["macs"] / macs,
        "operators": operators(network),
        "seconds": seconds,
        **more,
    }


def operators(network: nn.Module) -> int:
    """How many operators are left, over all blocks."""
    parts = [name.split(".operators.") for name, _ in network.named_parameters() if ".operators." in name]
    return len({(block, rest.split(".")[0]) for block, rest in parts})


def same(row: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a row is of that run."""
    return wanted.items() <= row.items()


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--aggregators", default="concat,add")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", default="0,1,2", help="of figs, retrained and uniform")
    parser.add_argument("--subnets", type=int, default=30, help="random ones of each aggregator")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--figure", action="store_true", help="write search_space.svg")
    given = parser.parse_args()
    if given.data is None and not (given.table or given.figure):
        parser.error(
            "nothing to do: give DATA, the folder of cifar10.npz, to run, or --table or --figure for what there is"
        )
    aggregators = given.aggregators.split(",")
    if strange := [name for name in aggregators if name not in AGGREGATORS]:
        parser.error(f"there is no aggregator {strange[0]!r}; known are {', '.join(AGGREGATORS)}")
    torch.set_num_threads(1)
    if given.data is not None:
        data = load(given.data)
        for each in planned(aggregators, [int(s) for s in given.seeds.split(",") if s], given.subnets):
            rows = read(ROWS)
            if any(same(row, {**each, "epochs": given.epochs}) for row in rows):
                continue
            search = {**each, "kind": "figs", "epochs": given.epochs}
            decision = next((row for row in rows if same(row, search)), None) if each["kind"] == "retrained" else None
            row = trained(data, given.epochs, each, decision)
            append(ROWS, row)
            print({key: row[key] for key in (*each, "share", "accuracy", "operators", "seconds")}, flush=True)
    if given.table:
        print(table(read(ROWS)))
    if given.figure:
        write(read(ROWS), ROWS.with_suffix(".svg"))


if __name__ == "__main__":
    main()
