"""Accuracy at half the multiply-adds: pretrained CIFAR ResNets, the same few epochs of fine-tuning for every method.

    COMPRESSOR_DATA=/path/to/data python -m benchmarks.accuracy.accuracy_cifar --model resnet20_cifar

The folder holds CIFAR-10 (``cifar10:DIR`` of the program) and ``weights/cifar10_resnet20.safetensors``. Every run is
one line of a JSON-lines file, so the benchmark can be stopped and continued; ``--table`` prints it as Markdown.

Methods: ``figs`` and ``dnarch`` (search by training, then fine-tuning; ``dnarch`` learns all that the model has,
``dnarch-width`` widths alone), ``oneshot-magnitude``, ``oneshot-taylor``, ``uniform`` (the same share of every
group's channels, those of largest norm) and ``torch-pruning`` (its group-norm pruner, ranking all layers together).
Widths may be any, and with ``-even`` are the program's default. Channels are chosen without the test images; accuracy
is on the 1,000 test images and on the validation split that is held out of fine-tuning. The pretrained network has
seen the validation images, so that column only compares methods.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.harness import append, read
from compressor.costs import build
from compressor.data import Data, load_data
from compressor.graph import Graph, capture
from compressor.models import load_model
from compressor.search import METHODS as SEARCHES
from compressor.search.base import SearchContext
from compressor.search.constraints.constraint import Constraint
from compressor.search.constraints.projector import Projector
from compressor.search.importance.rank import rank
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.train import TrainConfig, Trainer, evaluate, recalibrate_batchnorm
from compressor.trim import trim_verified

METHODS = (
    "uniform", "torch-pruning", "oneshot-magnitude", "oneshot-magnitude-even", "oneshot-taylor", "figs", "figs-even",
    "dnarch", "dnarch-width",
)  # fmt: skip
TRAINED = ("figs", "figs-even", "dnarch", "dnarch-width")
EVEN = "-even"
SHARE = 0.5


def uniform(model: nn.Module, graph: Graph, constraint: Constraint) -> np.ndarray:
    """The largest common share of all groups that meets the budget, filled up; channels by norm."""
    context = SearchContext(model, graph, [constraint])
    projector, scores = Projector(graph, [constraint]), rank(context, "magnitude")[0]
    sizes = np.array([len(g) for g in graph.groups])
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        fits = projector.fits(projector.choose(projector.allowed(np.floor(middle * sizes).astype(int)), scores))
        low, high = (middle, high) if fits else (low, middle)
    return projector.fill(projector.choose(projector.allowed(np.floor(low * sizes).astype(int)), scores), scores)


def torch_pruning(model: nn.Module, data: Data, share: float, *, most: float = 0.9, steps: int = 200) -> nn.Module:
    """The group-norm pruner, ranking all layers together, in ``steps`` towards the share ``most`` of all channels, until
    the budget on multiply-adds holds."""
    import torch_pruning as tp

    pruned = copy.deepcopy(model)
    full = tp.utils.count_ops_and_params(pruned, data.example_inputs)[0]
    last = [module for module in pruned.modules() if isinstance(module, nn.Linear)][-1]
    pruner = tp.pruner.GroupNormPruner(
        pruned,
        data.example_inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=most,
        iterative_steps=steps,
        ignored_layers=[last],
    )
    for _ in range(steps):
        pruner.step()
        if tp.utils.count_ops_and_params(pruned, data.example_inputs)[0] <= share * full:
            break
    return pruned


def compressed(
    method: str, model: nn.Module, data: Data, seed: int, *, search_epochs: int, distill: float
) -> tuple[nn.Module, float]:
    """The network before fine-tuning, and the error of its verification (NaN for torch-pruning)."""
    if method == "torch-pruning":
        return torch_pruning(model, data, SHARE), float("nan")
    teacher, model = model, copy.deepcopy(model)
    round_to = None if method.endswith(EVEN) else 1
    method = method.removesuffix(EVEN)
    options: dict[str, Any] = {"epochs": search_epochs} if method in TRAINED else {"importance": method[8:]}
    if method == "dnarch-width":
        options["learn"] = "width"
    traces = DnarchConfig.from_options(options).decides if method.startswith("dnarch") else ()
    graph = capture(model, data.example_inputs, kernels="kernel" in traces, resolution="resolution" in traces)
    flops = build("flops", graph)
    constraint = Constraint(flops, SHARE * flops.original)
    gates = None
    if method == "uniform":
        units = uniform(model, graph, constraint)
    else:
        context = SearchContext(
            model,
            graph,
            [constraint],
            data=data,
            round_to=round_to,
            seed=seed,
            teacher=teacher,
            distill=distill,
            options=options,
        )
        decision = SEARCHES.get(method.partition("-")[0])().run(context)
        units, gates = decision.units, decision.gates
    result = trim_verified(model, graph, units, data.example_inputs, gates=gates)
    return result.model, result.check.error


def run(method: str, seed: int, args: argparse.Namespace, data: Data) -> dict[str, Any]:
    """One method with one seed, from the pretrained network to fine-tuned accuracy."""
    name = f"cifar10_{args.model.removesuffix('_cifar')}.safetensors"
    weights = Path(os.environ["COMPRESSOR_DATA"]) / "weights" / name
    model = load_model(args.model, weights=str(weights)).model
    full = build("flops", capture(model, data.example_inputs)).original
    started = time.perf_counter()
    small, error = compressed(method, model, data, seed, search_epochs=args.search_epochs, distill=args.distill)
    recalibrate_batchnorm(small, data.train, batches=20, seed=seed)
    searched = time.perf_counter() - started
    before = evaluate(small, data.test or data.val).accuracy
    started = time.perf_counter()
    config = TrainConfig(epochs=args.finetune_epochs, lr=args.lr, distill=args.distill, seed=seed)
    Trainer(small, data, config, teacher=model if args.distill else None).run()
    graph = capture(small, data.example_inputs)
    return {
        "model": args.model,
        "method": method,
        "seed": seed,
        "finetune_epochs": args.finetune_epochs,
        "search_epochs": args.search_epochs if method in TRAINED else 0,
        "distill": args.distill,
        "macs_share": build("flops", graph).original / full,
        "params": build("params", graph).original,
        "verification_error": error,
        "test_before_finetune": before,
        "test": evaluate(small, data.test or data.val).accuracy,
        "val": evaluate(small, data.val).accuracy,
        "search_seconds": searched,
        "finetune_seconds": time.perf_counter() - started,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, as Markdown."""
    lines = [
        "| model | method | seeds | multiply-adds | test before fine-tuning | test | validation |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model in dict.fromkeys(row["model"] for row in rows):
        for method in METHODS:
            some = [row for row in rows if (row["model"], row["method"]) == (model, method)]
            if not some:
                continue
            cells = [_spread([row[key] for row in some]) for key in ("test_before_finetune", "test", "val")]
            share = statistics.mean(row["macs_share"] for row in some)
            lines.append(f"| {model} | {method} | {len(some)} | {share:.1%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2%} ± {deviation * 100:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20_cifar")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--search-epochs", type=int, default=3)
    parser.add_argument("--finetune-epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--distill", type=float, default=0.7, help="weight of the original's logits, for all methods")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("accuracy_cifar.jsonl"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print the results as a table and stop")
    args = parser.parse_args()
    rows = read(args.results)
    if args.table:
        print(table(rows))
        return
    torch.set_num_threads(args.threads)
    data = load_data(f"cifar10:{os.environ['COMPRESSOR_DATA']}")
    done = {(row["model"], row["method"], row["seed"]) for row in rows}
    for seed in args.seeds:
        for method in args.methods:
            if (args.model, method, seed) not in done:
                row = run(method, seed, args, data)
                append(args.results, row)
                print(f"{method} seed {seed}: test {row['test']:.4f} val {row['val']:.4f}", flush=True)


if __name__ == "__main__":
    main()
