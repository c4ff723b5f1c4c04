"""A connection to Ray: to a cluster that is there, or to one of this machine's own that ends with the block.

Nothing here imports Ray before there is something to run on it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from compressor.errors import CompressorError, MissingDependencyError, UsageError

RAY_ADDRESS = "RAY_ADDRESS"
_CONNECT_S = 10.0
_STORE_BYTES = 256 << 20  # of a Ray of our own; what does not fit goes to the disk
_USUAL = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # work on a Ray of our own is what was asked for, and no less urgent than other work
}
"""What Ray is told where the environment does not say otherwise."""


@dataclass(frozen=True)
class RaySettings:
    """Where tasks run, and what each is given.

    Attributes:
        address: of a cluster, ``host:6379`` or ``auto``; None: what RAY_ADDRESS says, else a Ray of this machine's own.
        cpus: cores of a task, which are its threads, too.
        gpus: GPUs of a task; others do not see them.
        resources: what else a task takes, by the names that nodes were started with (``ray start --resources``).
        tries: how often a task is begun anew whose process or node is lost.

    Raises:
        UsageError: an address of Ray Client.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    tries: int = 3

    def __post_init__(self) -> None:
        _require_of_cluster(self.address, "--ray-address")

    def with_needs(self, needs: Mapping[str, float]) -> RaySettings:
        """The same with what a task needs beside, ``{"GPU": 1, "jetson-1": 1}``: the larger of both."""
        if not needs:
            return self
        rest = dict(self.resources)
        for name, amount in needs.items():
            if name not in ("CPU", "GPU"):
                rest[name] = max(amount, rest.get(name, 0.0))
        cpus, gpus = max(self.cpus, needs.get("CPU", 0.0)), max(self.gpus, needs.get("GPU", 0.0))
        return RaySettings(self.address, cpus, gpus, rest, self.tries)

    @property
    def demand(self) -> dict[str, float]:
        """All that a task takes."""
        found = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return {name: amount for name, amount in found.items() if amount}


def import_ray() -> Any:
    """The package. Raises ``MissingDependencyError``."""
    for name, value in _USUAL.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # that it is on, as it is by default
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(
            "Work on a cluster needs Ray; install it with: pip install 'compressor[ray]'."
        ) from error
    return ray


class RayCluster:
    """Ray, connected to while the ``with`` block lasts; one that the program uses already stays as it is.

    Args:
        address: as ``RaySettings`` has it.
        cpus, resources: what a Ray of this machine's own offers; by default every core and nothing else.

    Raises:
        UsageError: an address of Ray Client. MissingDependencyError: Ray is not installed. CompressorError: the cluster
            cannot be reached, or is of another version.
    """

    def __init__(
        self, address: str | None = None, *, cpus: int | None = None, resources: Mapping[str, float] | None = None
    ) -> None:
        self._address = address or os.environ.get(RAY_ADDRESS) or None
        _require_of_cluster(self._address, "--ray-address" if address else RAY_ADDRESS)
        self._cpus, self._resources = cpus or os.cpu_count() or 1, dict(resources or {})
        self._mine = False
        self.ray: Any = None

    def __enter__(self) -> RayCluster:
        self.ray = import_ray()
        if not self.ray.is_initialized():
            with _signals_kept():
                self._connect()
            self._mine = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._mine:
            self._mine = False
            with _signals_kept():
                self.ray.shutdown()

    def require(self, demand: Mapping[str, float], what: str) -> None:
        """Raise ``UsageError`` unless some node has what ``what`` takes: it would be waited for without an end."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0.0) >= amount for name, amount in demand.items()) for node in nodes):
            return
        asked = ", ".join(f"{amount:g} {name}" for name, amount in demand.items())
        names = sorted({name for node in nodes for name in node if not name.startswith(("node:", "object_store"))})
        there = ", ".join(
            f"{max(node.get(name, 0.0) for node in nodes):g} {name}" for name in names if name != "memory"
        )
        raise UsageError(
            f"No node of the Ray cluster has what {what} takes ({asked}); the most that one has is "
            f"{there or 'nothing'}. Start a node that has it (ray start --resources), or ask for less "
            "(--ray-resources)."
        )

    def has(self, name: str) -> bool:
        """Whether some node has a resource."""
        return any(node["Alive"] and node["Resources"].get(name, 0.0) > 0 for node in self.ray.nodes())

    def _connect(self) -> None:
        quiet = {"logging_level": "ERROR", "log_to_driver": False, "configure_logging": False}
        if self._address is None:
            self.ray.init(
                "local",
                num_cpus=self._cpus,
                resources=self._resources,
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                **quiet,
            )
            return
        _require_listener(self._address)
        try:
            self.ray.init(self._address, **quiet)
        except (RuntimeError, ValueError, OSError, self.ray.exceptions.RayError) as error:
            with contextlib.suppress(Exception):  # of a half of a connection; why it has no other half is told below
                self.ray.shutdown()
            raise CompressorError(
                f"The Ray cluster at {self._address} cannot be used: {_first_line(error)}. See ray status there."
            ) from error


def _require_of_cluster(address: str | None, where: str) -> None:
    """Refuse Ray Client: a program outside of the cluster does not see the folders that its tasks write."""
    if address is None or not address.startswith("ray://"):
        return
    host = address.removeprefix("ray://").rpartition(":")[0] or address.removeprefix("ray://")
    raise UsageError(
        f"{where} is {address}, an address of Ray Client, which is not taken: whoever hands out the work must see the "
        f"folders that the nodes write. Run the command on a node of the cluster with {host}:6379 or auto, or send it "
        "there with ray job submit; from elsewhere, submit to a service (compress submit)."
    )


def _require_listener(address: str) -> None:
    """Raise ``CompressorError`` where nothing listens: Ray itself takes minutes to say so."""
    host, colon, port = address.rpartition(":")
    if address in ("auto", "local") or not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise CompressorError(
            f"No Ray cluster can be reached at {address} ({_first_line(error)}); start it there with ray start --head, "
            "or leave --ray-address and RAY_ADDRESS out for one on this machine."
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts handlers of its own in the place of the program's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
