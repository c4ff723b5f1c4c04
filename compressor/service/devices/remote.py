"""Devices of other machines as a job's child sees them: runtimes by name, and a latency table that begins with what the
server knows.

    with attached(folder, ["jetson-1"]) as lut: ...   # --target jetson-1 works, with --lut lut
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compressor.service.devices import channel
from compressor.service.devices.channel import Channel, ChannelError
from compressor.service.devices.remote_runtime import RemoteRuntime
from compressor.service.errors import NotFoundError
from profilers import registry

SOCKET = "COMPRESSOR_DEVICE_SOCKET"
"""Environment variable with the path of the socket; processes that a job starts have it, too."""

_known: dict[tuple[int, str, str], RemoteRuntime | None] = {}


def find(name: str) -> RemoteRuntime | None:
    """The device with this name, if the server knows one. Raises ``TargetUnavailableError`` if it cannot be asked."""
    place = os.environ.get(SOCKET, "")
    key = os.getpid(), place, name
    if key not in _known:
        path = Path(place)
        try:
            _known[key] = RemoteRuntime.open(Channel(path), name, path.parent / channel.TABLE) if place else None
        except NotFoundError:
            _known[key] = None
    return _known[key]


@contextmanager
def attached(folder: Path, targets: Iterable[str]) -> Iterator[Path]:
    """Make devices known to everything in this process; the path of the job's latency table.

    The table begins with all that the server has of those ``targets`` that are devices. What is measured on them is
    kept by the server at once, so nothing of the file is needed later.

    Raises:
        ChannelError: the worker does not answer.
    """
    place = folder.absolute() / channel.FOLDER
    place.mkdir(exist_ok=True)
    lut = place / channel.TABLE
    before = {name: os.environ.get(name) for name in (SOCKET, registry.DEVICES)}
    if (place / channel.SOCKET).exists():
        os.environ[SOCKET] = str(place / channel.SOCKET)
        os.environ[registry.DEVICES] = f"{__name__}:{find.__name__}"
    try:
        devices = [found for name in dict.fromkeys(targets) if (found := registry.elsewhere(name)) is not None]
        if devices:
            for old in place.glob(f"{channel.TABLE}*"):
                old.unlink()
        for device in devices:
            if isinstance(device, RemoteRuntime):
                device.write_table()
        yield lut
    finally:
        for key, opened in list(_known.items()):
            if opened is not None and key[0] == os.getpid():
                with suppress(ChannelError, NotFoundError):  # the worker ends the session with the job
                    opened.close()
            del _known[key]
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
