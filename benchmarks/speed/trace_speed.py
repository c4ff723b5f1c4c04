"""Time tracing (capture, labels, groups) beside torch-pruning's dependency graph, in turn, in one process.

    python -m benchmarks.speed.trace_speed [--repeats 11] [--write benchmarks/speed/trace_speed.md] [backbone ...]

Needs ``torch-pruning`` (not a dependency of this project). Theirs is ``build_dependency``, and once more with its
groups (``list(get_all_groups())``), because a pruner cannot do without. Ours is the same work, the trace with labels,
groups, parameters and costs of channels, and once more the whole of ``capture``: residual blocks that can be removed,
and what a runtime would run, for latency; a dependency graph has neither. CPU time is a cross-check that other load on
the machine disturbs less; it adds up the threads that torch-pruning's real forward pass keeps busy.
"""

from __future__ import annotations

import argparse
import platform
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
import torchvision
from torch import nn

BACKBONES = (
    "resnet18",
    "resnet50",
    "vgg16",
    "alexnet",
    "mobilenet_v2",
    "densenet121",
    "densenet201",
    "efficientnet_b0",
    "squeezenet1_0",
    "convnext_tiny",
    "regnet_y_400mf",
    "googlenet",
    "resnext50_32x4d",
)


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """Wall-clock and CPU milliseconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3


def compare(name: str, repeats: int) -> dict[str, Any]:
    """Medians of both, in milliseconds, and medians of the ratios of neighbouring runs."""
    import torch_pruning as tp

    from compressor.graph import capture
    from compressor.graph.analysis.blocks import Blocks

    model: nn.Module = torchvision.models.get_model(name, weights=None).eval()
    x = torch.randn(1, 3, 224, 224)

    def theirs() -> None:
        tp.DependencyGraph().build_dependency(model, example_inputs=x)

    def theirs_with_groups() -> None:
        list(tp.DependencyGraph().build_dependency(model, example_inputs=x).get_all_groups())

    def ours() -> None:
        with (
            mock.patch("compressor.graph.capture.find_blocks", return_value=Blocks()),
            mock.patch("compressor.graph.capture.collect_operators", return_value=[]),
        ):
            capture(model, x)

    timed(theirs), timed(ours), timed(lambda: capture(model, x))
    runs = [(timed(ours), timed(theirs), timed(lambda: capture(model, x))) for _ in range(repeats)]
    pairs = [(a, b) for a, b, _ in runs]
    grouped = [timed(theirs_with_groups)[0] for _ in range(3)]
    ours_ms, theirs_ms = median(a[0] for a, _ in pairs), median(b[0] for _, b in pairs)
    return {
        "name": name,
        "ours_ms": ours_ms,
        "theirs_ms": theirs_ms,
        "ratio": median(a[0] / b[0] for a, b in pairs),
        "cpu_ratio": median(a[1] / b[1] for a, b in pairs),
        "whole_ms": median(c[0] for _, _, c in runs),
        "grouped_ms": median(grouped),
        "grouped_ratio": median(c[0] for _, _, c in runs) / median(grouped),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The result as Markdown."""
    lines = [
        "| backbone | ours, ms | torch-pruning, ms | ratio | ratio of CPU time "
        "| whole capture, ms | torch-pruning with groups, ms | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in rows:
        lines.append(
            f"| {r['name']} | {r['ours_ms']:.1f} | {r['theirs_ms']:.1f} | {r['ratio']:.2f} | {r['cpu_ratio']:.2f} "
            f"| {r['whole_ms']:.1f} | {r['grouped_ms']:.1f} | {r['grouped_ratio']:.2f} |"
        )
    means = [exp(sum(log(r[k]) for r in rows) / len(rows)) for k in ("ratio", "cpu_ratio", "grouped_ratio")]
    lines.append(f"| geometric mean | | | {means[0]:.2f} | {means[1]:.2f} | | | {means[2]:.3f} |")
    return "\n".join(lines)


def machine() -> str:
    return (
        f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads, Python "
        f"{platform.python_version()}, torch {torch.__version__}, torch-pruning {version('torch-pruning')}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=BACKBONES)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--write", type=Path, help="write the result to this file")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = [compare(name, options.repeats) for name in options.backbones]
    text = table(rows)
    print(text)
    if options.write:
        options.write.write_text(
            "# Tracing beside torch-pruning\n\nMade by `python -m benchmarks.speed.trace_speed --write "
            f"benchmarks/speed/trace_speed.md`, median of {options.repeats} runs in turn.\n\nMachine: {machine()}.\n\n"
            "*ours* is trace, labels, groups, masks and costs; *whole capture* adds removable blocks and the\n"
            "operators that a runtime would run. *torch-pruning* is `DependencyGraph().build_dependency(model,\n"
            "example_inputs=x)`, then with `list(get_all_groups())`.\n\n"
            f"{text}\n"
        )


if __name__ == "__main__":
    main()
