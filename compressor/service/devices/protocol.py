"""What devices are asked and what they answer: JSON values, checked where they come in.

A request is complete in itself, so that any agent process can answer it: operation, threads, batch size, the unit of
time, and arguments. Files are named by the SHA-256 of their bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from compressor.errors import CompressorError, UsageError
from profilers import errors
from profilers.base import RunnerInfo, Samples, Timing
from profilers.interleave import Comparison
from profilers.stats import Ratio

#: Operations: open the reference; is the machine busy; one operator; networks against a reference; two networks; any
#: models in turn; runs of one file; its kernels.
OPEN, BUSY, MEASURE, NETWORKS, PAIR, INTERLEAVE, SAMPLES, KERNELS = OPERATIONS = (
    *("open", "busy", "measure", "networks"),
    *("pair", "interleave", "samples", "kernels"),
)
#: A device's name; it stands in URLs, on command lines and in labels of jobs.
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_FILES = 256
_BY_LABEL = ("timings", "ratios", "bursts_ms")

_ERRORS = {
    each.__name__: each
    for each in (
        errors.ProfilerError,
        errors.ProfilerUsageError,
        errors.TargetUnavailableError,
        errors.RefusedError,
        errors.DeviceLostError,
    )
}


class DeviceProtocolError(CompressorError):
    """The other side said something that this version does not understand."""


@dataclass(frozen=True)
class Request:
    """One measurement.

    Attributes:
        threads: CPU threads; ``None`` leaves it to the agent. batch: the batch size; ``None`` is the file's own.
        reference_ms: what the reference takes undisturbed, the unit of times; ``None`` leaves what the agent found.
        files: what has to be on the device, by hash.
    """

    operation: str
    threads: int | None = None
    batch: int | None = 1
    reference_ms: float | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**dataclasses.asdict(self), "arguments": dict(self.arguments), "files": list(self.files)}

    @classmethod
    def from_json(cls, value: Any) -> Request:
        """Checked. Raises ``UsageError``."""
        if not isinstance(value, dict) or value.get("operation") not in OPERATIONS:
            raise UsageError(f"A device is asked for one of {', '.join(OPERATIONS)}; found {str(value)[:80]}.")
        unknown = sorted(set(value) - {each.name for each in dataclasses.fields(cls)})
        files = value.get("files") or []
        named = isinstance(files, list) and all(isinstance(f, str) and SHA256.fullmatch(f) for f in files)
        if unknown or not named or len(files) > MOST_FILES:
            raise UsageError(f"A request to a device has hashes as files, at most {MOST_FILES}, and no {unknown}.")
        for name, least in (("threads", 1), ("batch", 1)):
            number = value.get(name)
            if number is not None and (type(number) is not int or not least <= number <= 65536):
                raise UsageError(f"{name} of a request to a device is a whole number from {least}, not {number!r}.")
        unit = value.get("reference_ms")
        if unit is not None and not (isinstance(unit, (int, float)) and 0 < unit < 1e9):
            raise UsageError(f"reference_ms is a number of milliseconds above 0, not {unit!r}.")
        if not isinstance(value.get("arguments", {}), dict):
            raise UsageError("The arguments of a request to a device are names with values.")
        return cls(**{**value, "files": tuple(dict.fromkeys(files))})

    def cache_key(self, device: str) -> str | None:
        """The hash of all that decides the answer on a device, ``None`` where asking again must measure again.

        Args:
            device: its fingerprint, runtime, version and default threads, as text.
        """
        if self.operation not in (NETWORKS, PAIR, INTERLEAVE):
            return None
        unit = self.reference_ms if self.operation == NETWORKS else None  # the others tell the time as it is
        decides = [device, self.operation, self.threads, self.batch, unit, dict(self.arguments)]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def error_json(error: Exception) -> dict[str, Any]:
    """An answer that says what went wrong."""
    kind = type(error).__name__
    return {"error": {"kind": kind if kind in _ERRORS else "ProfilerError", "text": " ".join(str(error).split())}}


def error_of(answer: Mapping[str, Any]) -> Exception | None:
    """The error that an answer tells of, if any."""
    told = answer.get("error")
    if told is None:
        return None
    kind = _ERRORS.get(str(told.get("kind")), errors.ProfilerError)
    return kind(str(told.get("text") or "no reason given"))


def info_of(value: Mapping[str, Any]) -> RunnerInfo:
    """The conditions of a runner. Raises ``DeviceProtocolError``."""
    try:
        return RunnerInfo(**value)
    except TypeError as error:
        raise DeviceProtocolError(
            f"The device describes its runtime in an unknown way ({error}): update both."
        ) from error


def samples_of(value: Mapping[str, Any]) -> Samples:
    """Raw measurements."""
    return Samples(**{name: [float(each) for each in values] for name, values in value.items()})


def comparison_json(found: Comparison) -> dict[str, Any]:
    """What was timed in turn. Lists keep the order of labels, which databases change in objects."""
    value = dataclasses.asdict(found)
    return {**value, **{name: list(value[name].items()) for name in _BY_LABEL}}


def comparison_of(value: Mapping[str, Any]) -> Comparison:
    """What ``comparison_json`` says. Raises ``DeviceProtocolError``."""
    try:
        return Comparison(
            **{
                **value,
                "timings": {label: Timing(**timing) for label, timing in value["timings"]},
                "ratios": {label: Ratio(**ratio) for label, ratio in value["ratios"]},
                "bursts_ms": dict(value["bursts_ms"]),
            }
        )
    except (TypeError, KeyError, ValueError) as error:
        raise DeviceProtocolError(f"The device tells its times in an unknown way ({error}): update both.") from error
