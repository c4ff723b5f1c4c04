"""From sums of operators to whole networks: a few random subnets are timed, in turn, and the sums fitted to them.

The fit has a handful of numbers (``Coefficients``) and is pulled towards plain sums, so that a dozen networks are
enough. Other subnets, timed in the same rounds, are held out: their error is what the prediction is trusted with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from compressor.costs.latency import Latency
from compressor.graph.graph import Graph
from compressor.latency.predict import CLASSES, Coefficients
from compressor.latency.signatures import signature_of
from compressor.latency.subnets import Choice
from compressor.search.base import hard_sizes
from lut import Calibration
from profilers.base import Runner
from profilers.layer_timer import LayerTimer
from profilers.stats import quiet_ms

Floats = npt.NDArray[np.float64]

#: Calibrations that another version fitted are made anew.
CALIBRATION_VERSION = 3

#: How strongly the fit may hold on to plain sums; which, the networks decide.
_PULLS = (0.03, 0.1, 0.3, 1.0)
_EXTRA = ("weights_mb", "activations_mb", "ragged_mb", "operators")
#: Classes with a smaller share of the time than this are held on to as if they had it: noise would decide them.
_LEAST_SHARE = 0.05


@dataclass(frozen=True)
class Accuracy:
    """How well latencies were predicted. Fractions: 0.05 is 5 %."""

    mean_error: float
    worst_error: float
    kendall_tau: float
    networks: int

    @staticmethod
    def of(predicted: Sequence[float], measured: Sequence[float]) -> Accuracy:
        """Compare; both in ms."""
        errors = [abs(p - m) / m for p, m in zip(predicted, measured, strict=True)]
        if not errors:
            return Accuracy(float("nan"), float("nan"), float("nan"), 0)
        return Accuracy(float(np.mean(errors)), max(errors), kendall_tau(predicted, measured), len(errors))


def kendall_tau(one: Sequence[float], two: Sequence[float]) -> float:
    """Agreement of two orders: 1 the same, -1 reversed (tau-a)."""
    first, second = np.asarray(one), np.asarray(two)
    if len(first) < 2:
        return float("nan")
    i, j = np.triu_indices(len(first), 1)
    return float(np.mean(np.sign(first[i] - first[j]) * np.sign(second[i] - second[j])))


def model_key(graph: Graph) -> str:
    """A calibration belongs to a network's class and operators, not to its weights."""
    text = "\n".join(f"{signature_of(o).key} {o.channels_in.full} {o.channels_out.full}" for o in graph.operators)
    return f"{graph.model_class} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def time_networks(
    timer: LayerTimer,
    paths: Mapping[str, Path],
    yardstick: Path,
    *,
    yardstick_ms: float | None = None,
    rounds: int = 5,
    burst_ms: float = 100.0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[float, dict[str, float]]:
    """Milliseconds of a network that serves as yardstick, and of others, in the table's time.

    Every burst of a network is followed and preceded by one of the yardstick, the original as a rule, and is given as
    a multiple of it: contention for caches and memory slows whole networks down by more than it does the reference
    operator, and slows the yardstick down alike.

    Args:
        yardstick_ms: what the yardstick takes, if that is known; else it is measured against the reference operator.

    Raises:
        RefusedError: the runtime cannot run one of them.
    """
    with ExitStack() as stack:

        def load(path: Path) -> tuple[Runner, int]:
            runner = timer.runtime.load(path, threads=timer.threads, batch=timer.batch)
            stack.callback(runner.close)
            return runner, int(min(200, max(2, burst_ms / max(quiet_ms(runner.measure(3)), 1e-3))))

        def burst(runner: Runner, runs: int) -> float:
            return quiet_ms(runner.measure(runs + 1).after(1))

        ruler, loaded = load(yardstick), {name: load(path) for name, path in paths.items()}
        own: list[float] = []
        ratios: dict[str, list[float]] = {name: [] for name in loaded}
        for number in range(rounds):
            drift = timer.drift() if yardstick_ms is None else 1.0
            before = burst(*ruler)
            for name, network in loaded.items():
                took, after = burst(*network), burst(*ruler)
                ratios[name].append(2 * took / (before + after))
                own.append(after / drift)
                before = after
            own.append(before / drift)
            if progress is not None:
                progress(number + 1, rounds)
    scale = median(own) if yardstick_ms is None else yardstick_ms
    return scale, {name: scale * median(values) for name, values in ratios.items()}


