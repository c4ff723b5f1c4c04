"""How steady is the ratio of two networks on a device? No budget can be kept more closely than that.

    python -m benchmarks.latency.steadiness --threads 2 --seconds 200 resnet18

A network and one that was compressed to half of its latency are timed in turn, a tenth of a second each, loaded anew
every tenth pair of bursts. Every line of the table is the median of some seconds; were the device steady, all lines
would say the same.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

import compressor
from compressor.latency.target import TargetSettings
from compressor.models import load_model
from exporters.formats.onnx import OnnxExporter
from profilers.base import Runtime
from profilers.stats import quiet_ms

BURST_MS, PAIRS_A_LOAD = 100.0, 10


def bursts(runtime: Runtime, paths: list[Path], threads: int, seconds: float) -> list[tuple[float, float, float]]:
    """Seconds since the start, and milliseconds of a run of each of the two, for every pair of bursts."""
    found: list[tuple[float, float, float]] = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        runners = [runtime.load(path, threads=threads, batch=1) for path in paths]
        runs = [max(2, int(BURST_MS / max(quiet_ms(runner.measure(3)), 1e-3))) for runner in runners]
        for _ in range(PAIRS_A_LOAD):
            first, second = (
                quiet_ms(runner.measure(count + 1).after(1)) for runner, count in zip(runners, runs, strict=True)
            )
            found.append((time.perf_counter() - started, first, second))
        for runner in runners:
            runner.close()
    return found


def table(found: list[tuple[float, float, float]], every: float) -> str:
    """Medians of ``every`` so many seconds; and in the last line how far apart the lines are."""
    lines = ["| second | original | compressed | ratio | middle half |", "| ---: | ---: | ---: | ---: | --- |"]
    ratios = []
    for begin in np.arange(0.0, found[-1][0], every):
        part = [(a, b) for second, a, b in found if begin <= second < begin + every]
        if part:
            low, middle, high = np.percentile([b / a for a, b in part], [25, 50, 75])
            ratios.append(float(middle))
            a, b = (median(side) for side in zip(*part, strict=True))
            lines.append(f"| {begin:.0f} | {a:.2f} ms | {b:.2f} ms | {middle:.3f} | {low:.3f} to {high:.3f} |")
    low, middle, high = min(ratios), median(ratios), max(ratios)
    return "\n".join(
        [*lines, "", f"Ratios of {low:.3f} to {high:.3f}: {low / middle - 1:+.1%} to {high / middle - 1:+.1%}."]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--target", default="onnxruntime-cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds of a line")
    given = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_model(given.model, weights="none")
    with tempfile.TemporaryDirectory() as folder:
        settings = TargetSettings(given.target, Path(folder) / "lut.sqlite", given.threads)
        small = compressor.compress(loaded.model, loaded.example_inputs, {"latency": "50%"}, target=settings).model
        paths = []
        for label, model in (("original", loaded.model), ("compressed", small)):
            paths.append(Path(folder) / f"{label}.onnx")
            OnnxExporter().export(model.eval(), loaded.example_inputs, paths[-1], check=False)
        print(table(bursts(settings.runtime(), paths, given.threads, given.seconds), given.every))


if __name__ == "__main__":
    main()
