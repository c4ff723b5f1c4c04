"""The service under load: how long listing and submitting take while many watch, and whether memory stays flat.

A server of its own is started (``compress serve --workers 0``), on SQLite or on the database that a URL names. Then

1. ``--queued`` jobs are queued and one runs;
2. ``--watchers`` streams of its events are opened, each read to its end and checked: every event once, in order;
3. for ``--seconds``, ``--rate`` jobs a second are submitted and the list is asked for ``--lists`` times a second, while a
   worker posts ``--steps`` events a second;
4. ``--events`` events are posted, and the memory of the server is read before and after.

    python -m benchmarks.service.load --results benchmarks/service/load.jsonl
    python -m benchmarks.service.load --database postgresql+psycopg://... --results benchmarks/service/load.jsonl
    python -m benchmarks.service.load --table benchmarks/service/load.jsonl > benchmarks/service/load.md
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

RECIPE = {"model": "resnet20_cifar", "weights": "none", "data": "digits", "budgets": {"flops": "30%"}}
WAIT_S = 120.0


class Server:
    """A server as a process, with the lines that it writes."""

    def __init__(self, folder: Path, database: str | None) -> None:
        command = [
            sys.executable,
            "-m",
            "compressor",
            "serve",
            "--port",
            "0",
            "--data-dir",
            str(folder),
            "--workers",
            "0",
        ]
        command += ["--most-queued", "100000", "--log-format", "json"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPRESSOR_")}
        if database:
            environment["COMPRESSOR_DATABASE_URL"] = database
        self.log = (folder.parent / "server.log").open("w+")
        self.process = subprocess.Popen(command, stderr=self.log, env=environment)
        self.url = self._found()

    def _found(self) -> str:
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until and self.process.poll() is None:
            self.log.seek(0)
            if match := re.search(r"Serving on (http://\S+) ", self.log.read()):
                return match[1]
            time.sleep(0.1)
        self.log.seek(0)
        raise SystemExit(f"The server did not start: {self.log.read()[-2000:]}")

    def memory_mb(self) -> float:
        """What it holds for itself."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]

    def cpu_s(self) -> float:
        """Seconds of processors that it has taken."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> tuple[int, int]:
        """Its exit code, and how many lines of its log speak of a locked database or of a failure."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(WAIT_S)
        self.log.seek(0)
        bad = [line for line in self.log if "locked" in line or '"level": "error"' in line]
        for line in bad[:5]:
            print(line.rstrip(), file=sys.stderr)
        self.log.close()
        return code, len(bad)


