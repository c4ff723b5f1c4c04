"""What widths are worth on runtimes: networks of half the multiply-adds with any widths, and with even ones.

    python -m benchmarks.latency.even_widths --results benchmarks/latency/even_widths.jsonl
    python -m benchmarks.latency.even_widths --results benchmarks/latency/even_widths.jsonl --table

Every backbone is compressed one-shot to half of its multiply-adds (random weights: speed does not depend on their
values), with ``round_to`` 1, 8, 16 and the default, exported to ONNX, and timed in turn with the original on one
thread.
A backbone on a runtime that is in the results already is left out, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

import compressor
from benchmarks.harness import append, read
from benchmarks.latency.speedup import in_turn
from compressor.models import load_model
from exporters.formats.onnx import OnnxExporter
from profilers import registry

MODELS = (
    "resnet20_cifar", "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "mnasnet1_0",
    "efficientnet_b0", "regnet_x_400mf", "regnet_y_400mf", "shufflenet_v2_x1_0", "squeezenet1_1", "densenet121",
)  # fmt: skip
WIDTHS = {"any": 1, "multiples of 8": 8, "multiples of 16": 16, "default": None}


def run(name: str, target: str, seconds: float) -> dict[str, Any]:
    """One backbone on one runtime; a JSON-able row of milliseconds and multiply-adds by kind of widths."""
    loaded = load_model(name, weights="none")
    example = loaded.example_inputs[:1]
    row: dict[str, Any] = {"model": name, "target": target, "macs": {"original": 1.0}}
    with tempfile.TemporaryDirectory() as folder:
        networks = {"original": loaded.model.eval()}
        for label, round_to in WIDTHS.items():
            result = compressor.compress(loaded.model, example, {"flops": "50%"}, round_to=round_to)
            (budget,) = result.report.budgets
            networks[label], row["macs"][label] = result.model, budget.reached / budget.original
        paths = {}
        for label, network in networks.items():
            paths[label] = (
                OnnxExporter().export(network, example, Path(folder) / f"{len(paths)}.onnx", check=False).path
            )
        row["ms"] = in_turn(registry.get(target), paths, seconds, 1)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: times as shares of the original's, with the shares of multiply-adds that are left."""
    head = ["network", "runtime", "original", *WIDTHS]
    lines = ["| " + " | ".join(head) + " |", "| --- | --- |" + " ---: |" * (len(head) - 2)]
    for row in rows:
        whole = row["ms"]["original"]
        cells = [row["model"], row["target"], f"{whole:.2f} ms"]
        cells += [f"{row['ms'][label] / whole:.2f} ({row['macs'][label]:.1%})" for label in WIDTHS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--targets", nargs="+", default=["onnxruntime-cpu", "openvino-cpu"])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing for every backbone on every runtime")
    parser.add_argument("--table", action="store_true", help="print what the results say, and do nothing else")
    given = parser.parse_args()
    rows = read(given.results)
    if given.table:
        print(table(rows))
        return
    torch.set_num_threads(1)
    for target in given.targets:
        for name in given.models:
            if any((row["model"], row["target"]) == (name, target) for row in rows):
                continue
            row = run(name, target, given.seconds)
            append(given.results, row)
            print(table([row]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
