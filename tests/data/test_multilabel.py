"""Tables of labels beside images: both forms, where images lie, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from compressor.data import load_data
from compressor.data.decoding import Loading
from compressor.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n in range(12):
        place = tmp_path / ("images" if n % 2 else "train") / f"{n}.png"
        place.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 16), (255 * (n % 3 == 0), 0, 255 * (n % 2))).save(place)
    rows = [f"{n}.png,{int(n % 3 == 0)},{n % 2},0" for n in range(12)]
    (tmp_path / "train.csv").write_text("\n".join(["image,red,blue,green", *rows]) + "\n")
    return tmp_path


def test_a_column_for_each_label(folder: Path) -> None:
    data = load_data(f"multilabel:{folder}", image_size=8)
    assert (data.task.kind, data.num_classes, data.outputs) == ("multilabel", 3, 3)
    assert (len(data.train), len(data.val), data.test, data.input_shape) == (11, 1, None, (3, 8, 8))
    (folder / "val.csv").write_text("image,red,blue,green\n3.png,1,1,0\n\n5.png,0,1,0\n")
    found = load_data(f"multilabel:{folder}", image_size=8, loading=Loading(1))
    assert (len(found.train), len(found.val)) == (12, 2)
    assert "2 images of val are in train, too" in found.remarks[0]
    assert data.remarks == ()
    images, labels = next(iter(found.val.batches(4)))
    assert (images.shape, labels.dtype, labels.tolist()) == ((2, 3, 8, 8), torch.float32, [[1, 1, 0], [0, 1, 0]])
    images, labels = next(iter(found.train.batches(12, shuffle_seed=1, augment=True)))
    assert torch.equal(images[:, 0].amax((1, 2)) > 1, labels[:, 0] == 1)
    assert torch.equal(images[:, 2].amax((1, 2)) > 1, labels[:, 1] == 1)


@pytest.mark.parametrize("words", [("0.0", "1.0"), ("False", "True"), ("false", "true"), ("FALSE", " TRUE ")])
def test_zeros_and_ones_as_other_programs_write_them(folder: Path, words: tuple[str, str]) -> None:
    plain = load_data(f"multilabel:{folder}", image_size=8)
    rows = [",".join([f"{n}.png", *(words[bit] for bit in (n % 3 == 0, n % 2, False))]) for n in range(12)]
    (folder / "train.csv").write_text("\n".join(["image,red,blue,green", *rows]))
    found = load_data(f"multilabel:{folder}", image_size=8)
    assert found.outputs == 3
    (_, ours), (_, theirs) = (next(iter(each.train.batches(11))) for each in (found, plain))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("between", [" ", ";", "|", " ; ", ",", ", "])
def test_one_column_with_those_that_apply(folder: Path, between: str) -> None:
    (folder / "train.csv").write_text(f'image,tags\n0.png,"red{between}blue"\n1.png,\n2.png,sky\n')
    (folder / "test.csv").write_text("image,tags\n3.png,sky\n")
    data = load_data(f"multilabel:{folder}", image_size=8)
    assert data.outputs == 3
    assert data.test is not None
    assert next(iter(data.test.batches(1)))[1].tolist() == [[0, 0, 1]]
    (folder / "val.csv").write_text("image,tags\n3.png,sea\n")
    with pytest.raises(DataError, match="the label 'sea' in row 2"):
        load_data(f"multilabel:{folder}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image,a,b\n0.png,1,2\n", "'2' in row 2"),
        (f"image,a,b\n{'0' * 400}.png,1,0\n", "0' in row 2|0.png' in row 2"),
        ("image,a,b\n0.png,1\n", "2 columns in row 2, and 3"),
        ("image,a,b\n99.png,1,0\n", r"'99\.png' in row 2"),
        ("image,a,b\n", "1 line;"),
        ("", "0 lines"),
        ("image,a\n0.png,1\n", "two or more"),
        ("image,a\n0.png,True\n1.png,False\n", "two or more"),
        ("image,a,b\n0.png,1,\n", "'' in row 2"),
        ("image,a,a\n0.png,1,0\n", "two or more"),
        ('image,a,b\n"0.png,1,0\n', "table of comma-separated values"),
        ("0.png,1,0\n1.png,0,1\n", r"begins with the image '0\.png' and has no first line of names"),
        ("image;a;b\n0.png;1;0\n", "has one column, 'image;a;b', and commas are between columns"),
    ],
)
def test_what_is_refused(folder: Path, content: str, said: str) -> None:
    (folder / "train.csv").write_text(content)
    with pytest.raises(DataError, match=said):
        load_data(f"multilabel:{folder}")


def test_what_is_missing(folder: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_data("multilabel:/no/such/folder")
    (folder / "val.csv").write_text("image,red,green,blue\n1.png,1,0,0\n")
    with pytest.raises(DataError, match="they must be the same"):
        load_data(f"multilabel:{folder}")
    (folder / "train.csv").write_bytes(b"image,a,b\n\xff\xfe,1,0\n")
    with pytest.raises(DataError, match=r"train\.csv"):
        load_data(f"multilabel:{folder}")
    (folder / "train.csv").unlink()
    with pytest.raises(DataError, match=r"no train\.csv"):
        load_data(f"multilabel:{folder}")
