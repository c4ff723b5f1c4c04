"""Archives of images: unpacked where they are what they say, refused where they are not."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from compressor.errors import DataError
from compressor.service.worker.unpack import unpack_images


def archive(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries:
            file.writestr(name, data)
    return path


def test_images_are_unpacked_and_nothing_else(tmp_path: Path) -> None:
    made = archive(
        tmp_path / "a.zip",
        ("train/cat/1.jpg", b"1"),
        ("train/dog/2.PNG", b"2"),
        ("train/__background__/3.png", b"5"),
        ("train/dog/evil.py", b"import os"),
        ("__MACOSX/train/cat/1.jpg", b"3"),
        ("train/.ipynb_checkpoints/1.jpg", b"4"),
        ("readme.txt", b"text"),
    )
    assert unpack_images(made, tmp_path / "out", most_bytes=1000) == 3
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert found == ["train/__background__/3.png", "train/cat/1.jpg", "train/dog/2.PNG"]


@pytest.mark.parametrize("name", ["../1.jpg", "/etc/1.jpg", "a/../../1.jpg", "..\\1.jpg", "C:\\1.jpg"])
def test_paths_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="leads out"):
        unpack_images(archive(tmp_path / "a.zip", (name, b"1")), tmp_path / "out", most_bytes=1000)
    assert not list(tmp_path.rglob("*.jpg"))


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("cat/1.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(DataError, match="links are not taken"):
        unpack_images(archive(tmp_path / "a.zip", (link, b"/etc/passwd")), tmp_path / "out", most_bytes=1000)


def test_bombs_are_refused_by_what_comes_out(tmp_path: Path) -> None:
    made = archive(tmp_path / "a.zip", ("cat/1.jpg", b"\0" * (50 << 20)))
    assert made.stat().st_size < 100_000
    with pytest.raises(DataError, match="more than 1 MiB"):
        unpack_images(made, tmp_path / "out", most_bytes=1 << 20)
    many = archive(tmp_path / "b.zip", *((f"cat/{number}.jpg", b"1") for number in range(20)))
    with pytest.raises(DataError, match="20 entries; 10 are the most"):
        unpack_images(many, tmp_path / "out2", most_bytes=1 << 20, most_files=10)


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack_images(tmp_path / "a.zip", tmp_path / "out", most_bytes=1000)
    with pytest.raises(DataError, match="no images"):
        unpack_images(archive(tmp_path / "b.zip", ("a.txt", b"")), tmp_path / "out", most_bytes=1000)
    twice = archive(tmp_path / "c.zip", ("cat/1.jpg", b"1"), ("cat//1.jpg", b"2"))
    with pytest.raises(DataError, match="twice"):
        unpack_images(twice, tmp_path / "out2", most_bytes=1000)
