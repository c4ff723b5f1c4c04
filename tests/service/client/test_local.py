"""What a recipe names on this machine, ready to be sent, and what is refused before anything is."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from compressor.errors import UsageError
from compressor.service.client.local import local_files


def test_names_are_left_alone() -> None:
    for data in ("digits", "upload:ab12", "cifar10", "listops:n=2,length=3", "pkg.module:make", None):
        for weights in ("default", "none", "upload:0a"):
            with local_files({"model": "resnet18", "weights": weights, "data": data, "start": "job:1"}) as found:
                assert found == []


def test_weights_and_arrays_are_sent_as_they_are(tmp_path: Path) -> None:
    weights, arrays = tmp_path / "w.safetensors", tmp_path / "d.npz"
    weights.write_bytes(b"weights")
    arrays.write_bytes(b"arrays" * 1000)
    with local_files({"model": "m", "weights": str(weights), "data": f"npz:{arrays}"}) as found:
        assert [(each.key, each.kind, each.name, each.bytes) for each in found] == [
            ("weights", "weights", "w.safetensors", 7),
            ("data", "arrays", "d.npz", 6000),
        ]
        for each, path in zip(found, (weights, arrays), strict=True):
            each.stream.seek(0)
            assert each.stream.read() == path.read_bytes()
            assert each.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_of_images_is_the_same_archive_whenever(tmp_path: Path) -> None:
    sums = []
    for number, folder in enumerate(("one", "two")):
        for name in ("train/cat/1.png", "train/dog/2.jpg", "val/cat/3.png"):
            file = tmp_path / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(name.encode())
            os.utime(file, (10**9 + number, 10**9 + number))
        (tmp_path / folder / "notes.txt").write_text("mine")
        with local_files({"model": "m", "data": f"imagefolder:{tmp_path / folder}"}) as (found,):
            assert (found.key, found.kind) == ("data", "images")
            sums.append(found.sha256)
            with zipfile.ZipFile(found.stream) as packed:
                assert packed.namelist() == ["train/cat/1.png", "train/dog/2.jpg", "val/cat/3.png"]
                assert packed.read("train/dog/2.jpg") == b"train/dog/2.jpg"
    assert sums[0] == sums[1]


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        ({"weights": "w.pt"}, "takes weights as .safetensors alone"),
        ({"weights": "missing.safetensors"}, "There is no file missing.safetensors"),
        ({"data": "npz:x.npz,flat"}, "as one .npz file"),
        ({"data": "npz:missing.npz"}, "There is no file missing.npz"),
        ({"data": "imagefolder:missing"}, "There is no folder"),
        ({"data": "imagefolder:."}, "has no images"),
        ({"model": "./saved"}, "is a folder of this machine"),
        ({"start": "compressed/x"}, "begins at another job of it"),
    ],
)
def test_what_cannot_be_sent_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: dict[str, str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=text), local_files({"model": "m", **recipe}):
        pass
