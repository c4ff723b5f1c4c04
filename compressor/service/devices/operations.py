"""Answers requests on the machine that the device is at. Runs in the process that may be killed; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from compressor.service.devices import protocol
from compressor.service.devices.protocol import Request
from lut import LutError, Signature, Target
from profilers.base import Runtime
from profilers.errors import ProfilerError, ProfilerUsageError
from profilers.feeds import Feeds
from profilers.in_turn import Limit
from profilers.kernels import KernelRuntime
from profilers.layers.layer_timer import LayerTimer
from profilers.side_by_side import time_in_turn

#: Timers that are kept, each with its reference loaded.
_MOST_TIMERS = 4


class Operations:
    """Measures what is asked for, on one runtime.

    Args:
        folder: where files lie, each under the hash of its bytes.
        threads: CPU threads where a request says nothing; ``None`` takes every core.
        renamed: the target under which rows are told, of the one that they are measured on.
    """

    def __init__(
        self,
        runtime: Runtime,
        folder: Path,
        *,
        threads: int | None = None,
        renamed: Callable[[Target], Target] = lambda target: target,
    ) -> None:
        self.runtime, self.folder, self.threads = runtime, folder, threads
        self._renamed = renamed
        self._timers: dict[tuple[int | None, int], tuple[LayerTimer, float]] = {}

    def answer(self, request: Request) -> dict[str, Any]:
        """Measure. What the runtime refuses, and a device that is gone, is an answer, too."""
        try:
            timer, found_ms = self._timer(request)
            timer.reference_ms = found_ms if request.reference_ms is None else request.reference_ms
            result = getattr(self, f"_{request.operation}")(timer, request)
        except ProfilerError as error:
            return protocol.error_json(error)
        except (LutError, KeyError, TypeError, ValueError) as error:
            return protocol.error_json(ProfilerUsageError(f"The request cannot be understood: {error}."))
        return {
            "result": result,
            "target": self._renamed(timer.target).key,
            "info": asdict(timer.info),
            "reference_ms": timer.reference_ms,
            "recent_ms": timer.reference.recent_ms,
        }

    def close(self) -> None:
        """Give back all timers."""
        while self._timers:
            self._timers.popitem()[1][0].close()

    def _timer(self, request: Request) -> tuple[LayerTimer, float]:
        """The timer for a request's conditions, and what it found its reference to take undisturbed."""
        key = request.threads or self.threads, request.batch or 1
        found = self._timers.pop(key, None)
        if found is None:
            if len(self._timers) >= _MOST_TIMERS:
                self._timers.pop(next(iter(self._timers)))[0].close()
            timer = LayerTimer(self.runtime, threads=key[0], batch=key[1])
            found = timer, timer.reference_ms
        self._timers[key] = found  # as the latest
        return found

    def _file(self, sha256: str) -> Path:
        if not protocol.SHA256.fullmatch(sha256):
            raise ProfilerUsageError(f"A file is named by its SHA-256, not {sha256!r}.")
        return self.folder / f"{sha256}.onnx"

    def _model(self, value: Mapping[str, Any]) -> tuple[Path, Feeds | None]:
        """A file, and inputs if some were sent along."""
        if value.get("feeds") is None:
            return self._file(value["file"]), None
        with np.load(self._file(value["feeds"]), allow_pickle=False) as arrays:
            return self._file(value["file"]), Feeds(dict(arrays))

    # ---- operations, by name

    def _open(self, timer: LayerTimer, request: Request) -> dict[str, Any]:
        return {"kernels": isinstance(self.runtime, KernelRuntime)}

    def _busy(self, timer: LayerTimer, request: Request) -> dict[str, Any]:
        return {"busy": timer.busy()}

    def _measure(self, timer: LayerTimer, request: Request) -> dict[str, Any]:
        given = request.arguments
        signature = Signature.from_key(given["signature"])
        point = signature.point(given["channels_in"], given["channels_out"])
        return asdict(timer.measure(signature, *point))

    def _networks(self, timer: LayerTimer, request: Request) -> dict[str, Any]:
        given = request.arguments
        paths = {name: self._file(sha256) for name, sha256 in given["paths"]}
        found = timer.time_networks(
            paths, self._file(given["reference"]), reference_ms=given["network_ms"], rounds=given["rounds"]
        )
        return asdict(found)

    def _pair(self, timer: LayerTimer, request: Request) -> dict[str, Any]:
        given = request.arguments
        limit = None if given["limit"] is None else Limit(**given["limit"])
        files = self._file(given["original"]), self._file(given["other"])
        return asdict(timer.time_pair(*files, limit=limit, seconds=given["seconds"], sure=given["sure"]))

    def _interleave(self, timer: LayerTimer, request: Request) -> dict[str, Any]:
        given = request.arguments
        models = {label: self._model(value) for label, value in given["models"]}
        found = time_in_turn(self.runtime, models, threads=timer.threads, batch=request.batch, seconds=given["seconds"])
        # As told by the device: under its own name, where that is not the machine's.
        device = self._renamed(timer.target).device.name if self._renamed(timer.target) != timer.target else None
        timings = {n: t if device is None else replace(t, device=device) for n, t in found.timings.items()}
        return protocol.comparison_json(replace(found, timings=timings))

    def _samples(self, timer: LayerTimer, request: Request) -> dict[str, Any]:
        path, feeds = self._model(request.arguments)
        runner = self.runtime.load(path, feeds, threads=timer.threads, batch=request.batch)
        try:
            runner.measure(2)
            return {"info": asdict(runner.info), "samples": asdict(runner.measure(request.arguments["runs"]))}
        finally:
            runner.close()

    def _kernels(self, timer: LayerTimer, request: Request) -> dict[str, Any]:
        if not isinstance(self.runtime, KernelRuntime):
            raise ProfilerUsageError(f"{self.runtime.name} keeps no clock for single kernels.")
        path, how = self._file(request.arguments["file"]), {"threads": timer.threads, "batch": request.batch or 1}
        return {"times": self.runtime.kernels(path, **how, runs=request.arguments["runs"])}
