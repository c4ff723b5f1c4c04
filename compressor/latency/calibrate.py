"""From sums of operators to whole networks: a few random subnets are timed, in turn, and the sums fitted to them.

The fit has a handful of numbers (``Coefficients``) and is pulled towards plain sums, so that a dozen networks are
enough. Some subnets are held out of it at first: what they are mispredicted by is what the prediction is trusted with.
Then they are learned from as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compressor.arrays import FloatArray
from compressor.graph.graph import Graph
from compressor.latency.predict import CLASSES, Coefficients
from compressor.latency.signatures import signature_of
from compressor.latency.subnets import Subnet
from compressor.latency.term import Latency
from compressor.search.constraints.constraint import hard_sizes
from lut import Calibration
from profilers.layers.timer import Timer

#: Networks that another version timed are timed anew.
TIMING_VERSION = 7

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
    timer: Timer,
    write: Callable[[Subnet, str], Path],
    original: Path,
    choices: Sequence[Subnet],
    *,
    rounds: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, float], bool]:
    """Milliseconds of the original, as ``original``, and of subnets, as ``subnet0`` and so on, in the table's time; and
    whether others held the cores meanwhile.

    Args:
        write: writes a subnet as an ONNX file.

    Raises:
        RefusedError: the runtime cannot run one of them. ExporterError: one cannot be exported.
    """
    paths = {f"subnet{index}": write(choice, f"subnet{index}") for index, choice in enumerate(choices)}
    timed = timer.time_networks(paths, original, rounds=rounds, progress=progress)
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
