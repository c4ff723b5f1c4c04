"""The report as plain records. Every number has its unit in its name or beside it; JSON in, JSON out."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any

from compressor.errors import UsageError
from compressor.report.ranking import Ranked
from compressor.report.structure import (
    AttributeChange,
    BlockShape,
    Cell,
    ChoiceMade,
    Convolution,
    Count,
    LeftAlone,
    Probabilities,
    Width,
)
from compressor.report.tuning import Tuning
from compressor.storage.codec import Keys, Range, decode, encode

if TYPE_CHECKING:
    from exporters.base import ExportInfo
    from profilers.interleave import Comparison

#: Raised whenever a reader of the previous version would misread a report.
SCHEMA_VERSION = 1

_Milliseconds = Annotated[float, Range(0, 1e12)]
_Timing = Annotated[
    dict[str, Any],
    Keys(
        {
            **dict.fromkeys(("version", "device", "precision"), str),
            **dict.fromkeys(("threads", "batch", "repeats"), Count),
            **dict.fromkeys(("median_ms", "p5_ms", "p90_ms", "p95_ms", "p99_ms"), _Milliseconds),
            **dict.fromkeys(("spread", "throughput_per_s"), Annotated[float, Range(0, 1e15)]),
        }
    ),
]
_Ratio = Annotated[
    dict[str, Any],
    Keys(
        {
            **dict.fromkeys(("value", "low", "high"), Annotated[float, Range(1e-9, 1e9)]),
            **{"confidence": Annotated[float, Range(0, 1)], "rounds": Count, "verdict": str},
        }
    ),
]
_Round = Annotated[
    dict[str, Any],
    Keys(dict.fromkeys(("predicted_ms", "measured_ms", "original_ms", "limit_ms"), _Milliseconds)),
]
_Step = Annotated[
    dict[str, Any],
    Keys({}, optional={"step": Annotated[float, Range(-1e15, 1e15)], "costs": dict[str, Any] | None}),
]


@dataclass(frozen=True)
class BudgetResult:
    """One budget. ``original``, ``limit`` and ``reached`` are in ``unit``; ``asked`` is what the user typed."""

    cost: str
    unit: str
    asked: str
    original: float
    limit: float
    reached: float

    @property
    def met(self) -> bool:
        """Whether the result lies at or under the limit."""
        return self.reached <= self.limit


@dataclass(frozen=True)
class CostResult:
    """A cost before and after, whether there was a budget for it or not."""

    name: str
    unit: str
    original: float
    reached: float


@dataclass(frozen=True)
class Verification:
    """Hard-masked original against trimmed network: ``error`` is max|difference| / max|output|."""

    error: float
    tolerance: float = 1e-9
    dtype: str = "float64"
    inputs: list[str] = field(default_factory=list)
    """What both ran on."""
    seen: float | None = None
    """Share of the kept units, where some were removed, whose change would have been noticed; None: not measured."""

    @property
    def what(self) -> str:
        """What was checked, in words."""
        on = f" on {'; '.join(self.inputs)}" if self.inputs else ""
        seen = "" if self.seen is None else f", which depend on {self.seen:.0%} of the kept units beside removed ones"
        return f"in {self.dtype}{on}{seen}"

    @property
    def passed(self) -> bool:
        """Whether the two compute the same."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Score:
    """What ``metric`` says on ``samples`` of ``split``; ``None`` for what was not evaluated."""

    split: str = "test"
    samples: Count | None = None
    before: float | None = None
    after_search: float | None = None
    after_finetune: float | None = None
    metric: str = ""

    @property
    def final(self) -> float | None:
        """That of the network handed over."""
        return self.after_finetune if self.after_finetune is not None else self.after_search


@dataclass(frozen=True)
class Accuracy(Score):
    """Fractions of right answers, or a mean precision: higher is better."""

    metric: str = "top-1 accuracy"
    lower_is_better: bool = False

    @property
    def change_points(self) -> float | None:
        """Percentage points gained (negative: lost) from the original to the network handed over."""
        if self.before is None or self.final is None:
            return None
        return (self.final - self.before) * 100


