"""``compress status [ID]``: jobs of a service, or how one stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from compressor.cli.output import Output, output_options
from compressor.cli.remote import server_options
from compressor.cli.tables import table

_STATES = ("queued", "running", "done", "failed", "cancelled")


@click.command()
@click.argument("job", required=False, metavar="[ID]")
@server_options
@click.option("--state", type=click.Choice(_STATES), help="Only jobs in this state.")
@click.option("--project", metavar="P", help="Only those of a project, for keys of all projects.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, metavar="N", help="Most jobs to list. [50]")
@output_options
def status(
    job: str | None,
    connect: Callable[[], Any],
    state: str | None,
    project: str | None,
    limit: int,
    output: Output,
) -> None:
    """List the latest jobs of a service, or show how job ID stands."""
    with output.working(), connect() as client:
        if job is not None:
            document = client.job(job).status()
        else:
            jobs = client.jobs(state, project=project, limit=limit)
            document = {"jobs": jobs}
        count = len(document.get("jobs", ()))
        title = f"{count} job{'' if count == 1 else 's'} at {client.url}"
    if job is not None:
        output.emit(document, lambda: _one(document))
    else:
        output.emit(document, lambda: _table(title, document["jobs"]))


def _table(title: str, jobs: list[dict[str, Any]]) -> str:
    rows = [(each.get("id"), each.get("name") or "-", each.get("kind"), _how(each), _time(each)) for each in jobs]
    return table(title, ["job", "name", "kind", "state", "submitted"], rows)


def _one(job: Mapping[str, Any]) -> str:
    lines = [f"{job.get('id')}: {_how(job)}"]
    for name in ("name", "kind", "project", "priority", "worker", "attempt", "created_at", "started_at", "ended_at"):
        if job.get(name) not in (None, ""):
            lines.append(f"  {name.removesuffix('_at')}: {job[name]}")
    error = job.get("error")
    if isinstance(error, Mapping):
        lines.append(f"  error: {error.get('text')}")
    return "\n".join(lines)


def _how(job: Mapping[str, Any]) -> str:
    """Its state, and where it is: ``running: finetune 120/400``."""
    state, progress, waits = job.get("state"), job.get("progress"), job.get("waiting_for")
    if waits and state in ("queued", "running"):
        return f"{state}: waits for {waits}"
    if state == "running" and job.get("cancel_requested"):
        return "running: being cancelled"
    if state == "running" and isinstance(progress, Mapping):
        done, total = progress.get("done"), progress.get("total")
        return f"{state}: {progress.get('stage')}" + (f" {done}/{total}" if done is not None and total else "")
    return str(state)


def _time(job: Mapping[str, Any]) -> str:
    return str(job.get("created_at") or "-")[:19].replace("T", " ")
