"""Command lines that the documents show are taken by the program as they stand there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import compressor.jobs.run
import compressor.jobs.sweeps.run
from compressor.cli.app import group

ROOT = Path(__file__).parents[2]
WORK = ("group", "sweep")
"""Commands that go on up to their work; of others arguments alone are read."""


def documents() -> Iterator[tuple[str, str]]:
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        yield path.name, re.sub(r" \\\n\s*", " ", path.read_text(encoding="utf-8"))


def lines() -> list[Any]:
    """The command lines in indented blocks; what stands in brackets is optional, and is given here."""
    found = []
    for name, text in documents():
        for line in re.findall(
            r"^ {4,}(?:[A-Z_]+=\S+ )*(?:torchrun [^#\n]*-m compressor|compress) ([^{\n]*)$", text, re.M
        ):
            words = shlex.split(re.sub(r"[\[\]]|\.\.\.", "", line), comments=True)
            found.append(pytest.param(words, id=f"{name}: {' '.join(words)[:60]}"))
    return found


def recipes(folder: Path) -> None:
    """The files that the lines name."""
    text = dict(documents())["recipes.md"]
    for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL):
        (folder / ("sweep.yaml" if "sweep" in block.splitlines()[0] else "job.yaml")).write_text(block)
    (folder / "FOLDER").mkdir()
    (folder / "FOLDER" / "recipe.yaml").write_text((folder / "job.yaml").read_text())


class TakenError(Exception):
    """The work would begin now."""


@pytest.mark.parametrize("words", lines())
def test_lines_are_taken(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    invoke = click.Command.invoke

    def read_only(self: click.Command, ctx: click.Context) -> Any:
        if self.name in WORK or isinstance(self, click.Group):
            return invoke(self, ctx)
        raise TakenError

    def begin(*_: Any, **__: Any) -> Any:
        raise TakenError

    recipes(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(click.Command, "invoke", read_only)
    monkeypatch.setattr(compressor.jobs.run, "run_job", begin)
    monkeypatch.setattr(compressor.jobs.sweeps.run, "run_sweep", begin)
    with pytest.raises(TakenError):
        group.main(words, prog_name="compress", standalone_mode=False)


def test_lines_are_found() -> None:
    assert len(lines()) > 60
