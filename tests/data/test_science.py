"""Spoken digits, ListOps and Darcy flow: layouts on disk, generated expressions, bad input, and the real data."""

from __future__ import annotations

import os
import statistics
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.data import load_data
from compressor.data.sources import listops
from compressor.data.task import Task
from compressor.errors import CompressorError, DataError, UsageError

DATA = os.environ.get("COMPRESSOR_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="COMPRESSOR_DATA names no folder with real data")
RNG = np.random.default_rng(0)


def recordings() -> dict[str, np.ndarray]:
    """Ten digits by two speakers, takes 0 to 9."""
    rows = [(d, s, t) for d in range(10) for s in ("ann", "bob") for t in range(10)]
    digits, speakers, takes = (np.array(column) for column in zip(*rows, strict=True))
    x = RNG.normal(size=(200, 50)).astype(np.float32)
    return {"x": x, "y": digits.astype(np.uint8), "speaker": speakers, "take": takes}


def test_fsdd_tests_on_the_first_takes_or_on_a_speaker(tmp_path: Path) -> None:
    np.savez(tmp_path / "fsdd.npz", **recordings())  # type: ignore[arg-type]
    data = load_data(f"fsdd:{tmp_path}")
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == (90, 10, 100)
    assert data.example_inputs.shape == (1, 1, 50)
    assert (data.task, data.num_classes) == (Task(outputs=10), 10)
    inputs = torch.cat([x for s in (data.train, data.val) for x, _ in s.batches(200)])
    assert float(inputs.std()) == pytest.approx(1, abs=1e-3)
    heard = load_data(f"fsdd:{tmp_path},speaker=bob")
    assert heard.test is not None
    inputs, _ = next(iter(heard.test.batches(100)))
    expected = recordings_of(tmp_path, "bob")
    assert torch.allclose(inputs[:, 0] * (expected[0, 0] / inputs[0, 0, 0]), expected, rtol=1e-3, atol=1e-4)


def test_fsdd_at_a_lower_rate_keeps_what_lies_below_half_of_it(tmp_path: Path) -> None:
    rows, t = recordings(), np.arange(800) / 8000
    low, high = np.sin(2 * np.pi * 200 * t), np.sin(2 * np.pi * 1500 * t)
    rows["x"] = np.tile((0.5 * low + high + 0.1).astype(np.float32), (200, 1))
    np.savez(tmp_path / "fsdd.npz", **rows)  # type: ignore[arg-type]
    data = load_data(f"fsdd:{tmp_path},rate=2000")
    assert data.example_inputs.shape == (1, 1, 200)
    found = data.example_inputs[0, 0].double()
    expected = torch.from_numpy(0.5 * low + 0.1)[::4]
    assert torch.allclose(found * (expected.std() / found.std()), expected, atol=1e-3)
    for wrong in ("3000", "0", "fast", "16000"):
        with pytest.raises(UsageError, match="divisor of 8000"):
            load_data(f"fsdd:{tmp_path},rate={wrong}")


def recordings_of(root: Path, speaker: str) -> torch.Tensor:
    with np.load(root / "fsdd.npz") as archive:
        return torch.from_numpy(archive["x"][archive["speaker"] == speaker])


def write_wave(file: Path, samples: np.ndarray, rate: int = 8000) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples.astype("<i2").tobytes())


def test_fsdd_reads_the_published_recordings(tmp_path: Path) -> None:
    long, short = np.arange(-2500, 2500), np.array([100, -200, 50])
    for take in range(8):
        write_wave(tmp_path / "recordings" / f"3_ann_{take}.wav", short if take else long)
    data = load_data(f"fsdd:{tmp_path}")
    assert data.test is not None
    assert (len(data.train) + len(data.val), len(data.test)) == (3, 5)
    inputs, targets = next(iter(data.test.batches(5)))
    assert inputs.shape == (5, 1, 4000)
    assert targets.tolist() == [3] * 5
    scale = float(inputs[1].abs().max())
    assert torch.allclose(inputs[1, 0, 1998:2001] / scale, torch.tensor([0.5, -1.0, 0.25]), atol=1e-5)
    assert float(inputs[1, 0, :1998].abs().max()) == 0
    assert torch.allclose(inputs[0, 0] / scale, torch.arange(-2000, 2000) / 2000, atol=1e-5)


