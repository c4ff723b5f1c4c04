"""The latency table: measured points by target and signature, and the calibrations that belong to them.

Reading is strict about the target: rows of another device, runtime version, precision, thread count or batch are never
returned, and asking for a target the table does not know names the ones it does know and what differs.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from lut.errors import InvalidKeyError, LutError, UnknownTargetError
from lut.key import Calibration, Measurement, Point, Signature, Target
from lut.table.database import Database

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_COLUMNS = "median_ms, spread, repeats, status, error, measured_at"
_UPSERT = f"""
INSERT INTO points (target, signature, channels_in, channels_out, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (target, signature, channels_in, channels_out) DO UPDATE SET
    median_ms = excluded.median_ms, spread = excluded.spread, repeats = excluded.repeats, status = excluded.status,
    error = excluded.error, measured_at = excluded.measured_at
"""
_UNLESS_WORSE = "WHERE NOT (points.status = 'ok' AND excluded.status <> 'ok')"


class Row(NamedTuple):
    """One point of the table."""

    target: Target
    signature: Signature
    channels_in: int
    channels_out: int
    measurement: Measurement

    @property
    def place(self) -> tuple[str, str, int, int]:
        """What two rows about the same point have in common."""
        return self.target.key, self.signature.key, self.channels_in, self.channels_out


def default_path() -> Path:
    """``lut.sqlite`` in the user's cache: ``$XDG_CACHE_HOME/compressor`` or ``~/.cache/compressor`` on Linux, and where
    caches lie on other systems."""
    from platformdirs import user_cache_path

    return user_cache_path("compressor", appauthor=False) / "lut.sqlite"


class LatencyTable:
    """The table in one file; any number of processes may use it at once.

    Args:
        path: the file, ``default_path()`` if None. Made if missing.
        read_only: only look; the file must exist, and a damaged one raises instead of being set aside.
        timeout_s: how long to wait for other writers, seconds.

    Raises:
        LutError: see ``lut.table.database.Database``. A damaged file is set aside (``set_aside`` names it) and
        replaced.
    """

    def __init__(self, path: Path | str | None = None, *, read_only: bool = False, timeout_s: float = 60.0) -> None:
        self._told_of_bad_rows = False
        self._database = Database(
            Path(path).expanduser() if path is not None else default_path(), read_only=read_only, timeout_s=timeout_s
        )

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    @property
    def set_aside(self) -> Path | None:
        """Where a damaged predecessor of this table was moved by this object, if there was one."""
        return self._database.set_aside

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def __enter__(self) -> LatencyTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Writing ---------------------------------------------------------------------------------------------------------

    def register(self, target: Target) -> None:
        """Make a target known, so that it can be asked for before its first point."""
        self._database.write(lambda connection: _identifier(connection, "targets", target.key))

    def put(self, target: Target, signature: Signature, point: Point, measurement: Measurement) -> None:
        """Store one point at once. A good row is replaced by a good one only, any other row by whatever is new."""
        self.put_rows([Row(target, signature, *signature.point(*point), measurement)])

    def put_anchored(self, row: Row, anchor: Row) -> bool:
        """``put`` a row whose time is given relative to ``anchor``, unless another process has changed the table's
        anchor since; returns whether it was stored."""

        def work(connection: sqlite3.Connection) -> bool:
            there = _present(connection, anchor)
            if there is None or there.median_ms != anchor.measurement.median_ms:
                return False
            _insert(connection, [row], _UPSERT + _UNLESS_WORSE)
            return True

        return self._database.write(work)

    def anchor(self, anchor: Row, *, slow: float) -> Row:
        """Give all times of a target in a unit in which ``anchor``, a point that is timed again and again, takes what
        it says; a slower anchor than the table's changes nothing.

        Points are scaled. If the table's unit was that of a device ``slow`` times slower or more, they were timed while
        something disturbed it: they become "noisy", to be measured again. Calibrations are dropped.

        Returns:
            The anchor that holds now.
        """

        def work(connection: sqlite3.Connection) -> Row:
            there = _present(connection, anchor)
            new, old = anchor.measurement.median_ms, None if there is None else there.median_ms
            if new is None:
                raise InvalidKeyError("An anchor needs a latency; found a refusal.")
            identifier = _identifier(connection, "targets", anchor.target.key)
            if there is not None and old is not None:
                if old <= new:
                    return anchor._replace(measurement=there)
                connection.execute(
                    "UPDATE points SET median_ms = median_ms * ?, status = CASE WHEN status = 'ok' AND ? THEN 'noisy' "
                    "ELSE status END WHERE target = ? AND median_ms IS NOT NULL",
                    (new / old, old >= slow * new, identifier),
                )
                connection.execute("DELETE FROM calibrations WHERE target = ?", (identifier,))
            _insert(connection, [anchor], _UPSERT)
            return anchor

        return self._database.write(work)

    def put_rows(self, rows: Iterable[Row]) -> None:
        """Store many points in one transaction, under the rule of ``put``."""
        ready = list(rows)
        self._database.write(lambda connection: _insert(connection, ready, _UPSERT + _UNLESS_WORSE))

    def update(self, choose: Callable[[Row, Measurement | None], bool], rows: Iterable[Row]) -> None:
        """Store those rows for which ``choose(row, what the table has)`` holds, in one transaction.

        No other process writes between looking and storing. ``choose`` may be called twice for a row.
        """
        ready = list(rows)

        def work(connection: sqlite3.Connection) -> None:
            chosen: dict[tuple[str, str, int, int], Row] = {}
            for row in ready:
                there = chosen[row.place].measurement if row.place in chosen else _present(connection, row)
                if choose(row, there):
                    chosen[row.place] = row
            _insert(connection, list(chosen.values()), _UPSERT)

        self._database.write(work)

    def put_calibration(self, target: Target, model_key: str, calibration: Calibration) -> None:
        """Store (or replace) the calibration of one model on one target.

        Raises:
            InvalidKeyError: a number in it is not finite, or ``details`` is no JSON.
        """
        try:
            body = json.dumps(vars(calibration), sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidKeyError(f"The calibration of {model_key!r} cannot be stored as JSON: {error}.") from error

        def work(connection: sqlite3.Connection) -> None:
            identifier = _identifier(connection, "targets", target.key)
            connection.execute("INSERT OR REPLACE INTO calibrations VALUES (?, ?, ?)", (identifier, model_key, body))

        self._database.write(work)

    def delete(self, target: Target, signature: Signature | None = None) -> int:
        """Drop the points of one signature, or all that is known of a target; returns how many points there were."""
        identifier = self._target_id(target)

        def work(connection: sqlite3.Connection) -> int:
            if signature is None:
                count = connection.execute("DELETE FROM points WHERE target = ?", (identifier,)).rowcount
                connection.execute("DELETE FROM calibrations WHERE target = ?", (identifier,))
                connection.execute("DELETE FROM targets WHERE id = ?", (identifier,))
                return count
            return connection.execute(
                "DELETE FROM points WHERE target = ? AND signature = (SELECT id FROM signatures WHERE key = ?)",
                (identifier, signature.key),
            ).rowcount

        return self._database.write(work)

    # Reading ---------------------------------------------------------------------------------------------------------

    def targets(self) -> list[Target]:
        """Every target the table knows, sorted by key."""
        keys = self._database.read("SELECT key FROM targets ORDER BY key")
        return [target for target in (self._good(Target.from_key, key) for (key,) in keys) if target]

    def signatures(self, target: Target) -> list[Signature]:
        """The signatures with at least one point on this target. Raises ``UnknownTargetError``."""
        sql = "SELECT key FROM signatures WHERE id IN (SELECT DISTINCT signature FROM points WHERE target = ?)"
        rows = self._database.read(f"{sql} ORDER BY key", (self._target_id(target),))
        return [found for found in (self._good(Signature.from_key, key) for (key,) in rows) if found]

    def points(self, target: Target, signature: Signature) -> dict[Point, Measurement]:
        """All points of one signature on exactly this target, refused and noisy ones included.

        Raises:
            UnknownTargetError: the table has never seen this target.
        """
        sql = f"SELECT channels_in, channels_out, {_COLUMNS} FROM points WHERE target = ? AND signature = "
        rows = self._database.read(
            f"{sql} (SELECT id FROM signatures WHERE key = ?) ORDER BY channels_in, channels_out",
            (self._target_id(target), signature.key),
        )
        found = {(row[0], row[1]): self._good(Measurement, *row[2:]) for row in rows}
        return {point: measurement for point, measurement in found.items() if measurement is not None}

    def get(self, target: Target, signature: Signature, point: Point) -> Measurement | None:
        """One point, None if it was never measured. Raises ``UnknownTargetError``."""
        sql = f"SELECT {_COLUMNS} FROM points WHERE target = ? AND channels_in = ? AND channels_out = ? AND signature ="
        values = (self._target_id(target), *point, signature.key)
        rows = self._database.read(f"{sql} (SELECT id FROM signatures WHERE key = ?)", values)
        return self._good(Measurement, *rows[0]) if rows else None

    def calibrations(self, target: Target) -> dict[str, Calibration]:
        """Calibrations of this target by model key. Raises ``UnknownTargetError``."""
        sql = "SELECT model, body FROM calibrations WHERE target = ? ORDER BY model"
        rows = self._database.read(sql, (self._target_id(target),))
        found = {model: self._good(Calibration.from_json, body) for model, body in rows}
        return {model: calibration for model, calibration in found.items() if calibration is not None}

    def rows(self, target: Target | None = None) -> list[Row]:
        """Every point, of one target or of all, sorted by key. Raises ``UnknownTargetError``."""
        where, values = ("WHERE target = ?", (self._target_id(target),)) if target else ("", ())
        sql = (
            f"SELECT targets.key, signatures.key, channels_in, channels_out, {_COLUMNS} FROM points "
            "JOIN targets ON targets.id = target JOIN signatures ON signatures.id = signature "
            f"{where} ORDER BY targets.key, signatures.key, channels_in, channels_out"
        )
        keys: dict[str, Any] = {}
        found = [self._good(parse_rows, [raw], keys) for raw in self._database.read(sql, values)]
        return [row for rows in found if rows is not None for row in rows]

    def _good(self, read: Callable[..., _T], *values: Any) -> _T | None:
        """What ``read`` makes of a row, or None for one that cannot be used: it costs itself, not the table."""
        try:
            return read(*values)
        except (LutError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            if not self._told_of_bad_rows:
                self._told_of_bad_rows = True
                _log.warning(
                    "The latency table %s has rows that cannot be used (the first: %s). They are left out; measuring "
                    "again replaces them.",
                    self.path,
                    " ".join(str(error).split())[:300],
                )
            return None

    def _target_id(self, target: Target) -> int:
        rows = self._database.read("SELECT id FROM targets WHERE key = ?", (target.key,))
        if rows:
            return int(rows[0][0])
        others = self.targets()
        if not others:
            raise UnknownTargetError(f"The latency table {self.path} is empty: measure {target.label} first.")
        listed = "; ".join(f"{other.label} (other {', '.join(target.differences(other))})" for other in others)
        raise UnknownTargetError(
            f"The latency table {self.path} has nothing for {target.label}; it has: {listed}. Measure this one first."
        )


def parse_rows(raw: Iterable[tuple[Any, ...]], keys: dict[str, Any] | None = None) -> list[Row]:
    """Rows from (target key, signature key, channels in, channels out, measurement columns).

    ``keys`` remembers targets and signatures by their keys from call to call.
    """
    known: dict[str, Any] = {} if keys is None else keys
    rows = []
    for target, signature, channels_in, channels_out, *measured in raw:
        if target not in known:
            known[target] = Target.from_key(target)
        if signature not in known:
            known[signature] = Signature.from_key(signature)
        point: Point = known[signature].point(channels_in, channels_out)
        rows.append(Row(known[target], known[signature], *point, Measurement(*measured)))
    return rows


def _identifier(connection: sqlite3.Connection, table: str, key: str) -> int:
    connection.execute(f"INSERT OR IGNORE INTO {table} (key) VALUES (?)", (key,))
    return int(connection.execute(f"SELECT id FROM {table} WHERE key = ?", (key,)).fetchone()[0])


def _insert(connection: sqlite3.Connection, rows: list[Row], sql: str) -> None:
    targets = {key: _identifier(connection, "targets", key) for key in dict.fromkeys(row.place[0] for row in rows)}
    names = {key: _identifier(connection, "signatures", key) for key in dict.fromkeys(row.place[1] for row in rows)}
    for row in rows:
        target, signature, *point = row.place
        took = row.measurement
        values = (took.median_ms, took.spread, took.repeats, took.status, took.error, took.measured_at)
        connection.execute(sql, (targets[target], names[signature], *point, *values))


def _present(connection: sqlite3.Connection, row: Row) -> Measurement | None:
    sql = (
        f"SELECT {_COLUMNS} FROM points WHERE target = (SELECT id FROM targets WHERE key = ?) "
        "AND signature = (SELECT id FROM signatures WHERE key = ?) AND channels_in = ? AND channels_out = ?"
    )
    found = connection.execute(sql, row.place).fetchone()
    return Measurement(*found) if found else None
