"""From sums of operators to whole networks: a few random subnets are timed, in turn, and the sums fitted to them.

The fit has a handful of numbers (``Coefficients``) and is pulled towards plain sums, so that a dozen networks are
enough. Some subnets are held out of it at first: what they are mispredicted by is what the prediction is trusted with.
Then they are learned from as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from compressor.arrays import FloatArray
from compressor.graph.graph import Graph
from compressor.latency.predict import CLASSES, Coefficients
from compressor.latency.signatures import signature_of
from compressor.latency.subnets import Subnet
from compressor.latency.term import Latency
from compressor.search.constraints.constraint import hard_sizes
from lut import Calibration
from profilers.base import Runner
from profilers.contention import BUSY
from profilers.interleave import runs_in_turn
from profilers.layers.layer_timer import LayerTimer
from profilers.stats import quiet_ms

#: Networks that another version timed are timed anew.
TIMING_VERSION = 5

#: Networks are timed for more rounds until they are known to this fraction on average, at most this many times as long.
_CERTAIN, _MORE_ROUNDS = 0.015, 6

#: How strongly the fit holds on to plain sums: where a coefficient moves a network's time by 10 %, it has to lower the
#: errors by as much as if one network had been mispredicted by this much of 10 %.
_PULL = 0.4
_EXTRA = ("weights_mb", "activations_mb", "operators")
#: A clock for single operators may read too much: less than nothing may be left for the time between them.
_SIGNED = ("operators",)
#: Classes with a smaller share of the time than this are held on to as if they had it: noise would decide them.
_LEAST_SHARE = 0.1
#: Errors of networks beyond this fraction count in proportion, no longer squared: one that was timed in a bad moment
#: must not decide.
_USUAL_ERROR = 0.03


@dataclass(frozen=True)
class PredictionAccuracy:
    """How well latencies were predicted. Fractions: 0.05 is 5 %."""

    mean_error: float
    worst_error: float
    kendall_tau: float
    networks: int

    @staticmethod
    def of(predicted: Sequence[float], measured: Sequence[float]) -> PredictionAccuracy:
        """Compare; both in ms."""
        errors = [abs(p - m) / m for p, m in zip(predicted, measured, strict=True)]
        if not errors:
            return PredictionAccuracy(float("nan"), float("nan"), float("nan"), 0)
        return PredictionAccuracy(float(np.mean(errors)), max(errors), kendall_tau(predicted, measured), len(errors))


def kendall_tau(one: Sequence[float], two: Sequence[float]) -> float:
    """Agreement of two orders: 1 the same, -1 reversed; NaN for fewer than two."""
    from scipy.stats import kendalltau

    return float(kendalltau(one, two).statistic) if len(one) > 1 else float("nan")


@dataclass(frozen=True)
class Timed:
    """Networks timed in turn with a reference, in ms; ``busy`` says that others held the cores meanwhile."""

    reference_ms: float
    networks_ms: dict[str, float]
    busy: bool


def model_key(graph: Graph, decides: frozenset[str] | None = None) -> str:
    """A calibration belongs to a network's class, operators and what can be removed of it, not to its weights.

    Where a method ``decides`` on some components alone, the networks that were timed had the others whole.
    """
    lines = [f"{signature_of(o).key} {o.channels_in.full} {o.channels_out.full}" for o in graph.operators]
    lines += [signature_of(variant).key for o in graph.operators for variant in o.variants]
    whole = [decides is not None and group.component not in decides for group in graph.groups]
    lines += [f"{g.kind} {len(g)}{' whole' * held}" for g, held in zip(graph.groups, whole, strict=True)]
    text = "\n".join(lines)
    return f"{graph.model_class} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def time_networks(
    timer: LayerTimer,
    paths: Mapping[str, Path],
    reference: Path,
    *,
    reference_ms: float | None = None,
    rounds: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> Timed:
    """Milliseconds of a network that serves as reference, and of others, in the table's time.

    Every burst of a network is followed and preceded by one of the reference, the original as a rule, and is given as
    a multiple of it: contention for caches and memory slows whole networks down by more than it does the reference
    operator, and slows the reference down alike.

    Args:
        reference_ms: what the reference takes, if that is known; else it is measured against the reference operator.
        rounds: at least; more where they do not agree.

    Raises:
        RefusedError: the runtime cannot run one of them.
    """
    with ExitStack() as stack:

        def load(path: Path) -> tuple[Runner, int]:
            runner = timer.runtime.load(path, threads=timer.threads, batch=timer.batch)
            stack.callback(runner.close)
            return runner, runs_in_turn(runner)

        def burst(runner: Runner, runs: int) -> float:
            samples = runner.measure(runs + 1).after(1)
            waited.append(samples.waited)
            return quiet_ms(samples)

        ruler, loaded = load(reference), {name: load(path) for name, path in paths.items()}
        own: list[float] = []
        waited: list[float] = []
        ratios: dict[str, list[float]] = {name: [] for name in loaded}
        for number in range(_MORE_ROUNDS * rounds):
            if number >= rounds and np.mean([_uncertainty(v) for v in ratios.values()] or [0.0]) <= _CERTAIN:
                break
            drift = timer.drift() if reference_ms is None else 1.0
            before = burst(*ruler)
            for name, network in loaded.items():
                took, after = burst(*network), burst(*ruler)
                ratios[name].append(2 * took / (before + after))
                own.append(after / drift)
                before = after
            own.append(before / drift)
            if progress is not None:
                progress(min(number + 1, rounds), rounds)
    scale = median(own) if reference_ms is None else reference_ms
    networks_ms = {name: scale * median(values) for name, values in ratios.items()}
    return Timed(scale, networks_ms, sum(waited) / len(waited) > BUSY)


def _uncertainty(ratios: Sequence[float]) -> float:
    """By what fraction the median may be off, going by the spread of the middle half."""
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return float((high - low) / middle / np.sqrt(len(ratios)))


def fit(features: Sequence[Mapping[str, float]], measured_ms: Sequence[float]) -> Coefficients:
    """The coefficients that make ``Latency`` meet measurements of networks with these ``Latency.features``.

    Least squares of relative errors, of large ones less (Huber), pulled towards plain sums. A coefficient is held on to
    by its share of the time of the network where it has most: what only a few of the networks tell about is not left to
    their noise. Factors and traffic are never negative.
    """
    names = [name for name in CLASSES if any(row.get(name, 0.0) > 0 for row in features)]
    order = [*names, *_EXTRA]
    rows = np.array([[row.get(name, 0.0) for name in order] for row in features]) / np.asarray(measured_ms)[:, None]
    trust = np.ones(len(rows))
    for _ in range(5):
        found = _solve(rows, order, trust)
        trust = np.sqrt(np.minimum(1.0, _USUAL_ERROR / np.maximum(np.abs(rows @ found - 1.0), 1e-9)))
    values = dict(zip(order, found.tolist(), strict=True))
    return Coefficients(
        {name: values.get(name, 1.0) for name in CLASSES},
        values["weights_mb"],
        values["activations_mb"],
        values["operators"],
    )


def _solve(rows: FloatArray, order: list[str], trust: FloatArray) -> FloatArray:
    """Solution for relative features (networks, names), weighted by ``trust`` (networks,): least squares within bounds,
    as most coefficients may not be negative."""
    from scipy.optimize import lsq_linear

    start = np.array([0.0 if name in _EXTRA else 1.0 for name in order])
    least = np.array([1e-9 if name in _EXTRA else _LEAST_SHARE for name in order])
    lower = np.array([-np.inf if name in _SIGNED else 0.0 for name in order])
    weight = _PULL * np.maximum(rows.max(axis=0), least)
    matrix = np.concatenate([rows * trust[:, None], np.diag(weight)])
    right = np.concatenate([trust, weight * start])
    found: FloatArray = lsq_linear(matrix, right, bounds=(lower, np.inf), method="bvls").x
    return found


def time_choices(
    timer: LayerTimer,
    write: Callable[[Subnet, str], Path],
    original: Path,
    choices: Sequence[Subnet],
    *,
    rounds: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, float], bool]:
    """Milliseconds of the original, as ``original``, and of subnets, as ``subnet0`` and so on; and whether others held
    the cores meanwhile.

    Args:
        write: writes a subnet as an ONNX file.

    Raises:
        RefusedError: the runtime cannot run one of them. ExporterError: one cannot be exported.
    """
    paths = {f"subnet{index}": write(choice, f"subnet{index}") for index, choice in enumerate(choices)}
    timed = time_networks(timer, paths, original, rounds=rounds, progress=progress)
    return {"original": timed.reference_ms, **timed.networks_ms}, timed.busy


def calibrate(
    term: Latency, choices: Sequence[Subnet], measured: Mapping[str, float], *, held_out: int = 5
) -> Calibration:
    """Fit, test on subnets that are held out, and fit to all. Sets the term's coefficients.

    Args:
        choices: subnets.
        measured: what ``time_choices`` said of them.
        held_out: how many of them to test on.
    """
    graph = term.graph
    everything = {"original": Subnet(graph.all_units())}
    everything |= {f"subnet{index}": choice for index, choice in enumerate(choices)}
    sizes = {name: hard_sizes(graph, choice.units, choice.gates) for name, choice in everything.items()}
    features = {name: term.features(found) for name, found in sizes.items()}

    def fit_to(names: Sequence[str]) -> dict[str, float]:
        term.coefficients = fit([features[name] for name in names], [measured[name] for name in names])
        return {name: float(term(found)) for name, found in sizes.items()}

    # At random, because choices follow each other by size and kind.
    chosen = np.random.default_rng(0).permutation(len(choices))[:held_out]
    tested = [f"subnet{index}" for index in sorted(chosen.tolist())]
    predicted = fit_to([name for name in everything if name not in tested])
    found = PredictionAccuracy.of([predicted[n] for n in tested], [measured[n] for n in tested])
    fit_to(list(everything))
    return Calibration(
        term.coefficients.to_json(),
        {k: v for k, v in vars(found).items() if np.isfinite(v)},
        {"measured_ms": dict(measured), "predicted_ms": predicted, "held_out": tested},
    )
