"""Under which key of a latency table the conditions of a runner stand."""

from __future__ import annotations

from lut import Target, cpu_device, nvidia_gpus
from lut.device import Device
from profilers.base import RunnerInfo
from profilers.errors import TargetUnavailableError


def target_of(info: RunnerInfo) -> Target:
    """The table's target for the conditions a runner runs under on this machine.

    Raises:
        TargetUnavailableError: it ran on a GPU that the driver does not list.
    """
    return Target(_device(info), info.runtime, info.version, info.precision, info.threads, info.batch)


def _device(info: RunnerInfo) -> Device:
    if info.runtime == "simulated":
        return Device("simulated", info.device)
    if info.threads:
        return cpu_device()
    gpus = nvidia_gpus()
    if not gpus:
        raise TargetUnavailableError(f"{info.runtime} ran on a GPU, but nvidia-smi lists none; check the driver.")
    return gpus[0]