def fit(features: Sequence[Mapping[str, float]], measured_ms: Sequence[float]) -> Coefficients:
    """The coefficients that make ``Latency`` meet measurements of networks with these ``Latency.features``.

    Least squares of relative errors, pulled towards plain sums as strongly as predicts networks best that are left out
    one at a time; traffic and overhead are never negative.
    """
    names = [name for name in CLASSES if any(row.get(name, 0.0) > 0 for row in features)]
    order = [*names, *_EXTRA]
    rows = np.array([[row.get(name, 0.0) for name in order] for row in features]) / np.asarray(measured_ms)[:, None]

    def left_out(pull: float) -> float:
        others = ~np.eye(len(rows), dtype=np.bool_)
        return float(np.mean([abs(rows[i] @ _solve(rows[others[i]], order, pull) - 1) for i in range(len(rows))]))

    pull = min(_PULLS, key=left_out) if len(rows) > 2 else _PULLS[-1]
    values = dict(zip(order, _solve(rows, order, pull).tolist(), strict=True))
    return Coefficients(
        {name: values.get(name, 1.0) for name in CLASSES},
        values["weights_mb"],
        values["activations_mb"],
        values["ragged_mb"],
        values["operators"],
    )


def _solve(rows: Floats, order: list[str], pull: float) -> Floats:
    """Solution for relative features (networks, names); names whose coefficient would be negative get none."""
    start = np.array([0.0 if name in _EXTRA else 1.0 for name in order])
    least = np.array([1e-9 if name in _EXTRA else _LEAST_SHARE for name in order])
    weight = pull * np.maximum(rows.mean(axis=0), least)
    solution = np.zeros(len(order))
    free = np.ones(len(order), dtype=np.bool_)
    while free.any():
        matrix = np.concatenate([rows[:, free], np.diag(weight)[free][:, free]])
        right = np.concatenate([np.ones(len(rows)), (weight * start)[free]])
        found, *_ = np.linalg.lstsq(matrix, right, rcond=None)
        if (found >= 0).all():
            solution[free] = found
            break
        free[np.flatnonzero(free)[found < 0]] = False
    return solution


def calibrate(
    term: Latency,
    timer: LayerTimer,
    write: Callable[[Choice, str], Path],
    original: Path,
    choices: Sequence[Choice],
    *,
    held_out: int = 5,
    rounds: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Time the original and subnets, fit, and test on those held out. Sets the term's coefficients.

    Args:
        write: writes a subnet as an ONNX file.
        choices: subnets; every so many of them is held out.

    Raises:
        RefusedError: the runtime cannot run one of them. ExporterError: one cannot be exported.
    """
    graph = term.graph
    subnets = {f"subnet{index}": choice for index, choice in enumerate(choices)}
    paths = {name: write(choice, name) for name, choice in subnets.items()}
    everything = {"original": Choice(graph.all_units()), **subnets}
    original_ms, measured = time_networks(timer, paths, original, rounds=rounds, progress=progress)
    measured = {"original": original_ms, **measured}
    features = {name: term.features(hard_sizes(graph, c.units, c.gates)) for name, c in everything.items()}
    # At random, because choices follow each other by size and kind.
    chosen = np.random.default_rng(0).permutation(len(choices))[:held_out]
    tested = [f"subnet{index}" for index in sorted(chosen.tolist())]
    fitted = [name for name in everything if name not in tested]
    term.coefficients = fit([features[name] for name in fitted], [measured[name] for name in fitted])
    predicted = {name: float(term(hard_sizes(graph, c.units, c.gates))) for name, c in everything.items()}
    found = Accuracy.of([predicted[n] for n in tested], [measured[n] for n in tested])
    return Calibration(
        term.coefficients.to_json(),
        {k: v for k, v in vars(found).items() if np.isfinite(v)},
        {"measured_ms": measured, "predicted_ms": predicted, "held_out": tested},
    )
