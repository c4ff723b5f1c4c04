"""What an upload may hold, and what is refused with which reason."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.errors import DataError, WeightsError
from compressor.service.artefacts import checking
from compressor.service.artefacts.contents.arrays import check_arrays
from compressor.service.artefacts.contents.images import check_images
from compressor.service.artefacts.contents.weights import check_weights
from compressor.service.errors import StorageError

LIMIT = 8 << 20


def _written(tmp_path: Path, data: bytes) -> Path:
    file = tmp_path / "upload.part"
    file.write_bytes(data)
    return file


def _safetensors(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def _tensor(**values: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **values}}


def test_weights_of_safetensors_pass(tmp_path: Path) -> None:
    from safetensors.numpy import save

    check_weights(
        _written(tmp_path, save({"a": np.zeros((3, 4), np.float16), "b": np.ones(5)}, {"format": "pt"})), LIMIT
    )
    check_weights(_written(tmp_path, _safetensors(_tensor(), bytes(8))), LIMIT)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\3\4 no weights at all",
        b"\x80\x02}q\x00.",  # a pickle
        _safetensors({}),
        _safetensors({"__metadata__": {"a": "b"}}),
        _safetensors(_tensor(), bytes(7)),  # cut off
        _safetensors(_tensor(), bytes(9)),  # more than announced
        _safetensors(_tensor(), bytes(8), length=2**63),
        _safetensors(_tensor(dtype="OBJECT"), bytes(8)),
        _safetensors(_tensor(shape=[2**62, 2**62]), bytes(8)),
        _safetensors(_tensor(shape=[-1]), bytes(8)),
        _safetensors(_tensor(data_offsets=[0, 4]), bytes(8)),
        _safetensors({**_tensor(), "x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        _safetensors(b'{"w": 1, "w": 2}'),
        _safetensors(b"[" * 100_000),
        _safetensors(b"\xff\xfe{}"),
        _safetensors([1, 2]),
    ],
    ids=range(17),
)
def test_other_weights_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(WeightsError, match="safetensors"):
        check_weights(_written(tmp_path, data), LIMIT)


def _npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _zip(entries: dict[str, bytes], **options: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def test_arrays_pass(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(20, 3, 4, 4)), np.arange(20)
    check_arrays(_written(tmp_path, _npz(x_train=x, y_train=y, x_test=x, y_test=y)), LIMIT)


def _damaged(data: bytes) -> bytes:
    middle = len(data) // 3
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


_X, _Y = np.random.default_rng(0).normal(size=(20, 64)), np.arange(20)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ZIP"),
        (_npy(_X), "ZIP"),
        (_npz(x_train=_X), "lacks"),
        (_npz(x_train=_X, y_train=_Y, extra=_Y), "extra"),
        (_zip({"x_train.npy": _npy(np.array([{}], object)), "y_train.npy": _npy(_Y)}), "objects"),
        (_zip({"x_train.npy": b"\x80\x02}q\x00.", "y_train.npy": _npy(_Y)}), "npz"),
        (_zip({"x_train.npy": _npy(_X)[:-9], "y_train.npy": _npy(_Y)}), "announces"),
        (_zip({"x_train.npy": _npy(_X) + b"more", "y_train.npy": _npy(_Y)}), "announces"),
        (_npz(x_train=_X, y_train=np.array(["cat", "dog"])), "return_inverse"),
        (_npz(x_train=_X, y_train=np.array([b"cat", b"dog"])), "return_inverse"),
        (_npz(x_train=_X, y_train=np.array(["2026-01-01"], "M8[D]")), "expected numbers"),
        (_npz(x_train=_X, y_train=_Y, y_test=_Y * 1j), "complex128"),
        (_npz(x_train=_X, y_train=np.zeros(2, "i4,f4")), "expected numbers"),
        (_npz(x_train=np.zeros((20, 1 << 17)), y_train=_Y), "unpacked"),
        (_damaged(_npz(x_train=_X, y_train=_Y)), "npz"),
        (_npz(x_train=_X, y_train=_Y)[:-30], "ZIP|npz"),
        (_zip({"../x_train.npy": b"", "y_train.npy": b""}), "no name within"),
    ],
    ids=range(17),
)
def test_other_arrays_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_arrays(_written(tmp_path, data), LIMIT)


def _image(suffix: str, size: tuple[int, int] = (8, 8)) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", size, (1, 2, 3)).save(stream, {"jpg": "JPEG", "png": "PNG", "bmp": "BMP", "tiff": "TIFF"}[suffix])
    return stream.getvalue()


@pytest.mark.parametrize("name", [".DS_Store", "cat/.DS_Store", "__MACOSX/cat/._a.png", "cat/.ipynb_checkpoints/a.txt"])
def test_what_systems_leave_beside_images_is_no_matter(tmp_path: Path, name: str) -> None:
    check_images(_written(tmp_path, _zip({"cat/a.png": _image("png"), name: b"1"})), LIMIT)
    with pytest.raises(DataError, match="no images"):
        check_images(_written(tmp_path, _zip({name: b"1"})), LIMIT)


def test_images_pass(tmp_path: Path) -> None:
    entries = {
        f"train/{name}/a.{suffix}": _image(suffix) for name in ("cat", "dög") for suffix in ("jpg", "png", "bmp")
    }
    large = {"train/cat/large.tiff": _image("tiff", (200, 200))}  # its header stands at its end
    check_images(_written(tmp_path, _zip({"train/": b"", **entries, **large})), LIMIT)


def _linked() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        entry = zipfile.ZipInfo("cat/link.png")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    return stream.getvalue()


def _twice() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("cat/a.png", _image("png"))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("cat/a.png", _image("png"))
    return stream.getvalue()


def _of_many_pixels(side: int) -> bytes:
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


_BOMB = _zip({"cat/a.bmp": _image("bmp") + bytes(4 << 20)}, compression=zipfile.ZIP_DEFLATED)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ZIP"),
        (b"Rar! no zip" * 10, "ZIP"),
        (_zip({}), "no images"),
        (_zip({"a.png": _image("png")}), "class folder"),
        (_zip({"cat/a.py": b"print()"}), "by its name"),
        (_zip({"cat/.png": _image("png")}), "no images"),
        (_zip({"cat/a.png": b"<script>"}), "readable image"),
        (_zip({"cat/a.png": _of_many_pixels(9000)}), "9000 x 9000 pixels"),
        (_zip({"cat/a.png": _of_many_pixels(100_000)}), "pixels"),
        (_zip({"../cat/a.png": _image("png")}), "no name within"),
        (_zip({"/cat/a.png": _image("png")}), "no name within"),
        (_zip({"cat\\..\\a.png": _image("png")}), "no name within"),
        (_zip({"cat/../../a.png": _image("png")}), "no name within"),
        (_zip({"C:/cat/a.png": _image("png")}), "no name within"),
        (_zip({"cat/a.png": _image("png"), "CAT/a.PNG": _image("png")}), "twice"),
        (_zip({"cat/a.png": _image("png")}, compression=zipfile.ZIP_LZMA), "other than deflate"),
        (_linked(), "a link"),
        (_BOMB, "unpacked"),
        (_zip({f"cat/{n}.bmp": _image("bmp", (600, 600)) for n in range(9)}), "more than"),
        (b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 65535, 65535, 2**31, 0, 0), "more files"),
    ],
    ids=range(20),
)
def test_other_images_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as refused:
        check_images(_written(tmp_path, data), LIMIT)
    assert " object at 0x" not in str(refused.value)


def test_names_that_occur_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="twice"):
        check_images(_written(tmp_path, _twice()), LIMIT)


def test_checks_run_apart_and_answer_in_a_line(tmp_path: Path) -> None:
    assert checking.why_refused(_written(tmp_path, _zip({"cat/a.png": _image("png")})), "images", LIMIT) is None
    reason = checking.why_refused(_written(tmp_path, _zip({"cat/a.py": b""})), "images", LIMIT)
    assert reason is not None
    assert "'cat/a.py', no image by its name" in reason
    assert str(tmp_path) not in reason
    assert "\n" not in reason


def test_a_check_that_breaks_is_no_refusal(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be checked"):
        checking.why_refused(tmp_path / "gone", "images", LIMIT)


def test_checks_import_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, compressor.service.artefacts.contents.__main__, compressor.service.services;"
        "assert not {'torch', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
