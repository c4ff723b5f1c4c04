from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lut import (
    Calibration,
    CorruptTableError,
    DiskFullError,
    InvalidKeyError,
    LatencyTable,
    Measurement,
    NotATableError,
    Row,
    TableAccessError,
    TableBusyError,
    TableVersionError,
    UnknownTargetError,
    default_path,
)
from tests.lut.lut_devices import CONV, OTHER, POOL, TARGET, took

HERE = Path(__file__).resolve().parent
WRITER = """
import sys
from tests.lut.lut_devices import CONV, TARGET, took
from lut import LatencyTable
path, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with LatencyTable(path) as table:
    for number in range(first, first + count):
        table.put(TARGET, CONV, (number, 8), took(float(number)))
        print(number, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lut.sqlite"


def writer(path: Path, first: int, count: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent.parent)}
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(first), str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def fill(path: Path, count: int = 300) -> None:
    with LatencyTable(path) as table:
        for number in range(1, count + 1):
            table.put(TARGET, CONV, (number, 8), took(float(number)))


def damage(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * page)
        file.write(b"\xa5" * 4096)


def test_what_was_put_comes_back_after_reopening(path: Path) -> None:
    refused = Measurement.refused("no kernel\nfor this")
    with LatencyTable(path) as table:
        table.put(TARGET, CONV, (16, 32), took(1.25))
        table.put(TARGET, CONV, (16, 64), refused)
        table.put(TARGET, POOL, (16, 16), took(0.5))
    with LatencyTable(path) as table:
        assert table.targets() == [TARGET]
        assert table.signatures(TARGET) == sorted([CONV, POOL], key=lambda signature: signature.key)
        assert table.points(TARGET, CONV) == {(16, 32): took(1.25), (16, 64): refused}
        assert table.get(TARGET, POOL, (16, 16)) == took(0.5)
        assert table.get(TARGET, POOL, (17, 17)) is None
        assert table.set_aside is None
    assert refused.error == "no kernel for this"


def test_rows_of_another_version_are_never_returned_and_the_error_names_what_there_is(path: Path) -> None:
    with LatencyTable(path) as table:
        with pytest.raises(UnknownTargetError, match="is empty"):
            table.points(TARGET, CONV)
        table.put(TARGET, CONV, (16, 32), took(1.25))
        with pytest.raises(UnknownTargetError, match=r"simulated 1\.0.*other runtime_version"):
            table.points(OTHER, CONV)
        table.register(OTHER)
        assert table.points(OTHER, CONV) == {}


def test_a_good_row_gives_way_to_a_good_one_only(path: Path) -> None:
    with LatencyTable(path) as table:
        for measurement, kept in (
            (Measurement.refused("busy"), None),
            (Measurement(3.0, 0.5, 5, "noisy"), 3.0),
            (took(1.0), 1.0),
            (Measurement(9.0, 0.5, 5, "noisy"), 1.0),
            (Measurement.refused("the device is gone"), 1.0),
            (took(2.0, repeats=1), 2.0),
        ):
            table.put(TARGET, CONV, (8, 8), measurement)
            assert table.points(TARGET, CONV)[8, 8].median_ms == kept


def test_calibrations_and_deleting(path: Path) -> None:
    calibration = Calibration({"scale": 1.02, "overhead_ms": 0.1}, {"mean_error": 0.03}, {"subnets": [1, 2]})
    with LatencyTable(path) as table:
        table.put(TARGET, CONV, (8, 8), took(1.0))
        table.put(TARGET, POOL, (8, 8), took(1.0))
        table.put_calibration(TARGET, "resnet18", calibration)
        assert table.calibrations(TARGET) == {"resnet18": calibration}
        with pytest.raises(InvalidKeyError, match="JSON"):
            table.put_calibration(TARGET, "resnet18", Calibration({"scale": float("nan")}, {}))
        assert table.delete(TARGET, CONV) == 1
        assert table.signatures(TARGET) == [POOL]
        assert table.delete(TARGET) == 1
        assert table.targets() == []


def test_eight_processes_write_into_one_new_table_at_once(path: Path) -> None:
    count = 40
    running = [writer(path, 1 + number * count, count) for number in range(8)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
    with LatencyTable(path) as table:
        points = table.points(TARGET, CONV)
        assert {point: measurement.median_ms for point, measurement in points.items()} == {
            (number, 8): float(number) for number in range(1, 1 + 8 * count)
        }
        assert len(table.targets()) == 1
    assert sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_killed_while_writing_loses_nothing_that_was_stored(path: Path) -> None:
    stored = 0
    for kills in range(3):
        process = writer(path, stored + 1, 100_000)
        assert process.stdout is not None
        for _ in range(25 + 10 * kills):
            stored = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        stored = max([stored, *map(int, process.stdout.read().split("\n")[:-1])])
        process.communicate()
        with LatencyTable(path) as table:
            points = table.points(TARGET, CONV)
            assert table.set_aside is None
        # At most the one row whose number it had no time to print is there beyond what it said.
        assert set(range(1, stored + 1)) <= {first for first, _ in points} <= set(range(1, stored + 2))


@pytest.mark.parametrize("how", ["page", "half", "header", "text"])
def test_a_damaged_table_is_set_aside_whole_and_a_new_one_begun(
    path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(path)
    if how == "page":
        damage(path, 3)
    elif how == "half":
        os.truncate(path, path.stat().st_size // 2 + 100)
    elif how == "header":
        path.write_bytes(b"\0" * 200 + path.read_bytes()[200:])
    else:
        path.write_text("not a database at all, " * 100)
    before = path.read_bytes()
    with caplog.at_level(logging.WARNING), LatencyTable(path) as table:
        assert table.targets() == []
        table.put(TARGET, CONV, (8, 8), took(1.0))
        assert table.set_aside is not None
        assert table.set_aside.read_bytes() == before
        assert str(table.set_aside) in caplog.text
        aside = table.set_aside
    with LatencyTable(path) as table:
        assert table.set_aside is None
        assert len(table.points(TARGET, CONV)) == 1
    assert aside.exists()


def test_damage_that_shows_while_the_table_is_open_does_not_stop_the_work(path: Path) -> None:
    fill(path)
    with LatencyTable(path) as table:
        for page in range(1, path.stat().st_size // 4096):
            damage(path, page)
        connection = table._database._connection
        assert connection is not None
        connection.execute("PRAGMA shrink_memory")  # or SQLite serves what it has read before
        for number in range(400, 800):
            table.put(TARGET, CONV, (number, 8), took(1.0))
        assert table.set_aside is not None
        assert (799, 8) in table.points(TARGET, CONV)


def test_several_processes_that_find_the_damage_set_it_aside_once(path: Path) -> None:
    fill(path)
    damage(path, 2)
    running = [writer(path, 1 + number * 10, 10) for number in range(4)]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    for process in running:
        process.communicate()
    aside = [name for name in os.listdir(path.parent) if "corrupt" in name and not name.endswith(("-wal", "-shm"))]
    assert len(aside) == 1
    with LatencyTable(path) as table:
        assert len(table.points(TARGET, CONV)) == 40


def test_the_log_of_a_damaged_table_moves_with_it(path: Path) -> None:
    process = writer(path, 1, 100_000)
    assert process.stdout is not None
    for _ in range(50):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    log = Path(f"{path}-wal")
    size = log.stat().st_size
    path.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    with LatencyTable(path) as table:
        # SQLite may serve the whole table from the log; either way nothing of the log is lost.
        if table.set_aside is not None:
            assert Path(f"{table.set_aside}-wal").stat().st_size == size
        else:
            assert len(table.points(TARGET, CONV)) >= 50


def test_an_empty_file_becomes_a_table(path: Path) -> None:
    path.touch()
    with LatencyTable(path) as table:
        table.put(TARGET, CONV, (8, 8), took(1.0))
        assert table.set_aside is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("median_ms", -1.0),
        ("median_ms", float("inf")),
        ("median_ms", "fast"),
        ("median_ms", None),
        ("spread", "wide"),
        ("repeats", "often"),
        ("repeats", -3),
        ("status", "fine"),
        ("status", b"\xff\xfe"),
    ],
)
def test_a_bad_row_costs_itself_alone(path: Path, caplog: pytest.LogCaptureFixture, column: str, value: object) -> None:
    with LatencyTable(path) as table:
        for n in (8, 16, 24):
            table.put(TARGET, CONV, (n, 8), took(float(n)))
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE points SET {column} = ? WHERE channels_in = 16", (value,))
    database.close()
    with LatencyTable(path) as table:
        assert table.points(TARGET, CONV) == {(8, 8): took(8.0), (24, 8): took(24.0)}
        assert [row.channels_in for row in table.rows(TARGET)] == [8, 24]
        assert table.get(TARGET, CONV, (16, 8)) is None
        assert len([r for r in caplog.records if "cannot be used" in r.getMessage()]) == 1
        table.put(TARGET, CONV, (16, 8), took(16.0))
        assert table.points(TARGET, CONV)[16, 8] == took(16.0)
        assert table.set_aside is None


@pytest.mark.parametrize("body", ["", "{", "[]", '{"coefficients": 3}', "null", "[" * 5000])
def test_a_bad_calibration_costs_itself_alone(path: Path, body: str) -> None:
    good = Calibration({"conv": 1.1}, {"mean_error": 0.02}, {})
    with LatencyTable(path) as table:
        table.put(TARGET, CONV, (8, 8), took(1.0))
        table.put_calibration(TARGET, "good", good)
        table.put_calibration(TARGET, "bad", good)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE calibrations SET body = ? WHERE model = 'bad'", (body,))
    database.close()
    with LatencyTable(path) as table:
        assert table.calibrations(TARGET) == {"good": good}


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    fill(path, 2)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '7' WHERE name = 'schema_version'")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(TableVersionError, match=r"schema version 7.*up to 1.*update"):
        LatencyTable(path)
    assert path.read_bytes() == before


def test_files_that_are_no_tables_are_refused_and_left_alone(tmp_path: Path) -> None:
    foreign, text = tmp_path / "other.sqlite", tmp_path / "results.csv"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE people (name TEXT)")
    connection.close()
    text.write_text("a,b\n1,2\n")
    for file in (foreign, text, tmp_path):
        with pytest.raises(NotATableError):
            LatencyTable(file)
    assert text.read_text() == "a,b\n1,2\n"


def test_a_full_disk_is_one_clear_error_and_what_was_stored_stays(path: Path) -> None:
    fill(path, 20)
    with LatencyTable(path) as table:
        connection = table._database._connection
        assert connection is not None
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own way to play a full disk
        rows = [Row(TARGET, CONV, number, 8, took(1.0)) for number in range(100, 3000)]
        with pytest.raises(DiskFullError, match=r"No space left.*free some"):
            table.put_rows(rows)
        assert len(table.points(TARGET, CONV)) == 20
    with LatencyTable(path) as table:
        table.put(TARGET, CONV, (9000, 8), took(1.0))


def test_reading_only_never_changes_a_file(path: Path) -> None:
    with pytest.raises(TableAccessError, match="There is no latency table"):
        LatencyTable(path, read_only=True)
    fill(path)
    with LatencyTable(path, read_only=True) as table:
        assert len(table.points(TARGET, CONV)) == 300
        with pytest.raises(TableAccessError, match="reading only"):
            table.put(TARGET, CONV, (8, 8), took(1.0))
    damage(path, 2)
    with pytest.raises(CorruptTableError):
        LatencyTable(path, read_only=True).rows()
    assert not [name for name in os.listdir(path.parent) if "corrupt" in name]


def test_a_lock_that_is_never_released_is_reported(path: Path) -> None:
    fill(path, 2)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with LatencyTable(path, timeout_s=0.1) as table, pytest.raises(TableBusyError, match="locked"):
        table.put(TARGET, CONV, (8, 8), took(1.0))
    blocker.close()


def test_a_failed_transaction_stores_nothing(path: Path) -> None:
    with LatencyTable(path) as table:
        table.put(TARGET, CONV, (8, 8), took(1.0))

        def stop(row: object, there: object) -> bool:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            table.update(stop, table.rows())
        table.put(TARGET, CONV, (16, 8), took(1.0))
        assert len(table.rows()) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_table_opened_before_a_fork_works_in_both_processes(path: Path) -> None:
    with LatencyTable(path) as table:
        table.put(TARGET, CONV, (1, 8), took(1.0))
        child = os.fork()
        for number in range(2, 30):
            table.put(TARGET, CONV, (number if child else 100 + number, 8), took(1.0))
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert len(table.points(TARGET, CONV)) == 57


def test_a_table_that_was_deleted_by_hand_is_begun_again(path: Path) -> None:
    with LatencyTable(path) as table:
        table.put(TARGET, CONV, (1, 8), took(1.0))
        for name in os.listdir(path.parent):
            (path.parent / name).unlink()
        time.sleep(0.01)
        table.put(TARGET, CONV, (2, 8), took(1.0))
    with LatencyTable(path) as table:
        assert (2, 8) in table.points(TARGET, CONV)


def test_the_default_place_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "compressor" / "lut.sqlite"
    with LatencyTable() as table:
        assert table.path == default_path()
    assert default_path().exists()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_path() == tmp_path / "home" / ".cache" / "compressor" / "lut.sqlite"
