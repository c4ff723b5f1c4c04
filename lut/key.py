"""What one row of the table is about: where it was measured, which operator, and what came out.

A point is ``(target, signature, channels_in, channels_out) -> Measurement``. Targets and signatures have a canonical
text (``lut.canonical``) that is the key in the database and in shared files.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from lut import canonical
from lut.device import Device
from lut.errors import InvalidKeyError

Attribute = str | int | float | bool
Point = tuple[int, int]
STATUSES = ("ok", "noisy", "refused")


def _build(kind: str, cls: Any, fields: Any) -> Any:
    if not isinstance(fields, dict):
        raise InvalidKeyError(f"The {kind} in a key should be a JSON object, not {str(fields)[:40]!r}.")
    unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(cls)})
    if unknown:
        raise InvalidKeyError(f"The {kind} key has the unknown fields {', '.join(unknown)}: update this program.")
    try:
        return cls(**{name: canonical.to_tuple(value) for name, value in fields.items()})
    except InvalidKeyError:
        raise
    except (TypeError, AttributeError, ValueError) as error:
        raise InvalidKeyError(f"The {kind} key {str(fields)[:80]} is incomplete or malformed: {error}.") from error


@dataclasses.dataclass(frozen=True)
class Target:
    """Where and how it was measured. Two rows may be mixed only if their targets are equal.

    Args:
        device: the device.
        runtime: registered runtime name, such as "onnxruntime-cpu".
        runtime_version: its full version.
        precision: "fp32", "fp16", "bf16", "int8", ...
        threads: intra-operator threads (0: does not apply).
        batch: images per call.
    """

    device: Device
    runtime: str
    runtime_version: str
    precision: str = "fp32"
    threads: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        for name in ("runtime", "runtime_version", "precision"):
            if not getattr(self, name):
                raise InvalidKeyError(f"A target needs a {name}; found an empty one.")
        if self.threads < 0 or self.batch < 1:
            raise InvalidKeyError(
                f"A target needs threads >= 0 and batch >= 1; found threads={self.threads}, batch={self.batch}."
            )

    @cached_property
    def key(self) -> str:
        """Canonical text, the key in the database."""
        return canonical.dump("target", self)

    @classmethod
    def from_key(cls, text: str) -> Target:
        """The target a canonical text stands for. Raises ``InvalidKeyError``."""
        fields = canonical.load("target", text)
        fields["device"] = _build("device", Device, fields.get("device") or {})
        return _build("target", cls, fields)  # type: ignore[no-any-return]

    @property
    def label(self) -> str:
        """Short text for people."""
        return (
            f"{self.runtime} {self.runtime_version}, {self.precision}, threads {self.threads}, batch {self.batch}, "
            f"{self.device.label}"
        )

    def differences(self, other: Target) -> tuple[str, ...]:
        """Names of the fields in which the two differ."""
        names = tuple(field.name for field in dataclasses.fields(self))
        return tuple(name for name in names if getattr(self, name) != getattr(other, name))


@dataclasses.dataclass(frozen=True)
class Signature:
    """What is timed: one operator as the runtime runs it, everything fixed but its channels.

    Args:
        kind: operator family: "conv2d", "linear", "max_pool2d", "batch_norm", "add", "concat", ...
        kernel, stride, padding, dilation: one number per spatial axis; empty where they do not apply.
        groups: groups of a grouped convolution; stays 1 for depthwise, whose groups follow the channels.
        depthwise: one filter per channel.
        spatial: input size without batch and channels, (H, W) for images, (tokens,) for sequences.
        fused: what the runtime folds in, in order, such as ("norm", "relu") or ("norm", "add", "relu").
        attributes: whatever else decides the time, as sorted (name, value) pairs.
        axes: how many channel counts vary on their own: 2, or 1 where in equals out (depthwise, pooling,
            normalisation, elementwise); points of such a signature have channels_in == channels_out.
    """

    kind: str
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    depthwise: bool = False
    spatial: tuple[int, ...] = ()
    fused: tuple[str, ...] = ()
    attributes: tuple[tuple[str, Attribute], ...] = ()
    axes: int = 2

    def __post_init__(self) -> None:
        if not self.kind:
            raise InvalidKeyError("A signature needs an operator kind; found an empty one.")
        if self.axes not in (1, 2):
            raise InvalidKeyError(f"A signature has 1 or 2 channel axes, not {self.axes!r}.")
        if self.depthwise and (self.axes != 1 or self.groups != 1):
            raise InvalidKeyError(
                f"A depthwise signature has axes=1 and groups=1; found axes={self.axes}, groups={self.groups}."
            )
        if self.groups < 1:
            raise InvalidKeyError(f"A signature needs groups >= 1; found {self.groups}.")
        for name in ("kernel", "stride", "padding", "dilation", "spatial"):
            object.__setattr__(self, name, tuple(int(size) for size in getattr(self, name)))
        object.__setattr__(self, "fused", tuple(self.fused))
        pairs = self.attributes.items() if isinstance(self.attributes, Mapping) else self.attributes
        object.__setattr__(self, "attributes", tuple(sorted((str(name), value) for name, value in pairs)))

    @cached_property
    def key(self) -> str:
        """Canonical text, the key in the database."""
        return canonical.dump("signature", self)

    @classmethod
    def from_key(cls, text: str) -> Signature:
        """The signature a canonical text stands for. Raises ``InvalidKeyError``."""
        return _build("signature", cls, canonical.load("signature", text))  # type: ignore[no-any-return]

    @property
    def label(self) -> str:
        """Short text for people: ``conv2d 3x3 /2 @56x56 +norm+relu``."""
        parts = [self.kind + (" depthwise" if self.depthwise else "")]
        if self.kernel:
            parts.append("x".join(map(str, self.kernel)))
        if any(step != 1 for step in self.stride):
            parts.append("/" + "x".join(map(str, dict.fromkeys(self.stride))))
        if any(step != 1 for step in self.dilation):
            parts.append("dilation " + "x".join(map(str, dict.fromkeys(self.dilation))))
        if self.groups > 1:
            parts.append(f"groups {self.groups}")
        if self.spatial:
            parts.append("@" + "x".join(map(str, self.spatial)))
        parts += ["+" + "+".join(self.fused)] if self.fused else []
        return " ".join(parts + [f"{name}={value}" for name, value in self.attributes])

    def point(self, channels_in: int, channels_out: int | None = None) -> Point:
        """Check the channels of a point. Raises ``InvalidKeyError``."""
        out = channels_in if channels_out is None else channels_out
        if channels_in < 1 or out < 1:
            raise InvalidKeyError(f"Channels are at least 1; found {channels_in} in and {out} out.")
        if self.axes == 1 and channels_in != out:
            raise InvalidKeyError(f"{self.label} has one channel axis; found {channels_in} in and {out} out.")
        return int(channels_in), int(out)


def now() -> str:
    """The time in UTC, to the second, as stored in ``measured_at``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What came out of timing one point.

    Args:
        median_ms: median latency of one call, milliseconds; None exactly when the runtime refused the operator.
        spread: relative spread, interquartile range over median (0.02 is 2 %).
        repeats: timed calls the median is taken over.
        status: "ok", "noisy" (the spread was too large to trust) or "refused" (the runtime would not run it).
        error: the runtime's words if it refused.
        measured_at: UTC, ``2026-01-31T12:00:00Z``; filled in when left empty.
    """

    median_ms: float | None
    spread: float = 0.0
    repeats: int = 1
    status: str = "ok"
    error: str = ""
    measured_at: str = dataclasses.field(default_factory=now)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise InvalidKeyError(f"A measurement's status is one of {', '.join(STATUSES)}, not {self.status!r}.")
        if (self.median_ms is None) != (self.status == "refused"):
            raise InvalidKeyError(f"A measurement with status {self.status!r} cannot have median_ms={self.median_ms}.")
        if self.median_ms is not None and not (math.isfinite(self.median_ms) and self.median_ms > 0):
            raise InvalidKeyError(f"A latency is a finite number above 0 ms; found {self.median_ms!r}.")
        if not (math.isfinite(self.spread) and self.spread >= 0) or self.repeats < 0:
            raise InvalidKeyError(
                f"A measurement needs spread >= 0 and repeats >= 0; found {self.spread!r}, {self.repeats!r}."
            )

    def better_than(self, other: Measurement) -> bool:
        """Whether this one should be kept of two for the same point: status, then repeats, then spread, then age."""
        return self._rank() > other._rank()

    def _rank(self) -> tuple[int, int, float, str]:
        return (-STATUSES.index(self.status), self.repeats, -self.spread, self.measured_at)

    @staticmethod
    def refused(error: str) -> Measurement:
        """The runtime will not run this point; ``error`` is its reason."""
        return Measurement(median_ms=None, repeats=0, status="refused", error=" ".join(error.split())[:500])


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How sums of table entries become whole-network latencies for one model on one target.

    Args:
        coefficients: fitted numbers by name, such as {"scale": 1.03, "overhead_ms": 0.2}.
        held_out: errors on subnets that were not fitted, such as {"mean_error": 0.031, "kendall_tau": 0.97}.
        details: anything else worth keeping, JSON.
        measured_at: UTC.
    """

    coefficients: dict[str, float]
    held_out: dict[str, float]
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    measured_at: str = dataclasses.field(default_factory=now)

    @staticmethod
    def from_json(text: str) -> Calibration:
        """What was stored. Raises ``InvalidKeyError`` for anything else."""
        fields = canonical.parse(text)
        numbers = [fields.get(name) for name in ("coefficients", "held_out")]
        if not all(isinstance(n, dict) and all(_is_number(v) for v in n.values()) for n in numbers):
            raise InvalidKeyError("A calibration needs numbers by name as coefficients and held_out.")
        if not isinstance(fields.get("details", {}), dict) or not isinstance(fields.get("measured_at", ""), str):
            raise InvalidKeyError("A calibration needs an object as details and a text as measured_at.")
        return _build("calibration", Calibration, fields)  # type: ignore[no-any-return]
