"""The table of ``coverage.py``: a summary, then every model with our results and those of the other tools."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Result = dict[str, Any]
OTHERS = {"torch-pruning": "torch-pruning", "fastnas": "nvidia-modelopt"}
COLUMNS = ("result", "error", "smallest", "at 50 %", "fixed", "s", "MB")
PACKAGES = ("torch", "torchvision", "timm", *OTHERS.values())
LEGEND = """
- *result*: exact if the compressed network computes what the tool's own plan says, to 1e-9 of the largest output in
  float64. Ours: the original with masks, as the search saw it. torch-pruning: the original with the input weights of
  removed channels at zero. FastNAS: its largest search space, weights sorted, against the original, and what it exports
  against the smallest subnetwork; it cannot be asked for more. *error*: the largest difference over the largest output.
- *smallest*: share of multiply-adds left at the smallest the tool goes to. Ours: one unit of everything, blocks kept.
  torch-pruning: 90 % of all channels asked away. FastNAS: its smallest subnetwork.
- *at 50 %*: share left when half was asked for (torch-pruning: 29.3 % of all channels, which is about that).
- *fixed*: share of channels that cannot go (other tools: that stayed at the smallest), for ours with the main reason.
- *s*: processor seconds on one thread. Ours: capture to trim. torch-pruning: building its graph and pruning. FastNAS:
  conversion and search, with a score that costs nothing. *MB*: peak memory of the process, libraries included. Seconds
  and MB of all tools are of one machine and one run; what ours finds was run again since, and is that of later code.
- torch-pruning, *not comparable*: the two differ in a model with LayerNorm or its like, whose statistics are over other
  channels then: the comparison cannot tell.
  *outputs cut*: layers that write the outputs were pruned; it was told to leave classifiers alone, not the outputs of
  feature pyramids.
- *over N s*: stopped after N seconds of the processor; what was found until then is shown. *float32 only*: too large to
  be compared in float64 in 20 GB of address space. *not run*: no result yet.
- The models take their own input sizes; of detection models it is the backbone. All tools run with their defaults.
"""


def write(results: dict[tuple[str, str], Result], path: Path) -> None:
    """Write the table of ``results``, by model and tool."""
    models = sorted({model for model, _ in results}, key=lambda m: (m.startswith("timm:"), m))
    head = ["model", *COLUMNS, "main reason", *(f"{tool} {c}" for tool in OTHERS for c in COLUMNS)]
    lines = [
        "# Coverage",
        "",
        "Written by `python -m benchmarks.coverage.coverage`: random weights, " + platform.machine() + ", one thread, "
        f"{', '.join(f'{name} {_version(name)}' for name in PACKAGES)}.",
        "",
        *_summary(results, models),
        "",
        *_gaps(results, models),
        LEGEND,
        f"| {' | '.join(head)} |",
        f"| --- {'| ---: ' * (len(head) - 1)}|",
    ]
    for model in models:
        mine = results.get((model, "ours"), {})
        reason = str(mine.get("reason") or mine.get("why", "")).replace("|", "/")
        others = [cell for tool in OTHERS for cell in _cells(results.get((model, tool), {}))]
        lines.append(f"| {' | '.join([model, *_cells(mine), reason, *others])} |")
    failures = [
        f"- {model}, {tool}: {r['reason'].replace('|', '/')}"
        for model in models
        for tool in OTHERS
        if "reason" in (r := results.get((model, tool), {}))
    ]
    if failures:
        lines += ["", "## What the other tools say where they fail", "", *failures]
    path.write_text("\n".join(lines) + "\n")


def _summary(results: dict[tuple[str, str], Result], models: list[str]) -> list[str]:
    timm = sum(model.startswith("timm:") for model in models)
    lines = [f"{len(models)} models, {timm} of them timm's, one or more of each of its families.", ""]
    lines += ["| | run | exact | down to 40 % or below | over 5 s, up to 100 M parameters | no result |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for tool in ("ours", *OTHERS):
        found = [r for (_, t), r in results.items() if t == tool]
        exact = sum(r["status"] == "exact" for r in found)
        reach = sum(r.get("smallest", 1.0) <= 0.4 and r["status"] == "exact" for r in found)
        slow = sum(r.get("seconds", 0.0) > 5 and r.get("params", 0) <= 100e6 for r in found)
        none = sum("error" not in r for r in found)
        lines.append(f"| {tool} | {len(found)} | {exact} | {reach} | {slow} | {none} |")
    return lines


def _gaps(results: dict[tuple[str, str], Result], models: list[str]) -> list[str]:
    missing = {tool: sum((model, tool) not in results for model in models) for tool in ("ours", *OTHERS)}
    named = [f"{tool} on {count}" for tool, count in missing.items() if count]
    return [f"Not run yet: {', '.join(named)} of them; that is no judgement."] if named else []


def _cells(result: Result) -> list[str]:
    forms = {"error": ".0e", "smallest": ".3f", "half": ".3f", "fixed": ".2f", "seconds": ".2f", "peak_mb": ".0f"}
    numbers = [format(result[key], form) if key in result else "" for key, form in forms.items()]
    return [result.get("status", "not run"), *numbers]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
