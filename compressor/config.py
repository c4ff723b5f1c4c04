"""What a job is asked to do: budgets as the user writes them, and the whole job as one frozen, JSON-able value.

Nothing here imports torch: the command line parses and refuses bad input before anything heavy is loaded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from compressor.errors import UsageError

#: The export format that needs data.
INT8_FORMAT = "onnx-int8"
DEFAULT_EPOCHS = 5
DEFAULT_BENCH_SECONDS = 10.0

_DECIMAL = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_BYTES = {
    **{"": 1.0, "b": 1.0, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9},
    **{"kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30},
}
_MILLISECONDS = {"": 1.0, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3}

_UNITS: dict[str, dict[str, float]] = {
    "flops": _DECIMAL,
    "params": _DECIMAL,
    "memory": _BYTES,
    "latency": _MILLISECONDS,
    "complexity": _DECIMAL,
}
_EXAMPLES = {
    "flops": "2G, 500M, 1.5e9 multiply-adds, or 50%",
    "params": "5M, 250k, 1e6, or 50%",
    "memory": "12MB, 12MiB, 800kB, or 50%",
    "latency": "3ms, 800us, 0.1s, or 50%",
    "complexity": "2G, 500M, 1.5e9 operations, or 50%",
}
BASE_UNITS = {"flops": "macs", "params": "params", "memory": "bytes", "latency": "ms", "complexity": "operations"}
"""The unit of ``Budget.limit`` for each cost."""

_TEXT = re.compile(r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*(?P<unit>%|[a-zµμ]*)", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """An upper limit on one cost.

    Attributes:
        cost: ``"flops"``, ``"params"``, ``"memory"``, ``"latency"`` or ``"complexity"``.
        value: a fraction of the original cost if ``relative``, else an amount in the cost's base unit
            (multiply-adds, parameters, bytes, milliseconds).
        relative: whether ``value`` is a fraction of the original.
        text: the budget as the user wrote it.
    """

    cost: str
    value: float
    relative: bool
    text: str

    def limit(self, original: float) -> float:
        """The absolute limit, in the base unit, for a model whose cost is ``original``."""
        return self.value * original if self.relative else self.value

    def __str__(self) -> str:
        return f"{self.cost} {self.text}"


def parse_budget(cost: str, given: str | float) -> Budget:
    """Read one budget.

    Args:
        cost: which cost the budget limits.
        given: text such as ``"2G"``, ``"50%"``, ``"12MiB"``, ``"3ms"``, or a number in the base unit. Only a percent
            sign makes a budget relative: the number 0.5 is half a multiply-add, which is refused.

    Raises:
        UsageError: an unknown cost, text that is no amount, or an amount that is not positive and finite.
    """
    if cost not in _UNITS:
        raise UsageError(f"Unknown cost {cost!r} in a budget. Choose from: {', '.join(_UNITS)}.")
    if isinstance(given, bool) or not isinstance(given, (str, int, float)):
        raise UsageError(f"A {cost} budget must be text or a number, not {given!r}; for example {_EXAMPLES[cost]}.")
    text = given.strip() if isinstance(given, str) else f"{given:.15g}"
    value, relative = _read_amount(cost, text)
    if not math.isfinite(value) or value <= 0:
        raise UsageError(f"The {cost} budget {text!r} must be above zero and finite; for example {_EXAMPLES[cost]}.")
    if not relative and cost != "latency" and value < 1:
        share = f"; for a share of the original write '{value:.3%}'" if isinstance(given, float) else ""
        raise UsageError(f"The {cost} budget {text!r} is less than one{share}; for example {_EXAMPLES[cost]}.")
    return Budget(cost, value, relative, text)


def _read_amount(cost: str, text: str) -> tuple[float, bool]:
    """Split text into its value in base units (or its fraction) and whether it is relative."""
    if text.lower().lstrip("+-") in {"nan", "inf", "infinity"}:
        return float(text), False
    match = _TEXT.fullmatch(text)
    if match is None:
        found = f"{text!r}" if text else "an empty text"
        raise UsageError(f"Cannot read {found} as a {cost} budget; expected for example {_EXAMPLES[cost]}.")
    number, unit = float(match["number"]), match["unit"]
    if unit == "%":
        return number / 100, True
    scale = _UNITS[cost].get(unit.lower())
    if scale is None:
        known = ", ".join(sorted((u for u in _UNITS[cost] if u), key=len)) + ", %"
        raise UsageError(
            f"Cannot read {text!r} as a {cost} budget: unknown unit {unit!r} (known: {known}); "
            f"expected for example {_EXAMPLES[cost]}."
        )
    return number * scale, False


def parse_budgets(budgets: Mapping[str, str | float]) -> tuple[Budget, ...]:
    """Read a mapping such as ``{"flops": "50%", "params": "5M"}``. Raises ``UsageError`` if it is empty."""
    if not budgets:
        raise UsageError("No budget was given; pass at least one, for example --budget-flops 50%.")
    return tuple(parse_budget(cost, given) for cost, given in budgets.items())


def default_search(data: str | None) -> str:
    """The search method of a job that names none: ``figs`` learns from data, ``oneshot`` needs none."""
    return "figs" if data else "oneshot"


_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps")


@dataclass(frozen=True)
class JobConfig:
    """One run of the main job. Validated on construction; ``to_json`` and ``from_json`` are inverse.

    Attributes:
        model: a torchvision name, ``timm:NAME``, ``pkg.module:factory``, a shipped backbone or a saved folder.
        budgets: at least one budget, at most one for each cost.
        out: the folder to write; a run that was cut off goes on from what lies there.
        weights: ``"default"``, ``"none"`` or the path of a weights file.
        data: a data specification, or None: then nothing is trained.
        search: name of a search method.
        learn: components for a method that learns several, such as width and depth; empty for all the model has.
        penalty: fixed weight of the cost for a method that has one; None finds it from the budgets.
        penalty_ramp: share of the steps before the decision over which that weight rises from zero.
        compiler: backend of ``torch.compile`` for a method that takes one; None does not compile.
        grow: search inside a network so many times as wide and as deep; shares in budgets are the model's own.
        train_epochs: epochs of training the original first (it has no pretrained weights).
        search_epochs: epochs of the search itself, for methods that train.
        finetune_epochs: epochs of fine-tuning the compressed model.
        lr: learning rate of training and fine-tuning.
        distill: weight of the distillation loss from the original in search and fine-tuning, 0 for none.
        round_to: widths are kept at multiples of this; None: at even ones (``search.even``), or with a latency budget
            at those that the target likes.
        include, exclude: patterns over module names; what is not included, or is excluded, keeps its width.
        export: names of the formats to write.
        bench_seconds: how long to time both networks at the end, 0 for not at all.
        num_classes: classes of the model's head; None takes them from the data, or the model's own default.
        input_shape: shape of one input without the batch axis, (channels, height, width) for images; None takes it
            from the data, or from the model's weights.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
        force: whether to overwrite a folder that holds another job.
        target: where a latency budget holds; needed for one.
        lut: file of the latency table; None is the default place.
        threads: CPU threads on the target; None takes every core.
    """

    model: str
    budgets: tuple[Budget, ...]
    out: str
    weights: str = "default"
    data: str | None = None
    search: str = "oneshot"
    learn: tuple[str, ...] = ()
    penalty: float | None = None
    penalty_ramp: float | None = None
    compiler: str | None = None
    grow: int = 1
    train_epochs: int = 0
    search_epochs: int = 0
    finetune_epochs: int = 0
    batch_size: int = 64
    lr: float = 0.05
    distill: float = 0.0
    round_to: int | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    export: tuple[str, ...] = ("onnx",)
    bench_seconds: float = DEFAULT_BENCH_SECONDS
    num_classes: int | None = None
    input_shape: tuple[int, ...] | None = None
    seed: int = 0
    device: str = "auto"
    force: bool = False
    target: str | None = None
    lut: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise UsageError("The model is empty; name one, for example --model resnet50 (compress models lists them).")
        if not self.budgets:
            raise UsageError("No budget was given; pass at least one, for example --budget-flops 50%.")
        costs = [budget.cost for budget in self.budgets]
        if len(set(costs)) < len(costs):
            raise UsageError(f"Two budgets for one cost were given ({', '.join(costs)}); keep one for each cost.")
        if "latency" in costs and self.target is None:
            raise UsageError(
                "A latency budget needs a target to measure on; pass --target, for example --target onnxruntime-cpu."
            )
        if self.target is not None and "latency" not in costs:
            raise UsageError("A target was given but no latency budget; pass --budget-latency, for example 60%.")
        if self.threads is not None:
            _at_least("threads", self.threads, 1)
        for name, least in (("train_epochs", 0), ("search_epochs", 0), ("finetune_epochs", 0), ("seed", 0)):
            _at_least(name, getattr(self, name), least)
        _at_least("batch_size", self.batch_size, 1)
        if self.round_to is not None:
            _at_least("round_to", self.round_to, 1)
        if self.num_classes is not None:
            _at_least("num_classes", self.num_classes, 1)
        if not math.isfinite(self.lr) or self.lr <= 0:
            raise UsageError(f"lr must be above zero and finite, but got {self.lr}.")
        if not math.isfinite(self.distill) or self.distill < 0:
            raise UsageError(f"distill must be zero or more and finite, but got {self.distill}.")
        if not math.isfinite(self.bench_seconds) or self.bench_seconds < 0:
            raise UsageError(f"bench_seconds must be zero or more and finite, but got {self.bench_seconds}.")
        if self.input_shape is not None and (not self.input_shape or min(self.input_shape) < 1):
            raise UsageError(f"input_shape must be positive sizes such as 3,224,224, but got {self.input_shape}.")
        if not _DEVICE.fullmatch(self.device):
            raise UsageError(f"Unknown device {self.device!r}; choose auto, cpu, cuda, cuda:N or mps.")
        epochs = self.train_epochs + self.search_epochs + self.finetune_epochs
        if self.data is None and epochs:
            raise UsageError("Epochs were asked for but there is no data to train on; pass --data, for example digits.")

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        values = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> JobConfig:
        """Read what ``to_json`` wrote. Raises ``UsageError`` for keys that do not exist."""
        known = {f.name for f in fields(cls)}
        if strange := sorted(set(values) - known):
            raise UsageError(f"Unknown job settings: {', '.join(strange)}. Known are: {', '.join(sorted(known))}.")
        read: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        if missing := sorted({"model", "budgets", "out"} - set(values)):
            raise UsageError(f"The job settings lack {', '.join(missing)}.")
        read["budgets"] = tuple(Budget(**budget) for budget in values.get("budgets", ()))
        return cls(**read)

    def identity(self) -> dict[str, Any]:
        """The settings that decide the result: two runs with equal identities may share one folder and go on."""
        return {key: value for key, value in self.to_json().items() if key not in {"out", "force", "lut"}}


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, but got {value!r}.")


def default_out(model: str, budgets: tuple[Budget, ...]) -> str:
    """The folder of a job that names none, such as ``compressed/resnet50-flops-2G``."""
    name = model.removesuffix("/").rsplit("/", 1)[-1] if Path(model).exists() else model
    slug = "-".join([name, *(f"{budget.cost}-{budget.text.replace('%', 'pct')}" for budget in budgets)])
    return str(Path("compressed") / re.sub(r"[^\w.+-]+", "-", slug).strip("-"))
