"""Hostile files, made from good ones with a fixed seed: one line, a known exit code, nothing run, nothing left."""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import json
import os
import random
import resource
import struct
import time
import wave
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compressor.cli import main
from compressor.models import artifact, load_model
from compressor.report import Report

MEGABYTE = 1 << 20

VALUES: list[Any] = [
    *(None, True, -1, 0, 2**62, 10**18, 1e300, -1.5, "", "\x1b]0;x\x07", "../..", "__class__", "forward", [], {}, [[]]),
    *(
        [-1],
        [0, 0],
        [10**9],
        {"a": {"b": []}},
        "os:system",
        "hf-hub:a/b",
        "datasets.MNIST",
        [None],
        [1.5],
        "x" * 10_000,
    ),
]
TEXTS: list[bytes] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"schema_version": ' + b"9" * 5000 + b"}",
    b'{"schema_version": NaN}',
    b'{"schema_version": 1e999}',
    b'{"schema_version": 1, "schema_version": 1}',
    b'\xef\xbb\xbf{"schema_version": 1}',
    b'{"schema_version": 1, "model": "\xff\xfe"}',
    b'{"schema_version": 1, "model": "\\ud800"}',
    b'{"schema_version": 1}\0',
    b"[" + b"0," * 20_000_000 + b"0]",
    b"[" + b"{}," * 2_000_000 + b"{}]",
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, entry in items:
        yield from places(entry, (*path, key))