class Watching:
    """Many who watch a job, in a process of their own, so that hearing takes no time from asking."""

    def __init__(self, url: str, job: str, count: int) -> None:
        command = [sys.executable, "-m", "benchmarks.service.load", "--watch", url, job, str(count)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    async def heard(self) -> dict[str, Any]:
        """How many events each heard, whether all heard the same, and whether each came once and in order."""
        text, _ = await asyncio.to_thread(self._process.communicate, None, WAIT_S)
        found: dict[str, Any] = json.loads(text)
        return found


async def watch_all(url: str, job: str, count: int) -> dict[str, Any]:
    """What ``Watching.heard`` gives."""
    heard = await asyncio.gather(*(watch(url, job) for _ in range(count)))
    alike, ordered = all(each == heard[0] for each in heard), heard[0] == sorted(set(heard[0]))
    return {"events": len(heard[0]), "alike": alike, "ordered": ordered}


async def watch(url: str, job: str) -> list[int]:
    """Ids of a job's events, to its end. Reads bytes as they come: a whole client for each would take more of the
    processors than the server does."""
    place = httpx.URL(url)
    reader, writer = await asyncio.open_connection(place.host, place.port)
    lines = [f"GET /v1/jobs/{job}/events HTTP/1.1", f"Host: {place.host}:{place.port}", "Connection: close", "", ""]
    writer.write("\r\n".join(lines).encode())
    found, rest = [], b""
    while piece := await asyncio.wait_for(reader.read(1 << 16), WAIT_S):
        whole, newline, rest = (rest + piece).rpartition(b"\n")
        found += [int(number) for number in re.findall(rb"^id: (\d+)$", whole + newline, re.MULTILINE)]
    writer.close()
    return found


class Teller:
    """A worker that has a job and says what happens in it."""

    def __init__(self, client: httpx.AsyncClient, job: str, token: str) -> None:
        self._client, self._place, self._token = client, f"/v1/work/{job}", token
        self.number = 0

    async def tell(self, count: int) -> None:
        """Post so many steps."""
        numbers = range(self.number, self.number + count)
        step = {"stage": "search", "total": 10**6, "values": {"loss": 0.123456, "accuracy": 0.9}}
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        events = [{"number": n, "time": now, "event": "Step", "body": {**step, "done": n}} for n in numbers]
        answer = await self._client.post(f"{self._place}/events", json={"token": self._token, "events": events})
        answer.raise_for_status()
        self.number += count

    async def live(self) -> None:
        """Renew the lease, for ever."""
        while True:
            (await self._client.post(f"{self._place}/renew", json={"token": self._token})).raise_for_status()
            await asyncio.sleep(5)

    async def end(self) -> None:
        """The job is done."""
        body = {"token": self._token, "state": "done"}
        (await self._client.post(f"{self._place}/end", json=body)).raise_for_status()


async def steadily(rate: float, seconds: float, ask: Any) -> list[float]:
    """Call ``ask`` at a rate, whatever the last one does; milliseconds that each took."""
    took: list[float] = []

    async def one() -> None:
        began = time.perf_counter()
        await ask()
        took.append(1000 * (time.perf_counter() - began))

    began, tasks = time.perf_counter(), []
    for number in range(round(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    return took


async def load(server: Server, asked: argparse.Namespace) -> dict[str, Any]:
    """Run it; the row."""
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:

        async def submit() -> str:
            answer = await client.post("/v1/jobs", json=RECIPE)
            answer.raise_for_status()
            return str(answer.json()["id"])

        async def listed() -> None:
            answer = await client.get("/v1/jobs", params={"limit": 50})
            answer.raise_for_status()
            assert len(answer.json()["jobs"]) == 50

        job = await submit()
        taken = (await client.post("/v1/work/claim", json={"worker": "load"})).json()
        assert taken["job"]["id"] == job
        teller = Teller(client, job, taken["token"])
        living = asyncio.create_task(teller.live())
        for _ in range(0, asked.queued, 20):
            await asyncio.gather(*(submit() for _ in range(20)))
        watching = Watching(server.url, job, asked.watchers)
        await _until_all_watch(client, asked.watchers)
        for _ in range(10):
            await listed()
        cpu, began = server.cpu_s(), time.monotonic()
        submits, lists, _ = await asyncio.gather(
            steadily(asked.rate, asked.seconds, submit),
            steadily(asked.lists, asked.seconds, listed),
            steadily(1, asked.seconds, lambda: teller.tell(asked.steps)),
        )
        share = (server.cpu_s() - cpu) / (time.monotonic() - began)
        before = server.memory_mb()
        most = before
        for first in range(0, asked.events, 500):
            await teller.tell(500)
            most = max(most, server.memory_mb())
            if first % 2500 == 0:
                await asyncio.sleep(0.2)  # watchers keep up
        living.cancel()
        await teller.end()
        heard = await watching.heard()
        after = server.memory_mb()
        page = await client.get(
            f"/v1/jobs/{job}/events", params={"limit": 5000}, headers={"Accept": "application/json"}
        )
        assert page.json()["events"]
    assert heard["alike"], "watchers heard different things"
    assert heard["ordered"], "an event came twice or out of order"
    return {
        "submit_ms": _quantiles(submits),
        "list_ms": _quantiles(lists),
        "server_cpu": round(share, 2),
        "events": heard["events"],
        "memory_before_mb": round(before, 1),
        "memory_most_mb": round(most, 1),
        "memory_after_mb": round(after, 1),
    }


async def _until_all_watch(client: httpx.AsyncClient, count: int) -> None:
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        text = (await client.get("/metrics")).text
        if f"compressor_watchers {float(count)}" in text:
            return
        await asyncio.sleep(0.2)
    raise SystemExit("Not all who were to watch did.")


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100)
    return {"count": len(values), "p50": round(cuts[49], 1), "p95": round(cuts[94], 1), "most": round(max(values), 1)}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "# The service under load",
        "",
        "Made by `python -m benchmarks.service.load`; what it does is said there. Everything, the server, its database and",
        "whoever asks, shares the processors of one machine.",
        "",
        "| database | queued | watchers | submitted | submit p50, p95, most (ms) | listed | list p50, p95, most (ms) "
        "| processors taken | events heard by each | memory before, most, after (MB) | errors |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        submit, listing = row["submit_ms"], row["list_ms"]
        cells = [
            row["database"],
            row["queued"],
            row["watchers"],
            f"{submit['count']} at {row['rate']:g}/s",
            ", ".join(f"{submit[name]:g}" for name in ("p50", "p95", "most")),
            f"{listing['count']} at {row['lists']:g}/s",
            ", ".join(f"{listing[name]:g}" for name in ("p50", "p95", "most")),
            f"{row['server_cpu']:g}",
            f"{row['events']:,}",
            ", ".join(f"{row[f'memory_{name}_mb']:g}" for name in ("before", "most", "after")),
            row["errors"],
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    cores = ", ".join(sorted({str(row["cores"]) for row in rows}))
    loads = ", ".join(f"{row['load'][0]:g}" for row in rows)
    nice = ", ".join(sorted({str(row["nice"]) for row in rows}))
    about = f"Processors: {cores}. Load before, of other work: {loads}; niceness of these runs: {nice}."
    return "\n".join([*lines, "", f"{about} Listing asks for 50 of all jobs."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", help="URL of a database that is empty; SQLite without")
    parser.add_argument("--queued", type=int, default=500)
    parser.add_argument("--watchers", type=int, default=50)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--lists", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--results", type=Path, help="JSON Lines to add a row to")
    parser.add_argument("--watch", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--table", type=Path, help="print the table of such a file, and do nothing else")
    asked = parser.parse_args()
    if asked.watch:
        url, job, count = asked.watch
        print(json.dumps(asyncio.run(watch_all(url, job, int(count)))))
        return
    if asked.table:
        print(table([json.loads(line) for line in asked.table.read_text().splitlines()]), end="")
        return
    before = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="compressor-load-") as name:
        server = Server(Path(name) / "data", asked.database)
        try:
            row = asyncio.run(load(server, asked))
        finally:
            code, errors = 1, 1
            with suppress(subprocess.TimeoutExpired):
                code, errors = server.stop()
            if server.process.poll() is None:
                server.process.kill()
    row = {
        "database": "Postgres" if asked.database else "SQLite",
        "queued": asked.queued,
        "watchers": asked.watchers,
        "rate": asked.rate,
        "lists": asked.lists,
        "seconds": asked.seconds,
        **row,
        "errors": errors + (code != 0),
        "cores": os.cpu_count(),
        "load": [round(each, 1) for each in before],
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
    }
    print(json.dumps(row, indent=2))
    if asked.results:
        with asked.results.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
