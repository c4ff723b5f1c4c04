"""``compress agent``: let a server measure on this machine."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import click

from compressor.cli import streams
from compressor.cli.options import Of
from compressor.errors import UsageError
from compressor.options.shared import SECONDS, THREADS

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


@click.command()
@click.option("--server", required=True, metavar="URL", help="The server that 'compress serve' runs.")
@click.option("--name", required=True, metavar="NAME", help="What jobs call this device: --target NAME.")
@click.option("--runtime", default="onnxruntime-cpu", metavar="T", help="What to measure with. [onnxruntime-cpu]")
@click.option("--threads", type=Of(THREADS), metavar="N", help="CPU threads, where a job says nothing. [all cores]")
@click.option(
    "--key-file", type=click.Path(path_type=Path), metavar="FILE", help="File with the key. [COMPRESSOR_KEY, if set]"
)
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where networks to measure are kept. [the cache]",
)
@click.option("--limit-seconds", type=Of(SECONDS), default=1800.0, metavar="S", help="Most time per timing. [1800]")
@click.option(
    "--limit-memory",
    metavar="SIZE",
    help="Most memory that measuring may take, such as 4G. [four fifths of it]",
)
@click.option("--slowdown", type=float, default=1.0, hidden=True)
@click.option("--simulated", hidden=True)
def agent(
    server: str,
    name: str,
    runtime: str,
    threads: int | None,
    key_file: Path | None,
    cache_dir: Path | None,
    limit_seconds: float,
    limit_memory: str | None,
    slowdown: float,
    simulated: str | None,
) -> None:
    """Measure on this machine what jobs of a server ask for, until it is stopped.

    It opens connections to the server alone, takes one measurement at a time, and makes it in a process that is killed
    when it hangs. It needs the runtime, and no PyTorch. The key, of the scope "agent", is in COMPRESSOR_KEY or a file.
    """
    from compressor.service.devices.agent import Agent
    from compressor.service.devices.link import AgentLink
    from compressor.service.devices.measurer import Measurer
    from compressor.service.devices.measuring import Setup
    from compressor.service.devices.protocol import NAME
    from compressor.service.loopback import exposed_key

    if not NAME.fullmatch(name):
        raise UsageError(f"--name is up to 63 of a-z, 0-9, '.', '_' and '-', not {name!r}.")
    with _stopping() as stop:
        key = _key(key_file)
        link = AgentLink(server, key, stop=stop, say=streams.say)
        if (exposed := exposed_key(server, key)) is not None:
            streams.say(f"Warning: {exposed}")
        folder = cache_dir if cache_dir is not None else _cache()
        memory = _bytes(limit_memory) if limit_memory is not None else _most_of_it(runtime)
        setup = Setup(runtime, str(folder), threads, memory, slowdown, _simulated(simulated))
        try:
            Agent(name, link, Measurer(setup), folder, limit_s=limit_seconds, say=streams.say).run()
        finally:
            link.close()


@contextmanager
def _stopping() -> Iterator[Event]:
    """An event that SIGTERM and Ctrl-C set; a second one ends at once."""
    stop = Event()

    def ended(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {each: signal.signal(each, ended) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _key(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("COMPRESSOR_KEY") or None
    try:
        found = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"The key file {file} cannot be read: {reason}.") from error
    if not found or len(found.split()) != 1:
        raise UsageError(f"The key file {file} should hold one line, the key that 'compress keys' printed.")
    return found


def _cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("compressor", appauthor=False) / "agent"


def _most_of_it(runtime: str) -> int | None:
    """Four fifths of this machine's memory. Drivers of GPUs reserve more than they take, and get no limit."""
    if not runtime.endswith("-cpu") or not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 4 // 5


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None or float(found[1]) <= 0:
        raise UsageError(f"--limit-memory is a size such as 4G or 512M, not {text!r}.")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


def _simulated(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--simulated is a JSON object of the simulated device's settings: {error}.") from error
    if not isinstance(found, dict):
        raise UsageError("--simulated is a JSON object of the simulated device's settings.")
    return found
