"""Which device this is: a fingerprint that stays the same across reboots and differs wherever kernels may differ.

For a CPU that is its model, its logical cores and the instruction sets that inference runtimes choose their kernels by
(virtual machines often give no better name than "AMD EPYC"). Anything that changes from boot to boot or with the load
(clock, free memory, kernel version, host name) stays out. For a GPU it is the name and the driver.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from lut import canonical
from lut.errors import InvalidKeyError

# Only sets that kernels are dispatched on: the full list of flags grows with every operating system update.
_DISPATCHED = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)


@dataclasses.dataclass(frozen=True)
class Device:
    """A device that latencies are measured on.

    Args:
        kind: "cpu", "gpu" or "simulated".
        name: the model, as the maker prints it.
        cores: logical cores of the machine (0 for a GPU), not the ones a container may use: threads are part of
            ``Target``.
        features: instruction sets that kernels are chosen by, sorted.
        driver: driver version of a GPU.
    """

    kind: str
    name: str
    cores: int = 0
    features: tuple[str, ...] = ()
    driver: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("cpu", "gpu", "simulated"):
            raise InvalidKeyError(f"A device is of kind 'cpu', 'gpu' or 'simulated', not {self.kind!r}.")
        if not self.name.strip():
            raise InvalidKeyError("A device needs a name; found an empty one.")
        object.__setattr__(self, "name", " ".join(self.name.split()))
        object.__setattr__(self, "features", tuple(sorted(self.features)))

    @property
    def fingerprint(self) -> str:
        """Canonical text: equal for equal devices, on any day."""
        return canonical.dump("device", self)

    @property
    def label(self) -> str:
        """Short text for people."""
        extra = f"driver {self.driver}" if self.driver else f"{self.cores} cores" if self.cores else ""
        return f"{self.name} ({extra})" if extra else self.name


def _cpuinfo(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}  # not Linux; the platform module answers instead
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, separator, value = line.partition(":")
        if separator:
            fields.setdefault(name.strip(), value.strip())
    return fields


def _run(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""  # a hanging driver counts as no driver
    return done.stdout.strip() if done.returncode == 0 else ""


def cpu_device(cpuinfo: Path = Path("/proc/cpuinfo")) -> Device:
    """The CPU of this machine."""
    info = _cpuinfo(cpuinfo)
    name = info.get("model name", "")
    if not name and "CPU part" in info:  # ARM gives numbers instead of a name
        name = f"ARM implementer {info.get('CPU implementer', '?')} part {info['CPU part']}"
    if not name:
        name = _run("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or "unknown CPU"
    version = "/".join(info[key] for key in ("cpu family", "model", "stepping") if key in info)
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return Device(
        kind="cpu",
        name=f"{name} {platform.machine()}" + (f" {version}" if version else ""),
        cores=os.cpu_count() or 1,
        features=tuple(flag for flag in _DISPATCHED if flag in flags),
    )


def device_of(fingerprint: str) -> Device:
    """The device a fingerprint stands for. Raises ``InvalidKeyError``."""
    fields = canonical.load("device", fingerprint)
    try:
        return Device(**{name: canonical.to_tuple(value) for name, value in fields.items()})
    except (TypeError, AttributeError) as error:
        raise InvalidKeyError(f"The fingerprint {fingerprint[:80]!r} is incomplete or malformed: {error}.") from error


def gpu_device(name: str, driver: str) -> Device:
    """A GPU, by the name and driver version its runtime reports."""
    return Device(kind="gpu", name=name, driver=driver)


@lru_cache(maxsize=1)
def nvidia_gpus() -> tuple[Device, ...]:
    """The NVIDIA GPUs of this machine in bus order, as ``nvidia-smi`` lists them; empty where there are none."""
    lines = _run("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader").splitlines()
    pairs = [line.rsplit(",", 1) for line in lines if "," in line]
    return tuple(gpu_device(name.strip(), driver.strip()) for name, driver in pairs)
