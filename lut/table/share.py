"""Tables travel: as CSV (standard library), as Parquet (needs pyarrow), and by merging one file into another.

A shared file has one row per point with the canonical keys of target and signature, so rows of many devices fit in one
file and come back as exactly the rows they were. Latencies are written with all their digits. Calibrations belong to a
model and stay out of CSV and Parquet; merging takes them along.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lut.errors import CorruptTableError, InvalidKeyError, LutError, MissingPackageError, TableAccessError
from lut.key import Measurement, Target
from lut.table.store import LatencyTable, Row, parse_rows

COLUMNS = (
    *("target", "signature", "channels_in", "channels_out"),
    *("median_ms", "spread", "repeats", "status", "error", "measured_at"),
)
CONFLICT = 0.10  # two good rows for one point that differ by more than this are reported


@dataclasses.dataclass(frozen=True)
class Conflict:
    """Two good measurements of one point that do not agree."""

    target: str
    signature: str
    channels_in: int
    channels_out: int
    kept_ms: float
    dropped_ms: float


@dataclasses.dataclass
class MergeReport:
    """What became of the rows that came in."""

    added: int = 0
    replaced: int = 0
    kept: int = 0
    calibrations: int = 0
    conflicts: list[Conflict] = dataclasses.field(default_factory=list)
    damaged: list[str] = dataclasses.field(default_factory=list)


def merge_rows(table: LatencyTable, rows: Iterable[Row], report: MergeReport | None = None) -> MergeReport:
    """Put rows into a table; of two for the same point the better stays (``Measurement.better_than``)."""
    total = report if report is not None else MergeReport()
    fates: dict[int, tuple[str, Conflict | None]] = {}
    ready = list(rows)
    numbers = {id(row): number for number, row in enumerate(ready)}

    def choose(row: Row, there: Measurement | None) -> bool:
        wins = there is None or row.measurement.better_than(there)
        fate = "added" if there is None else "replaced" if wins else "kept"
        fates[numbers[id(row)]] = (fate, _conflict(row, there, wins) if there is not None else None)
        return wins

    table.update(choose, ready)
    for fate, conflict in fates.values():
        setattr(total, fate, getattr(total, fate) + 1)
        if conflict is not None:
            total.conflicts.append(conflict)
    return total


def _conflict(row: Row, there: Measurement, wins: bool) -> Conflict | None:
    ours, theirs = there.median_ms, row.measurement.median_ms
    if ours is None or theirs is None or {there.status, row.measurement.status} != {"ok"}:
        return None
    if abs(ours - theirs) <= CONFLICT * min(ours, theirs):
        return None
    kept, dropped = (theirs, ours) if wins else (ours, theirs)
    return Conflict(row.target.label, row.signature.label, row.channels_in, row.channels_out, kept, dropped)


def merge(table: LatencyTable, sources: Sequence[Path | str]) -> MergeReport:
    """Take over the rows and calibrations of other table files; these are only read.

    Of a damaged source the rows that can still be read are taken, and its name is in ``report.damaged``.
    Of two calibrations for one model on one target the newer stays.

    Raises:
        LutError: a source is missing, no latency table, or of a newer schema. Nothing of that source was taken.
    """
    report = MergeReport()
    for source in map(Path, sources):
        if source.exists() and table.path.exists() and source.samefile(table.path):
            raise InvalidKeyError(f"{source} is the table to merge into: name other tables as sources.")
        try:
            with LatencyTable(source, read_only=True) as other:
                rows = other.rows()
                calibrations = {target: other.calibrations(target) for target in other.targets()}
        except CorruptTableError:
            rows, calibrations = salvage(source), {}
            report.damaged.append(str(source))
        merge_rows(table, rows, report)
        for target, models in calibrations.items():
            table.register(target)
            present = table.calibrations(target)
            for model, calibration in models.items():
                if model not in present or present[model].measured_at < calibration.measured_at:
                    table.put_calibration(target, model, calibration)
                    report.calibrations += 1
    return report


def salvage(path: Path) -> list[Row]:
    """The rows of a damaged table that can still be read, up to the first that cannot, from either end."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    kept: dict[tuple[str, str, int, int], Row] = {}
    try:
        keys = [_readable(connection, f"SELECT id, key FROM {name}") for name in ("targets", "signatures")]
        targets, signatures = (dict(pairs) for pairs in keys)
        order = "target {0}, signature {0}, channels_in {0}, channels_out {0}"
        for direction in ("ASC", "DESC"):
            sql = f"SELECT target, signature, {', '.join(COLUMNS[2:])} FROM points ORDER BY {order.format(direction)}"
            for row in _readable(connection, sql):
                try:
                    parsed = parse_rows([(targets[row[0]], signatures[row[1]], *row[2:])])[0]
                except (LutError, KeyError, TypeError, ValueError):
                    continue  # this row is part of the damage
                kept[parsed.place] = parsed
    finally:
        connection.close()
    return list(kept.values())


