"""Do latency budgets hold? Networks are compressed to half their latency, and what comes out is timed independently.

    python -m benchmarks.latency.latency_budget --target onnxruntime-cpu --threads 1 resnet18 mobilenet_v2 resnet20_cifar

Every network is compressed from nothing but its name, with a table made on the fly. The result and the original are
then exported anew and timed in turn for half a minute, loaded anew for every round: `budget used` is the result's
latency over half of the original's, by that timing where nothing slowed the device down, and must lie in 98 % to
100 %. `in all moments` is the same with the others, and their share.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

import compressor
from benchmarks.harness import append
from compressor.latency.target import TargetSettings
from compressor.models import load_model
from exporters.formats.onnx import OnnxExporter
from profilers.moments import quick_ms, quiet_ratios
from profilers.stats import median_interval, paired_ratios, quiet_ms


@dataclass(frozen=True)
class Verified:
    """Milliseconds of the original; the ratio of the two where nothing slowed the device down, and half the width of
    its interval; the ratio in all moments; the share of moments in which something slowed it down."""

    original_ms: float
    ratio: float
    margin: float
    ratio_of_all: float
    slowed: float


def verify(original: Path, compressed: Path, settings: TargetSettings, seconds: float) -> Verified:
    """Time both in turn, loaded anew for every round of two long bursts each, as where a network lies in memory makes
    it faster or slower for as long as it is loaded."""
    runtime = settings.runtime()
    rounds: list[list[list[float]]] = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(rounds) < 9:
        runners = [runtime.load(path, threads=settings.threads, batch=1) for path in (original, compressed)]
        runs = [int(min(200, max(2, 100 / max(quiet_ms(runner.measure(3)), 1e-3)))) for runner in runners]
        found: list[list[float]] = [[], []]
        for _ in range(2):
            for values, runner, count in zip(found, runners, runs, strict=True):
                values.append(quiet_ms(runner.measure(count + 1).after(1)))
        for runner in runners:
            runner.close()
        rounds.append(found)
    quick = [quick_ms([ms for found in rounds for ms in found[side]]) for side in (0, 1)]
    quiet = [quiet_ratios(found[1], found[0], (quick[1], quick[0])) for found in rounds]
    ratios = [median(each) for each in quiet if each]
    low, high, _ = median_interval(ratios)
    everything = median(median(paired_ratios(found[1], found[0])) for found in rounds)
    slowed = 1 - sum(map(len, quiet)) / (2 * len(rounds))
    return Verified(quick[0], median(ratios), (high - low) / 2, everything, slowed)


def run(name: str, budget: str, settings: TargetSettings, seconds: float) -> dict[str, object]:
    """One network; a JSON-able row."""
    loaded = load_model(name, weights="none")
    started = time.perf_counter()
    result = compressor.compress(
        loaded.model, loaded.example_inputs, {"latency": budget}, target=settings, verbose=True
    )
    took = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for label, model in (("original", loaded.model), ("compressed", result.model)):
            path = Path(folder) / f"{label}.onnx"
            OnnxExporter().export(model.eval(), loaded.example_inputs, path, check=False)
            paths.append(path)
        found = verify(paths[0], paths[1], settings, seconds)
    share = float(budget.rstrip("%")) / 100
    prediction = result.report.latency_prediction
    assert prediction is not None  # a latency budget was asked for
    stages = result.report.stage_seconds
    return {
        "model": name,
        "target": prediction.target,
        "budget": budget,
        "original_ms": round(found.original_ms, 4),
        "compressed_ms": round(found.original_ms * found.ratio, 4),
        "used": round(found.ratio / share, 4),
        "margin": round(found.margin / share, 4),
        "used_in_all_moments": round(found.ratio_of_all / share, 4),
        "slowed": round(found.slowed, 3),
        "used_by_the_check": round(float(prediction.rounds[-1]["used"]), 4),
        "rounds": [{key: round(float(value), 4) for key, value in r.items()} for r in prediction.rounds],
        "macs": [c.reached / c.original for c in result.report.costs if c.name == "flops"],
        "seconds": round(took, 1),
        "measure_seconds": round(stages.get("measure the target", 0.0), 1),
        "check_seconds": round(stages.get("check on the device", 0.0), 1),
        "warnings": result.report.warnings,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--target", default="onnxruntime-cpu")
    parser.add_argument("--budget", default="50%")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lut", type=Path, help="table to use and extend; default: a fresh one")
    parser.add_argument("--seconds", type=float, default=30.0, help="time for the independent timing")
    parser.add_argument("--out", type=Path, help="append rows as JSON lines")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| network | target | original | budget used | in all moments | by the check | rounds | measure | check | all |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        settings = TargetSettings(given.target, given.lut or Path(folder) / "lut.sqlite", given.threads)
        for name in given.models:
            row = run(name, given.budget, settings, given.seconds)
            print(
                f"| {name} | {given.target} | {row['original_ms']} ms | {row['used']:.1%} ± {row['margin']:.1%} | "
                f"{row['used_in_all_moments']:.1%} ({row['slowed']:.0%} slow) | {row['used_by_the_check']:.1%} | "
                f"{len(row['rounds'])} | {row['measure_seconds']} s | {row['check_seconds']} s | {row['seconds']} s |",
                flush=True,
            )
            if given.out:
                append(given.out, row)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
