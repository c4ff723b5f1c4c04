"""Image files of all kinds come out as a viewer shows them, or are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from compressor.data.images import listed, read_rgb, upright_size
from compressor.errors import DataError

RAMP = np.linspace(0, 65535, 6 * 8).reshape(6, 8)
ORIENTATION = 274


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_keep_their_levels(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(RAMP.astype(np.uint16)).save(file)
    found = np.asarray(read_rgb(file))
    assert found.shape == (6, 8, 3)
    assert np.abs(found.astype(float) - (RAMP / 257)[..., None]).max() <= 1


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_what_has_no_known_white_is_refused(tmp_path: Path, kind: type[np.generic]) -> None:
    file = tmp_path / "a.tif"
    Image.fromarray(RAMP.astype(kind)).save(file)
    with pytest.raises(DataError, match=r"32 bits a channel .* convert it to 8 or 16 bits"):
        read_rgb(file)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright(tmp_path: Path, orientation: int) -> None:
    file, exif = tmp_path / "a.png", Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    stored.save(file, exif=exif)
    with Image.open(file) as opened:
        upright = ImageOps.exif_transpose(opened)
        assert upright_size(opened) == upright.size
    assert np.array_equal(np.asarray(read_rgb(file)), np.asarray(upright))
    assert np.array_equal(np.asarray(read_rgb(file, upright.size)), np.asarray(upright))
    assert np.array_equal(np.asarray(read_rgb(file, (99, 1))), np.asarray(upright)), "it fits neither"
    if orientation > 4:
        assert np.array_equal(np.asarray(read_rgb(file, (8, 6))), np.asarray(stored)), "annotated as it is stored"


def test_hidden_files_are_none_of_the_users(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.JPG", "._a.png", ".ipynb_checkpoints/a.png", "b/__MACOSX/c.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [str(file.relative_to(tmp_path)) for file in listed(tmp_path)] == ["a.png", "b/c.JPG"]
