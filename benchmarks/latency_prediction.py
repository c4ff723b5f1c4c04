"""How well whole-network latency is predicted: random subnets that nothing was fitted to, per model and runtime.

    python benchmarks/latency_prediction.py --target onnxruntime-cpu --threads 1 resnet18 mobilenet_v2

For every model its operators are profiled into the table (``--lut``), predictions are calibrated on 14 subnets, and 30
others are timed, in turn with the original, and compared: mean absolute error, worst error and Kendall's tau. All are
timed twice and compared with the mean; how far the two timings of a network differ on average is stated beside. On one
thread times are processor times, so that other work on the machine costs precision and not more.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from compressor.graph import capture
from compressor.latency.calibrate import Accuracy, time_networks
from compressor.latency.session import LatencySession, TargetSettings
from compressor.latency.subnets import Choice, random_choices
from compressor.models import load_model
from compressor.search.base import hard_sizes


def run(name: str, settings: TargetSettings, count: int, rounds: int) -> dict[str, object]:
    """One model; a JSON-able row."""
    loaded = load_model(name, weights="none")
    graph = capture(loaded.model, loaded.example_inputs)
    started = time.perf_counter()
    session = LatencySession(
        loaded.model,
        graph,
        loaded.example_inputs,
        settings,
        progress=lambda what, done, total: print(f"{name}: {what} {done}/{total}", file=sys.stderr, flush=True),
    )
    seconds = time.perf_counter() - started
    try:
        choices: dict[str, Choice] = {
            f"test{index}": choice for index, choice in enumerate(random_choices(graph, count, seed=1))
        }
        measured: dict[str, float] = {}
        names = list(choices)
        again: dict[str, float] = {}
        yardstick_ms = session.original_ms
        for start in range(0, count, 10):  # ten at a time, so that they fit into memory
            paths = {n: session.subnets.write(choices[n], n) for n in names[start : start + 10]}
            for into in (measured, again):
                _, times = time_networks(
                    session.timer, paths, session.subnets.original, yardstick_ms=yardstick_ms, rounds=rounds
                )
                into |= times
        repeat = sum(abs(again[n] / measured[n] - 1) for n in names) / len(names)
        measured = {n: (measured[n] + again[n]) / 2 for n in names}
        predicted = {n: float(session.term(hard_sizes(graph, c.units, c.gates))) for n, c in choices.items()}
        found = Accuracy.of([predicted[n] for n in names], [measured[n] for n in names])
        return {
            "model": name,
            "target": session.target.label,
            "operators": len(graph.operators),
            "points_measured": session.prediction.measured,
            "points_known": session.prediction.known,
            "prepare_seconds": round(seconds, 1),
            **vars(found),
            "repeat_error": repeat,
            "estimated": session.prediction.estimated,
            "exported": session.subnets.exported,
            "networks_ms": {n: [round(predicted[n], 4), round(measured[n], 4)] for n in names},
        }
    finally:
        session.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--target", default="onnxruntime-cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lut", type=Path, help="table to use and extend; default: a fresh one")
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="append rows as JSON lines")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        settings = TargetSettings(given.target, given.lut or Path(folder) / "lut.sqlite", given.threads)
        for name in given.models:
            row = run(name, settings, given.networks, given.rounds)
            if given.out:
                with given.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            print(
                f"| {row['model']} | {given.target} | {row['points_measured']} + {row['points_known']} | "
                f"{row['prepare_seconds']} s | {row['mean_error']:.1%} | {row['worst_error']:.1%} | "
                f"{row['kendall_tau']:.3f} | {row['repeat_error']:.1%} | {row['networks']} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