@dataclass(frozen=True)
class PredictionError(Score):
    """An error of predicted values, or a loss: lower is better."""

    metric: str = "mean squared error"
    lower_is_better: bool = True


@dataclass(frozen=True)
class PairedTiming:
    """Original and compressed network timed in turn on one target.

    ``original`` and ``compressed`` are :class:`profilers.base.Timing` as JSON, ``ratio`` is
    :class:`profilers.stats.Ratio` as JSON: latency of the compressed over that of the original, with its interval.
    """

    target: str
    original: _Timing
    compressed: _Timing
    ratio: _Ratio
    noise: str | None = None

    @staticmethod
    def from_comparison(
        comparison: Comparison, original: str = "original", compressed: str = "compressed"
    ) -> PairedTiming:
        """Take two labels out of a comparison of :func:`profilers.interleave.interleave`."""
        timing = comparison.timings[original]
        return PairedTiming(
            target=timing.runtime,
            original=timing.to_json(),
            compressed=comparison.timings[compressed].to_json(),
            ratio=comparison.ratios[compressed].to_json(),
            noise=comparison.noise,
        )

    @property
    def verdict(self) -> str:
        """ "faster", "slower" or "no measurable difference"."""
        return str(self.ratio["verdict"])

    @property
    def speedup(self) -> float:
        """How many times as fast the compressed network is."""
        return 1.0 / float(self.ratio["value"])


@dataclass(frozen=True)
class LatencyPrediction:
    """How well the latency that the search saw agrees with the device.

    ``mean_error`` (a fraction) and ``kendall_tau`` are of ``networks`` random subnets that nothing was fitted to;
    ``points`` were measured. ``estimated`` names operators that the runtime refused to run alone, ``unmeasured``
    those for which there was no time. ``rounds`` are the networks that were timed on the device until the budget held:
    predicted, measured, original and limit in ms, all of the device as it was then.
    """

    target: str
    mean_error: float | None
    kendall_tau: float | None
    networks: Count
    points: Count
    estimated: list[str] = field(default_factory=list)
    unmeasured: list[str] = field(default_factory=list)
    rounds: list[_Round] = field(default_factory=list)
    noise: str | None = None


@dataclass(frozen=True)
class Quantisation:
    """The compressed network in int8 beside itself in single precision, both on ONNX Runtime.

    ``before`` and ``after`` are what ``metric`` says on ``samples`` of ``split``, bytes are of the files; ``latency``
    has single precision as its original and int8 as its compressed network.
    """

    before: float | None
    after: float | None
    split: str
    samples: Count | None
    bytes_before: Count
    bytes_after: Count
    calibration_samples: Count
    latency: PairedTiming | None = None

    metric: str = "top-1 accuracy"
    lower_is_better: bool = False

    @property
    def score(self) -> Accuracy | PredictionError:
        """Single precision and int8 as before and after."""
        kind = PredictionError if self.lower_is_better else Accuracy
        return kind(self.split, self.samples, self.before, self.after, metric=self.metric)


@dataclass(frozen=True)
class Size:
    """Bytes of the same thing before and after ("ONNX file", "weights")."""

    name: str
    original_bytes: Count
    compressed_bytes: Count


@dataclass(frozen=True)
class FileWritten:
    """A file of the result; ``path`` is relative to the folder of the report. ``error`` is the export's worst
    max|difference| / max|output| against PyTorch on ``batches``, ``None`` if it could not be run here."""

    path: str
    format: str
    bytes: Count
    error: float | None = None
    batches: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @staticmethod
    def from_export(info: ExportInfo) -> FileWritten:
        """What an exporter says about the file it wrote."""
        batches = [check.batch for check in info.checks]
        return FileWritten(info.path.name, info.format, info.bytes, info.rel_error, batches, list(info.notes))


