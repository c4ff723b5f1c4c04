"""A Postgres server of the tests' own, thrown away at their end. It is Debian's, run by a user without rights."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest


def binaries() -> Path | None:
    """The folder of the newest server that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


class PostgresServer:
    """Listens on a socket in its folder, and nowhere else."""

    def __init__(self) -> None:
        found = binaries()
        if found is None:
            pytest.skip("no Postgres is installed (/usr/lib/postgresql/*/bin/initdb); apt-get install postgresql")
        pytest.importorskip("psycopg", reason="the driver of Postgres is not installed: pip install 'psycopg[binary]'")
        self._binaries = found
        self.folder = Path(tempfile.mkdtemp(prefix="compressor-pg-", dir="/tmp"))  # a socket's path must be short
        self._user: str | None = None
        if os.geteuid() == 0:  # which Postgres refuses
            self._user = next((name for name in ("postgres", "nobody") if _is_user(name)), None)
            if self._user is None:
                pytest.skip("Postgres does not run as root, and there is neither the user postgres nor nobody")
            shutil.chown(self.folder, self._user)
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()

    def url(self, name: str = "postgres") -> str:
        """The URL of one of its databases."""
        return f"postgresql://tester@/{name}?host={self.folder}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = ("fsync=off", "listen_addresses=", f"unix_socket_directories={self.folder}", "max_connections=200")
        command = [str(self._binaries / "postgres"), "-D", str(self.folder / "data")]
        for setting in (*settings, "shared_buffers=32MB"):
            command += ["-c", setting]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd="/", user=self._user, stdout=log, stderr=log)
        for _ in range(300):
            ready = subprocess.run(
                [self._binaries / "pg_isready", "-h", self.folder, "-q"], cwd="/", check=False, capture_output=True
            )
            if ready.returncode == 0:
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        pytest.skip(f"Postgres did not start: {(self.folder / 'log').read_text(errors='replace')[-500:]}")

    def stop(self) -> None:
        """Stop it at once, as a crash does; what was committed stays."""
        if self._process is not None:
            self._process.send_signal(3)  # SIGQUIT, to this process alone
            self._process.wait()
            self._process = None

    def make(self, template: str = "template0") -> str:
        """A new database; its name."""
        import psycopg

        self._count += 1
        name = f"test_{self._count}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return name

    def drop(self, name: str) -> None:
        """Drop a database, whoever uses it."""
        import psycopg

        with suppress(psycopg.Error), psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._binaries / program, *arguments], cwd="/", user=self._user, capture_output=True, check=False
        )
        if done.returncode:
            self.close()
            pytest.skip(f"{program} failed: {done.stderr.decode(errors='replace')[-300:]}")


def _is_user(name: str) -> bool:
    import pwd  # of POSIX alone, as Debian's server is

    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
