"""The command line. Nothing in this package imports torch before a command runs; a test holds that."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 2 usage, 3 budget unreachable, 4 model not supported,
    5 verification failed, 130 interrupted, 1 anything else."""
    from compressor.cli.app import run

    return run(arguments)
