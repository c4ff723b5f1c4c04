"""Time trimming by half beside torch-pruning: the decision is made, the smaller network is not.

    python -m benchmarks.speed.trim_speed [--write benchmarks/speed/trim_speed.md] [--ours] [backbone ...]

Ours: ``plan`` and ``trim`` for a one-shot choice at half the multiply-adds; verification in float64, which
torch-pruning does not do, is timed apart. Theirs: ``MagnitudePruner(pruning_ratio=0.3).step()`` (about half the
multiply-adds), which also ranks channels. Theirs takes minutes in all; ``--ours`` leaves it out.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torchvision

from compressor.costs import build
from compressor.graph import capture
from compressor.search.base import SearchContext
from compressor.search.constraints.constraint import Constraint
from compressor.search.methods.oneshot.method import OneShot
from compressor.trim import Verifier, plan, trim

BACKBONES = ("resnet50", "mobilenet_v2", "densenet201")


def ours(name: str) -> dict[str, Any]:
    """Seconds of every stage."""
    model = torchvision.models.get_model(name, weights=None).eval()
    x = torch.randn(1, 3, 224, 224)
    marks = [time.perf_counter()]
    graph = capture(model, x)
    marks.append(time.perf_counter())
    flops = build("flops", graph)
    units = OneShot().run(SearchContext(model, graph, [Constraint(flops, 0.5 * flops.original)])).units
    marks.append(time.perf_counter())
    architecture = plan(model, graph, units)
    trimmed = trim(model, architecture)
    marks.append(time.perf_counter())
    check = Verifier(model, graph, x).check(units, trimmed, architecture)
    marks.append(time.perf_counter())
    capture_s, search_s, trim_s, verify_s = (b - a for a, b in itertools.pairwise(marks))
    return {
        "name": name,
        "capture_s": capture_s,
        "search_s": search_s,
        "trim_s": trim_s,
        "verify_s": verify_s,
        "error": check.error,
    }


def theirs(name: str) -> float:
    """Seconds of one pruning step, without building the dependency graph."""
    import torch_pruning as tp

    model = torchvision.models.get_model(name, weights=None).eval()
    x = torch.randn(1, 3, 224, 224)
    pruner = tp.pruner.MagnitudePruner(
        model, x, tp.importance.MagnitudeImportance(), pruning_ratio=0.3, ignored_layers=[_last_linear(model)]
    )
    started = time.perf_counter()
    pruner.step()
    return time.perf_counter() - started


def _last_linear(model: torch.nn.Module) -> torch.nn.Module:
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=BACKBONES)
    parser.add_argument("--ours", action="store_true", help="leave torch-pruning out")
    parser.add_argument("--write", type=Path, help="write the result to this file")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    lines = [
        "| backbone | capture, s | one-shot search, s | plan and trim, s | verify, s | error | torch-pruning step, s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in options.backbones:
        r = ours(name)
        other = "" if options.ours else f"{theirs(name):.1f}"
        lines.append(
            f"| {name} | {r['capture_s']:.2f} | {r['search_s']:.2f} | {r['trim_s']:.2f} | {r['verify_s']:.2f} "
            f"| {r['error']:.1e} | {other} |"
        )
        print(lines[-1], flush=True)
    if options.write:
        machine = (
            f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads, Python "
            f"{platform.python_version()}, torch {torch.__version__}"
        )
        if not options.ours:
            machine += f", torch-pruning {version('torch-pruning')}"
        command = "python -m benchmarks.speed.trim_speed --write benchmarks/speed/trim_speed.md"
        text = "\n".join(lines)
        options.write.write_text(
            f"# Trimming by half beside torch-pruning\n\nMade by `{command}`.\n\nMachine: {machine}.\n\n{text}\n"
        )


if __name__ == "__main__":
    main()
