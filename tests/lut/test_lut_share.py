from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressor.cli import main
from lut import Calibration, InvalidKeyError, LatencyTable, LutError, Measurement, MissingPackageError, Row
from lut.table.share import merge, merge_rows, read_csv, read_parquet, write_csv, write_parquet
from tests.lut.lut_devices import CONV, OTHER, POOL, TARGET, took

measurements = st.one_of(
    st.builds(
        Measurement,
        median_ms=st.floats(1e-6, 1e6),
        spread=st.floats(0, 10),
        repeats=st.integers(0, 10**6),
        status=st.sampled_from(["ok", "noisy"]),
        measured_at=st.just("2026-01-31T12:00:00Z"),
    ),
    st.text(max_size=40).map(Measurement.refused),
)
points = st.dictionaries(st.integers(1, 10**5), measurements, max_size=8)


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    table = LatencyTable(tmp_path / "lut.sqlite")
    table.put(TARGET, CONV, (16, 32), took(1.25))
    table.put(TARGET, CONV, (16, 64), Measurement.refused('no "kernel", sorry'))
    table.put(OTHER, POOL, (8, 8), took(0.1))
    return table


@given(points)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_csv_brings_back_every_digit(tmp_path: Path, found: dict[int, Measurement]) -> None:
    file = tmp_path / "shared.csv"
    (tmp_path / "lut.sqlite").unlink(missing_ok=True)
    with LatencyTable(tmp_path / "lut.sqlite") as table:
        table.put_rows(Row(TARGET, POOL, size, size, measurement) for size, measurement in found.items())
        assert write_csv(table, file) == len(found)
        assert read_csv(file) == table.rows()


def test_csv_of_one_target(table: LatencyTable, tmp_path: Path) -> None:
    assert write_csv(table, tmp_path / "one.csv", OTHER) == 1
    assert [row.target for row in read_csv(tmp_path / "one.csv")] == [OTHER]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("old", "new"),
    [("1.25", "fast"), ("1.25", "-1"), (",ok,", ",fine,"), ("16,32", "0,32"), ("conv2d", "conv2d\\"), (",20,", ",")],
)
def test_a_broken_csv_is_refused_with_its_line(table: LatencyTable, tmp_path: Path, old: str, new: str) -> None:
    file = tmp_path / "shared.csv"
    write_csv(table, file)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(InvalidKeyError, match=r"shared.csv, line \d+"):
        read_csv(file)


