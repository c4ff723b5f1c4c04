"""Files are written whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from compressor.errors import CompressorError, UsageError
from compressor.storage.files import (
    atomic_path,
    atomic_save_safetensors,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    load_safetensors,
    remove_stale_temporaries,
)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_writes_replace_and_leave_nothing_else(tmp_path: Path) -> None:
    for value in ("one", "two\nthree ä"):
        atomic_write_text(tmp_path / "sub" / "a.txt", value)
        assert (tmp_path / "sub" / "a.txt").read_text(encoding="utf-8") == value
    atomic_write_bytes(tmp_path / "sub" / "b.bin", b"\r\n\0")
    assert (tmp_path / "sub" / "b.bin").read_bytes() == b"\r\n\0"
    atomic_write_json(tmp_path / "sub" / "c.json", {"x": [1, 2.5, None]})
    assert json.loads((tmp_path / "sub" / "c.json").read_text()) == {"x": [1, 2.5, None]}
    assert names(tmp_path / "sub") == ["a.txt", "b.bin", "c.json"]


def test_failure_keeps_the_old_file_and_removes_the_temporary(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    atomic_write_text(target, "old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    with pytest.raises(ValueError, match="JSON"):
        atomic_write_json(target, float("nan"))
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_temporary_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "model.onnx") as temporary:
        assert temporary.suffix == ".onnx"
        temporary.write_bytes(b"x")
    assert names(tmp_path) == ["model.onnx"]


def test_folder_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(CompressorError, match="Cannot write") as caught:
        atomic_write_text(tmp_path / "a", "x")
    assert "\n" not in str(caught.value)
    (tmp_path / "a" / "file").touch()
    with pytest.raises(CompressorError, match="Cannot write"):
        atomic_write_text(tmp_path / "a" / "file" / "x", "x")
    assert names(tmp_path) == ["a"]


def test_tensors_round_trip_whatever_their_layout(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {
        "plain": base,
        "transposed": base.transpose(0, 2),
        "slice": base[:, 1],
        "tied": base,
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
        "bytes": torch.get_rng_state(),
    }
    path = tmp_path / "t.safetensors"
    atomic_save_safetensors(path, tensors, {"note": "ä"})
    loaded, metadata = load_safetensors(path)
    assert metadata == {"note": "ä"}
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor.detach())
    (tmp_path / "reference").touch()
    assert path.stat().st_mode == (tmp_path / "reference").stat().st_mode


def test_the_same_tensors_and_metadata_are_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"ä.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.int64)}
    metadata = {"format": "pt", "note": 'quotes " and \n newlines', "ü": "x" * 50}
    written = set()
    for told_in in (metadata, dict(reversed(metadata.items())), metadata, metadata):
        atomic_save_safetensors(tmp_path / "a.safetensors", tensors, told_in)
        written.add((tmp_path / "a.safetensors").read_bytes())
        loaded, told = load_safetensors(tmp_path / "a.safetensors")
        assert told == metadata
        assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    assert len(written) == 1


def test_loading_what_is_no_safetensors_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        load_safetensors(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"garbage")
    with pytest.raises(UsageError, match="cannot be read as safetensors"):
        load_safetensors(tmp_path / "bad.safetensors")


def test_stale_temporaries_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.12-ab.tmp.json").touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".b.12-ab.tmp").touch()
    (tmp_path / "keep.json").touch()
    remove_stale_temporaries(tmp_path)
    assert names(tmp_path) == ["keep.json", "sub"]
    assert names(tmp_path / "sub") == []


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from compressor.errors import CompressorError
from compressor.files import atomic_save_safetensors, atomic_write_bytes
folder = Path(sys.argv[1])
atomic_save_safetensors(folder / "t.safetensors", {"x": torch.ones(4)})
atomic_write_bytes(folder / "b", b"old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
for write in (
    lambda: atomic_save_safetensors(folder / "t.safetensors", {"x": torch.zeros(100_000)}),
    lambda: atomic_write_bytes(folder / "b", b"x" * 100_000),
):
    try:
        write()
    except CompressorError as error:
        print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of file size are a POSIX matter")
def test_no_space_is_one_line_and_nothing_half_written(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("Cannot write") and "Free some space" in line for line in lines)
    assert names(tmp_path) == ["b", "t.safetensors"]
    assert (tmp_path / "b").read_bytes() == b"old"
    assert torch.equal(load_safetensors(tmp_path / "t.safetensors")[0]["x"], torch.ones(4))
