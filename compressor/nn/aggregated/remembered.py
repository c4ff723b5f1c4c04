"""Times of forms in the latency table, so that the next run does not measure them again.

A row per form: the layer and the input's size are the signature, the device, PyTorch's version, precision, threads and
batch the target. A form that was left out is a refusal with the reason. No table, or one that is locked, full or
damaged, never stops a training: what was measured then holds for this process.

``COMPRESSOR_LATENCY_TABLE`` names another file than the user's, or is empty for none.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from statistics import median, quantiles
from typing import TYPE_CHECKING, Protocol

import torch

from compressor.nn.aggregated.candidates import short
from compressor.nn.aggregated.forms import FORMS

if TYPE_CHECKING:
    from compressor.nn.aggregated.cases import Case, Took
    from lut import LatencyTable, Measurement, Signature, Target

VARIABLE = "COMPRESSOR_LATENCY_TABLE"
PATIENCE_S = 5.0  # for other writers of the table
_log = logging.getLogger(__name__)
_told = False


class _Use(Protocol):
    def __call__(self, table: LatencyTable) -> dict[str, float]: ...


def look_up(case: Case) -> dict[str, float]:
    """Milliseconds by form, without those that were left out; empty if not all of them are known."""
    from lut import UnknownTargetError

    def use(table: LatencyTable) -> dict[str, float]:
        where, out = target(case), case.channels
        try:
            rows = {form: table.get(where, signature(case, form), out) for form in FORMS}
        except UnknownTargetError:
            return {}
        if any(row is None for row in rows.values()):
            return {}
        return {form: row.median_ms for form, row in rows.items() if row is not None and row.median_ms is not None}

    return _with_table(use)


def keep(case: Case, took: Mapping[str, Took]) -> None:
    """Store what forms took."""
    from lut import Row

    def use(table: LatencyTable) -> dict[str, float]:
        where = target(case)
        table.put_rows(Row(where, signature(case, form), *case.channels, _measurement(took[form])) for form in took)
        return {}

    _with_table(use)


def _measurement(took: Took) -> Measurement:
    from lut import Measurement

    if not took.seconds:
        return Measurement.refused(took.why)
    middle = median(took.seconds)
    low, _, high = quantiles(took.seconds, n=4) if len(took.seconds) > 1 else (middle,) * 3
    return Measurement(max(middle * 1e3, 1e-6), (high - low) / middle if middle else 0.0, len(took.seconds))


def _with_table(use: _Use) -> dict[str, float]:
    global _told
    path = os.environ.get(VARIABLE)
    if path == "":
        return {}
    try:
        from lut import LatencyTable

        with LatencyTable(path, timeout_s=PATIENCE_S) as table:
            return use(table)
    except Exception as error:  # whatever it is, a training goes on
        if not _told:
            _told = True
            _log.warning("The quickest forms of convolutions are not remembered: %s", " ".join(str(error).split()))
        return {}


def target(case: Case) -> Target:
    """Where and how a case runs."""
    from lut import Target, cpu_device, gpu_device, nvidia_gpus

    kind, _, _ = case.device.partition(":")
    if kind == "cpu":
        device = cpu_device()
    else:
        name = torch.cuda.get_device_name(case.device) if kind == "cuda" else kind
        device = next((gpu for gpu in nvidia_gpus() if gpu.name == name), gpu_device(name, ""))
    precision = case.dtype.removeprefix("torch.") + (f" autocast {case.autocast}" if case.autocast else "")
    return Target(device, "torch", torch.__version__, precision, case.threads, case.batch)


def signature(case: Case, form: str) -> Signature:
    """What a case computes, in one form; candidates as kernel:dilation@left."""
    from lut import Signature

    pairs = zip(case.candidates, case.lefts, strict=True)
    mixed = " ".join(f"{short(c.kernel_size)}:{short(c.dilation)}@{short(left)}" for c, left in pairs)
    learns = " ".join(name for name, does in zip(("input", "kernels", "shares"), case.learns, strict=True) if does)
    return Signature(
        f"aggregated_conv{len(case.size)}d",
        stride=case.stride,
        groups=case.groups,
        spatial=case.size,
        attributes=(
            ("bias", case.bias),
            ("candidates", mixed),
            ("excess", short(case.excess)),
            ("form", form),
            ("learns", learns),
        ),
    )
