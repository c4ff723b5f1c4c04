"""How well whole-network latency is predicted: random subnets that nothing was fitted to, per model and runtime.

    python -m benchmarks.latency.latency_prediction --target onnxruntime-cpu --threads 1 --out rows.jsonl resnet18 mobilenet_v2
    python -m benchmarks.latency.latency_prediction --table rows.jsonl

For every model its operators are profiled into the table (``--lut``), predictions are calibrated on 14 subnets, and 30
others are timed, in turn with the original, and compared: mean absolute error, worst error and Kendall's tau. All are
timed twice and compared with the mean; how far the two timings of a network differ on average is stated beside. On one
thread times are processor times, so that other work on the machine costs precision and not more.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import append, read
from compressor.graph import capture
from compressor.latency.calibrate import PredictionAccuracy
from compressor.latency.subnets import Subnet, random_choices
from compressor.latency.target import LatencySession, TargetSettings
from compressor.models import load_model
from compressor.search.constraints.constraint import hard_sizes

#: What of an earlier row stays when its networks are predicted anew.
_TIMED = ("points_measured", "points_known", "prepare_seconds", "table_seconds", "load", "repeat_error", "exported")


def run(name: str, settings: TargetSettings, count: int, rounds: int, known: dict[str, Any] | None) -> dict[str, Any]:
    """One model; a JSON-able row. ``known`` is an earlier row, whose networks are not timed again."""
    loaded = load_model(name, weights="none")
    graph = capture(loaded.model, loaded.example_inputs)
    started = time.perf_counter()
    profiled = [started]

    def told(what: str, done: int, total: int) -> None:
        print(f"{name}: {what} {done}/{total}", file=sys.stderr, flush=True)
        if what == "profile":
            profiled[0] = time.perf_counter()

    session = LatencySession(loaded.model, graph, loaded.example_inputs, settings, progress=told)
    seconds = time.perf_counter() - started
    try:
        choices: dict[str, Subnet] = {
            f"test{index}": choice for index, choice in enumerate(random_choices(graph, count, seed=1))
        }
        names = list(choices)
        if known is None:
            measured, repeat = time_twice(session, choices, rounds)
        else:
            measured, repeat = {n: known["networks_ms"][n][1] for n in names}, known["repeat_error"]
        predicted = {n: float(session.term(hard_sizes(graph, c.units, c.gates))) for n, c in choices.items()}
        found = PredictionAccuracy.of([predicted[n] for n in names], [measured[n] for n in names])
        row = {
            "model": name,
            "target": session.target.label,
            "operators": len(graph.operators),
            "points_measured": session.prediction.measured,
            "points_known": session.prediction.known,
            "prepare_seconds": round(seconds, 1),
            "table_seconds": round(profiled[0] - started, 1),
            "original_ms": session.original_ms,
            "coefficients": session.term.coefficients.to_json(),
            "held_out": session.prediction.held_out,
            "load": os.getloadavg()[0],
            **vars(found),
            "repeat_error": repeat,
            "estimated": session.prediction.estimated,
            "exported": session.subnets.exported,
            "networks_ms": {n: [round(predicted[n], 4), round(measured[n], 4)] for n in names},
        }
        return row if known is None else row | {key: known[key] for key in _TIMED}
    finally:
        session.close()


def time_twice(session: LatencySession, choices: dict[str, Subnet], rounds: int) -> tuple[dict[str, float], float]:
    """Milliseconds by name, the mean of two timings, and how far these differ on average, as a fraction."""
    measured: dict[str, float] = {}
    again: dict[str, float] = {}
    names = list(choices)
    for start in range(0, len(names), 10):  # ten at a time, so that they fit into memory
        paths = {n: session.subnets.write(choices[n], n) for n in names[start : start + 10]}
        for into in (measured, again):
            timed = session.timer.time_networks(
                paths, session.subnets.original, reference_ms=session.original_ms, rounds=rounds
            )
            into |= timed.networks_ms
    repeat = sum(abs(again[n] / measured[n] - 1) for n in names) / len(names)
    return {n: (measured[n] + again[n]) / 2 for n in names}, repeat


def table(rows: list[dict[str, Any]]) -> str:
    """What rows say, in Markdown; of several about the same network and target the last."""
    lines = [
        "| network | target | points measured + known | table | calibration | mean error | worst | Kendall's tau "
        "| two timings of a network differ by |",
        "| --- " * 9 + "|",
    ]
    for row in {(row["target"].split()[0], row["model"]): row for row in rows}.values():
        lines.append(
            f"| {row['model']} | {row['target'].split()[0]} | {row['points_measured']} + {row['points_known']} "
            f"| {row['table_seconds']:.0f} s | {row['prepare_seconds'] - row['table_seconds']:.0f} s "
            f"| {row['mean_error']:.1%} | {row['worst_error']:.1%} | {row['kendall_tau']:.3f} "
            f"| {row['repeat_error']:.1%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--target", default="onnxruntime-cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lut", type=Path, help="table to use and extend; default: a fresh one")
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="append rows as JSON lines")
    parser.add_argument("--timed", type=Path, help="rows of an earlier run with the same --lut: only predict anew")
    parser.add_argument("--table", type=Path, help="print what the rows of a file say, and do nothing else")
    given = parser.parse_args()
    if given.table:
        print(table(read(given.table)))
        return
    timed = {(row["target"].split()[0], row["model"]): row for row in read(given.timed)} if given.timed else {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        settings = TargetSettings(given.target, given.lut or Path(folder) / "lut.sqlite", given.threads)
        for name in given.models:
            row = run(name, settings, given.networks, given.rounds, timed.get((given.target, name)))
            if given.out:
                append(given.out, row)
            print(table([row]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
