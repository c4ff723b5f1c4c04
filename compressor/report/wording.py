"""Numbers and judgements in words, the same in the terminal and on the page."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compressor.report.records import Accuracy, PredictionError, Report, Score
from compressor.report.structure import BlockShape
from compressor.report.tuning import Trial, Tuning

#: The signs that typography wants; terminals get their ASCII look-alikes.
MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"

COST_NAMES = {
    "flops": "Multiply-adds",
    "macs": "Multiply-adds",
    "params": "Parameters",
    "memory": "Activation memory",
    "latency": "Latency",
    "complexity": "Operations",
}


@dataclass(frozen=True)
class Headline:
    """The verdict in one sentence. ``tone`` is "good", "bad" or "neutral"; ``detail`` follows it."""

    text: str
    detail: str
    tone: str


def about_search(report: Report) -> str:
    """How what is kept was chosen, and why there was no search where a training could have had one."""
    if report.search != "oneshot" or report.data is None:
        return report.search
    return (
        f"{report.search}: units were ranked and cut at once, and all epochs train what is left; at equal training no "
        "search was ahead of that (benchmarks/accuracy/equal_training.md)"
    )


def block_name(block: BlockShape) -> str:
    """Its name in the module tree; the whole network has none."""
    return block.name or "(network)"


def cost_name(cost: str) -> str:
    """A cost as a reader would call it."""
    return COST_NAMES.get(cost, cost.replace("_", " ").capitalize())


def count(value: float) -> str:
    """1234567 as "1.23 M"."""
    if not math.isfinite(value):
        return "unknown"
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit * 0.9995:
            return f"{_digits(value / limit)} {letter}"
    return _digits(value) if value != int(value) else str(int(value))


def size_bytes(value: float) -> str:
    """12345678 as "12.3 MB" (decimal)."""
    if not math.isfinite(value):
        return "unknown"
    for limit, letter in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= limit * 0.9995:
            return f"{_digits(value / limit)} {letter}"
    return f"{int(value)} B"


def milliseconds(value: float) -> str:
    """3.14159 as "3.14 ms"."""
    return f"{_digits(value)} ms"


def seconds(value: float) -> str:
    """ "0.4 s", "42 s", "3 min 5 s", "2 h 3 min"."""
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def amount(value: float, unit: str) -> str:
    """A cost in its unit."""
    if unit in {"bytes", "B"}:
        return size_bytes(value)
    if unit == "ms":
        return milliseconds(value)
    return count(value)


def percent(fraction: float, digits: int = 1) -> str:
    """0.4567 as "45.7 %"."""
    return f"{fraction * 100:.{digits}f} %"


def points(value: float) -> str:
    """A difference in percentage points with its sign; the minus is a real one."""
    if abs(value) < 0.05:
        return "0.0 points"
    return f"{'+' if value > 0 else MINUS}{abs(value):.1f} points"


def score(found: Score, value: float, digits: int = 2) -> str:
    """A score: accuracies as percentages, errors as they are."""
    return percent(value, digits) if isinstance(found, Accuracy) else f"{value:.4g}"


def trial_score(tuning: Tuning, trial: Trial) -> str:
    """The score of a trial, or that it is lost."""
    if trial.score is None:
        return "lost"
    return f"{trial.score:.4g}" if tuning.lower_is_better else percent(trial.score, 2)


def tuning_lead(tuning: Tuning) -> str:
    """How the trials were made, in a sentence or two."""
    count, first = len(tuning.trials), tuning.trials[0]
    apart = "the validation split" if tuning.split == "val" else "the training data, held out"
    better = ", lower is better," if tuning.lower_is_better else ""
    scored = f"scored by {tuning.metric}{better}" if tuning.metric else "scored"
    return (
        f"Settings of fine-tuning that were tried on copies of the trimmed network: {count} "
        f"trial{'s' if count > 1 else ''} of {first.epochs} epoch{'s' if first.epochs > 1 else ''}, with "
        f"{first.samples:,} training samples in each, {scored} on {tuning.held_out:,} samples of {apart}."
    )


def metric_name(found: Score) -> str:
    """Its name at the start of a line; "L2" stays as it is."""
    return "Accuracy" if "accuracy" in found.metric else f"{found.metric[:1].upper()}{found.metric[1:]}"


def score_title(found: Score | None) -> str:
    """What a section about it is called: a precision is no accuracy."""
    if isinstance(found, PredictionError):
        return "Error"
    return "Accuracy" if found is None or "accuracy" in found.metric else "Precision"


def score_change(found: Score, value: float | None) -> str:
    """How a score differs from the original's: points of accuracy, or the share by which an error grew."""
    if found.before is None or value is None:
        return ""
    if isinstance(found, Accuracy):
        return points((value - found.before) * 100)
    if not found.before:
        return ""
    share = (value / found.before - 1) * 100
    return "0.0 %" if abs(share) < 0.05 else f"{'+' if share > 0 else MINUS}{abs(share):.1f} %"


