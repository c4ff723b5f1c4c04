"""``compress lut``: look at latency tables, and share them between people and machines."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from compressor.cli.output import Output, output_options
from compressor.errors import UsageError

if TYPE_CHECKING:
    from lut import LatencyTable, Row, Target
    from lut.table.share import MergeReport

_Command = TypeVar("_Command", bound=Callable[..., Any])
_SHARED = (".csv", ".parquet")


def lut_option(function: _Command) -> _Command:
    """Add ``--lut FILE``."""
    return click.option(
        "--lut",
        "lut_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The latency table. [$XDG_CACHE_HOME/compressor/lut.sqlite]",
    )(function)


def target_option(function: _Command) -> _Command:
    """Add ``--target TEXT``: any part of the description that ``lut list`` prints."""
    return click.option(
        "--target", metavar="TEXT", help="Only the target whose description, as 'lut list' prints it, contains TEXT."
    )(function)


@click.group()
def lut() -> None:
    """Latency tables: what is in them, and how to share them."""


@lut.command("list")
@lut_option
@output_options
def list_(lut_file: Path | None, output: Output) -> None:
    """List the targets in the table: device, runtime and version, precision, threads, batch."""
    from compressor.cli.tables import table as draw

    with _read(lut_file) as table:
        targets = [_target_summary(table, target) for target in table.targets()]
    path = str(table.path)
    columns = ("target", "signatures", "points", "noisy", "refused", "calibrations", "last measured")
    names = ("label", "signatures", "points", "noisy", "refused", "calibrations", "last_measured_at")
    cells = [[entry[name] for name in names] for entry in targets]
    output.emit({"path": path, "targets": targets}, lambda: draw(f"Latency table {path}", columns, cells))


@lut.command()
@lut_option
@target_option
@click.option("--signature", metavar="TEXT", help="Only signatures whose description contains TEXT, with their points.")
@output_options
def show(lut_file: Path | None, target: str | None, signature: str | None, output: Output) -> None:
    """Show the signatures measured on a target and the widths the device likes, or the points of some of them."""
    with _read(lut_file) as table:
        chosen = _choose(table, target)
        by_signature: dict[str, list[Row]] = {}
        for row in table.rows(chosen):
            if signature is None or signature.lower() in row.signature.label.lower():
                by_signature.setdefault(row.signature.key, []).append(row)
        calibrations = {model: vars(found) for model, found in table.calibrations(chosen).items()}
    if signature is not None and not by_signature:
        raise UsageError(f"No signature of {chosen.label} contains {signature!r}; 'compress lut show' lists them.")
    summaries = [_signature_summary(rows, with_points=signature is not None) for rows in by_signature.values()]
    document = {
        "path": str(table.path),
        "target": {"key": chosen.key, "label": chosen.label},
        "signatures": summaries,
        "calibrations": calibrations,
    }
    output.emit(document, lambda: _show_text(document, with_points=signature is not None))


@lut.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@lut_option
@output_options
def merge(sources: tuple[Path, ...], lut_file: Path | None, output: Output) -> None:
    """Take the rows of other table files, SOURCES, into the table.

    Of two rows for one point the better stays: good before noisy, then more repeats, then less spread. The sources are
    only read; of a damaged one the rows that can still be read are taken.
    """
    from lut import CorruptTableError, LatencyTable
    from lut.table.share import merge as merge_tables

    for source in sources:  # before a table is made for nothing
        with suppress(CorruptTableError), _read(source):
            pass
    with LatencyTable(lut_file) as table:
        _emit_merge(merge_tables(table, sources), str(table.path), output)


@lut.command()
@click.argument("file", type=click.Path(path_type=Path))
@lut_option
@target_option
@output_options
def export(file: Path, lut_file: Path | None, target: str | None, output: Output) -> None:
    """Write the points to FILE, which ends in .csv or .parquet (needs pyarrow)."""
    from lut.table.share import write_csv, write_parquet

    write = write_csv if _shared_suffix(file) == ".csv" else write_parquet
    with _read(lut_file) as table:
        count = write(table, file, None if target is None else _choose(table, target))
    document = {"path": str(table.path), "file": str(file), "points": count}
    output.emit(document, lambda: f"Wrote {count:,} points to {file}.")


@lut.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@lut_option
@output_options
def import_(files: tuple[Path, ...], lut_file: Path | None, output: Output) -> None:
    """Take the points in exported FILES into the table, by the rule of 'lut merge'."""
    from lut import LatencyTable
    from lut.table.share import MergeReport, merge_rows, read_csv, read_parquet

    rows = [row for file in files for row in (read_csv if _shared_suffix(file) == ".csv" else read_parquet)(file)]
    with LatencyTable(lut_file) as table:
        _emit_merge(merge_rows(table, rows, MergeReport()), str(table.path), output)


def _read(lut_file: Path | None) -> LatencyTable:
    from lut import LatencyTable

    return LatencyTable(lut_file, read_only=True)


def _shared_suffix(file: Path) -> str:
    if file.suffix not in _SHARED:
        raise UsageError(
            f"'{file}' should end in {' or '.join(_SHARED)}; for table files there is 'compress lut merge'."
        )
    return file.suffix


def _choose(table: LatencyTable, text: str | None) -> Target:
    every = table.targets()
    # Someone who pastes a whole description means that one, even where it is part of another.
    found = [target for target in every if text is None or text.lower() in target.label.lower()]
    found = [target for target in found if target.label == text] or found
    if len(found) == 1:
        return found[0]
    if not every:
        raise UsageError(f"The latency table {table.path} is empty; measure a target first.")
    listed = "; ".join(target.label for target in found or every)
    what = "Name a target by --target" if text is None else f"{len(found)} targets contain {text!r}"
    raise UsageError(f"{what}; the table has: {listed}.")


def _target_summary(table: LatencyTable, target: Target) -> dict[str, Any]:
    rows = table.rows(target)
    states = [row.measurement.status for row in rows]
    return {
        "label": target.label,
        "key": target.key,
        "signatures": len({row.signature.key for row in rows}),
        "points": len(rows),
        "noisy": states.count("noisy"),
        "refused": states.count("refused"),
        "calibrations": len(table.calibrations(target)),
        "last_measured_at": max((row.measurement.measured_at for row in rows), default=None),
    }


def _signature_summary(rows: list[Row], *, with_points: bool) -> dict[str, Any]:
    from lut.surface.estimate import detect
    from lut.surface.interpolate import usable

    signature = rows[0].signature
    good = usable({(row.channels_in, row.channels_out): row.measurement for row in rows})
    patterns = detect([good], signature.axes)
    summary: dict[str, Any] = {
        "label": signature.label,
        "key": signature.key,
        "points": len(rows),
        "refused": sum(row.measurement.status == "refused" for row in rows),
        "channels_in": [min(row.channels_in for row in rows), max(row.channels_in for row in rows)],
        "channels_out": [min(row.channels_out for row in rows), max(row.channels_out for row in rows)],
        "latency_ms": [min(good.values()), max(good.values())] if good else None,
        "multiples": [pattern.step for pattern in patterns],
    }
    if with_points:
        summary["measurements"] = [
            {"channels_in": row.channels_in, "channels_out": row.channels_out, **vars(row.measurement)} for row in rows
        ]
    return summary


def _show_text(document: dict[str, Any], *, with_points: bool) -> str:
    from compressor.cli.tables import table as draw

    def span(ends: list[float] | None) -> str:
        return "-" if ends is None else " to ".join(f"{end:.4g}" for end in ends)

    title = document["target"]["label"]
    parts = []
    if with_points:
        names = ("channels_in", "channels_out", "median_ms", "spread", "repeats", "status", "error")
        heads = ("in", "out", "median ms", "spread", "repeats", "status", "error")
        for entry in document["signatures"]:
            cells = [[took[name] for name in names] for took in entry["measurements"]]
            parts.append(draw(entry["label"], heads, cells))
    else:
        heads = ("signature", "points", "refused", "in", "out", "latency ms", "multiples in, out")
        cells = []
        for entry in document["signatures"]:
            spans = [span(entry[name]) for name in ("channels_in", "channels_out", "latency_ms")]
            multiples = ", ".join(map(str, entry["multiples"]))
            cells.append([entry["label"], entry["points"], entry["refused"], *spans, multiples])
        parts.append(draw(title, heads, cells))
    for model, found in document["calibrations"].items():
        errors = ", ".join(f"{name} {value:.4g}" for name, value in found["held_out"].items())
        parts.append(f"Calibrated for {model} ({found['measured_at']}); on held-out networks: {errors or 'not tested'}")
    return "\n".join(parts)


def _emit_merge(report: MergeReport, path: str, output: Output) -> None:
    document = {
        "path": path,
        "added": report.added,
        "replaced": report.replaced,
        "kept": report.kept,
        "calibrations": report.calibrations,
        "conflicts": [vars(conflict) for conflict in report.conflicts],
        "damaged": report.damaged,
    }

    def text() -> str:
        from compressor.cli.tables import table as draw

        lines = [f"{report.added:,} points added, {report.replaced:,} replaced, {report.kept:,} kept as they were."]
        lines += [f"{name} is damaged: only what could be read of it was taken." for name in report.damaged]
        if report.conflicts:
            cells = [list(vars(conflict).values()) for conflict in report.conflicts]
            heads = ("target", "signature", "in", "out", "kept ms", "dropped ms")
            lines.append(draw("Good measurements that differ by more than 10 %", heads, cells, limit=20))
        return "\n".join(lines)

    output.emit(document, text)
