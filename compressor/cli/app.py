"""The command group, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from compressor.cli import streams
from compressor.cli.compress import COMPRESS_OPTIONS, compress, given_options
from compressor.cli.executors import Where, executor_options
from compressor.cli.method_options import MethodOptions
from compressor.cli.output import JobInterrupted, Output, error_document, output_options, write_json
from compressor.cli.streams import StdoutError
from compressor.errors import UsageError
from compressor.plugins.registry import Registry, closest
from compressor.printable import printable
from compressor.process.environment import launched_rank, launched_size
from compressor.process.failures import explain, one_line

#: A launcher ends all processes once one has failed: how long others give the first to say what it was.
_FIRST_SAYS_IT_SECONDS = 5.0

COMMANDS = Registry(
    "command",
    {
        "agent": "compressor.cli.agent:agent",
        "bench": "compressor.cli.bench:bench",
        "cancel": "compressor.cli.cancel:cancel",
        "config": "compressor.cli.config:config",
        "export": "compressor.cli.export:export",
        "fetch": "compressor.cli.fetch:fetch",
        "inspect": "compressor.cli.inspect:inspect",
        "keys": "compressor.cli.keys:keys",
        "lut": "compressor.cli.lut:lut",
        "models": "compressor.cli.models:models",
        "pick": "compressor.cli.pick:pick",
        "profile": "compressor.cli.profile:profile",
        "rank": "compressor.cli.rank:rank",
        "report": "compressor.cli.report:report",
        "serve": "compressor.cli.serve:serve",
        "retry": "compressor.cli.retry:retry",
        "status": "compressor.cli.status:status",
        "submit": "compressor.cli.submit:submit",
        "sweep": "compressor.cli.sweep:sweep",
        "targets": "compressor.cli.targets:targets",
        "watch": "compressor.cli.watch:watch",
        "worker": "compressor.cli.worker:worker",
    },
)

#: What each does, for the list of commands: asking the commands themselves would import them all.
SUMMARIES = {
    "agent": "Let a server measure on this machine.",
    "bench": "Time models against each other.",
    "cancel": "End a job of a service.",
    "config": "Show what a recipe or a command line amounts to, and what a recipe may say.",
    "export": "Write a model for the runtime it is to run in.",
    "fetch": "Download what a job of a service wrote.",
    "inspect": "Show what can be removed, what it costs, and what is fixed and why.",
    "keys": "Make, list and revoke the API keys of a server; show its audit log.",
    "lut": "Latency tables: what is in them, and how to share them.",
    "models": "List names for --model.",
    "pick": "Take the best network within other budgets from a sweep, without training.",
    "profile": "Measure what the latency table lacks for a model.",
    "rank": "Show what a search ranked, and how it agrees with known accuracies.",
    "report": "Show the report of an earlier job.",
    "serve": "Start the service: a page, an HTTP API and workers for a team.",
    "retry": "Queue a job of a service again.",
    "status": "List the jobs of a service, or show how one stands.",
    "submit": "Hand in a job to a service.",
    "sweep": "Several networks for several budgets, in one folder.",
    "targets": "List where networks can be timed, and why not elsewhere.",
    "watch": "Follow a job of a service to its end.",
    "worker": "Take jobs of a service and run them on this machine.",
}

EPILOG = (
    "Examples:\n\n\b\n"
    "  compress --model resnet50 --budget-flops 2G\n"
    "  compress --model resnet20_cifar --data digits --train-epochs 8 --budget-flops 30%\n"
    "  compress inspect --model mobilenet_v2\n"
    "  compress --model resnet18 --budget-latency 60% --target onnxruntime-cpu\n"
    "  compress sweep --model resnet18 --budgets flops=25%,50%,75%\n"
    "  compress --config job.yaml --budget-flops 40%\n\n"
    "Exit codes: 0 done, 2 usage, 3 budget unreachable, 4 model not supported, 5 verification failed, 130 interrupted."
)


class CompressGroup(MethodOptions, click.Group):
    """A group whose own options are the main job; other commands are imported when they are called for."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The job's options, then those of each search method, then the commands."""
        super().format_options(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUMMARIES[name]) for name in COMMANDS])

    def list_commands(self, ctx: click.Context) -> list[str]:
        return COMMANDS.names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = COMMANDS.get(cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            near = closest(args[0], COMMANDS.names(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(COMMANDS)},"
            ctx.fail(f"Unknown command {args[0]!r}; {hint} (The main job takes options only: compress --model M ...)")
        return super().resolve_command(ctx, args)


def _flag(name: str) -> str:
    """An option as it is written."""
    method, _, own = name.rpartition("__")
    written = own.replace("_", "-")
    return f"--{written}" if method in ("", "short") else f"--{method}.{written}"


def _version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"compressor {version('compressor')}")
    ctx.exit()


@click.group(
    cls=CompressGroup,
    invoke_without_command=True,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@COMPRESS_OPTIONS
@executor_options
@output_options
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.pass_context
def group(ctx: click.Context, /, output: Output, **options: Any) -> None:
    """Compress a PyTorch model to a budget: trace, search, trim, verify, fine-tune, export, benchmark.

    Without a command, this does the whole job for --model under the budgets given.
    """
    ctx.obj = output
    given = given_options(ctx, options)
    if ctx.invoked_subcommand is not None:
        if launched_size() > 1:
            ctx.fail(f"compress {ctx.invoked_subcommand} runs in one process; start it without torchrun.")
        if given:
            flag = _flag(given[0])
            ctx.fail(f"{flag} stands before the command; write: compress {ctx.invoked_subcommand} {flag} ...")
        return
    if not given:
        click.echo(ctx.get_help())
        return
    where = Where.taken(options)
    with where.pools():
        compress(output, options, [name for name in given if name in options])


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; errors become one line on stderr (and a JSON document where JSON was asked for)."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    streams.prepare()
    try:
        _require_words(args)
        code = group.main(args, prog_name="compress", standalone_mode=False)
        streams.flush()
    except BaseException as error:  # also what the user's code raises to end the process: it is a failure here
        if _is_gone(error):
            streams.drop(sys.stdout)  # compress models | head: say nothing more
            return 1
        if "--debug" in args and not isinstance(error, click.ClickException):
            import traceback

            traceback.print_exc()
        return _fail(error, as_json=_wants_json(args))
    return code if isinstance(code, int) else 0


def _require_words(args: Sequence[str]) -> None:
    """Refuse what can be no name of anything here, before some library stumbles over it."""
    for word in args:
        try:
            usable = "\0" not in os.fsencode(word).decode(errors="replace")
        except UnicodeEncodeError:
            usable = False
        if not usable:
            raise click.UsageError(f"{word!r} holds characters that no file or name can have here; write it otherwise.")


def _is_gone(error: BaseException) -> bool:
    """Whether whoever read our output has closed it. click turns the error into an exit, and wraps the stream."""
    wrapped = isinstance(error, SystemExit) and "PacifyFlush" in type(sys.stdout).__name__
    return wrapped or (isinstance(error, OSError) and error.errno == errno.EPIPE)


def _fail(error: BaseException, *, as_json: bool) -> int:
    code, text = _explain(error)
    text = printable(text)
    if rank := _rank():
        if isinstance(error, click.Abort):
            return code
        if isinstance(error, click.ClickException):  # the first says it for all, and once one has ended all are ended
            time.sleep(_FIRST_SAYS_IT_SECONDS)
        streams.say(f"Process {rank}: {text}")
        return code
    streams.say(f"Error: {text}" if code != 130 else text)
    if as_json and not isinstance(error, StdoutError):
        kind = "Interrupted" if code == 130 else type(error).__name__
        with suppress(StdoutError):  # the line above has said what happened
            write_json(error_document(kind, text, code))
            streams.flush()
    return code


def _rank() -> int:
    """Which of the processes that were started together this is; 0 where the environment makes no sense."""
    with suppress(UsageError):
        return launched_rank()
    return 0


def _explain(error: BaseException) -> tuple[int, str]:
    """Exit code and one line for any error. Errors raised on purpose carry both."""
    if isinstance(error, click.Abort) and isinstance(error.__cause__, EOFError):
        error = error.__cause__  # nothing here reads from a terminal: it is the model's or the data's
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        said = next((e for e in (error, error.__cause__) if isinstance(e, JobInterrupted)), None)
        return 130, str(said) if said is not None else "Interrupted."
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "compress"
        return 2, f"{one_line(error.format_message())} Try '{command} --help'."
    if isinstance(error, click.ClickException):
        return error.exit_code, one_line(error.format_message())
    return explain(error)


def _wants_json(args: list[str]) -> bool:
    """Whether JSON was asked for; parsing may not have come that far."""
    pairs = zip(args, [*args[1:], ""], strict=True)
    return any(arg == "--format=json" or (arg == "--format" and value == "json") for arg, value in pairs)
