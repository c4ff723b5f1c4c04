"""Times, durations and sizes as the page says them. Times are UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from compressor.report import wording


def utc(moment: datetime) -> datetime:
    """An aware time in UTC; one without a zone is taken to be in UTC already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def iso(moment: datetime) -> str:
    """As HTML's ``datetime`` takes it."""
    return utc(moment).strftime("%Y-%m-%dT%H:%M:%SZ")


def written(moment: datetime) -> str:
    """2026-11-30 07:12 UTC."""
    return utc(moment).strftime("%Y-%m-%d %H:%M UTC")


def relative(moment: datetime, now: datetime) -> str:
    """How long ago, or how long until: "just now", "5 min ago", "in 2 h". ``page.js`` says it alike."""
    seconds = (utc(now) - utc(moment)).total_seconds()
    size = abs(seconds)
    if size < 10:
        return "just now"
    for limit, divisor, unit in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h"), (float("inf"), 86400, "d")):
        if size < limit:
            said = f"{int(size // divisor)} {unit}"
            return f"{said} ago" if seconds > 0 else f"in {said}"
    raise AssertionError  # the last limit is infinite


def duration(began: datetime | None, ended: datetime | None, now: datetime) -> str:
    """How long something took, or takes so far; empty before it began."""
    if began is None:
        return ""
    return wording.seconds(max(0.0, (utc(ended or now) - utc(began)).total_seconds()))


def number(value: float) -> str:
    """A number of a curve or a table, in four digits."""
    return f"{value:.4g}"


def score_text(value: float, metric: str) -> str:
    """Accuracies and precisions as percentages, errors as they are."""
    return wording.percent(value, 2) if "accuracy" in metric or "precision" in metric else number(value)
