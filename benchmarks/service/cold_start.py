"""What a job of the service costs beside the compression itself, step by step.

The same small compression again and again on one worker, one job at a time: with a child that has imported its
libraries before there is a job (what workers do), without one, and without a sandbox. Times are those that the server
and the job's own events say.

    python -m benchmarks.service.cold_start --jobs 3 --write benchmarks/service/cold_start.md
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.service.chaos import ENDED, Farm
from tests.service.test_nothing_lost import REAL, SMALL

KINDS: dict[str, dict[str, Any]] = {
    "sandbox, a child waits": {**REAL, "warm": True},
    "sandbox, none waits": {**REAL, "warm": False},
    "no sandbox, none waits": {**REAL, "warm": False, "sandbox": False, "code": "unsandboxed"},
}
STEPS = ("until it is claimed", "until the job begins", "compression", "until it is stored and told")


def seconds_of(farm: Farm, name: str, number: int) -> list[float]:
    """The steps of one job."""
    told = {**SMALL, "budgets": {"flops": f"{50 + number}%"}}
    id = farm.submit(name, told)
    while (job := farm.ask("GET", f"/v1/jobs/{id}").json())["state"] not in ENDED:
        time.sleep(0.25)
    assert job["state"] == "done", job["error"]
    page = farm.ask(
        "GET", f"/v1/jobs/{id}/events", params={"limit": 500}, headers={"Accept": "application/json"}
    ).json()
    when = {event["event"]: event["time"] for event in page["events"]}
    marks = [job["created_at"], job["started_at"], when["JobBegan"], when["JobEnded"], job["ended_at"]]
    times = [datetime.fromisoformat(mark).timestamp() for mark in marks]
    return [after - before for before, after in pairwise(times)]


def measure(jobs: int, pause: float) -> dict[str, list[float]]:
    """Medians by kind of worker."""
    found = {}
    for kind, told in KINDS.items():
        with tempfile.TemporaryDirectory(prefix="cold-start-") as folder:
            with Farm(Path(folder), workers=1, worker=told, lease_seconds=30) as farm:
                rows = []
                for number in range(jobs):
                    time.sleep(pause)  # for a child to become ready, and for the same rest elsewhere
                    rows.append(seconds_of(farm, f"{kind}-{number}", number))
            found[kind] = [statistics.median(column) for column in zip(*rows, strict=True)]
            print(kind, [round(each, 2) for each in found[kind]], flush=True)
    return found


def table(found: dict[str, list[float]], jobs: int) -> str:
    """The medians as Markdown."""
    version = ".".join(map(str, sys.version_info[:3]))
    lines = [f"| seconds | {' | '.join(STEPS)} |", f"| --- |{' ---: |' * len(STEPS)}"]
    lines += [f"| {kind} | {' | '.join(f'{each:.2f}' for each in row)} |" for kind, row in found.items()]
    return (
        "# What a job costs beside the compression\n\n"
        f"Made by `python -m benchmarks.service.cold_start --jobs {jobs}`: `resnet20_cifar` without weights or data to a "
        f"share of its multiply-adds, on one worker, one job at a time; medians of {jobs}.\n\n"
        f"Machine: {platform.system()} {platform.machine()}, 2 cores shared with other work, Python {version}.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--pause", type=float, default=70.0, help="seconds before each job")
    parser.add_argument("--write", type=Path, help="where to write the table")
    arguments = parser.parse_args()
    text = table(measure(arguments.jobs, arguments.pause), arguments.jobs)
    print(text)
    if arguments.write is not None:
        arguments.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
