"""Formats on disk: each is written small, read back and compared; damage and absence are reported in one line."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compressor.data import Data, Normalise, load_data
from compressor.data.sources import cifar
from compressor.data.sources.npz import channels_first
from compressor.data.sources.python_batch import read_python_batch
from compressor.errors import DataError, UsageError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
LABELS = np.arange(40) % 10
CIFAR = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def everything(data: Data) -> dict[int, torch.Tensor]:
    """Training and validation inputs by a checksum-free key: their targets' order is not kept, so sort by content."""
    batches = [batch for split in (data.train, data.val) for batch in split.batches(1000)]
    inputs = torch.cat([x for x, _ in batches])
    return dict(enumerate(inputs[inputs.flatten(1)[:, 0].argsort(stable=True)]))


def test_digits_are_embedded_and_complete() -> None:
    data = load_data("digits")
    assert data.test is not None
    assert len(data.train) + len(data.val) + len(data.test) == 1797
    assert data.num_classes == 10
    assert data.example_inputs.shape == (1, 1, 8, 8)
    inputs = torch.cat([x for x, _ in data.train.batches(500)])
    assert abs(float(inputs.mean())) < 0.05
    assert abs(float(inputs.std()) - 1) < 0.05
    for split in (data.train, data.val, data.test):
        counts = torch.bincount(torch.cat([y for _, y in split.batches(500)]), minlength=10)
        assert float(counts.max() / counts.min()) < 1.2


def write_npz(root: Path) -> None:
    np.savez(
        root / "cifar10.npz",
        x_train=IMAGES.transpose(0, 2, 3, 1),
        y_train=LABELS,
        x_test=IMAGES.transpose(0, 2, 3, 1)[:9],
        y_test=LABELS[:9],
    )


def write_binary(root: Path) -> None:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    records = np.concatenate([LABELS[:, None].astype(np.uint8), IMAGES.reshape(40, -1)], axis=1)
    for number in range(5):
        records[number * 8 : number * 8 + 8].tofile(folder / f"data_batch_{number + 1}.bin")
    records[:9].tofile(folder / "test_batch.bin")


