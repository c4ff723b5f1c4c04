"""Which models can be compressed, exactly, how far and how fast: ours beside torch-pruning, one subprocess per model.

    python benchmarks/coverage.py [--tool TOOL] [--list torchvision|timm] [--limit-s 240] [model ...]
    python benchmarks/coverage.py --table          # writes coverage.md from coverage.jsonl

Every result is one line of ``coverage.jsonl``, written as soon as it is there; lines that exist are not measured again,
so the run can be stopped and resumed. Weights are random: this is about structure. Needs timm and torch-pruning.
"""

# ruff: noqa: E501  # lines of the table
from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "coverage.jsonl"
TABLE = HERE / "coverage.md"
TOOLS = ("ours", "torch-pruning")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names, timm's with the prefix timm:; default both lists")
    parser.add_argument("--tool", action="append", choices=TOOLS, help="default: all")
    parser.add_argument("--list", action="append", choices=("torchvision", "timm"), dest="lists")
    parser.add_argument("--limit-s", type=float, default=240, help="time limit per model")
    parser.add_argument("--limit-gb", type=float, default=20, help="address space limit per model")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--one", nargs=2, metavar=("TOOL", "MODEL"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(*given.one)))
        return
    if not given.table:
        from coverage_models import names

        run(
            given.models or names(given.lists or ["torchvision", "timm"]),
            given.tool or list(TOOLS),
            given.limit_s,
            given.limit_gb,
        )
    write_table()


