"""Real speed-ups: networks compressed to half their latency beside torch-pruning's removal of half the channels.

    python -m benchmarks.latency.speedup --results benchmarks/latency/speedup.jsonl
    python -m benchmarks.latency.speedup --results benchmarks/latency/speedup.jsonl --table > benchmarks/latency/speedup.md

Both start from the same random weights: speed does not depend on their values. The original, ours and torch-pruning's
are exported to ONNX and timed in turn on one thread; speed-up is the original's time over theirs. At half the channels
everywhere torch-pruning's networks keep about a quarter of the multiply-adds, so a third column has the ratio at which
half of the multiply-adds are left (1 - 1/sqrt(2)). A model that is in the results already is left out.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import compressor
from benchmarks.harness import append, read
from compressor.costs import build
from compressor.graph import capture
from compressor.latency.target import TargetSettings
from compressor.models import load_model
from exporters.errors import ExporterError
from exporters.formats.onnx import OnnxExporter
from profilers.base import Runtime
from profilers.stats import quiet_ms

MODELS = (
    "resnet18", "mobilenet_v2", "squeezenet1_1", "mobilenet_v3_small", "mnasnet1_0", "shufflenet_v2_x1_0", "resnet34",
    "regnet_x_400mf", "mobilenet_v3_large", "efficientnet_b0", "densenet121", "resnet50",
)  # fmt: skip
RATIOS = {"half of the channels": 0.5, "half of the MACs": 1 - 0.5**0.5}


def pruned(model: nn.Module, example: Tensor, ratio: float) -> nn.Module:
    """torch-pruning's magnitude pruner, the same ratio everywhere, the classifier left alone as its guide has it."""
    import torch_pruning

    network = copy.deepcopy(model).eval()
    last = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    torch_pruning.pruner.MagnitudePruner(
        network,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[last],
        round_to=8,
    ).step()
    return network


def in_turn(runtime: Runtime, paths: dict[str, Path], seconds: float, threads: int) -> dict[str, float]:
    """Milliseconds of every file, timed in turn."""
    runners = {name: runtime.load(path, threads=threads, batch=1) for name, path in paths.items()}
    found: dict[str, list[float]] = {name: [] for name in runners}
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(found["original"]) < 9:
        for name, runner in runners.items():
            runs = int(min(200, max(2, 60 / max(median(found[name] or [quiet_ms(runner.measure(3))]), 1e-3))))
            found[name].append(quiet_ms(runner.measure(runs + 1).after(1)))
    for runner in runners.values():
        runner.close()
    return {name: median(values) for name, values in found.items()}


def run(name: str, settings: TargetSettings, seconds: float) -> dict[str, Any]:
    """One network; a JSON-able row."""
    loaded = load_model(name, weights="none")
    original, example = loaded.model.eval(), loaded.example_inputs
    started = time.perf_counter()
    result = compressor.compress(original, example, {"latency": "50%"}, target=settings)
    row: dict[str, Any] = {"model": name, "seconds": round(time.perf_counter() - started, 1)}
    networks = {"original": original, "ours": result.model}
    for label, ratio in RATIOS.items():
        try:
            networks[label] = pruned(original, example, ratio)
        except Exception as error:  # another tool: whatever it raises is its result
            row[f"{label} failed"] = f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for label, network in networks.items():
            try:
                path = Path(folder) / f"{len(paths)}.onnx"
                paths[label] = OnnxExporter().export(network.eval(), example, path, check=False).path
            except ExporterError as error:
                row[f"{label} failed"] = str(error)
        row["ms"] = in_turn(settings.runtime(), paths, seconds, settings.threads or 1)
    row["macs"] = {n: build("flops", capture(m, example)).original for n, m in networks.items() if n in paths}
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: speed-up and multiply-adds left, ours and torch-pruning's at both ratios."""
    head = ["network", "original", "ours, 50 % latency", *(f"torch-pruning, {label}" for label in RATIOS)]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for row in rows:
        whole, macs = row["ms"]["original"], row["macs"]["original"]
        cells = [row["model"], f"{whole:.2f} ms"]
        for label in ("ours", *RATIOS):
            if label in row["ms"]:
                cells.append(f"{whole / row['ms'][label]:.2f}x ({row['macs'][label] / macs:.0%} of MACs)")
            else:
                cells.append(str(row.get(f"{label} failed", "-")))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--target", default="onnxruntime-cpu")
    parser.add_argument("--lut", type=Path, help="table to use and extend; default: the user's")
    parser.add_argument("--seconds", type=float, default=20.0, help="for the timing at the end")
    parser.add_argument("--table", action="store_true", help="print what the results say, and do nothing else")
    given = parser.parse_args()
    rows = read(given.results)
    if given.table:
        print(table(rows))
        return
    torch.set_num_threads(1)
    settings = TargetSettings(given.target, given.lut, 1, max_points=16)
    for name in given.models:
        if any(row["model"] == name for row in rows):
            continue
        row = run(name, settings, given.seconds)
        rows.append(row)
        append(given.results, row)
        print(table([row]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
