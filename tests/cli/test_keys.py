"""``compress keys``."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from compressor.cli.app import run

pytest.importorskip("sqlalchemy")


def keys(capsys: pytest.CaptureFixture[str], folder: Path, *words: str, code: int = 0) -> tuple[str, str]:
    assert run(["keys", *words, "--data-dir", str(folder)]) == code
    said = capsys.readouterr()
    return said.out, said.err


def test_keys_are_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = keys(capsys, tmp_path / "data", "create", "ann", "--project", "vision", "--scopes", "read, submit")
    key = out.strip()
    assert key.startswith("cmpr_")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert key not in err
    assert "not shown again" in err
    made = json.loads(
        keys(capsys, tmp_path / "data", "create", "farm", "--scopes", "agent", "--all-projects", "--format", "json")[0]
    )
    assert (made["name"], made["project"], made["scopes"]) == ("farm", None, ["agent"])
    listed, _ = keys(capsys, tmp_path / "data", "list")
    assert "ann" in listed
    assert "vision" in listed
    assert key not in listed
    assert made["key"] not in listed
    out, _ = keys(capsys, tmp_path / "data", "revoke", "ann")
    assert out.startswith("Revoked ann")
    entries = json.loads(keys(capsys, tmp_path / "data", "list", "--format", "json")[0])["keys"]
    assert [entry["revoked_at"] is not None for entry in entries] == [True, False]
    audit = json.loads(keys(capsys, tmp_path / "data", "audit", "--format", "json")[0])["entries"]
    assert [entry["action"] for entry in audit] == ["key.create", "key.create", "key.revoke"]
    assert key not in json.dumps(audit)
    assert "key.revoke" in keys(capsys, tmp_path / "data", "audit", "--limit", "1")[0]


def test_what_cannot_be_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    for words in (["list"], ["revoke", "ann"], ["audit"]):
        _, err = keys(capsys, folder, *words, code=2)
        assert "There is no database" in err
        assert not folder.exists()
    keys(capsys, folder, "create", "ann")
    for words, said in (
        (["create", "ann"], "There is a key named 'ann'"),
        (["create", "bob", "--scopes", "root"], "There is no scope 'root'"),
        (["create", "bob", "--scopes", ","], "A key needs a scope"),
        (["create", "bob", "--project", "A/B"], "A project cannot be named 'A/B'"),
        (["create", "bob", "--project", "a", "--all-projects"], "one project or for all"),
        (["create", "a\nb"], "cannot be named"),
        (["revoke", "bob"], "There is no key 'bob'"),
        (["list", "--database", "mysql://x"], "expected sqlite or postgresql"),
    ):
        _, err = keys(capsys, folder, *words, code=2)
        assert said in err
        assert err.count("\n") == 1
    assert len(json.loads(keys(capsys, folder, "list", "--format", "json")[0])["keys"]) == 1
