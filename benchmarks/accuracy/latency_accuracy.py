"""At equal latency, which search leaves the more accurate network: one that saw latency, or one that saw FLOPs?

    COMPRESSOR_DATA=/path/to/data python -m benchmarks.accuracy.latency_accuracy --target onnxruntime-cpu --threads 1

Pretrained ResNet-20 on CIFAR-10. The latency search gets half of the original's latency as its budget. The FLOPs search
gets whatever budget of multiply-adds makes its network as fast: it is lowered until the exported network, timed in turn
with the original's, takes as long as the other; once with any width, once with multiples of 8. All are the same
one-shot search by weight magnitude, and all networks are fine-tuned alike, with several seeds. Every result is a line
of a JSON-lines file, so the benchmark can be stopped and continued; ``--table`` prints it as Markdown.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.harness import append, read
from compressor.costs import CostTerm, build
from compressor.data import Data, load_data
from compressor.graph import Graph, capture
from compressor.latency.target import LatencySession, TargetSettings
from compressor.models import load_model
from compressor.search.base import SearchContext
from compressor.search.constraints.constraint import Constraint
from compressor.search.methods.oneshot.method import OneShot
from compressor.search.result import SearchResult
from compressor.train import TrainConfig, Trainer, evaluate, recalibrate_batchnorm
from compressor.trim import trim_verified

CLOSE = 0.01


class Searches:
    """Searches of one network, and how long what they find takes on the device, as a share of the original's."""

    def __init__(self, model: nn.Module, graph: Graph, device: LatencySession) -> None:
        self.model, self.graph, self.device = model, graph, device

    def found(self, term: CostTerm, share: float, round_to: Any) -> SearchResult:
        """The one-shot decision under one budget."""
        budget = Constraint(term, share * term.original)
        options = {"importance": "magnitude"}
        return OneShot().run(SearchContext(self.model, self.graph, [budget], round_to=round_to, options=options))

    def as_fast(self, term: CostTerm, share: float, round_to: Any, rounds: int = 8) -> tuple[SearchResult, float]:
        """Change the budget until the network takes ``share`` of the original's time, within one percent."""
        budget, tried = share, list[tuple[float, SearchResult, float]]()
        for _ in range(rounds):
            decision = self.found(term, budget, round_to)
            took = self.device.compare(self.device.write(decision.units, decision.gates)).ratio
            print(f"  {term.name} {budget:.3f}: {took:.4f} of the latency", flush=True)
            tried.append((abs(took / share - 1), decision, took))
            if tried[-1][0] <= CLOSE:
                break
            budget = min(budget * share / took, 1.0)
        _, decision, took = min(tried, key=lambda each: each[0])
        return decision, took


def searched(
    model: nn.Module, graph: Graph, data: Data, settings: TargetSettings, share: float
) -> dict[str, tuple[SearchResult, float]]:
    """What each search decides, and the share of the original's latency that it takes."""
    device = LatencySession(model, graph, data.example_inputs, settings)
    searches, flops = Searches(model, graph, device), build("flops", graph)
    found = {"latency": searches.as_fast(device.term, share, device.multiples())}
    for multiple in (1, 8):
        kind = "FLOPs" if multiple == 1 else f"FLOPs, multiples of {multiple}"
        found[kind] = searches.as_fast(flops, found["latency"][1], multiple)
    device.close()
    return found


def tuned(model: nn.Module, decision: SearchResult, graph: Graph, data: Data, seed: int, epochs: int) -> dict[str, Any]:
    """Trim, fine-tune, evaluate."""
    result = trim_verified(model, graph, decision.units, data.example_inputs, gates=decision.gates)
    small = result.model
    recalibrate_batchnorm(small, data.train, batches=20, seed=seed)
    config = TrainConfig(epochs=epochs, lr=0.02, distill=0.7, seed=seed)
    Trainer(small, data, config, teacher=copy.deepcopy(model)).run()
    trimmed = capture(small, data.example_inputs)
    return {
        "seed": seed,
        "macs_share": build("flops", trimmed).original / build("flops", graph).original,
        "params": build("params", trimmed).original,
        "verification_error": result.check.error,
        "test": evaluate(small, data.test or data.val).accuracy,
        "val": evaluate(small, data.val).accuracy,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, as Markdown."""
    lines = [
        "| search | latency | multiply-adds | parameters | seeds | test | validation |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind in dict.fromkeys(row["search"] for row in rows):
        some = [row for row in rows if row["search"] == kind]
        if some:
            spreads = [
                f"{statistics.mean(v):.2%} ± {statistics.stdev(v) * 100 if len(v) > 1 else 0:.2f}"
                for v in ([row[key] for row in some] for key in ("test", "val"))
            ]
            first = some[0]
            lines.append(
                f"| {kind} | {first['latency_share']:.1%} | {first['macs_share']:.1%} | {first['params'] / 1e3:.0f} k "
                f"| {len(some)} | {' | '.join(spreads)} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="onnxruntime-cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lut", type=Path, help="the latency table; default is the user's")
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=2, help="of fine-tuning")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("latency_accuracy.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the results as a table and stop")
    args = parser.parse_args()
    rows = read(args.results)
    if args.table:
        print(table(rows))
        return
    torch.set_num_threads(args.threads)
    folder = os.environ["COMPRESSOR_DATA"]
    data = load_data(f"cifar10:{folder}")
    model = load_model("resnet20_cifar", weights=f"{folder}/weights/cifar10_resnet20.safetensors").model
    graph = capture(model, data.example_inputs)
    decisions = args.results.with_suffix(".decisions.json")
    if decisions.exists():
        kept = {
            k: (_decision(v["kept"], graph), v["latency_share"]) for k, v in json.loads(decisions.read_text()).items()
        }
    else:
        kept = searched(model, graph, data, TargetSettings(args.target, lut=args.lut, threads=args.threads), args.share)
        decisions.write_text(
            json.dumps(
                {
                    kind: {"kept": [found.units.tolist(), found.gates_or_all(graph).tolist()], "latency_share": took}
                    for kind, (found, took) in kept.items()
                }
            )
        )
    done = {(row["search"], row["seed"]) for row in rows}
    for seed in args.seeds:
        for kind, (decision, share) in kept.items():
            if (kind, seed) not in done:
                row = {"search": kind, "latency_share": share}
                row |= tuned(copy.deepcopy(model), decision, graph, data, seed, args.epochs)
                append(args.results, row)
                print(f"{kind} seed {seed}: test {row['test']:.4f} val {row['val']:.4f}", flush=True)


def _decision(kept: list[list[bool]], graph: Graph) -> SearchResult:
    units, gates = (torch.tensor(part, dtype=torch.bool).numpy() for part in kept)
    return SearchResult(units, torch.zeros(graph.n_units), [], gates)


if __name__ == "__main__":
    main()
