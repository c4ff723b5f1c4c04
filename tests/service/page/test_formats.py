"""Times and numbers as the page says them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from compressor.service.page import formats

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "just now"),
        (9, "just now"),
        (10, "10 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (3600, "1 h ago"),
        (86399, "23 h ago"),
        (86400 * 3, "3 d ago"),
        (-120, "in 2 min"),
    ],
)
def test_relative(seconds: int, said: str) -> None:
    assert formats.relative(NOW - timedelta(seconds=seconds), NOW) == said


def test_times_are_utc_whatever_zone_they_came_in() -> None:
    berlin = datetime(2026, 11, 30, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    assert formats.iso(berlin) == "2026-11-30T12:00:00Z"
    assert formats.written(berlin) == "2026-11-30 12:00 UTC"
    assert formats.iso(berlin.astimezone(UTC).replace(tzinfo=None)) == "2026-11-30T12:00:00Z"


def test_duration() -> None:
    assert formats.duration(None, None, NOW) == ""
    assert formats.duration(NOW - timedelta(seconds=65), None, NOW) == "1 min 5 s"
    assert formats.duration(NOW, NOW - timedelta(seconds=5), NOW) == "0.0 s", "a clock that was set back"
