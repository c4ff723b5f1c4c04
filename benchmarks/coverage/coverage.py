"""Which models can be compressed, exactly, how far and how fast: ours beside two other tools, one process per model.

    python -m benchmarks.coverage.coverage [--tool TOOL] [--list torchvision|timm] [--limit-s 240] [model ...]
    python -m benchmarks.coverage.coverage --table          # writes coverage.md from coverage.jsonl

Every result is one line of ``coverage.jsonl``, written as soon as it is there; lines that exist are not measured again,
so the run can be stopped and resumed. A model that ran into a lower time limit than the one given is tried again.
Weights are random: this is about structure. Needs timm, torch-pruning and nvidia-modelopt.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import multiprocessing
import os
import resource
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.coverage.coverage_models import build, names
from benchmarks.coverage.coverage_table import write
from benchmarks.coverage.coverage_tools import TOOLS as FUNCTIONS
from benchmarks.harness import append, read

HERE = Path(__file__).parent
RESULTS = HERE / "coverage.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names, timm's with the prefix timm:; default both lists")
    parser.add_argument("--tool", action="append", choices=list(FUNCTIONS), help="default: all")
    parser.add_argument("--list", action="append", choices=("torchvision", "timm"), dest="lists")
    parser.add_argument("--limit-s", type=float, default=240, help="limit on processor time per model")
    parser.add_argument("--limit-gb", type=float, default=20, help="address space limit per model")
    parser.add_argument("--again", action="store_true", help="measure what has a result, too")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--table", action="store_true", help="only write the table")
    given = parser.parse_args()
    if not given.table:
        import_libraries()
        models = given.models or names(given.lists or ["torchvision", "timm"])
        run(models, given.tool or list(FUNCTIONS), given.limit_s, given.limit_gb, given.results, again=given.again)
    if given.results == RESULTS:
        write(known(RESULTS), HERE / "coverage.md")


def import_libraries() -> None:
    """Import what every process needs, once for all."""
    for name in ("timm", "torchvision", "torch_pruning", "modelopt.torch.nas", "compressor.trim"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def known(results: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Results so far, by model and tool; of several the last counts."""
    return {(r["model"], r["tool"]): r for r in read(results)}


def run(models: list[str], tools: list[str], limit_s: float, limit_gb: float, results: Path, *, again: bool) -> None:
    """Measure what is missing, one process at a time."""
    done = known(results)
    for model in models:
        for tool in tools:
            before = done.get((model, tool))
            if before is not None and not again and before.get("limit_s", limit_s) >= limit_s:
                continue
            result = in_process(tool, model, limit_s, limit_gb)
            append(results, result)
            print(model, tool, result["status"], result.get("reason", ""), file=sys.stderr, flush=True)


def in_process(tool: str, model: str, limit_s: float, limit_gb: float) -> dict[str, Any]:
    """What was found until the process ended or ran out of time, and how it ended; ``limit_s`` is there if it mattered.

    The process is a fork of this one, which has imported the libraries but has run nothing.
    """
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=measure, args=(there, tool, model, limit_s, limit_gb))
    found: dict[str, Any] = {"model": model, "tool": tool}
    process.start()
    there.close()
    with contextlib.suppress(EOFError):
        while True:
            found.update(here.recv())
    process.join()
    if process.exitcode == -signal.SIGXCPU:
        return {"status": f"over {limit_s:.0f} s", **found, "limit_s": limit_s}
    if process.exitcode:
        return {"status": "fails", "reason": f"ended by signal {-process.exitcode}", **found}
    return found


def measure(results: Any, tool: str, name: str, limit_s: float, limit_gb: float) -> None:
    """One model with one tool, in this process; every finding is sent as soon as it is there."""
    resource.setrlimit(resource.RLIMIT_AS, (int(limit_gb * 2**30),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s), int(limit_s) + 5))
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    torch.set_num_threads(1)

    def report(**found: Any) -> None:
        results.send({**found, "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)})

    try:
        model, inputs = build(name)
        report(params=sum(p.numel() for p in model.parameters()))
        report(before_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
        FUNCTIONS[tool](model, inputs, report)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        memory = isinstance(error, MemoryError) or "alloc" in text
        report(
            status="out of memory" if memory else "fails",
            reason=text if len(text) < 240 else f"{text[:80]} ... {text[-150:]}",
        )


if __name__ == "__main__":
    main()