def test_bad_recordings(tmp_path: Path) -> None:
    for spec, message in ((f"fsdd:{tmp_path / 'no'}", "does not exist"), (f"fsdd:{tmp_path}", "no recordings")):
        with pytest.raises(DataError, match=message):
            load_data(spec)
    write_wave(tmp_path / "1_ann_0.wav", np.arange(9), rate=16000)
    with pytest.raises(DataError, match="16000"):
        load_data(f"fsdd:{tmp_path}")
    write_wave(tmp_path / "1_ann_0.wav", np.arange(0))
    with pytest.raises(DataError, match="no samples"):
        load_data(f"fsdd:{tmp_path}")
    for width, channels in ((1, 1), (3, 1), (2, 2)):
        with wave.open(str(tmp_path / "1_ann_0.wav"), "wb") as sound:
            sound.setnchannels(channels)
            sound.setsampwidth(width)
            sound.setframerate(8000)
            sound.writeframes(bytes(96))
        with pytest.raises(DataError, match=f"{channels} channels? and {8 * width} bits; convert it to 8000 Hz"):
            load_data(f"fsdd:{tmp_path}")
    (tmp_path / "1_ann_0.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match="no readable WAV"):
        load_data(f"fsdd:{tmp_path}")
    (tmp_path / "1_ann_0.wav").rename(tmp_path / "one_ann_0.wav")
    with pytest.raises(DataError, match="named otherwise"):
        load_data(f"fsdd:{tmp_path}")
    (tmp_path / "one_ann_0.wav").unlink()
    for other in ("two.wav", "2_ann.WAV", "2_ann_first.wav"):  # one that is passed over is one that nobody misses
        write_wave(tmp_path / "1_ann_0.wav", np.arange(9))
        write_wave(tmp_path / other, np.arange(9))
        with pytest.raises(DataError, match=f"{other}' is named otherwise"):
            load_data(f"fsdd:{tmp_path}")
        (tmp_path / other).unlink()
    arrays = recordings()
    np.savez(tmp_path / "fsdd.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="ann, bob"):
        load_data(f"fsdd:{tmp_path},speaker=eve")
    with pytest.raises(UsageError, match="no option 'take'"):
        load_data(f"fsdd:{tmp_path},take=3")
    np.savez(tmp_path / "fsdd.npz", **{**arrays, "y": arrays["y"][:3]})  # type: ignore[arg-type]
    with pytest.raises(DataError, match="3 digits"):
        load_data(f"fsdd:{tmp_path}")
    np.savez(tmp_path / "fsdd.npz", x=arrays["x"])
    with pytest.raises(DataError, match="lacks y, speaker, take"):
        load_data(f"fsdd:{tmp_path}")


def value_of(tokens: list[int]) -> int:
    """An expression's value, by a stack, independently of the generator."""
    stack: list[list[int]] = [[]]
    for token in tokens:
        if token == listops.CLOSE:
            operator, *values = stack.pop()
            found = {11: max, 12: min, 13: lambda v: int(statistics.median(v)), 14: lambda v: sum(v) % 10}[operator]
            assert len(values) >= 2
            stack[-1].append(found(values))
        elif token >= 11:
            stack.append([token])
        else:
            assert 1 <= token <= 10
            stack[-1].append(token - 1)
    assert len(stack) == 1
    (value,) = stack[0]
    return value


def test_listops_values_and_padding() -> None:
    tokens, values = listops.generate(300, 40, depth=4, args=5, seed=3)
    assert tokens.shape == (300, 40)
    for row, value in zip(tokens.tolist(), values.tolist(), strict=True):
        length = row.index(listops.PADDING) if listops.PADDING in row else len(row)
        assert length >= 10
        assert set(row[length:]) <= {listops.PADDING}
        assert value_of(row[:length]) == value
    assert len({bytes(row) for row in tokens.tolist()}) == 300
    assert {11, 12, 13, 14} <= set(tokens.flatten().tolist())
    assert len(set(values.tolist())) == 10


def test_listops_follows_its_seed_and_options() -> None:
    one, two = (load_data("listops:n=60,length=24,seed=5") for _ in range(2))
    other = load_data("listops:n=60,length=24,seed=6")
    assert torch.equal(one.example_inputs, two.example_inputs)
    assert not torch.equal(one.example_inputs, other.example_inputs)
    assert one.test is not None
    assert (len(one.train), len(one.val), len(one.test)) == (54, 6, 6)
    assert (one.vocabulary, one.num_classes, one.example_inputs.dtype) == (16, 10, torch.int64)
    # The very first tokens: they must be the same in every version.
    assert listops.generate(1, 12, seed=0)[0].tolist() == listops.generate(2, 12, seed=0)[0][:1].tolist()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("listops:n=0", "n of the data set listops cannot be '0'"),
        ("listops:length=abc", "length of the data set listops cannot be 'abc'"),
        ("listops:width=3", "no option 'width'; it has n, length"),
        ("listops:n=10,n=20", "given twice"),
        ("listops:/some/place", "takes options"),
        ("listops:n=100000,length=5,args=2", "different expressions of 4 to 5 tokens"),
        ("darcy:/no/such/place", "does not exist"),
        ("darcy", "darcy:PLACE"),
        ("fsdd", "fsdd:PLACE"),
    ],
)
def test_bad_specs(spec: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listops, "_ATTEMPTS", 1)
    with pytest.raises(CompressorError, match=message) as caught:
        load_data(spec)
    assert "\n" not in str(caught.value)


