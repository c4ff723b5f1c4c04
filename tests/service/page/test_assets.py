"""Files of others are what their makers published; nothing is loaded from elsewhere; everything is in the wheel."""

from __future__ import annotations

import hashlib
import re
import tomllib
from glob import glob
from pathlib import Path

import pytest

from compressor.service.page import assets
from compressor.service.page.rendering import TEMPLATES

ROOT = Path(__file__).resolve().parents[3]
VENDOR = assets.FOLDER / "vendor"


def test_files_of_others_have_their_checksums() -> None:
    said = assets.checksums()
    there = {file.name for file in VENDOR.iterdir() if file.name != assets.SUMS.name and file.suffix != ".md"}
    assert there == set(said)
    for name, digest in said.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, f"{name} was changed"


def test_files_of_others_come_with_their_licences() -> None:
    makers = {name.split(".")[0] for name in assets.checksums()}
    for maker in makers:
        licence = VENDOR / f"{maker}.LICENSE.txt"
        assert licence.is_file(), f"{maker} has no licence"
        assert len(licence.read_text(encoding="utf-8")) > 200


@pytest.mark.parametrize("file", sorted(TEMPLATES.glob("*.html")), ids=lambda file: file.name)
def test_templates_have_no_inline_scripts_or_styles_and_load_nothing_from_elsewhere(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\ssrc=)", text), "an inline script"
    assert not re.search(r"\son[a-z]+\s*=", text), "an inline handler"
    assert not re.search(r"\sstyle\s*=|<style", text), "an inline style"
    assert not re.search(r"""(src|href|action)=["']?(https?:)?//""", text), "something from elsewhere"
    assert "|safe" not in text
    assert "autoescape false" not in text


@pytest.mark.parametrize("file", sorted(assets.FOLDER.glob("*.*")), ids=lambda file: file.name)
def test_own_files_load_nothing_from_elsewhere(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "//cdn" not in text
    assert not re.search(r"https?://", text)
    assert "eval(" not in text


def test_all_of_it_is_in_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    package = ROOT / "compressor"
    given = {
        name for each in settings["package-data"]["compressor"] for name in glob(each, root_dir=package, recursive=True)
    }
    for file in [*TEMPLATES.rglob("*"), *assets.FOLDER.rglob("*")]:
        if file.is_file():
            assert file.relative_to(package).as_posix() in given, f"{file.name} is not in package-data"


def test_addresses_have_checksums() -> None:
    for name, asset in assets.assets().items():
        assert assets.address(name) == f"/static/{name}?v={asset.sha256[:12]}"
    with pytest.raises(KeyError):
        assets.address("../secret")
