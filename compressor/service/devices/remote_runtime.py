"""A device of another machine as a runtime, and its timer: a measurement is one question through the job's socket."""

from __future__ import annotations

import hashlib
import io
import secrets
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from compressor.service.devices import protocol
from compressor.service.devices.channel import Channel, ChannelError
from compressor.service.devices.protocol import Request
from compressor.service.errors import NotFoundError
from lut import Calibration, LatencyTable, Measurement, Row, Signature, Target
from lut.table.store import parse_rows
from profilers.base import THIS_MACHINE, Availability, Inputs, Runner, RunnerInfo, Samples
from profilers.errors import DeviceLostError, ProfilerUsageError, RefusedError
from profilers.in_turn import Limit, OnDevice, Timed
from profilers.interleave import Comparison
from profilers.kernels import KernelTimes
from profilers.layers.layer_timer import REFERENCE, REFERENCE_CHANNELS
from profilers.onnx_input import onnx_file, onnx_inputs
from profilers.reference import clearly_faster


class RemoteRuntime:
    """A device by its name. Made by :meth:`open`.

    Attributes:
        runs: registered name of the runtime there.
    """

    def __init__(self, channel: Channel, session: str, device: Mapping[str, Any], lut: Path) -> None:
        self.name, self.runs = str(device["name"]), str(device["runtime"])
        self._channel, self._session, self._device, self._lut = channel, session, device, lut
        self._sent: dict[tuple[str, int, int], str] = {}

    @classmethod
    def open(cls, channel: Channel, name: str, lut: Path) -> RemoteRuntime:
        """A session with the device called ``name``.

        Args:
            lut: the job's latency table.

        Raises:
            NotFoundError: the server knows no such device. ChannelError: the worker does not answer.
        """
        found = channel.ask({"do": "open", "name": name})
        make = KernelRemoteRuntime if str(found["device"]["runtime"]) in _WITH_KERNELS else cls
        return make(channel, str(found["session"]), found["device"], lut)

    def is_available(self) -> Availability:
        """It is registered; while it is away, measurements wait for it."""
        return Availability(True, f"{self._device['label']}, by {self.runs} {self._device['runtime_version']}")

    def load(
        self,
        model: Any,
        example_inputs: Inputs | None = None,
        *,
        threads: int | None = None,
        batch: int | None = None,
        **options: Any,
    ) -> Runner:
        """See :meth:`profilers.base.Runtime.load`; a module is sent as an ONNX file."""
        if options:
            raise ProfilerUsageError(f"The device {self.name} takes no option {', '.join(sorted(options))}.")
        arguments, files = self._model(model, example_inputs, batch)
        return _RemoteRunner(self, Request(protocol.SAMPLES, threads, batch, None, arguments, files))

    def open_timer(self, *, threads: int | None, batch: int) -> RemoteTimer:
        """A timer there. Raises ``ProfilerError``."""
        return RemoteTimer(self, threads, batch)

    def interleave(
        self,
        models: Mapping[str, tuple[Any, Inputs | None]],
        *,
        threads: int | None,
        batch: int | None,
        seconds: float,
    ) -> Comparison:
        """Time models in turn there, see :func:`profilers.interleave.interleave`."""
        arguments: list[tuple[str, dict[str, Any]]] = []
        files: list[str] = []
        for label, (model, inputs) in models.items():
            each, mine = self._model(model, inputs, batch)
            arguments.append((label, each))
            files += mine
        asked = {"models": arguments, "seconds": seconds}
        answer = self.ask(Request(protocol.INTERLEAVE, threads, batch, None, asked, tuple(files)))
        found = protocol.comparison_of(answer["result"])
        return replace(found, noise=found.noise and found.noise.replace(THIS_MACHINE, self.name, 1))

    def measured(self, target: Target) -> bool:
        """Whether a target of a latency table is this device and runtime."""
        return target.device.fingerprint == self._device["fingerprint"] and target.runtime == self.runs

    # ---- for the timer and runners

    def ask(self, request: Request) -> dict[str, Any]:
        """The device's answer.

        Raises:
            ProfilerError: what the device says went wrong. DeviceLostError: also if the way to it is lost.
        """
        asked = {"do": "ask", "session": self._session, "key": secrets.token_hex(8), "request": request.to_json()}
        try:
            answer = self._channel.ask(asked)["answer"]
        except (ChannelError, NotFoundError) as error:
            raise DeviceLostError(f"The device {self.name} cannot be reached any more: {error}") from error
        failure = protocol.error_of(answer)
        if failure is not None:
            raise failure
        found: dict[str, Any] = answer
        return found

    def send(self, path: Path) -> str:
        """Have a file at the server; its hash. Raises ``RefusedError`` for a file in several parts."""
        if path.with_name(f"{path.name}.data").exists():
            raise RefusedError(f"{path.name} is too large for one file, and devices take only one.")
        status = path.stat()
        place = str(path), status.st_mtime_ns, status.st_size
        if place not in self._sent:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            try:
                if not self._channel.ask({"do": "has", "sha256": sha256}).get("has"):
                    self._channel.ask({"do": "put", "sha256": sha256}, path)
            except (ChannelError, NotFoundError) as error:
                raise DeviceLostError(f"{path.name} cannot be sent to the device {self.name}: {error}") from error
            self._sent[place] = sha256
        return self._sent[place]

    def _model(
        self, model: Any, example_inputs: Inputs | None, batch: int | None
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """A model as the arguments of a request, and the files that go with it."""
        with onnx_file(model, example_inputs) as path, tempfile.TemporaryDirectory() as folder:
            if path.suffix != ".onnx":
                raise ProfilerUsageError(f"The device {self.name} takes ONNX files, not {path.name}.")
            arguments = {"file": self.send(path), "feeds": None}
            if example_inputs is not None:
                inputs = Path(folder) / "inputs.npz"
                content = io.BytesIO()
                np.savez(content, **onnx_inputs(path, example_inputs, batch))  # type: ignore[arg-type]
                inputs.write_bytes(content.getvalue())
                arguments["feeds"] = self.send(inputs)
        return arguments, tuple(sha256 for sha256 in arguments.values() if sha256 is not None)

    # ---- its latency table

    def write_table(self) -> None:
        """Put what the server knows of this device into the job's table. Raises ``ChannelError``."""
        found = self._channel.ask({"do": "table", "session": self._session})["targets"]
        with LatencyTable(self._lut) as table:
            for each in found:
                target = Target.from_key(each["key"])
                raw = [
                    (each["key"], signature["key"], *point)
                    for signature in each["signatures"]
                    for point in signature["points"]
                ]
                anchor = Measurement(float(each["reference_ms"]), repeats=1)
                table.put_rows(
                    [Row(target, REFERENCE, REFERENCE_CHANNELS, REFERENCE_CHANNELS, anchor), *parse_rows(raw)]
                )
                for model, body in each["calibrations"].items():
                    table.put_calibration(target, model, Calibration(**body))

    def keep_calibrations(self, target: Target, reference_ms: float) -> None:
        """Let the server have the calibrations of the job's table."""
        if not self._lut.exists():
            return
        with LatencyTable(self._lut, read_only=True) as table:
            if target not in table.targets():
                return
            models = {model: vars(found) for model, found in table.calibrations(target).items()}
        if models:
            said = {"target": target.key, "reference_ms": reference_ms, "models": models}
            self._channel.ask({"do": "calibrations", "session": self._session, **said})

    def close(self) -> None:
        """End the session."""
        self._channel.ask({"do": "close", "session": self._session})
        self._channel.close()


#: Runtimes that can tell the time of each kernel, see ``profilers.kernels``.
_WITH_KERNELS = ("onnxruntime-cpu", "openvino-cpu")


class KernelRemoteRuntime(RemoteRuntime):
    """One whose runtime can tell the time of each kernel."""

    def kernels(self, path: Path, *, threads: int, batch: int, runs: int, seed: int = 0) -> KernelTimes:
        """See :meth:`profilers.kernels.KernelRuntime.kernels`."""
        sha256 = self.send(path)
        asked = Request(protocol.KERNELS, threads, batch, None, {"file": sha256, "runs": runs}, (sha256,))
        found: KernelTimes = self.ask(asked)["result"]["times"]
        return found


class _RemoteRunner:
    """A file on the device. It is loaded anew for every measurement, as others may measure in between."""

    def __init__(self, runtime: RemoteRuntime, request: Request) -> None:
        self._runtime, self._request = runtime, request
        self._closed = False
        self._info = protocol.info_of(self._ask(1)["info"])

    @property
    def info(self) -> RunnerInfo:
        return self._info

    def run(self) -> None:
        self._ask(1)

    def measure(self, runs: int) -> Samples:
        return protocol.samples_of(self._ask(runs)["samples"])

    def close(self) -> None:
        self._closed = True

    def _ask(self, runs: int) -> dict[str, Any]:
        if self._closed:
            raise ProfilerUsageError("This runner was closed; load the model again.")
        request = replace(self._request, arguments={**self._request.arguments, "runs": runs})
        found: dict[str, Any] = self._runtime.ask(request)["result"]
        return found


class RemoteTimer:
    """A ``profilers.layers.timer.Timer`` on another machine; see there.

    Raises:
        ProfilerError: the device cannot measure.
    """

    def __init__(self, runtime: RemoteRuntime, threads: int | None, batch: int) -> None:
        self.runtime, self.threads, self.batch = runtime, threads, batch
        opened = self._answer(Request(protocol.OPEN, threads, batch))
        self.reference_ms: float = opened["reference_ms"]
        self._info = protocol.info_of(opened["info"])
        self._target = Target.from_key(opened["target"])

    @property
    def place(self) -> str:
        """The device's name."""
        return self.runtime.name

    @property
    def info(self) -> RunnerInfo:
        """The conditions of the reference."""
        return self._info

    @property
    def target(self) -> Target:
        """Where its times belong: the device's own fingerprint, runtime and version."""
        return self._target

    def faster_ms(self) -> float | None:
        """What the reference took lately, if that is clearly less than ``reference_ms``."""
        return clearly_faster(self._recent_ms, self.reference_ms)

    def busy(self) -> bool:
        """Whether other work on the device disturbs timings now."""
        return bool(self._ask(protocol.BUSY, {})["busy"])

    def measure(self, signature: Signature, channels_in: int, channels_out: int) -> Measurement:
        """Time one point."""
        asked = {"signature": signature.key, "channels_in": channels_in, "channels_out": channels_out}
        return Measurement(**self._ask(protocol.MEASURE, asked))

    def time_networks(
        self,
        paths: Mapping[str, Path],
        reference: Path,
        *,
        reference_ms: float | None = None,
        rounds: int = 5,
        progress: Callable[[int, int], None] | None = None,
    ) -> Timed:
        """See :func:`profilers.in_turn.time_networks`."""
        sent = {name: self.runtime.send(path) for name, path in paths.items()}
        ruler = self.runtime.send(reference)
        asked = {"paths": list(sent.items()), "reference": ruler, "network_ms": reference_ms, "rounds": rounds}
        found = Timed(**self._ask(protocol.NETWORKS, asked, (ruler, *sent.values())))
        if progress is not None:
            progress(rounds, rounds)
        return found

    def time_pair(
        self, original: Path, other: Path, *, limit: Limit | None = None, seconds: float = 45.0, sure: float = 0.004
    ) -> OnDevice:
        """See :func:`profilers.in_turn.time_pair`."""
        files = self.runtime.send(original), self.runtime.send(other)
        given = None if limit is None else asdict(limit)
        asked = {"original": files[0], "other": files[1], "limit": given, "seconds": seconds, "sure": sure}
        return OnDevice(**self._ask(protocol.PAIR, asked, files))

    def close(self) -> None:
        """Calibrations that were made meanwhile go to the server."""
        try:
            self.runtime.keep_calibrations(self._target, self.reference_ms)
        except (ChannelError, NotFoundError):
            return  # they only save time; the job goes on without

    def __enter__(self) -> RemoteTimer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, operation: str, arguments: dict[str, Any], files: tuple[str, ...] = ()) -> dict[str, Any]:
        request = Request(operation, self.threads, self.batch, self.reference_ms, arguments, files)
        found: dict[str, Any] = self._answer(request)["result"]
        return found

    def _answer(self, request: Request) -> dict[str, Any]:
        answer = self.runtime.ask(request)
        if not answer.get("cached"):  # what was measured long ago says nothing of now
            self._recent_ms = float(answer["recent_ms"])
        return answer