def of_original(reached: float, original: float) -> float | None:
    """Fraction that is left, ``None`` if there was nothing."""
    return reached / original if original else None


def headline(report: Report) -> Headline:
    """Is it faster? If not, that is what comes first."""
    latency = report.latency
    if report.budgets and report.costs and all(cost.reached == cost.original for cost in report.costs):
        return Headline("Nothing was removed", "Every budget is at or above what the network costs already.", "neutral")
    if latency is None:
        return Headline(*_without_latency(report))
    before, after = float(latency.original["median_ms"]), float(latency.compressed["median_ms"])
    times = f"{milliseconds(after)} instead of {milliseconds(before)} per batch of {latency.original['batch']}"
    if latency.verdict == "faster":
        text, tone = f"{latency.speedup:.2f} times as fast on {latency.target}", "good"
    elif latency.verdict == "slower":
        factor = float(latency.ratio["value"])
        text, tone = f"Not faster: it takes {factor:.2f} times as long on {latency.target}", "bad"
    else:
        text, tone = f"Not faster: no measurable difference on {latency.target}", "bad"
    low, high = float(latency.ratio["low"]), float(latency.ratio["high"])
    interval = f"{float(latency.ratio['value']):.3f} of the time, {low:.3f} to {high:.3f} allowing for noise"
    return Headline(text, f"{times}: {interval}.", "neutral" if latency.noise and tone == "good" else tone)


def _without_latency(report: Report) -> tuple[str, str, str]:
    missed = [budget for budget in report.budgets if not budget.met]
    if missed:
        names = ", ".join(cost_name(budget.cost).lower() for budget in missed)
        return f"Over budget: {names}", "Latency was not measured.", "bad"
    if report.budgets:
        budget = report.budgets[0]
        fraction = of_original(budget.reached, budget.original)
        left = f"{percent(fraction)} of its {cost_name(budget.cost).lower()}" if fraction is not None else "its budget"
        return f"Reduced to {left}", "Latency was not measured, so nothing is known about speed.", "neutral"
    return "Nothing was compressed", "Latency was not measured.", "neutral"


def from_random(report: Report) -> str:
    """What became of weights that were random at the start."""
    epochs = report.trained_epochs
    return f"trained here for {epochs} epoch{'' if epochs == 1 else 's'}" if epochs else "not trained"


def warnings(report: Report) -> list[str]:
    """Everything a reader must not miss, the implied included, without repetition."""
    found = []
    if not report.pretrained and not report.trained_epochs:
        found.append(
            "The weights are random: structure, cost and latency are real, accuracy is not. "
            "Load trained weights before judging the network."
        )
    found += report.warnings
    if report.verification is not None and not report.verification.passed:
        found.append("The trimmed network does not compute what the search saw; do not use it.")
    found += [
        f"{cost_name(b.cost)} is over budget: {amount(b.reached, b.unit)} of at most {amount(b.limit, b.unit)}."
        for b in report.budgets
        if not b.met
    ]
    found += [latency.noise for latency in report.latencies if latency.noise]
    return list(dict.fromkeys(found))


def _digits(value: float) -> str:
    """Three significant digits, never in exponent form for numbers of everyday size."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "unknown"
    magnitude = int(f"{value:.2e}".partition("e")[2])  # of the rounded number: 0.9999 is 1.00
    return f"{value:.{max(0, min(6, 2 - magnitude))}f}"
