"""Two checkouts of this repository in turn: what traces, trims, checks and search steps cost in one and in the other.

    git worktree add ../before COMMIT
    python -m benchmarks.speed.side_by_side ../before . --write benchmarks/speed/side_by_side.md

Both run in processes of their own, which take turns at every single measurement, in changing order. Seconds are those of
the processor on one thread; of several the least counts, as whatever else runs can only add to it.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

MODELS = ("resnet18", "mobilenet_v2", "densenet121", "efficientnet_b2", "swin_t", "convnext_tiny")
JOBS = {
    **{f"trace {name}": 7 for name in MODELS},
    **{f"cut {name}": 5 for name in MODELS},
    **{f"check {name}": 5 for name in MODELS},
    **{f"{kind} {method}": 15 for kind in ("loop", "search") for method in ("figs", "dnarch")},
}
WHAT = {
    "trace": "`capture`",
    "cut": "`plan` and `trim`, a third of all units gone",
    "check": "the same with verification",
    "loop": "a step of `prepare`, ResNet-20, batch 64",
    "search": "a step of the program's own search, likewise",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(WHAT), help="kinds of jobs; default all")
    parser.add_argument("--write", type=Path, help="file for the table; else it is printed")
    given = parser.parse_args()
    roots = {"before": given.before.resolve(), "after": given.after.resolve()}
    workers = {name: _start(root) for name, root in roots.items()}
    rows = ["| | | before, ms | after, ms | after / before | of medians |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for job, times in JOBS.items():
        kind, subject = job.split()
        if given.only and kind not in given.only:
            continue
        found: dict[str, list[float]] = {name: [] for name in workers}
        for number in range(times):
            for name in list(workers) if number % 2 else reversed(workers):
                found[name].append(_ask(workers[name], job))
        least = {name: 1e3 * min(values) for name, values in found.items()}
        middle = median(found["after"]) / median(found["before"])
        ratio = least["after"] / least["before"]
        rows.append(
            f"| {WHAT[kind]} | {subject} | {least['before']:.1f} | {least['after']:.1f} | {ratio:.3f} | {middle:.3f} |"
        )
        print(rows[-1], file=sys.stderr, flush=True)
    if given.write is None:
        print("\n".join(rows))
    else:
        given.write.write_text("\n".join(rows) + "\n")


def _start(root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", str(root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd="/")


def _ask(worker: subprocess.Popen[str], job: str) -> float:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(job + "\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


class Worker:
    """One checkout. Names that have moved are looked for in both places."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self._models: dict[str, Any] = {}
        self._loops: dict[str, Any] = {}

    def seconds(self, job: str) -> float:
        kind, subject = job.split()
        gc.collect()
        found: float = getattr(self, kind)(subject)
        return found

    def model(self, name: str) -> Any:
        from compressor.models import load_model

        if name not in self._models:
            self._models[name] = load_model(name, weights="none")
        return self._models[name]

    def trace(self, name: str) -> float:
        from compressor.graph import capture

        loaded = self.model(name)
        started = time.process_time()
        capture(loaded.model, loaded.example_inputs)
        return time.process_time() - started

    def _third_gone(self, name: str) -> Any:
        import numpy as np

        from compressor.graph import capture

        loaded = self.model(name)
        graph = capture(loaded.model, loaded.example_inputs)
        units, rng = graph.all_units(), np.random.default_rng(0)
        for group in graph.groups:
            units[group.units[rng.permutation(len(group))[: min(len(group) - 1, len(group) // 3)]]] = False
        return loaded, graph, units

    def cut(self, name: str) -> float:
        from compressor.trim import plan, trim

        loaded, graph, units = self._third_gone(name)
        started = time.process_time()
        trim(loaded.model, plan(loaded.model, graph, units))
        return time.process_time() - started

    def check(self, name: str) -> float:
        from compressor.trim import trim_verified

        loaded, graph, units = self._third_gone(name)
        started = time.process_time()
        trim_verified(loaded.model, graph, units, loaded.example_inputs)
        return time.process_time() - started

    def _network(self) -> Any:
        import torch

        from compressor.models import load_model

        torch.manual_seed(0)
        model = load_model("resnet20_cifar", weights="none").model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        return model, optimizer, torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))

    def loop(self, method: str) -> float:
        import torch

        import compressor

        if method not in self._loops:
            model, optimizer, x, y = self._network()
            session = compressor.prepare(model, x[:1], {"flops": "50%"}, search=method, total_steps=1000)
            self._loops[method] = model, optimizer, x, y, session
        model, optimizer, x, y, session = self._loops[method]
        started = time.process_time()
        loss = torch.nn.functional.cross_entropy(model(x), y) + session.cost_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        session.step()
        return time.process_time() - started

    def search(self, method: str) -> float:
        import torch

        key = f"search {method}"
        if key not in self._loops:
            self._loops[key] = [*self._learner(method), 0]
        model, optimizer, x, y, learner, step = self._loops[key]
        started = time.process_time()
        learner.before_step(step, 1000)
        loss = torch.nn.functional.cross_entropy(learner.forward(model, x), y)
        penalty = learner.penalty()
        for each in (optimizer, *learner.optimizers().values()):
            each.zero_grad()
        (loss if penalty is None else loss + penalty).backward()
        for each in (optimizer, *(learner.optimizers().values() if learner.learns else ())):
            each.step()
        learner.after_step(step, 1000)
        self._loops[key][-1] += 1
        return time.process_time() - started

    def _learner(self, method: str) -> Any:
        from compressor.costs import build
        from compressor.graph import capture
        from compressor.search.base import SearchContext

        constraint = _first("compressor.search.constraints.constraint:Constraint", "compressor.search.base:Constraint")
        places = {"figs": "figs.method:Figs", "dnarch": "dnarch.method:Dnarch"}
        former = {"figs": "figs:Figs", "dnarch": "dnarch:Dnarch"}
        made = _first(f"compressor.search.methods.{places[method]}", f"compressor.search.{former[method]}")
        model, optimizer, x, y = self._network()
        graph = capture(model, x[:1])
        term = build("flops", graph)
        options = {"epochs": 1, **({"learn": "width"} if method == "dnarch" else {})}
        context = SearchContext(model, graph, [constraint(term, term.original / 2)], options=options)
        return model, optimizer, x, y, made().learner(context)


def _first(*names: str) -> Any:
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"none of {', '.join(names)} is there")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        sys.path[0] = sys.argv[2]  # not the folder of this file
        worker = Worker()
        for line in sys.stdin:
            print(worker.seconds(line.strip()), flush=True)
    else:
        main()
