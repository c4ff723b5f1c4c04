"""Latency tables: measured operator latencies by device, runtime and signature; stored, shared and interpolated.

Needs numpy and the standard library only. The measuring itself is in ``profilers``.
"""

from lut.device import Device, cpu_device, gpu_device, nvidia_gpus
from lut.errors import (
    CorruptTableError,
    DiskFullError,
    InvalidKeyError,
    LutError,
    MissingPackageError,
    NotATableError,
    TableAccessError,
    TableBusyError,
    TableVersionError,
    UnknownTargetError,
)
from lut.key import Calibration, Measurement, Point, Signature, Target
from lut.table.store import LatencyTable, Row, default_path

__all__ = [
    "Calibration",
    "CorruptTableError",
    "Device",
    "DiskFullError",
    "InvalidKeyError",
    "LatencyTable",
    "LutError",
    "Measurement",
    "MissingPackageError",
    "NotATableError",
    "Point",
    "Row",
    "Signature",
    "TableAccessError",
    "TableBusyError",
    "TableVersionError",
    "Target",
    "UnknownTargetError",
    "cpu_device",
    "default_path",
    "gpu_device",
    "nvidia_gpus",
]
