"""Nothing lost: jobs submitted to a service whose workers and server are killed at random, again and again.

Every job has to end once, none twice, none lost, and its files have to be those of a job that nobody disturbed. Most
jobs are stand-ins, which take a third of a second in three stages and go on from the last; ``--real`` of them compress
``resnet20_cifar``. All else is the product: the server, its database, the workers, sandboxes, snapshots.

    python -m benchmarks.service.nothing_lost --results rows.jsonl
    python -m benchmarks.service.nothing_lost --results rows.jsonl --database postgresql://user@/name
    python -m benchmarks.service.nothing_lost --results rows.jsonl --write benchmarks/service/nothing_lost.md
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import append, read
from tests.service.chaos import Farm, Outcome, run
from tests.service.test_nothing_lost import SMALL, artefacts, steady_files, undisturbed

REAL_SEED = 1_000_000
"""Seeds from here on are compressed by ``stand_in.mixed``."""


def recipes(jobs: int, real: int) -> dict[str, dict[str, Any]]:
    """Recipes by name, all different; every so many of them is a compression."""
    found = {}
    for number in range(jobs):
        compress = real and number % max(1, jobs // real) == 0 and number // max(1, jobs // real) < real
        told = {"budgets": {"flops": f"{40 + number % 50}%"}, "seed": number + (REAL_SEED if compress else 0)}
        found[f"{'real' if compress else 'stand-in'}-{number}"] = {**SMALL, **told}
    return found


def same(found: Outcome, folder: Path) -> bool:
    """Whether a job's files are those of an undisturbed one."""
    try:
        if found.name.startswith("real"):
            return artefacts(found.files) == artefacts(undisturbed(found.recipe, folder / found.name))
        expected = steady_files(found.recipe, folder / found.name)
    except KeyError:
        return False
    return {path: found.files.get(path) for path in expected} == expected


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One run."""
    with tempfile.TemporaryDirectory(prefix="nothing-lost-") as name:
        folder = Path(name)
        told = {"work": "stand_in:mixed", "snapshot_seconds": 2.0}
        began = time.monotonic()
        made = recipes(arguments.jobs, arguments.real)
        with Farm(
            folder / "farm",
            workers=arguments.workers,
            database_url=arguments.database,
            lease_seconds=arguments.lease,
            worker=told,
        ) as farm:
            between = (0.4 * arguments.every, 1.6 * arguments.every)
            ids = run(farm, made, kills=arguments.kills, seed=arguments.seed, between=between, seconds=3600, server=0.3)
            seconds = time.monotonic() - began
            there = farm.jobs()
            outcomes = [farm.outcome(id) for id in ids.values()]
        differ = [each.name for each in outcomes if not same(each, folder / "alone")]
    return {
        "database": "SQLite" if arguments.database is None else "Postgres",
        "jobs": arguments.jobs,
        "real": arguments.real,
        "workers": arguments.workers,
        "kills_of_workers": farm.kills.workers,
        "kills_of_the_server": farm.kills.server,
        "lost": arguments.jobs - len(there),
        "done": sum(each.state == "done" for each in outcomes),
        "ended_once": sum(each.ends == 1 for each in outcomes),
        "ended_twice": sum(each.ends > 1 for each in outcomes),
        "more_than_one_attempt": sum(each.attempt > 1 for each in outcomes),
        "most_attempts": max(each.attempt for each in outcomes),
        "files_differ": len(differ),
        "differ": differ[:10],
        "seconds": round(seconds),
        "seed": arguments.seed,
    }


COLUMNS = {
    "database": "database",
    "jobs": "jobs",
    "real": "of them compressions",
    "workers": "workers",
    "kills_of_workers": "kills of workers",
    "kills_of_the_server": "kills of the server",
    "lost": "lost",
    "done": "done",
    "ended_once": "ended once",
    "ended_twice": "ended twice",
    "files_differ": "other files than undisturbed",
    "more_than_one_attempt": "took more than one attempt",
    "most_attempts": "most attempts",
    "seconds": "seconds",
}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [f"| {' | '.join(COLUMNS.values())} |", f"| --- |{' ---: |' * (len(COLUMNS) - 1)}"]
    lines += [f"| {' | '.join(str(row[name]) for name in COLUMNS)} |" for row in rows]
    version = ".".join(map(str, sys.version_info[:3]))
    return (
        "# Nothing lost: jobs while workers and the server are killed\n\n"
        "Made by `python -m benchmarks.service.nothing_lost` (its docstring says what is done), once for each database. "
        "Each kill is a SIGKILL at a random moment; the process begins again up to half a second later. A job has ended "
        "once if one event says so; its files are compared bit for bit with those of the same recipe run alone, reports "
        "of compressions but for times.\n\n"
        f"Machine: {platform.system()} {platform.machine()}, 2 cores shared with other work, Python {version}.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, one a run")
    parser.add_argument("--write", type=Path, help="write the table of all rows, and run nothing")
    parser.add_argument("--database", help="URL; SQLite in a folder of its own if it is left out")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--real", type=int, default=10, help="how many of them are compressions")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--every", type=float, default=4.0, help="seconds between kills, on average")
    parser.add_argument("--lease", type=float, default=3.0, help="seconds that a lease lives")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.write is not None:
        arguments.write.write_text(table(read(arguments.results)), encoding="utf-8")
        return
    row = measure(arguments)
    append(arguments.results, row)
    print(table([row]))


if __name__ == "__main__":
    main()