@dataclass
class Report:
    """Everything worth knowing about one compression.

    Attributes:
        model: what the user named; ``model_class`` the class behind it, with its module.
        search: name of the search method. ``data``: name of the data, ``None`` if nothing was trained or evaluated.
        command: how to make it again.
        pretrained: ``False`` if the original's weights were random: then nothing is known but what this job taught.
        trained_epochs: epochs that the compressed network was trained for, in the search and after it.
        weights: where the weights came from.
        accuracy: where the targets are classes or labels; ``prediction_error`` where they are values, or the loss is
            the user's.
        tuning: the trials that fine-tuning's settings were chosen by, if there were any.
        latencies: one per target; the first is the one the verdict is about.
        history: one entry per noted step of the search: ``{"step": int, "costs": {cost: value in its unit}, ...}``.
        cells: operators side by side of which some may have gone, in order.
        operators: by name what the convolutions are now whose kernels were chosen.
        probabilities: of the alternatives at each site, where the search learned them.
        weight_sets: of the weights that each configuration was trained with, where several shared them.
        ranking: whole networks that the search ranked, the best first.
        stage_seconds: seconds per stage, in order.
        warnings: sentences the user must not miss.
        created: UTC, ISO 8601. ``versions``: distribution to version. ``machine``: see ``profilers.machine``.
    """

    model: str
    model_class: str = ""
    search: str = ""
    data: str | None = None
    command: str = ""
    weights: str = ""
    pretrained: bool = True
    trained_epochs: Count = 0
    input_shape: list[int] = field(default_factory=list)
    budgets: list[BudgetResult] = field(default_factory=list)
    costs: list[CostResult] = field(default_factory=list)
    verification: Verification | None = None
    accuracy: Accuracy | None = None
    prediction_error: PredictionError | None = None
    tuning: Tuning | None = None
    latencies: list[PairedTiming] = field(default_factory=list)
    latency_prediction: LatencyPrediction | None = None
    quantisation: Quantisation | None = None
    sizes: list[Size] = field(default_factory=list)
    files: list[FileWritten] = field(default_factory=list)
    fixed: list[LeftAlone] = field(default_factory=list)
    widths: list[Width] = field(default_factory=list)
    choices: list[ChoiceMade] = field(default_factory=list)
    operators: dict[str, Convolution] = field(default_factory=dict)
    probabilities: list[Probabilities] = field(default_factory=list)
    weight_sets: list[Probabilities] = field(default_factory=list)
    ranking: list[Ranked] = field(default_factory=list)
    blocks: list[BlockShape] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    blocks_removed: list[str] = field(default_factory=list)
    attributes_changed: list[AttributeChange] = field(default_factory=list)
    history: list[_Step] = field(default_factory=list)
    stage_seconds: dict[str, Annotated[float, Range(0, 1e12)]] = field(default_factory=dict)
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    schema_version: int = SCHEMA_VERSION

    @property
    def latency(self) -> PairedTiming | None:
        """The measurement the verdict is about."""
        return self.latencies[0] if self.latencies else None

    @property
    def score(self) -> Accuracy | PredictionError | None:
        """How well the networks do, whichever way it is measured."""
        return self.accuracy if self.accuracy is not None else self.prediction_error

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary, ``schema_version`` first. Numbers that are not finite become ``None``."""
        body = encode(self)
        return {"schema_version": body.pop("schema_version"), **body}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Report:
        """The inverse of :meth:`to_json`.

        Raises:
            UsageError: the report is of a newer version, or is none.
        """
        found = value.get("schema_version") if isinstance(value, dict) else None
        if not isinstance(found, int):
            raise UsageError("This is no report: it has no schema_version. Pass the report.json that compress wrote.")
        if found > SCHEMA_VERSION:
            raise UsageError(
                f"The report has schema_version {found}, this program reads up to {SCHEMA_VERSION}; update compressor."
            )
        return decode(Report, value, "report")


def installed_versions(
    names: tuple[str, ...] = ("compressor", "torch", "torchvision", "timm", "onnx", "onnxruntime", "numpy"),
) -> dict[str, str]:
    """Python's version and those of the distributions of ``names`` that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
