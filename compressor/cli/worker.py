"""``compress worker --server URL``: take jobs of a service and run them on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from compressor.cli.executors import Where, executor_options
from compressor.cli.options import Of
from compressor.cli.output import Output, output_options
from compressor.errors import UsageError
from compressor.options import Whole

if TYPE_CHECKING:
    from compressor.service.worker.config import Code, WorkerConfig

_MOST_KEY_BYTES = 1000
_EPILOG = (
    "Examples:\n\n\b\n"
    "  compress worker --server https://compress.example --key-file worker.key\n"
    "  compress worker --server http://127.0.0.1:8080 --name gpu-1 --label gpu --memory 32GiB\n\n"
    "Each job runs in a process of its own, in bubblewrap where that works: it sees no network, no key, and no file "
    "but Python, this program, cached weights and its own folder."
)


@click.command(epilog=_EPILOG)
@click.option("--server", metavar="URL", required=True, help="Of the service, such as http://127.0.0.1:8080.")
@click.option("--name", metavar="N", help="Tells this worker from others. [name of the machine]")
@click.option("--label", "labels", multiple=True, metavar="L", help="What it has, such as gpu; may be repeated.")
@click.option(
    "--allow-code",
    is_flag=False,
    flag_value="sandboxed",
    default="no",
    metavar="[sandboxed|unsandboxed]",
    help="Take jobs whose model or data is code of the user (package.module:factory). Needs a sandbox, unless "
    "--allow-code=unsandboxed says that such code may do whatever this user can.",
)
@click.option("--memory", default="8GiB", metavar="M", help="Most memory of a job. [8GiB]")
@click.option("--hours", type=float, default=24.0, metavar="H", help="Longest time of a job. [24]")
@click.option(
    "--scratch", type=click.Path(path_type=Path), metavar="DIR", help="Where jobs work. [in the user's cache]"
)
@click.option("--key-file", type=click.Path(path_type=Path), metavar="FILE", help="Its API key. [$COMPRESSOR_KEY]")
@click.option("--no-warm", is_flag=True, help="Import nothing before there is a job: saves memory, costs seconds.")
@click.option(
    "--log-format",
    type=click.Choice(("text", "json")),
    default="text",
    envvar="COMPRESSOR_LOG_FORMAT",
    help="What is said on stderr. [text]",
)
@click.option("--local", is_flag=True, hidden=True, help="Started by a server: the key, then its life, on stdin.")
@click.option("--workers", type=Of(Whole(1, 1024)), default=1, metavar="N", help="How many, with --executor ray. [1]")
@executor_options
@output_options
def worker(output: Output, **options: Any) -> None:
    """Take jobs of a service and run them here, one at a time, until Ctrl-C or SIGTERM.

    A job that is running then is stored and given back; it goes on on another worker, from its last stage.
    """
    local, where, workers = options["local"], Where.taken(options), options["workers"]
    config = worker_config(options)
    _log_to_stderr(options["log_format"], quiet=output.quiet)
    if not local:  # a server's own workers stay on its machine
        _warn_of_exposure(config)
    if where.ray is not None:
        from compressor.service.worker.on_ray import run_on_ray

        done = run_on_ray(config, workers, where.ray)
        output.emit({"worker": config.name, "jobs": done}, lambda: f"{workers} workers stopped after {done} jobs.")
        return
    if workers > 1:
        raise UsageError("Several workers of one command run with --executor ray; else start one command for each.")
    if local:
        _end_with_stdin()
    from compressor.service.worker.loop import Worker

    here = Worker(config)
    here.stop_on_signals()
    done = here.run()
    output.emit({"worker": config.name, "jobs": done}, lambda: f"{config.name} stopped after {done} jobs.")


def worker_config(options: dict[str, Any]) -> WorkerConfig:
    """The options as one checked configuration. Raises ``UsageError``."""
    from compressor.service.worker.config import (
        WorkerConfig,
        datasets_of,
        default_name,
        default_scratch,
        hidden_places,
    )
    from compressor.service.worker.limits import Limits, read_bytes

    code = options["allow_code"]
    if code not in ("no", "sandboxed", "unsandboxed"):
        raise UsageError(f"--allow-code takes nothing, or unsandboxed, not {code!r}.")
    memory, scratch = read_bytes(options["memory"], "--memory"), options["scratch"]
    own_path = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    return WorkerConfig(
        server=options["server"],
        key=_key_of_stdin() if options["local"] else _key(options["key_file"]),
        name=options["name"] or default_name(),
        labels=tuple(options["labels"]),
        code=cast("Code", code),
        limits=Limits(memory_bytes=memory, seconds=options["hours"] * 3600),
        scratch=default_scratch() if scratch is None else scratch.absolute(),
        datasets=datasets_of(os.environ.get("COMPRESSOR_DATASETS")),
        hidden=hidden_places(),
        warm=not options["no_warm"],
        python_path=tuple(os.path.abspath(each) for each in own_path),
    )


def _key(file: Path | None) -> str | None:
    """The API key. Raises ``UsageError`` if the file cannot be read, or holds no key."""
    if file is None:
        return os.environ.get("COMPRESSOR_KEY") or None
    try:
        with file.open("rb") as opened:
            text = opened.read(_MOST_KEY_BYTES + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"The key file {file} cannot be read: {said}.") from error
    if not text or len(text.split()) != 1 or len(text) > _MOST_KEY_BYTES:
        raise UsageError(f"The key file {file} holds no key; expected one line, as compress keys prints it.")
    return text


def _key_of_stdin() -> str | None:
    """The first line of stdin, where a server that starts its workers itself writes their key."""
    return sys.stdin.buffer.readline(_MOST_KEY_BYTES).decode("ascii", "replace").strip() or None


def _warn_of_exposure(config: WorkerConfig) -> None:
    import logging

    from compressor.service.logs import LOGGER
    from compressor.service.loopback import exposed_key

    if (exposed := exposed_key(config.server, config.key)) is not None:
        logging.getLogger(LOGGER).warning(exposed)


def _end_with_stdin() -> None:
    """End when stdin does, at once: the server that started this worker is gone, and its next one starts its own."""
    import threading

    def wait() -> None:
        while os.read(0, 1 << 10):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="life of the server", daemon=True).start()


def _log_to_stderr(form: Literal["text", "json"], *, quiet: bool) -> None:
    import logging

    from compressor.service.logs import set_up

    set_up(form, logging.WARNING if quiet else logging.INFO)
