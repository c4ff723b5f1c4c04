"""Time per kernel, by the runtime's own clock inside the network: what the wall clock cannot see.

A runtime that keeps such a clock has a method ``kernels`` (:class:`KernelRuntime`). Of a single small operator this
tells its own time from that of changes of layout at the edges and of calling the runtime; and because every kernel is
timed on its own, an interruption spoils one reading of one kernel, not a run of the whole network.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

#: Changes of layout between the user's and the runtime's own, at the edges of a network.
_EDGES = ("ReorderInput", "ReorderOutput", "Reorder", "Input", "Parameter", "Output", "Result")

KernelTimes = dict[str, list[float]]


@runtime_checkable
class KernelRuntime(Protocol):
    """A runtime that can tell the time of each kernel."""

    def kernels(self, path: Path, *, threads: int, batch: int, runs: int, seed: int = 0) -> KernelTimes:
        """Milliseconds per run of every kernel by name, edges left out.

        Raises:
            RefusedError: the runtime cannot run the file.
        """


def onnxruntime_kernels(session_options: Any, path: Path, feeds: Mapping[str, Any], runs: int) -> KernelTimes:
    """Run an ONNX file under onnxruntime's profiler."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        session_options.enable_profiling = True
        session_options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(path), session_options, providers=["CPUExecutionProvider"])
        for _ in range(runs):
            session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found: KernelTimes = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        if event["args"].get("op_name") in _EDGES:
            continue
        found.setdefault(name.removesuffix("_kernel_time"), []).append(event["dur"] / 1e3)
    return found


def openvino_kernels(compiled: Any, request: Any, runs: int) -> KernelTimes:
    """Run a network compiled with performance counters."""
    found: KernelTimes = {}
    for _ in range(runs):
        request.infer()
        for entry in request.get_profiling_info():
            if entry.node_type in _EDGES or not str(entry.status).endswith(".EXECUTED"):
                continue
            found.setdefault(entry.node_name, []).append(entry.real_time.total_seconds() * 1e3)
    return found


def quiet_total(times: Mapping[str, list[float]], *, without: str = "", settle: int = 2) -> tuple[float, float]:
    """Milliseconds of one run and its relative spread: the sum over kernels of the mean of the quieter half of each.

    Interruptions only ever add time, so the quieter half is closer to what the kernel takes than all of it. The
    spread is half the distance from the lowest tenth to the median over the total: how far the quiet runs disagree.

    Args:
        without: kernels with this in their name are left out.
        settle: first readings to drop.
    """
    total = spread = 0.0
    for name, values in times.items():
        if without and without in name:
            continue
        ordered = np.sort(values[min(settle, len(values) - 1) :])
        tenth, half = np.percentile(ordered, [10, 50])
        total += float(ordered[: (len(ordered) + 1) // 2].mean())  # a mean, because clocks count whole microseconds
        spread += float(half - tenth) / 2
    return total, spread / total if total > 0 else 0.0