def mutated(document: Any, draw: random.Random) -> Any:
    """One value somewhere replaced, taken out, or given another name."""
    found = copy.deepcopy(document)
    path = draw.choice([p for p in places(found) if p])
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    kind = draw.random()
    if kind < 0.15:
        del inner[path[-1]]
    elif kind < 0.25 and isinstance(inner, dict):
        inner[draw.choice(["__class__", "\x1b[2J", "", "x.y.z"])] = inner.pop(path[-1])
    else:
        inner[path[-1]] = draw.choice(VALUES)
    return found


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the main job writes it, of a small network."""
    out = tmp_path_factory.mktemp("good") / "out"
    job = ["--model", "resnet20_cifar", "--weights", "none", "--input-shape", "3,8,8", "--num-classes", "4"]
    assert main([*job, "--budget-flops", "50%", "--bench-seconds", "0.05", "--quiet", "--out", str(out)]) == 0
    return out


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and stderr, in bounded time and memory, without a traceback or a sign that a terminal obeys."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = main([*arguments, "--quiet"])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    out, err = capsys.readouterr()
    assert code in (0, 1, 2, 4, 5), err
    assert "Traceback" not in err
    assert "Unexpected" not in err, err[:500]
    assert not any(sign in out + err for sign in ("\x1b", "\x07", "\0", "\x9b"))
    assert time.monotonic() - started < 60
    assert grown < 1024 * MEGABYTE
    if code:
        assert out == ""
        errors = [line for line in err.splitlines() if not line.startswith("Warning: ")]
        assert len(errors) == 1, err[:500]
        assert len(errors[0]) < 3000
    return code, err


def copied(good: Path, to: Path) -> Path:
    to.mkdir()
    for name in ("architecture.json", "model.safetensors", "report.json", "report.html"):
        (to / name).write_bytes((good / name).read_bytes())
    return to


@pytest.mark.parametrize("seed", range(70))
def test_architectures(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    folder = copied(good, tmp_path / "f")
    document = json.loads((good / "architecture.json").read_text())
    (folder / "architecture.json").write_text(json.dumps(mutated(document, random.Random(seed))))
    code, err = run(capsys, "inspect", "--model", str(folder))
    assert code in (0, 2, 4), err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["f"]


@pytest.mark.parametrize("seed", range(50))
def test_reports(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    document = json.loads((good / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps(mutated(document, random.Random(seed))))
    code, err = run(capsys, "report", str(tmp_path), "--html", str(tmp_path / "page.html"))
    assert code in (0, 2)
    if code:
        assert "report" in err
        assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("name", ["architecture.json", "report.json"])
@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_texts_that_are_no_document(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, number: int
) -> None:
    folder = copied(good, tmp_path / "f")
    (folder / name).write_bytes(TEXTS[number])
    arguments = ["report", str(folder)] if name == "report.json" else ["inspect", "--model", str(folder)]
    code, err = run(capsys, *arguments)
    assert code == 2
    assert name in err


def damaged(whole: bytes, draw: random.Random) -> bytes:
    data = bytearray(whole)
    match draw.randrange(5):
        case 0:
            return bytes(data[: draw.randrange(len(data))])
        case 1:
            for _ in range(draw.choice([1, 8, 64])):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        case 2:
            return struct.pack("<Q", draw.choice([0, 2**40, 2**63, len(data) * 2])) + whole[8:]
        case 3:
            head = draw.randrange(min(len(data), 400))
            data[head : head + 16] = bytes(draw.randrange(256) for _ in range(16))
        case 4:
            return bytes(draw.randrange(256) for _ in range(200))
    return bytes(data)


@pytest.mark.parametrize("seed", range(30))
def test_weights_with_their_checksum_made_right(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    folder = copied(good, tmp_path / "f")
    data = damaged((good / "model.safetensors").read_bytes(), random.Random(seed))
    (folder / "model.safetensors").write_bytes(data)
    document = json.loads((folder / "architecture.json").read_text())
    document["weights"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "architecture.json").write_text(json.dumps(document))
    code, err = run(capsys, "inspect", "--model", str(folder))
    assert code in (0, 2)
    if code:
        assert str(folder) in err


@pytest.mark.parametrize("seed", range(30))
def test_onnx_files(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(damaged((good / "model.onnx").read_bytes(), random.Random(seed)))
    code, _ = run(capsys, "bench", str(file), "--seconds", "0.02", "--threads", "1")
    assert code in (0, 1, 2, 4)


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def npy(shape: tuple[int, ...], dtype: str = "<f4", data: bytes = b"\0" * 16) -> bytes:
    head = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    head += b" " * (64 - (len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def npz(**entries: bytes) -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(f"{name}.npy", data)
    return found.getvalue()


def wav(frames: int) -> bytes:
    found = io.BytesIO()
    with wave.open(found, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0\0" * 100)
    data = bytearray(found.getvalue())
    data[40:44] = struct.pack("<I", frames * 2)
    return bytes(data)


def arrays(draw: random.Random) -> bytes:
    whole = io.BytesIO()
    np.savez(whole, x_train=np.zeros((20, 1, 4, 4), np.float32), y_train=np.arange(20) % 4)
    return damaged(whole.getvalue(), draw)


def data_cases() -> list[tuple[str, str, bytes]]:
    """Data specification, file, content."""
    draw = random.Random(5)
    cases = [(f"npz{i}", "npz:{}/d.npz", arrays(draw)) for i in range(12)]
    cases += [
        ("npz-huge", "npz:{}/d.npz", npz(x_train=npy((10**12,)), y_train=npy((4,)))),
        ("npz-huge-item", "npz:{}/d.npz", npz(x_train=npy((1,), "V2000000000"), y_train=npy((4,)))),
        ("npz-negative", "npz:{}/d.npz", npz(x_train=npy((-4,)), y_train=npy((4,)))),
        ("npz-objects", "npz:{}/d.npz", npz(x_train=npy((4,), "|O"), y_train=npy((4,)))),
        ("npz-bomb", "npz:{}/d.npz", npz(x_train=npy((75 * MEGABYTE,), data=bytes(300 * MEGABYTE)), y_train=npy((4,)))),
        ("png-pixels", "imagefolder:{}", png(60_000, 60_000)),
        ("png-cut", "imagefolder:{}", png(64, 64)),
        ("png-eps", "imagefolder:{}", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        ("wav-long", "fsdd:{}", wav(2**31 - 50)),
        ("wav-none", "fsdd:{}", b"RIFF\0\0\0\0WAVE"),
        ("idx-bomb", "fashionmnist:{}", gzip.compress(bytes(300 * MEGABYTE), 9)),
        ("idx-cut", "fashionmnist:{}", gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12)[:-9]),
    ]
    return cases


CASES = data_cases()


@pytest.mark.parametrize(("spec", "content"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_data(tmp_path: Path, capsys: pytest.CaptureFixture[str], spec: str, content: bytes) -> None:
    places = {
        "npz": ["d.npz"],
        "imagefolder": ["a/1.png", "b/1.png", "a/2.png"],
        "fsdd": ["0_a_0.wav", "1_a_9.wav"],
        "fashionmnist": [f"{p}-{k}-ubyte.gz" for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1")],
    }[spec.partition(":")[0]]
    for place in places:
        (tmp_path / "d" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / place).write_bytes(content)
    job = ["--model", "resnet20_cifar", "--weights", "none", "--budget-flops", "50%", "--search", "oneshot"]
    job += ["--finetune-epochs", "0", "--export", "none", "--bench-seconds", "0", "--out", str(tmp_path / "out")]
    code, err = run(capsys, *job, "--data", spec.format(tmp_path / "d"))
    assert code == 2, err
    assert str(tmp_path / "d") in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("special", ["pipe", "device", "folder", "loop", "nothing"])
@pytest.mark.parametrize("name", ["architecture.json", "model.safetensors", "report.json"])
def test_what_has_no_end_is_not_read(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], special: str, name: str
) -> None:
    folder = copied(good, tmp_path / "f")
    place = folder / name
    place.unlink()
    make: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(place),
        "device": lambda: place.symlink_to("/dev/zero"),
        "folder": place.mkdir,
        "loop": lambda: place.symlink_to(place),
        "nothing": lambda: place.symlink_to(tmp_path / "none"),
    }
    make[special]()
    arguments = ["report", str(folder)] if name == "report.json" else ["inspect", "--model", str(folder)]
    code, err = run(capsys, *arguments)
    assert code == 2
    assert str(folder) in err


def test_weights_files_of_other_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(3)
    whole = io.BytesIO()
    torch.save(nn.Linear(2, 2).state_dict(), whole)
    for number in range(10):
        file = tmp_path / "w.pt"
        file.write_bytes(damaged(whole.getvalue(), draw))
        job = ["--model", "resnet20_cifar", "--weights", str(file), "--budget-flops", "50%", "--export", "none"]
        code, err = run(capsys, *job, "--out", str(tmp_path / "out"))
        assert code == 2, number
        assert str(file) in err


def test_no_factory_runs_because_a_folder_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load_model("resnet20_cifar", weights="none")
    (tmp_path / "evil.py").write_text("raise SystemExit(0)\n")
    from compressor.architecture.architecture import Architecture

    shapes = {n: list(v.shape) for n, v in (*loaded.model.named_parameters(), *loaded.model.named_buffers())}
    for spec, source in [
        *(("os:system", "factory"), ("evil:make", "factory"), ("builtins:exec", "factory"), ("x", "folder")),
        *(("datasets.MNIST", "torchvision"), ("__class__", "torchvision"), ("get_model", "torchvision")),
        *(("timm:hf-hub:a/b", "timm"), ("timm:local-dir:/x", "timm"), ("resnet20_cifar", "os"), ("forward", "shipped")),
    ]:
        description = {"spec": spec, "source": source, "kwargs": {}, "input_shape": [3, 32, 32]}
        decided = Architecture(artifact.class_name(loaded.model), shapes)
        folder = tmp_path / "f"
        artifact.save(folder, loaded.model, decided, Report("net"), description=None)
        document = json.loads((folder / "architecture.json").read_text())
        (folder / "architecture.json").write_text(json.dumps({**document, "description": description}))
        code, err = run(capsys, "export", "--model", str(folder), "--out", str(tmp_path / "exported"))
        assert code == 2, spec
        assert source == "folder" or spec.partition(":")[2] in err
        assert not (tmp_path / "exported").exists()
        if source == "factory":
            assert f"--trust-factories {spec}" in err


def test_safetensors_that_lie(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for head in (
        {"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}},
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"},
        {"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}},
    ):  # fmt: skip
        text = json.dumps(head).encode()
        file = tmp_path / "w.safetensors"
        file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
        job = ["--model", "resnet20_cifar", "--weights", str(file), "--budget-flops", "50%", "--out"]
        code, err = run(capsys, *job, str(tmp_path / "out"))
        assert code == 2
        assert str(file) in err