def _readable(connection: sqlite3.Connection, sql: str) -> list[Any]:
    rows: list[Any] = []
    try:
        rows.extend(connection.execute(sql))
    except sqlite3.DatabaseError:
        return rows  # what came before the damage
    return rows


def write_csv(table: LatencyTable, path: Path, target: Target | None = None) -> int:
    """Write all points, or those of one target, as CSV; returns how many. The file appears whole or not at all."""
    rows = table.rows(target)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(["" if value is None else value for value in _flat(row)])
    _atomic(path, lambda part: part.write_text(text.getvalue(), encoding="utf-8", newline=""))
    return len(rows)


_MOST_BYTES = 1 << 30


def _require_file(path: Path) -> None:
    """A pipe or a device has no end, and a table is never that large."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TableAccessError(f"{path} cannot be read ({reason}): check the name.") from error
    if not stat.S_ISREG(status.st_mode):
        raise TableAccessError(f"{path} is no file: name one that 'lut export' wrote.")
    if status.st_size > _MOST_BYTES:
        raise TableAccessError(f"{path} has {status.st_size:,} bytes, and {_MOST_BYTES:,} are the most: split it.")


def read_csv(path: Path) -> list[Row]:
    """The points in a CSV file. Raises ``InvalidKeyError`` with the line for anything that is not as written."""
    _require_file(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InvalidKeyError(f"{path} lacks the columns {', '.join(missing)}: export it with 'lut export'.")
            return [_parse(record, f"{path}, line {reader.line_num}") for record in reader]
    except OSError as error:
        raise TableAccessError(f"{path} cannot be read ({error.strerror}): check the name.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidKeyError(f"{path} is no CSV text ({error}): export it with 'lut export'.") from error


def write_parquet(table: LatencyTable, path: Path, target: Target | None = None) -> int:
    """As ``write_csv``, as Parquet. Raises ``MissingPackageError`` without pyarrow."""
    arrow, parquet = _pyarrow()
    rows = table.rows(target)
    columns = list(zip(*map(_flat, rows), strict=True)) or [()] * len(COLUMNS)
    types = [arrow.string()] * 2 + [arrow.int64()] * 2 + [arrow.float64()] * 2 + [arrow.int64()] + [arrow.string()] * 3
    arrays = [arrow.array(column, type=kind) for column, kind in zip(columns, types, strict=True)]
    data = arrow.Table.from_arrays(arrays, names=list(COLUMNS))
    _atomic(path, lambda part: parquet.write_table(data, str(part)))
    return len(rows)


def read_parquet(path: Path) -> list[Row]:
    """As ``read_csv``, from Parquet. Raises ``MissingPackageError`` without pyarrow."""
    arrow, parquet = _pyarrow()
    _require_file(path)
    try:
        records = parquet.read_table(str(path), columns=list(COLUMNS)).to_pylist()
    except OSError as error:
        raise TableAccessError(f"{path} cannot be read ({error}): check the name.") from error
    except arrow.ArrowException as error:
        raise InvalidKeyError(f"{path} is no Parquet file of a latency table ({error}).") from error
    return [_parse(record, f"{path}, row {number}") for number, record in enumerate(records, 1)]


def _flat(row: Row) -> tuple[Any, ...]:
    took = row.measurement
    return (*row.place, took.median_ms, took.spread, took.repeats, took.status, took.error, took.measured_at)


def _parse(record: dict[str, Any], where: str) -> Row:
    try:
        values = [record[name] for name in COLUMNS]
        if any(value is None for name, value in record.items() if name != "median_ms") or None in record:
            raise InvalidKeyError("the row has too few or too many columns")
        median = None if values[4] in ("", None) else float(values[4])
        numbers = (median, float(values[5]), int(values[6]))
        return parse_rows([(*values[:2], int(values[2]), int(values[3]), *numbers, *values[7:])])[0]
    except (LutError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise InvalidKeyError(f"{where} is no point of a latency table: {error}. Nothing was imported.") from error


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingPackageError(
            "Parquet needs the package pyarrow, which is not installed: 'pip install compressor[parquet]', or use CSV."
        ) from error
    return pyarrow, pyarrow.parquet


def _atomic(path: Path, write: Callable[[Path], object]) -> None:
    try:
        present = path.stat() if path.exists() else None
        if (path.is_symlink() and present is None) or (present is not None and not stat.S_ISREG(present.st_mode)):
            raise TableAccessError(f"{path} cannot be written (something is there that is no file): name another file.")
        target = path.resolve()
        part = target.with_name(f".{target.name[:100]}.{os.getpid()}.part")
        try:
            write(part)
            if present is not None:
                part.chmod(stat.S_IMODE(present.st_mode))
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise TableAccessError(f"{path} cannot be written ({error.strerror or error}): name another file.") from error
