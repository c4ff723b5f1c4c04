"""Engines of torchvision backbones, original and compressed: ONNX, OpenVINO and TensorRT-RTX, built and checked.

    python -m benchmarks.latency.engines --results benchmarks/latency/engines.jsonl
    python -m benchmarks.latency.engines --results benchmarks/latency/engines.jsonl --table > benchmarks/latency/engines.md

Every backbone is compressed to half its multiply-adds (one-shot, widths in multiples of eight, random weights: nothing
here depends on their values). ONNX files are run by ONNX Runtime, OpenVINO files by OpenVINO, and compared with PyTorch
on batches of one and two; TensorRT-RTX engines are parsed and built, which needs no GPU, and run only where there is
one. A model that is in the results already is left out, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import compressor
from benchmarks.harness import append, read
from compressor.deploy.exports import export_all
from compressor.models import load_model
from exporters import registry
from exporters.errors import ExporterError

MODELS = (
    "squeezenet1_1", "shufflenet_v2_x1_0", "mobilenet_v3_small", "mobilenet_v2", "resnet18", "mnasnet1_0",
    "mobilenet_v3_large", "regnet_y_400mf", "efficientnet_b0", "regnet_x_400mf", "densenet121", "resnet50",
)  # fmt: skip
FORMATS = ("onnx", "openvino", "tensorrt-rtx")


def engines(model: nn.Module, example: Tensor, folder: Path, name: str) -> dict[str, dict[str, Any]]:
    """What every format's exporter says, by format."""
    found: dict[str, dict[str, Any]] = {}
    onnx_path: Path | None = None
    for target in FORMATS:
        started = time.perf_counter()
        options: dict[str, Any] = {"batches": (1, 2)}
        if onnx_path is not None:
            options["onnx_path"] = onnx_path
        try:
            (info,) = export_all(model, example, folder, [target], stem=name, **options)
        except ExporterError as error:
            found[target] = {"error": str(error)}
            continue
        if target == "onnx":
            onnx_path = info.path
        found[target] = {
            "bytes": info.bytes,
            "rel_error": info.rel_error,
            "layers": info.details.get("layers", info.details.get("operations")),
            "dynamic_batch": info.dynamic_batch,
            "seconds": round(time.perf_counter() - started, 1),
        }
    return found


def run(name: str) -> dict[str, Any]:
    """One backbone; a JSON-able row."""
    loaded = load_model(name, weights="none")
    result = compressor.compress(loaded.model, loaded.example_inputs, {"flops": "50%"}, round_to=8)
    (budget,) = result.report.budgets
    row: dict[str, Any] = {"model": name, "macs": budget.original, "macs_left": budget.reached}
    with tempfile.TemporaryDirectory() as folder:
        for which, model in (("original", loaded.model), ("compressed", result.model)):
            row[which] = engines(model.eval(), loaded.example_inputs, Path(folder), which)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: sizes and layers of both networks per format, and the worst difference from PyTorch."""
    head = ["network", "MACs left"]
    for target in FORMATS:
        head += [f"{target} MB", "layers" if target != "onnx" else "differs by"]
        head += ["differs by"] if target == "openvino" else []
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    for row in rows:
        cells = [row["model"], f"{row['macs_left'] / row['macs']:.1%}"]
        for target in FORMATS:
            pair = [row[which][target] for which in ("original", "compressed")]
            failed = next((found["error"] for found in pair if "error" in found), None)
            if failed is not None:
                cells += [failed[:60]] + ["-"] * (2 if target == "openvino" else 1)
                continue
            cells.append(" → ".join(f"{found['bytes'] / 1e6:.1f}" for found in pair))
            if target != "onnx":
                cells.append(" → ".join(str(found["layers"]) for found in pair))
            if target != "tensorrt-rtx":
                cells.append(f"{max(found['rel_error'] for found in pair):.0e}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="print what the results say, and do nothing else")
    given = parser.parse_args()
    rows = read(given.results)
    if given.table:
        print(table(rows))
        return
    torch.set_num_threads(1)
    missing = [name for name in FORMATS if not registry.get(name).is_available()]
    if missing:
        raise SystemExit(f"Not installed: {', '.join(missing)}.")
    for name in given.models:
        if any(row["model"] == name for row in rows):
            continue
        row = run(name)
        rows.append(row)
        append(given.results, row)
        print(table([row]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
