"""Whether an NVIDIA GPU can be used, asked without importing anything heavy."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

from exporters.base import Availability


@cache
def gpu_availability() -> Availability:
    """Ask the driver how many GPUs it has."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return Availability(False, "no NVIDIA driver is installed")
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return Availability(False, "the NVIDIA driver finds no GPU")
    return Availability(True)
