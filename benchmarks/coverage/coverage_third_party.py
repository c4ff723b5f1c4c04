"""Which networks of other packages can be compressed, exactly and how far: one process per model.

    python -m benchmarks.coverage.coverage_third_party [--limit-s 240] [package:model ...]
    python -m benchmarks.coverage.coverage_third_party --table      # writes coverage_third_party.md from its .jsonl

Transformers, diffusers, segmentation-models-pytorch, monai and torchaudio, each where it is installed (the extra
``zoo``); small configurations, random weights. Lines that exist are not measured again. Unlike in ``coverage.py``
blocks may go, too, as in a run without options.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.coverage import coverage
from benchmarks.coverage.coverage_table import _cells
from benchmarks.coverage.third_party_models import PACKAGES, build, names
from benchmarks.harness import append, read

HERE = Path(__file__).parent
RESULTS = HERE / "coverage_third_party.jsonl"
COLUMNS = ("result", "error", "smallest", "at 50 %", "fixed", "s", "MB", "blocks", "main reason")
LEGEND = """
- *result*: exact if the compressed network computes what the masked original does, to 1e-9 of the largest output in
  float64, and runs in float32 on the example, too. *error*: the largest difference over the largest output.
- *smallest*: share of multiply-adds left with one unit of everything and every block kept; *at 50 %*: the share that
  the one-shot search leaves when asked for half, blocks and all.
- *fixed*: share of channels that cannot go, with the main reason. *blocks*: removed, of those found.
- *s*: processor seconds on one thread, capture to trim. *MB*: peak memory of the process, libraries included. Both are of
  the first run; what is found was run again since.
- Most of these models are tiny, so that a vocabulary or a classifier that cannot go is a large part of them.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="package:model; default all of the packages that are installed")
    parser.add_argument("--limit-s", type=float, default=240, help="limit on processor time per model")
    parser.add_argument("--limit-gb", type=float, default=20, help="address space limit per model")
    parser.add_argument("--again", action="store_true", help="measure what has a result, too")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--table", action="store_true", help="only write the table")
    given = parser.parse_args()
    done = {row["model"] for row in read(given.results)}
    for module in (
        () if given.table else (*PACKAGES.values(), "compressor.trim", "compressor.search.methods.oneshot.method")
    ):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    for name in () if given.table else given.models or names():
        if name in done and not given.again:
            continue
        row = coverage.in_process("third-party", name, given.limit_s, given.limit_gb)
        append(given.results, row)
        print(name, row["status"], row.get("reason", ""), flush=True)
    if given.results == RESULTS:
        rows = {row["model"]: row for row in read(RESULTS)}  # of several the last counts
        (HERE / "coverage_third_party.md").write_text(table(rows))


def ours(model: Any, inputs: tuple[tuple[Any, ...], dict[str, Any]], report: Any) -> None:
    """Capture, search for half of the multiply-adds, trim, verify, run."""
    from compressor.costs import build as cost
    from compressor.graph import capture
    from compressor.search.base import SearchContext
    from compressor.search.constraints.constraint import Constraint, hard_sizes
    from compressor.search.constraints.projector import Projector
    from compressor.search.methods.oneshot.method import OneShot
    from compressor.trim import plan, trim, trim_verified

    args, kwargs = inputs
    started = time.process_time()
    graph = capture(model, args, example_kwargs=kwargs)
    seconds = time.process_time() - started
    term = cost("flops", graph)
    half = [Constraint(term, term.original / 2)]
    minimal = Projector(graph, half, depth=False).minimal(np.zeros(graph.n_units))
    reasons = sorted(graph.fixed, key=lambda f: -f.channels)
    report(
        macs=term.original,
        smallest=float(term(hard_sizes(graph, minimal))) / term.original,
        fixed=sum(f.channels for f in graph.fixed) / max(1, graph.channels),
        why=next((f"{f.operator}: {f.reason}" if f.operator else f.reason for f in reasons), ""),
        on_meta=graph.on_meta,
    )
    units, gates = minimal, np.zeros(len(graph.blocks), dtype=np.bool_)
    if float(term(hard_sizes(graph, minimal, gates))) <= term.original / 2:
        result = OneShot().run(SearchContext(model, graph, half))
        units, gates = result.units, result.gates_or_all(graph)
    started = time.process_time()
    trim(model, plan(model, graph, units, gates))
    seconds += time.process_time() - started
    report(
        seconds=seconds,
        half=float(term(hard_sizes(graph, units, gates))) / term.original,
        blocks=f"{int((~graph.gates(gates)).sum())}/{len(graph.blocks)}",
    )
    verified = trim_verified(model, graph, units, args, kwargs, gates=gates)
    exact = verified.check.error <= 1e-9
    status = "exact" if exact else "float32 only" if verified.check.passed else "differs"
    if verified.refused:
        status = f"{status}, {len(verified.refused)} groups refused"
        report(reason=verified.reason)
    with torch.no_grad():
        verified.model(*args, **kwargs)
    report(status=status, error=verified.check.error)


def table(rows: dict[str, dict[str, Any]]) -> str:
    packages = [(name, _version(module)) for name, module in PACKAGES.items()]
    lines = [
        "# Coverage of other packages",
        "",
        f"Written by `python -m benchmarks.coverage.coverage_third_party`: random weights, {platform.machine()}, one thread, "
        f"torch {version('torch')}, {', '.join(f'{name} {v}' for name, v in packages)}.",
        "",
        "| package | models | exact | down to half | not compressed |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for package in PACKAGES:
        found = [row for name, row in rows.items() if name.partition(":")[0] == package]
        exact = [row for row in found if row["status"] == "exact"]
        down = sum(row.get("half", 1.0) <= 0.5 for row in exact)
        lines.append(f"| {package} | {len(found)} | {len(exact)} | {down} | {sum('half' not in r for r in found)} |")
    lines += [LEGEND, f"| model | {' | '.join(COLUMNS)} |", f"| --- {'| ---: ' * len(COLUMNS)}|"]
    for name, row in rows.items():
        reason = str(row.get("reason") or row.get("why", "")).replace("|", "/")
        lines.append(f"| {' | '.join([name, *_cells(row), str(row.get('blocks', '')), reason])} |")
    return "\n".join(lines) + "\n"


def _version(module: str) -> str:
    try:
        return version(module.replace("_", "-"))
    except PackageNotFoundError:
        return "absent"


def _built(name: str) -> tuple[Any, Any]:
    model, args, kwargs = build(name)
    return model, (args, kwargs)


if __name__ == "__main__":
    coverage.FUNCTIONS["third-party"] = ours
    coverage.build = _built
    main()