def test_files_that_are_no_csv_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    with pytest.raises(LutError, match="cannot be read"):
        read_csv(file)
    file.write_text("a,b\n1,2\n")
    with pytest.raises(InvalidKeyError, match="lacks the columns target"):
        read_csv(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidKeyError):
        read_csv(file)


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed")
def test_parquet_without_pyarrow_says_what_to_install(table: LatencyTable, tmp_path: Path) -> None:
    with pytest.raises(MissingPackageError, match="pip install"):
        write_parquet(table, tmp_path / "a.parquet")
    with pytest.raises(MissingPackageError, match="pip install"):
        read_parquet(tmp_path / "a.parquet")


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet_brings_everything_back(table: LatencyTable, tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    assert write_parquet(table, file) == 3
    assert read_parquet(file) == table.rows()
    file.write_bytes(b"PAR1 not really")
    with pytest.raises(InvalidKeyError):
        read_parquet(file)
    with LatencyTable(tmp_path / "empty.sqlite") as empty:
        assert write_parquet(empty, file) == 0
    assert read_parquet(file) == []


def test_of_two_rows_the_better_stays_and_contradictions_are_reported(tmp_path: Path) -> None:
    with LatencyTable(tmp_path / "a.sqlite") as table:
        for size in (8, 16, 24, 32):
            table.put(TARGET, CONV, (size, 8), took(1.0, repeats=20))
        incoming = [
            Row(TARGET, CONV, 8, 8, took(1.02, repeats=40)),  # longer, agrees
            Row(TARGET, CONV, 16, 8, took(2.0, repeats=40)),  # longer, does not agree
            Row(TARGET, CONV, 24, 8, took(2.0, repeats=10)),  # shorter, does not agree
            Row(TARGET, CONV, 32, 8, Measurement.refused("no")),
            Row(TARGET, CONV, 40, 8, took(5.0)),
        ]
        report = merge_rows(table, incoming)
        assert (report.added, report.replaced, report.kept) == (1, 2, 2)
        kept = {point[0]: measurement.median_ms for point, measurement in table.points(TARGET, CONV).items()}
        assert kept == {8: 1.02, 16: 2.0, 24: 1.0, 32: 1.0, 40: 5.0}
        said = [(conflict.channels_in, conflict.kept_ms, conflict.dropped_ms) for conflict in report.conflicts]
        assert said == [(16, 2.0, 1.0), (24, 1.0, 2.0)]
        again = merge_rows(table, table.rows())
        assert (again.added, again.replaced, again.kept) == (0, 0, 5)


def test_merging_files_takes_calibrations_and_leaves_the_sources_alone(table: LatencyTable, tmp_path: Path) -> None:
    old = Calibration({"scale": 1.0}, {}, measured_at="2026-01-01T00:00:00Z")
    new = Calibration({"scale": 2.0}, {}, measured_at="2026-02-01T00:00:00Z")
    table.put_calibration(TARGET, "resnet18", new)
    table.close()
    with LatencyTable(tmp_path / "b.sqlite") as other:
        other.put_calibration(TARGET, "resnet18", old)
        report = merge(other, [table.path])
        assert (report.added, report.calibrations) == (3, 1)
        assert other.calibrations(TARGET) == {"resnet18": new}
        assert merge(other, [table.path]).calibrations == 0
        assert other.rows() == table.rows()
        with pytest.raises(LutError, match="is the table to merge into"):
            merge(other, [other.path])
        with pytest.raises(LutError, match="There is no latency table"):
            merge(other, [tmp_path / "missing.sqlite"])


def test_what_can_still_be_read_of_a_damaged_table_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with LatencyTable(path) as table:
        table.put_rows(Row(TARGET, CONV, size, 8, took(float(size))) for size in range(1, 2001))
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        file.seek(4096 * (pages * 2 // 3))
        file.write(b"\xa5" * 4096)
    with LatencyTable(path) as table:
        assert table.set_aside is not None
        report = merge(table, [table.set_aside])
        assert report.damaged == [str(table.set_aside)]
        rows = table.rows()
        assert 1000 < len(rows) < 2000
        assert all(row.measurement.median_ms == row.channels_in for row in rows)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_line_lists_shows_and_shares(
    table: LatencyTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.put_calibration(TARGET, "resnet18", Calibration({"scale": 1.0}, {"mean_error": 0.031}))
    table.close()
    lut = ("--lut", str(table.path))
    code, out, _ = run(capsys, "lut", "list", *lut, "--format", "json")
    listed = json.loads(out)
    assert code == 0
    assert [(entry["points"], entry["refused"]) for entry in listed["targets"]] == [(2, 1), (1, 0)]
    assert "simulated 1.1" in run(capsys, "lut", "list", *lut)[1]

    code, out, _ = run(capsys, "lut", "show", *lut, "--target", "simulated 1.0", "--format", "json")
    shown = json.loads(out)
    assert shown["signatures"][0]["multiples"] == [1, 1]
    assert shown["calibrations"]["resnet18"]["held_out"] == {"mean_error": 0.031}
    text = run(capsys, "lut", "show", *lut, "--target", "simulated 1.0", "--signature", "CONV2D 3x3")[1]
    assert "1.25" in text
    assert "sorry" in text
    assert "0.031" in text

    shared = tmp_path / "shared.csv"
    assert run(capsys, "lut", "export", str(shared), *lut)[0] == 0
    fresh = ("--lut", str(tmp_path / "fresh.sqlite"))
    assert "3 points added" in run(capsys, "lut", "import", str(shared), *fresh)[1]
    code, out, _ = run(capsys, "lut", "merge", str(table.path), *fresh, "--format", "json")
    assert (json.loads(out)["added"], json.loads(out)["kept"], json.loads(out)["calibrations"]) == (0, 3, 1)


def test_the_command_line_says_what_is_wrong(
    table: LatencyTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.close()
    lut = ("--lut", str(table.path))
    for arguments, said in (
        (("list", "--lut", str(tmp_path / "missing.sqlite")), "There is no latency table"),
        (("show", *lut), "Name a target by --target"),
        (("show", *lut, "--target", "tpu"), "0 targets contain 'tpu'"),
        (("show", *lut, "--target", "1.1", "--signature", "conv"), "No signature"),
        (("export", "a.txt", *lut), ".csv or .parquet"),
        (("import", str(tmp_path / "missing.csv"), *lut), "cannot be read"),
    ):
        code, out, err = run(capsys, "lut", *arguments)
        assert (code != 0, out) == (True, "")
        assert said in err
        assert len(err.strip().splitlines()) == 1
