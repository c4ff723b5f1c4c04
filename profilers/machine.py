"""What machine this is, for results that are to be read later or elsewhere."""

from __future__ import annotations

import platform
from pathlib import Path

from profilers.base import default_threads


def cpu_name() -> str:
    """Marketing name of the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in {"model name", "Model", "Hardware"} and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown CPU"


def machine_info() -> dict[str, str]:
    """Processor, cores this process may use, system. JSON-able; holds nothing that names a person or a host."""
    return {
        "cpu": cpu_name(),
        "cores": str(default_threads()),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
    }
