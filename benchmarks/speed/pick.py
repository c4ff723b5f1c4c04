"""Time ``compress pick`` of a ResNet-50: from the command to the verified network with its ONNX file.

    python -m benchmarks.speed.pick FOLDER [--runs 5] [--write benchmarks/speed/pick.md]

FOLDER is where the supernet is made, if it is not there: a ResNet-50 on random 224x224 images, for a few steps, as
nothing here depends on how good it is. Each run is a process of its own with one thread, and bytecode that is there, as
after an installation. Seconds are those of the wall and of the processor. Importing PyTorch alone is timed in turn
with it, which tells how busy the machine is.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

TRAIN = (
    "--model resnet50 --num-classes 4 --weights none --search supernet --search-epochs 1 --finetune-epochs 0 "
    "--budget-flops 90% --supernet.lowest flops=20% --supernet.choices 2 --supernet.learn width --supernet.population 4 "
    "--supernet.generations 0 --supernet.recalibration 1 --batch-size 8 --export none --bench-seconds 0"
)
RUNS = {
    "import torch": ["-c", "import torch"],
    "pick, no export": ["--export", "none"],
    "pick, ONNX": ["--export", "onnx"],
}
STAGES = ("load", "trace", "trim and verify", "export")


def make_supernet(folder: Path, environment: dict[str, str]) -> None:
    """A job of ``--search supernet`` in ``folder``, unless one is there."""
    if (folder / "front.json").exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((24, 3, 224, 224), dtype=np.float32), np.arange(24) % 4
    data = folder.with_suffix(".npz")
    np.savez(data, **{f"{kind}_{part}": v for part in ("train", "test") for kind, v in (("x", images), ("y", labels))})
    command = [sys.executable, "-m", "compressor", *TRAIN.split(), "--data", f"npz:{data}", "--out", str(folder)]
    subprocess.run(command, check=True, env=environment)


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Seconds of the wall and of the processor, and what the command printed."""
    before, started = _used(), time.perf_counter()
    done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    return time.perf_counter() - started, _used() - before, done.stdout


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--write", type=Path, help="file for the table; else it is printed")
    given = parser.parse_args()
    cache = given.folder.resolve().with_suffix(".bytecode")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    make_supernet(given.folder, environment)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in RUNS}
    stages: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
    out, loads = given.folder.with_suffix(".picked"), []
    for number in range(given.runs + 1):
        for name, more in RUNS.items():
            command = [sys.executable, *more]
            if name != "import torch":
                command = [sys.executable, "-m", "compressor", "pick", str(given.folder), "--budget-flops", "60%"]
                command += [*more, "--out", str(out), "--quiet", "--format", "json"]
            shutil.rmtree(out, ignore_errors=True)
            wall, processor, printed = timed(command, environment)
            loads.append(os.getloadavg()[0])
            print(f"{name}: {wall:.1f} s, processor {processor:.1f} s", file=sys.stderr, flush=True)
            if number:  # the first run writes the bytecode
                found[name].append((wall, processor))
                stages[name].append(json.loads(printed)["stage_seconds"] if printed else {})
    rows = ["| | wall, s | processor, s | least processor, s | " + " | ".join(f"{s}, s" for s in STAGES) + " |"]
    rows.append("| --- |" + " ---: |" * (3 + len(STAGES)))
    for name, times in found.items():
        walls, processors = zip(*times, strict=True)
        parts = [[each[stage] for each in stages[name] if stage in each] for stage in STAGES]
        shown = " | ".join(f"{median(part):.1f}" if part else "" for part in parts)
        rows.append(f"| {name} | {median(walls):.1f} | {median(processors):.1f} | {min(processors):.1f} | {shown} |")
    text = "\n".join(rows)
    text += f"\n\nMedians of {given.runs} runs in turn. Load while they ran: {min(loads):.1f} to {max(loads):.1f}."
    if given.write is None:
        print(text)
    else:
        given.write.write_text(f"# Picking a ResNet-50\n\n    python -m benchmarks.speed.pick FOLDER\n\n{text}\n")


if __name__ == "__main__":
    main()
