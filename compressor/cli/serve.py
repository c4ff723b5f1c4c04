"""``compress serve``: the service, on this machine or for a team."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from compressor.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from compressor.service.serve import Code

_EPILOG = (
    "Examples:\n\n\b\n"
    "  compress serve\n"
    "  compress serve --workers 2 --dataset cifar10=cifar10:/data/cifar10\n"
    "  COMPRESSOR_DATABASE_URL=postgresql://... compress serve --host 0.0.0.0 --workers 0\n\n"
    "Every setting can be said in the environment, too: COMPRESSOR_PORT, COMPRESSOR_KEEP_DAYS and so on; "
    "docs/service.md lists them. Without keys only this machine is answered; 'compress keys create' makes one."
)


@click.command(epilog=_EPILOG)
@click.option("--host", metavar="H", help="Address to listen on. [127.0.0.1]")
@click.option("--port", type=int, metavar="N", help="Port to listen on; 0 takes any that is free. [8080]")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where everything is kept. [in the user's data]"
)
@click.option("--workers", type=int, metavar="N", help="Workers that it starts itself. [1]")
@click.option("--database", "database_url", metavar="URL", help="postgresql://... [SQLite in the data folder]")
@click.option("--artefacts", metavar="PLACE", help="Folder or s3://... for files. [in the data folder]")
@click.option(
    "--dataset", "datasets", multiple=True, metavar="NAME=SPEC", help="A data set by a name; may be repeated."
)
@click.option(
    "--allowed-host", "allowed_hosts", multiple=True, metavar="H", help="Name it is reached by; may be repeated."
)
@click.option("--keep-days", type=float, metavar="D", help="Delete ended jobs after D days. [never]")
@click.option("--most-queued", type=int, metavar="N", help="Queued jobs of a project. [1000]")
@click.option("--most-running", type=int, metavar="N", help="Running jobs of a project. [any]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Form of the log on stderr. [text]")
@click.option(
    "--allow-code",
    is_flag=False,
    flag_value="sandboxed",
    default="no",
    metavar="[sandboxed|unsandboxed]",
    help="Its workers take jobs whose model or data is code of the user; see compress worker --help.",
)
def serve(allow_code: str, datasets: tuple[str, ...], allowed_hosts: tuple[str, ...], **options: Any) -> None:
    """Start the service: a page, an HTTP API and workers, with nothing to set up.

    SIGTERM or Ctrl-C stops it: workers store their jobs and give them back, and the next start goes on with them.
    """
    if allow_code not in ("no", "sandboxed", "unsandboxed"):
        raise UsageError(f"--allow-code takes nothing, or unsandboxed, not {allow_code!r}.")
    try:
        from compressor.service.serve import serve as run
        from compressor.service.settings import settings_of
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "compressor":
            raise
        raise MissingDependencyError(
            f"compress serve needs {error.name}, which is not installed: pip install 'compressor[serve]'."
        ) from error
    given = {name: value for name, value in options.items() if value is not None}
    if datasets:
        given["datasets"] = ",".join(datasets)
    if allowed_hosts:
        given["allowed_hosts"] = list(allowed_hosts)
    code = run(settings_of(**given), allow_code=cast("Code", allow_code))
    if code:
        raise click.exceptions.Exit(code)
