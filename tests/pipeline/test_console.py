"""Messages of a job: where they go, what quiet leaves, and the times of stages."""

from __future__ import annotations

import io

import pytest

from compressor.pipeline.console import Console


def test_stages_are_announced_and_timed() -> None:
    stream = io.StringIO()
    console = Console(stream)
    with console.stage("Search"):
        pass
    with console.stage("Search"):
        pass
    assert list(console.stage_seconds) == ["Search"]
    assert stream.getvalue().startswith("Search ...\nSearch: ")


def test_a_stage_that_fails_is_not_counted() -> None:
    console = Console(io.StringIO())
    with pytest.raises(ValueError, match="x"), console.stage("Trim"):
        raise ValueError("x")
    assert console.stage_seconds == {}


def test_quiet_keeps_warnings_and_each_is_said_once() -> None:
    stream = io.StringIO()
    console = Console(stream, quiet=True)
    console.info("hidden")
    console.warn("random weights")
    console.warn("random weights")
    assert stream.getvalue() == "Warning: random weights\n"
    assert console.warnings == ["random weights"]
    assert console.progress("train") is None


def test_stderr_unless_told_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    Console().info("hello")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")
