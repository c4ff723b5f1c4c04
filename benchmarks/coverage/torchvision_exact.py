"""All classification and segmentation models of torchvision at half their multiply-adds, beside torch-pruning.

    python -m benchmarks.coverage.coverage --list torchvision --tool ours --tool torch-pruning
    python -m benchmarks.coverage.torchvision_exact

The first command measures, and can be stopped and continued; this one writes ``torchvision_exact.md`` from its results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torchvision

from benchmarks.harness import read

HERE = Path(__file__).parent
HEAD = """# torchvision at half the multiply-adds

    python -m benchmarks.coverage.coverage --list torchvision --tool ours --tool torch-pruning
    python -m benchmarks.coverage.torchvision_exact

Every classification and segmentation model that `torchvision.models.list_models()` names; random weights, one thread.
[coverage.md](coverage.md) says how each column is measured and has the versions; *left* is the share of multiply-adds
after asking for half, *s* the seconds of the processor from capture to trim, or for torch-pruning's graph and pruning.
"""
Results = dict[tuple[str, str], dict[str, Any]]


def names() -> list[str]:
    """Classification models, then segmentation models."""
    listed = torchvision.models.list_models(module=torchvision.models)
    return [*listed, *torchvision.models.list_models(module=torchvision.models.segmentation)]


def table(results: Results) -> str:
    """Markdown, one row per model."""
    columns = ["model", "parameters", *(f"{tool} {c}" for tool in ("ours", "torch-pruning") for c in _COLUMNS)]
    lines = [f"| {' | '.join(columns)} |", f"| --- {'| ---: ' * (len(columns) - 1)}|"]
    for name in names():
        ours, theirs = (results.get((name, tool), {}) for tool in ("ours", "torch-pruning"))
        size = ours.get("params") or theirs.get("params")
        cells = [name, f"{size / 1e6:.1f} M" if size else "", *_cells(ours), *_cells(theirs)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


_COLUMNS = ("result", "error", "left", "s")


def _cells(row: dict[str, Any]) -> list[str]:
    forms = {"error": ".0e", "half": ".1%", "seconds": ".2f"}
    return [row.get("status", "not run"), *(format(row[k], form) if k in row else "" for k, form in forms.items())]


def main() -> None:
    rows = read(HERE / "coverage.jsonl")
    results = {(row["model"], row["tool"]): row for row in rows}
    found = [results[name, "ours"] for name in names() if (name, "ours") in results]
    exact = sum(row["status"] == "exact" for row in found)
    theirs = [results[name, "torch-pruning"] for name in names() if (name, "torch-pruning") in results]
    right = sum(row["status"] == "exact" for row in theirs)
    summary = f"Ours: {exact} of {len(found)} exact. torch-pruning: {right} of the {len(theirs)} that were run."
    (HERE / "torchvision_exact.md").write_text(
        f"{HEAD}\n{summary} There are {len(names())} in all.\n\n{table(results)}\n"
    )


if __name__ == "__main__":
    main()
