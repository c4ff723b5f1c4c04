"""Classification and segmentation models of torchvision at half their multiply-adds: traced, trimmed, verified.

    python benchmarks/torchvision_exact.py --out benchmarks/torchvision_exact.md

Random weights, the one-shot search by magnitude, verification in float64. Models above ``--params`` parameters are left
out. Rows are appended to a JSON-lines file beside the table, so the benchmark can be stopped and continued.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torchvision

from compressor.costs import build
from compressor.errors import CompressorError
from compressor.graph import capture
from compressor.search.base import Constraint, SearchContext
from compressor.search.oneshot import OneShot
from compressor.trim import trim_verified


def names() -> list[str]:
    """All classification and segmentation models."""
    listed = torchvision.models.list_models(module=torchvision.models)
    return [*listed, *torchvision.models.list_models(module=torchvision.models.segmentation)]


def build_model(name: str) -> torch.nn.Module:
    """The model with random weights, its backbone's included."""
    torch.manual_seed(0)
    extra = (
        {"weights_backbone": None}
        if name in torchvision.models.list_models(module=torchvision.models.segmentation)
        else {}
    )
    return torchvision.models.get_model(name, weights=None, **extra).eval()


def run(name: str, most_params: float) -> dict[str, Any] | None:
    """One row, or ``None`` for a model that is too large."""
    model = build_model(name)
    size = sum(p.numel() for p in model.parameters())
    if size > most_params:
        return None
    inputs = torch.randn(1, 3, 299 if "inception" in name else 224, 299 if "inception" in name else 224)
    started = time.perf_counter()
    graph = capture(model, inputs)
    traced = time.perf_counter()
    flops = build("flops", graph)
    constraint = Constraint(flops, 0.5 * flops.original)
    row: dict[str, Any] = {"model": name, "params": size, "trace_s": traced - started}
    try:
        decision = OneShot().run(SearchContext(model, graph, [constraint]))
    except CompressorError as error:
        return {**row, "error": None, "share": None, "note": str(error)}
    searched = time.perf_counter()
    result = trim_verified(model, graph, decision.units, inputs, gates=decision.gates)
    small = build("flops", capture(result.model, inputs)).original
    return {
        **row,
        "search_s": searched - traced,
        "trim_and_verify_s": time.perf_counter() - searched,
        "error": result.check.error,
        "share": small / flops.original,
        "note": f"left whole: {', '.join(result.refused)}" if result.refused else "",
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, one row per model."""
    lines = ["| model | parameters | error | multiply-adds left | trace s | search s | trim and verify s | note |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for row in rows:
        error = "" if row["error"] is None else f"{row['error']:.0e}"
        share = "" if row["share"] is None else f"{row['share']:.1%}"
        times = " | ".join(f"{row.get(key, float('nan')):.2f}" for key in ("trace_s", "search_s", "trim_and_verify_s"))
        lines.append(f"| {row['model']} | {row['params'] / 1e6:.1f} M | {error} | {share} | {times} | {row['note']} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*")
    parser.add_argument("--params", type=float, default=150e6, help="leave out larger models")
    parser.add_argument("--rows", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--out", type=Path, help="write the table here")
    parser.add_argument("--table", action="store_true", help="run nothing, write the table of the rows there are")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = [json.loads(line) for line in args.rows.read_text().splitlines()] if args.rows.exists() else []
    done = {row["model"] for row in rows}
    for name in [] if args.table else args.models or names():
        if name in done or (row := run(name, args.params)) is None:
            continue
        rows.append(row)
        with args.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(name, row["error"], row["share"], row["note"], flush=True)
    if args.out is not None:
        command = f"    python benchmarks/{Path(__file__).name} --out {args.out.name}"
        head = f"# torchvision at half the multiply-adds\n\n{command}\n\n"
        args.out.write_text(head + table(rows) + "\n")


if __name__ == "__main__":
    main()