def python_2_pickle(images: np.ndarray, labels: list[int]) -> bytes:
    """What the published files hold: protocol 2 as written by Python 2, with byte strings."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    pixels = images.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR(K\x01"
        + b"J" + struct.pack("<i", len(images)) + b"M\x00\x0c\x86cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR\x89"
        + b"T" + struct.pack("<i", len(pixels)) + pixels + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return (
        b"\x80\x02}q\x01(" + text(b"batch_label") + text(b"training batch 1 of 5") + text(b"labels") + numbers
        + text(b"data") + array + text(b"filenames") + b"](" + text(b"a.png") + b"eu."
    )  # fmt: skip


def write_python(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for number in range(5):
        part = slice(number * 8, number * 8 + 8)
        (folder / f"data_batch_{number + 1}").write_bytes(python_2_pickle(IMAGES[part], LABELS[part].tolist()))
    (folder / "test_batch").write_bytes(python_2_pickle(IMAGES[:9], LABELS[:9].tolist()))


@pytest.mark.parametrize("write", [write_npz, write_binary, write_python])
def test_every_format_of_cifar_gives_the_same(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    data = load_data(f"cifar10:{tmp_path}")
    assert data.test is not None
    assert data.num_classes == 10
    inputs, targets = next(iter(data.test.batches(9)))
    assert torch.allclose(inputs, CIFAR(torch.from_numpy(IMAGES[:9])))
    assert targets.tolist() == LABELS[:9].tolist()
    expected = CIFAR(torch.from_numpy(IMAGES))
    expected = expected[expected.flatten(1)[:, 0].argsort(stable=True)]
    found = everything(data)
    assert len(found) == 40
    assert torch.allclose(torch.stack(list(found.values())).flatten(1)[:, 0], expected.flatten(1)[:, 0])


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_python_batches_of_newer_pickles_are_read_too(tmp_path: Path, protocol: int) -> None:
    labels = (np.arange(1500) % 100).tolist()  # longer than one run of list items
    content = {"filenames": ["x.png"], "fine_labels": labels, "coarse_labels": [7] * 3, "data": bytes(range(256)) * 50}
    (tmp_path / "train").write_bytes(pickle.dumps(content, protocol=protocol))
    pixels, found = read_python_batch(tmp_path / "train", "fine_labels")
    assert found == labels
    assert pixels == content["data"]


def test_python_batches_run_no_code(tmp_path: Path) -> None:
    target = tmp_path / "ran"
    (tmp_path / "train").write_bytes(b"cos\nmkdir\n(S'" + str(target).encode() + b"'\ntR.")
    read_python_batch(tmp_path / "train", "labels")
    assert not target.exists()


def test_cifar100_uses_the_fine_label(tmp_path: Path) -> None:
    labels = np.arange(40) + 50
    coarse = np.zeros((40, 1), np.uint8)
    records = np.concatenate([coarse, labels[:, None].astype(np.uint8), IMAGES.reshape(40, -1)], axis=1)
    records.tofile(tmp_path / "train.bin")
    records[:5].tofile(tmp_path / "test.bin")
    data = load_data(f"cifar100:{tmp_path}")
    assert data.test is not None
    assert data.num_classes == 100
    assert next(iter(data.test.batches(5)))[1].tolist() == [50, 51, 52, 53, 54]


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("folder", ["", "raw", "FashionMNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_fashion_mnist(tmp_path: Path, folder: str, packed: bool) -> None:
    images = IMAGES[:, 0, :28, :28].copy()
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        for name, array in (("images-idx3", images), ("labels-idx1", LABELS.astype(np.uint8))):
            file = tmp_path / folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    data = load_data(f"fashionmnist:{tmp_path}")
    assert data.example_inputs.shape == (1, 1, 28, 28)
    assert (len(data.train), len(data.val), data.num_classes) == (36, 4, 10)


def test_fashion_mnist_damage(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        load_data(f"fashionmnist:{tmp_path}")
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(IMAGES[:, 0])[:-1])
    with pytest.raises(DataError, match="announces"):
        load_data(f"fashionmnist:{tmp_path}")
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"hello")
    with pytest.raises(DataError, match="no idx file"):
        load_data(f"fashionmnist:{tmp_path}")


def test_npz_layouts() -> None:
    assert channels_first(np.zeros((5, 32, 32, 3), np.uint8)).shape == (5, 3, 32, 32)
    assert channels_first(np.zeros((5, 3, 32, 32), np.uint8)).shape == (5, 3, 32, 32)
    assert channels_first(np.zeros((5, 28, 28), np.uint8)).shape == (5, 1, 28, 28)
    assert channels_first(np.zeros((5, 2, 400), np.float32)).shape == (5, 2, 400)


def test_npz_with_a_validation_split_and_floats(tmp_path: Path) -> None:
    x = RNG.normal(size=(20, 2, 6)).astype(np.float64)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=LABELS[:20] % 3, x_val=x[:4], y_val=LABELS[:4] % 3)
    data = load_data(f"npz:{tmp_path / 'd.npz'}")
    assert data.test is None
    assert (len(data.train), len(data.val), data.num_classes) == (20, 4, 3)
    inputs, _ = next(iter(data.train.batches(20)))
    assert torch.allclose(inputs, torch.from_numpy(x).float())


def test_npz_bytes_are_normalised_by_the_training_set(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES, y_test=LABELS)
    test = load_data(f"npz:{tmp_path / 'd.npz'}").test
    assert test is not None
    inputs, _ = next(iter(test.batches(40)))
    assert torch.allclose(inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-2)
    assert torch.allclose(inputs.std((0, 2, 3)), torch.ones(3), atol=1e-2)


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"x_train": IMAGES}, "x_train alone"),
        ({"x_test": IMAGES, "y_test": LABELS}, "lacks x_train"),
        ({"x_train": IMAGES, "y_train": LABELS[:3]}, "40 inputs"),
        ({"x_train": IMAGES, "y_train": LABELS - 1}, "label -1"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS + 5}, "test label 10"),
        ({"x_train": np.full((4, 2), np.nan), "y_train": LABELS[:4]}, "not finite, first in sample 0"),
        ({"x_train": IMAGES, "y_train": np.full(40, np.inf)}, "targets hold values"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:, :, :8], "y_test": LABELS}, "must be equal"),
        ({"x_train": np.zeros(4), "y_train": LABELS[:4]}, "shape"),
        ({"x_train": np.array(["a", "b"]), "y_train": LABELS[:2]}, "expected numbers"),
        ({"x_train": np.zeros((0, 3)), "y_train": np.zeros(0)}, "shape"),
    ],
)
def test_bad_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], named: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=named) as caught:
        load_data(f"npz:{tmp_path / 'd.npz'}")
    assert "\n" not in str(caught.value)


def test_npz_with_objects_is_refused_and_not_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_train=np.array([{"a": 1}], dtype=object), y_train=LABELS[:1])
    with pytest.raises(DataError, match="plain number arrays"):
        load_data(f"npz:{tmp_path / 'd.npz'}")


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04broken"])
def test_broken_npz(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"d\.npz"):
        load_data(f"npz:{tmp_path / 'd.npz'}")


def test_cifar_of_another_shape_or_damaged(tmp_path: Path) -> None:
    small = IMAGES[:, :, :8, :8]
    np.savez(tmp_path / "cifar10.npz", x_train=small, y_train=LABELS, x_test=small, y_test=LABELS)
    with pytest.raises(DataError, match=r"\[3, 8, 8\]"):
        load_data(f"cifar10:{tmp_path}")
    (tmp_path / "cifar10.npz").unlink()
    with pytest.raises(DataError, match="holds no cifar10"):
        load_data(f"cifar10:{tmp_path}")
    write_binary(tmp_path)
    with open(tmp_path / "cifar-10-batches-bin/data_batch_3.bin", "ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"data_batch_3\.bin"):
        load_data(f"cifar10:{tmp_path}")
    (tmp_path / "cifar-10-batches-bin/data_batch_3.bin").unlink()
    with pytest.raises(DataError, match="missing"):
        load_data(f"cifar10:{tmp_path}")


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("cifar10:/no/such/folder", "does not exist"),
        ("imagefolder:/no/such/folder", "does not exist"),
        ("npz:/no/such/file.npz", "does not exist"),
        ("cifar10", "cifar10:PLACE"),
        ("cifar:/tmp", "Did you mean cifar10"),
        ("digit", "Did you mean digits"),
        ("", "Unknown data set"),
        ("json:dumps", "data factory"),
        ("no_such_module_here:f", "No module"),
    ],
)
def test_bad_specs(spec: str, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        load_data(spec)


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, count in (("train", 6), ("val", 2), ("test", 1)):
        for label, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
            for number in range(count):
                picture(tmp_path / part / label / f"{number}.png", colour)
    return tmp_path


def test_image_folders(folder: Path) -> None:
    data = load_data(f"imagefolder:{folder}", image_size=16)
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test), data.num_classes) == (12, 4, 2, 2)
    assert data.example_inputs.shape == (1, 3, 16, 16)
    inputs, targets = next(iter(data.test.batches(2)))
    assert targets.tolist() == [0, 1]
    red = CIFAR(torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)).expand(1, 3, 16, 16)
    assert torch.allclose(inputs[1:], red)


def test_image_folder_batches_follow_the_seed(tmp_path: Path) -> None:
    for number in range(20):
        array = RNG.integers(0, 256, (24, 20, 3), dtype=np.uint8)
        path = tmp_path / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(array).save(path)
    train = load_data(f"imagefolder:{tmp_path}", image_size=8).train
    assert len(train) == 18
    runs = [[x for x, _ in train.batches(4, shuffle_seed=seed, augment=True)] for seed in (3, 3, 4)]
    assert torch.equal(torch.cat(runs[0]), torch.cat(runs[1]))
    assert not torch.equal(torch.cat(runs[0]), torch.cat(runs[2]))
    plain = torch.cat([x for x, _ in train.batches(4)])
    assert torch.equal(plain, torch.cat([x for x, _ in train.batches(18)]))
    assert [len(y) for _, y in train.batches(4)] == [4, 4, 4, 4, 2]


def test_image_folder_damage(folder: Path) -> None:
    picture(folder / "val" / "green" / "1.png", (0, 255, 0))
    with pytest.raises(DataError, match="green"):
        load_data(f"imagefolder:{folder}")
    (folder / "val" / "green" / "1.png").rename(folder / "val" / "blue" / "z.png")
    (folder / "val" / "green").rmdir()
    (folder / "val" / "blue" / "z.png").write_bytes(b"no image")
    data = load_data(f"imagefolder:{folder}", image_size=8)
    with pytest.raises(DataError, match=r"z\.png"):
        list(data.val.batches(4))


def test_image_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="no images"):
        load_data(f"imagefolder:{tmp_path}")


def test_cifar_layouts_agree_with_their_class_counts() -> None:
    assert (cifar._CIFAR10.num_classes, cifar._CIFAR100.num_classes) == (10, 100)


FACTORIES = """
import torch
from compressor.data import from_tensors
batches = [(torch.zeros(4, 2), torch.tensor([0, 1, 2, 1]))] * 3
def data(): return from_tensors((torch.rand(20, 2), torch.arange(20) % 2))
def pair(): return batches, batches
def mapping(): return {"train": batches, "test": batches}
def wrong(): return 3
def broken(): raise RuntimeError("no disk")
"""


def test_factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data_factories_for_test.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    module = "data_factories_for_test"
    assert load_data(f"{module}:data").num_classes == 2
    assert len(load_data(f"{module}:pair").val) == 12
    assert len(load_data(f"{module}:mapping").val) == 4
    for name, message in (("wrong", "returned a int"), ("broken", "no disk"), ("batches", "list")):
        with pytest.raises(DataError, match=message):
            load_data(f"{module}:{name}")


def test_describe_is_json() -> None:
    described = load_data("digits").describe()
    assert described["input_shape"] == [1, 8, 8]
    assert io.StringIO(str(described)).read()