def known() -> dict[tuple[str, str], dict[str, Any]]:
    """Results so far, by model and tool; of several the last counts."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {(r["model"], r["tool"]): r for r in map(json.loads, lines)}


def run(models: list[str], tools: list[str], limit_s: float, limit_gb: float) -> None:
    """Measure what is missing, one subprocess at a time."""
    done = known()
    for model in models:
        for tool in tools:
            if (model, tool) in done:
                continue
            result = in_subprocess(tool, model, limit_s, limit_gb)
            with RESULTS.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(model, tool, result["status"], result.get("error", ""), file=sys.stderr, flush=True)


def in_subprocess(tool: str, model: str, limit_s: float, limit_gb: float) -> dict[str, Any]:
    def limited() -> None:
        limit = int(limit_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    command = [sys.executable, str(Path(__file__).resolve()), "--one", tool, model]
    found: dict[str, Any] = {"model": model, "tool": tool}
    started = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, preexec_fn=limited, check=False)
    except subprocess.TimeoutExpired:
        return {**found, "status": f"over {limit_s:.0f} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        status = "out of memory" if "MemoryError" in last or "alloc" in last else "fails"
        return {**found, "status": status, "reason": last[:200], "wall_s": round(time.perf_counter() - started, 1)}
    return {**found, **json.loads(done.stdout.strip().splitlines()[-1])}


def measure(tool: str, name: str) -> dict[str, Any]:
    """One model with one tool, in this process."""
    import logging
    import warnings

    import torch

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(2)
    from coverage_models import build

    model, inputs = build(name)
    baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = ours(model, inputs) if tool == "ours" else theirs(model, inputs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["params"] = sum(p.numel() for p in model.parameters())
    return {**found, "peak_mb": round(peak / 1024), "before_mb": round(baseline / 1024)}


def ours(model: Any, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """Capture, search for half of the multiply-adds, trim, verify."""
    import numpy as np

    from compressor.costs import build
    from compressor.graph import capture
    from compressor.search.base import Constraint, SearchContext, hard_sizes
    from compressor.search.oneshot import OneShot
    from compressor.search.project import Projector
    from compressor.trim import plan, trim, trim_verified

    started = time.perf_counter()
    graph = capture(model, inputs)
    captured_s = time.perf_counter() - started
    term = build("flops", graph)
    projector = Projector(graph, [Constraint(term, term.original / 2)], depth=False)
    minimal = projector.minimal(np.zeros(graph.n_units))
    smallest = float(term(hard_sizes(graph, minimal))) / term.original
    found: dict[str, Any] = {
        "status": "exact",
        "macs": term.original,
        "smallest": smallest,
        "groups": len(graph.groups),
        "fixed": sum(f.channels for f in graph.fixed) / max(1, graph.channels),
        "why": next((f"{f.operator}: {f.reason}" if f.operator else f.reason for f in
                     sorted(graph.fixed, key=lambda f: -f.channels)), ""),
    }  # fmt: skip
    units, gates = minimal, None
    if smallest < 0.5:
        result = OneShot().run(
            SearchContext(model, graph, [Constraint(term, term.original / 2)], options={"depth": False})
        )
        units, gates = result.units, result.gates
    started = time.perf_counter()
    trim(model, plan(model, graph, units))
    found["seconds"] = captured_s + time.perf_counter() - started
    verified = trim_verified(model, graph, units, inputs, gates=gates)
    found["error"] = verified.check.error
    found["half"] = float(term(hard_sizes(graph, units, gates))) / term.original
    if verified.refused:
        found["status"] = f"{len(verified.refused)} groups refused"
    elif not verified.check.error <= 1e-9:
        found["status"] = "differs"
    return found


def theirs(model: Any, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """torch-pruning with its defaults: 29.3 % of every layer's channels (about half of the multiply-adds) by magnitude.

    Exact means: the pruned network computes what the original does with the removed channels' input weights at zero.
    """
    import torch
    import torch_pruning as tp

    model, x = model.double().eval(), tuple(t.double() if t.is_floating_point() else t for t in inputs)
    example = x[0] if len(x) == 1 else x
    masked = {id(m): m for m in model.modules()}
    weights = {key: m.weight.detach().clone() for key, m in masked.items() if _reads(m)}
    kept = {key: torch.arange(w.shape[_input_axis(masked[key])]) for key, w in weights.items()}
    original = __import__("copy").deepcopy(model)
    names = {id(m): name for name, m in model.named_modules()}
    heads = [m for m in model.modules() if getattr(m, "out_features", getattr(m, "out_channels", 0)) in (1000, 21, 400)]
    before, _ = tp.utils.count_ops_and_params(model, example)
    started = time.perf_counter()
    pruner = tp.pruner.MetaPruner(
        model, example, importance=tp.importance.MagnitudeImportance(p=2), pruning_ratio=0.293, ignored_layers=heads
    )
    for group in pruner.step(interactive=True):
        for dependency, indices in group:
            module = dependency.target.module
            if (
                id(module) in kept
                and "in_channels" in dependency.handler.__name__
                and getattr(module, "groups", 1) == 1
            ):
                here = kept[id(module)]
                keep = torch.ones(len(here), dtype=torch.bool)
                keep[torch.tensor(indices)] = False
                kept[id(module)] = here[keep]
        group.prune()
    seconds = time.perf_counter() - started
    after, _ = tp.utils.count_ops_and_params(model, example)
    modules = dict(original.named_modules())
    with torch.no_grad():
        for key, indices in kept.items():
            module = modules[names[key]]
            zero = torch.ones(module.weight.shape[_input_axis(module)], dtype=torch.bool)
            zero[indices] = False
            module.weight.index_fill_(_input_axis(module), zero.nonzero().flatten(), 0.0)
        expected, found = _tensors(original(*x)), _tensors(model(*x))
    error = max(
        float((a - b).abs().max() / a.abs().max()) if a.shape == b.shape else float("inf")
        for a, b in zip(expected, found, strict=True)
    )
    status = "exact" if error <= 1e-9 else "differs"
    return {"status": status, "error": error, "half": after / before, "seconds": seconds}


def _reads(module: Any) -> bool:
    from torch import nn

    return isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and getattr(module, "groups", 1) == 1


def _input_axis(module: Any) -> int:
    return 0 if getattr(module, "transposed", False) else 1


def _tensors(output: Any) -> list[Any]:
    from compressor.graph.capture import tensors_in

    return tensors_in(output)


def write_table() -> None:
    """``coverage.md`` from the results."""
    results = known()
    models = sorted({model for model, _ in results}, key=lambda m: (m.startswith("timm:"), m))
    mine = [r for (_, tool), r in results.items() if tool == "ours"]
    reach = [r for r in mine if r.get("smallest", 1.0) <= 0.4]
    exact = [r for r in mine if r["status"] == "exact"]
    other = [r for (_, tool), r in results.items() if tool == "torch-pruning"]
    lines = [
        "# Coverage",
        "",
        "Written by `python benchmarks/coverage.py`; random weights, float64 comparison, "
        f"{platform.machine()}, {os.cpu_count()} cores, torch {_version('torch')}, timm {_version('timm')}, "
        f"torch-pruning {_version('torch-pruning')}.",
        "",
        f"Ours: {len(exact)} of {len(mine)} models exact, {len(reach)} can go to 40 % of their multiply-adds or below. "
        f"torch-pruning: {sum(r['status'] == 'exact' for r in other)} of {len(other)} exact.",
        "",
        "*smallest*: share of multiply-adds left at the smallest width of everything; *at 50 %*: share reached when half "
        "was asked for (torch-pruning: with 29.3 % of all channels removed); *fixed*: share of channels that stay, with "
        "the main reason; *s*: capture to trim; *MB*: peak memory of the process.",
        "",
        "| model | ours | error | smallest | at 50 % | fixed | main reason | s | MB | torch-pruning | error | at 50 % | s | MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model in models:
        a, b = results.get((model, "ours"), {}), results.get((model, "torch-pruning"), {})
        cells = [
            model, a.get("status", ""), _number(a, "error", ".0e"), _number(a, "smallest", ".3f"), _number(a, "half", ".3f"),
            _number(a, "fixed", ".2f"), str(a.get("why", a.get("reason", ""))).replace("|", "/"), _number(a, "seconds", ".2f"),
            _number(a, "peak_mb", ".0f"), b.get("status", ""), _number(b, "error", ".0e"), _number(b, "half", ".3f"),
            _number(b, "seconds", ".2f"), _number(b, "peak_mb", ".0f"),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    TABLE.write_text("\n".join(lines) + "\n")


def _number(result: dict[str, Any], key: str, form: str) -> str:
    return format(result[key], form) if key in result else ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    main()
