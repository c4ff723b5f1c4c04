"""``compress submit``: the main job, or a sweep, on a service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from compressor.cli.compress import COMPRESS_OPTIONS, given_options, job_config
from compressor.cli.method_options import MethodOptions
from compressor.cli.output import Output, output_options
from compressor.cli.remote import emit_report, fetched, follow, server_options
from compressor.cli.sweep import SWEEP_OPTIONS, asked_sweep

_OF_SWEEPS = ("budgets", "paired", "methods", "seeds", "targets", "cold")
_EPILOG = (
    "Examples:\n\n\b\n"
    "  compress submit --server https://compress.example.org --model resnet18 --budget-flops 50% --watch --out small\n"
    "  compress submit --config job.yaml --weights trained.safetensors --data npz:data.npz\n"
    "  compress submit --model resnet18 --budgets flops=25%,50%,75%"
)


@click.command(cls=MethodOptions, epilog=_EPILOG)
@server_options
@COMPRESS_OPTIONS
@SWEEP_OPTIONS
@click.option("--sweep", is_flag=True, help="The recipe of --config is one for compress sweep.")
@click.option("--name", metavar="TEXT", help="What the job is called. [nothing]")
@click.option("--project", metavar="P", help="Whose job it is, for keys of all projects. [the key's]")
@click.option("--priority", type=click.IntRange(-1000, 1000), metavar="N", help="Larger ones go first. [0]")
@click.option("--watch", is_flag=True, help="Follow the job to its end, and show its report.")
@output_options
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    output: Output,
    connect: Callable[[], Any],
    name: str | None,
    project: str | None,
    priority: int | None,
    watch: bool,
    sweep: bool,
    **options: Any,
) -> None:
    """Hand in a job to a service (compress serve), with the options of the main job.

    Weights (.safetensors) and data (npz:FILE, imagefolder:DIR) of this machine are uploaded. --out DIR waits for the
    job and fetches its files; without it and --watch the command ends as soon as the job is queued.
    """
    given = given_options(ctx, options)
    swept = sweep or any(each in given for each in _OF_SWEEPS)
    out, force = options.get("out"), "force" in given
    asked = _asked(options, given, swept)
    with output.working():
        events = output.events()
        with connect() as client:
            job = client.submit(
                asked,
                name=name,
                project=project,
                priority=priority,
                kind="sweep" if swept else None,
                told=events.info,
            )
            if not watch and out is None:
                document = job.status()
            else:
                events.info(f"Job {job.id} is submitted.")
                follow(job, output, client.url)
                document = job.report()
                more = "" if out is None else f"{out}: {len(fetched(job, out, output, force=force))} files"
    if watch or out is not None:
        emit_report(output, document, more)
    else:
        output.emit(document, lambda: f"{job.id} is {document.get('state')}: compress watch {job.id} follows it.")


def _asked(options: Mapping[str, Any], given: list[str], swept: bool) -> Any:
    """What is sent: a whole job, or what is asked of a sweep. Raises ``UsageError``."""
    if swept:
        return asked_sweep(options, given)
    named = [each for each in given if each not in _OF_SWEEPS]
    return job_config({key: value for key, value in options.items() if key not in _OF_SWEEPS}, named)