def fields(count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    return RNG.random((count, side, side)) < 0.5, RNG.normal(size=(count, side, side)).astype(np.float32)


def write_darcy(root: Path, *, as_tensors: bool = False) -> None:
    parts = {"train": fields(30, 16), "test": fields(4, 16), "test32": fields(3, 32)}
    if as_tensors:
        for part, file in (("train", "train_16"), ("test", "test_16"), ("test32", "test_32")):
            x, y = (torch.from_numpy(array) for array in parts[part])
            torch.save({"x": x, "y": y}, root / f"darcy_{file}.pt")
        return
    np.savez(
        root / "darcy.npz", **{f"{k}_{p}": a for p, pair in parts.items() for k, a in zip("xy", pair, strict=True)}
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("as_tensors", [False, True])
def test_darcy(tmp_path: Path, as_tensors: bool) -> None:
    write_darcy(tmp_path, as_tensors=as_tensors)
    data, finer = load_data(f"darcy:{tmp_path}"), load_data(f"darcy:{tmp_path},32")
    for found, side, count in ((data, 16, 4), (finer, 32, 3)):
        assert found.test is not None
        assert (len(found.train), len(found.val), len(found.test)) == (27, 3, count)
        assert found.task == Task("regression", dense=True, relative=True, outputs=1)
        assert (found.num_classes, found.outputs) == (None, 1)
        assert found.example_inputs.shape == (1, 3, 16, 16)
        inputs, targets = next(iter(found.test.batches(count)))
        assert inputs.shape == (count, 3, side, side)
        assert targets.shape == (count, 1, side, side)
        assert inputs[0, 1, :, 0].tolist() == pytest.approx(torch.linspace(-1, 1, side).tolist())
        assert inputs[0, 2, 0].tolist() == pytest.approx(torch.linspace(-1, 1, side).tolist())
    coefficient = torch.cat([x for s in (data.train, data.val) for x, _ in s.batches(30)])[:, 0]
    assert float(coefficient.mean()) == pytest.approx(0, abs=1e-3)
    assert float(coefficient.std()) == pytest.approx(1, abs=1e-3)


def test_bad_darcy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks darcy_train_16\.pt, darcy_test_16\.pt"):
        load_data(f"darcy:{tmp_path}")
    for name in ("train", "test"):
        torch.save([1], tmp_path / f"darcy_{name}_16.pt")
    with pytest.raises(DataError, match="no tensors named x and y"):
        load_data(f"darcy:{tmp_path}")
    (tmp_path / "darcy.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"no readable \.npz"):
        load_data(f"darcy:{tmp_path}")
    x, y = fields(3, 16)
    np.savez(tmp_path / "darcy.npz", x_train=x, y_train=y[:, :8], x_test=x, y_test=y)
    with pytest.raises(DataError, match="expected"):
        load_data(f"darcy:{tmp_path}")
    np.savez(tmp_path / "darcy.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(DataError, match="lacks x_test32"):
        load_data(f"darcy:{tmp_path},32")
    with pytest.raises(UsageError, match="16 and 32, not 64"):
        load_data(f"darcy:{tmp_path},64")


@needs_data
def test_real_data() -> None:
    spoken, flow = load_data(f"fsdd:{DATA}"), load_data(f"darcy:{DATA}")
    assert spoken.test is not None
    assert flow.test is not None
    assert (len(spoken.train) + len(spoken.val), len(spoken.test)) == (2700, 300)
    assert spoken.example_inputs.shape == (1, 1, 4000)
    assert (len(flow.train) + len(flow.val), len(flow.test)) == (1000, 50)
    assert len(set(torch.cat([y for _, y in spoken.test.batches(300)]).tolist())) == 10
