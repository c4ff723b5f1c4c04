"""Text of Hugging Face data sets: sentences with labels, and text that a language model predicts."""

from __future__ import annotations

import csv
import math
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.data import load_data
from compressor.errors import DataError, UsageError
from tests.models import hf_folders as hf

pytest.importorskip("transformers", reason="the extra hf is not installed")
datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def words(tmp_path: Path) -> str:
    hf.tokenizer(tmp_path / "words")
    return str(tmp_path / "words")


def saved(folder: Path, columns: dict[str, list[Any]]) -> str:
    datasets.Dataset.from_dict(columns).save_to_disk(folder)
    return str(folder)


def images(folder: Path) -> str:
    features = datasets.Features(picture=datasets.Image(), label=datasets.Value("int64"))
    columns = {"picture": [{"path": None, "bytes": b"no picture"}] * 4, "label": [0, 1] * 2}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder)
    return str(folder)


def test_sentences_with_labels(tmp_path: Path, words: str) -> None:
    data = load_data(f"hf:{hf.reviews(tmp_path / 'r')}", model=f"hf:{words}")
    assert (len(data.train), len(data.val), data.num_classes, data.vocabulary) == (96, 32, 2, 17)
    inputs, targets = next(data.train.batches(8, shuffle_seed=3))
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (8, *data.input_shape)
    assert torch.equal(inputs["attention_mask"] == 0, inputs["input_ids"] == 0)
    assert targets.dtype == torch.int64
    again, _ = next(data.train.batches(8, shuffle_seed=3))
    assert torch.equal(again["input_ids"], inputs["input_ids"])
    kind = torch.isin(inputs["input_ids"], torch.tensor([3, 4, 5])).any(1)
    assert torch.equal(kind.long(), targets)


def test_text_alone_is_what_a_language_model_predicts(tmp_path: Path, words: str) -> None:
    data = load_data(f"hf:{hf.reviews(tmp_path / 'r', labelled=False)},length=8", model=f"hf:{words}")
    assert data.task.is_language
    assert data.num_classes is None
    inputs, targets = next(data.val.batches(4))
    assert set(inputs) == {"input_ids"}
    assert inputs["input_ids"].shape == targets.shape == (4, 8)
    assert torch.equal(inputs["input_ids"].flatten()[1:], targets.flatten()[:-1])
    labelled = load_data(f"hf:{hf.reviews(tmp_path / 'l')},task=language,length=8,tokenizer={words}")
    assert labelled.task.is_language


def test_tables_with_names_for_labels_and_a_part_held_out(tmp_path: Path, words: str) -> None:
    found = hf.sentences(40)
    with (tmp_path / "train.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["first", "second", "verdict"])
        table.writerows(
            (text, "the film", "kind" if label else "harsh") for text, label in zip(*found.values(), strict=True)
        )
    data = load_data(f"hf:{tmp_path},text=first+second,label=verdict,tokenizer={words}")
    assert (len(data.train), len(data.val), data.num_classes) == (36, 4, 2)


def test_tokens_and_values_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = [[1, 2, 3], [4, 5], [6]] * 10
    data = load_data(f"hf:{saved(tmp_path / 't', {'input_ids': rows, 'label': [0.5, 1.5, 2.5] * 10})},length=2")
    assert data.task.is_regression
    inputs, _ = next(data.val.batches(30))
    assert inputs["input_ids"].shape[1] == 2
    stream = load_data(f"hf:{saved(tmp_path / 's', {'input_ids': rows})},length=4")
    assert stream.task.is_language
    assert len(stream.train) + len(stream.val) == 14


def test_labels_that_are_kept_secret_are_no_test(tmp_path: Path, words: str) -> None:
    splits = {name: datasets.Dataset.from_dict(hf.sentences(20)) for name in ("train", "test")}
    splits["test"] = splits["test"].map(lambda row: {"label": -1})
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "r")
    assert load_data(f"hf:{tmp_path / 'r'},tokenizer={words}").test is None


def test_what_is_wrong_is_said(tmp_path: Path, words: str) -> None:
    reviews = hf.reviews(tmp_path / "r")
    for spec, kind, said in (
        (f"{reviews}", UsageError, "which tokenizer is not known"),
        (f"{reviews},tokenizer={tmp_path / 'none'}", UsageError, "no tokenizer in"),
        (f"{reviews},text=body,tokenizer={words}", UsageError, "no column 'body'; it has text, label"),
        (f"{reviews},length=1", UsageError, "at least 2"),
        (f"{reviews},task=poetry", UsageError, "expected classification, language or regression"),
        (f"{tmp_path / 'nowhere'}", DataError, "does not exist"),
        ("nobody/nothing", DataError, "nothing is downloaded"),
        (f"{saved(tmp_path / 'n', {'a': [1, 2], 'label': [0, 1]})},tokenizer={words}", DataError, "cannot be told"),
        (f"{images(tmp_path / 'i')}", DataError, r"has images \(picture\) and no text.* imagefolder:DIR"),
        (f"{saved(tmp_path / 'u', {'text': ['a', 'b'], 'label': [0, -3]})},tokenizer={words}", DataError, "outside of"),
        (f"{saved(tmp_path / 'e', {'text': ['a film']})},tokenizer={words}", DataError, "smaller length="),
    ):
        with pytest.raises(kind, match=said):
            load_data(f"hf:{spec}")


def test_samples_that_lack_something_are_named(tmp_path: Path, words: str) -> None:
    texts, labels = ["a film", "the film"] * 5, [0, 1] * 5
    wrong: list[tuple[dict[str, list[Any]], str]] = [
        ({"text": [None, *texts[1:]], "label": labels}, "have no text"),
        ({"text": [*texts[1:], None]}, "have no text"),
        ({"text": [""] * 10, "label": labels}, "train split .* has no tokens"),
        ({"input_ids": [[]] * 10, "label": labels}, "train split .* has no tokens"),
        ({"input_ids": [[1, -2]] * 10, "label": labels}, "the token -2"),
        ({"text": texts, "label": [math.nan, *[0.5] * 9]}, "not finite"),
        ({"text": texts, "label": [None, *labels[1:]]}, "have no label"),
        ({"text": texts, "label": [{"a": 1}, {"a": 2}] * 5}, "samples of the type dict, no classes and no numbers"),
        ({"text": texts, "label": [date(2020, 1, 1)] * 10}, "samples of the type date, no classes"),
        ({"text": texts, "label": [[0], [1, 0]] * 5}, "samples of the type list, no classes"),
        ({"text": texts, "label": [[0, 1], [1, 0]] * 5}, "several values for a sample"),
        ({"input_ids": [None, *[[1, 2]] * 9], "label": labels}, "have no input_ids"),
        ({"input_ids": [[1, None], *[[1, 2]] * 9]}, "have no input_ids, or not all of it"),
        ({"input_ids": [[1.5, 2.0]] * 10, "label": labels}, "expected a list of whole numbers for each"),
        ({"input_ids": [[[1, 2]], [[3, 4]]] * 5, "label": labels}, "expected a list of whole numbers for each"),
        ({"input_ids": [7] * 10}, "expected a list of whole numbers for each"),
        (
            {"input_ids": [[1, 2, 3]] * 10, "attention_mask": [[1, 1]] * 10, "label": labels},
            "Sample 0 of .* has 3 input_ids and 2 numbers as attention_mask",
        ),
    ]
    for number, (columns, said) in enumerate(wrong):
        with pytest.raises(DataError, match=said):
            load_data(f"hf:{saved(tmp_path / str(number), columns)},length=4,tokenizer={words}")
    splits = {"train": {"text": texts, "label": labels}, "test": {"sentence": texts, "label": labels}}
    made = {name: datasets.Dataset.from_dict(columns) for name, columns in splits.items()}
    datasets.DatasetDict(made).save_to_disk(tmp_path / "two")
    with pytest.raises(
        DataError, match=r"The test split of .* has no column 'text', which train has; it has sentence, la"
    ):
        load_data(f"hf:{tmp_path / 'two'},tokenizer={words}")


def test_labels_that_may_be_meant_otherwise_are_told(tmp_path: Path, words: str) -> None:
    texts = ["a film", "the film"] * 10

    def told(name: str, columns: dict[str, list[Any]], options: str = "") -> tuple[str, tuple[str, ...]]:
        data = load_data(f"hf:{saved(tmp_path / name, {'text': texts, **columns})},length=4,tokenizer={words}{options}")
        return data.task.kind, data.remarks

    stars = [1, 2, 3, 4] * 5
    kind, (said,) = told("from one", {"label": stars})
    assert (kind, said[:23]) == ("classification", "No sample has 1 class (")
    kind, (said,) = told("floats", {"label": [float(star) for star in stars]})
    assert (kind, said[:18]) == ("regression", "Targets are floats")
    kind, (said,) = told("by another name", {"stars": stars})
    assert kind == "language"
    assert "stars is not used" in said
    assert told("values", {"label": stars}, ",task=regression") == ("regression", ())
    assert told("halves", {"label": [star / 2 for star in stars]}) == ("regression", ())
    assert told("text", {"stars": stars}, ",task=language") == ("language", ())
    for name, columns in (("whole", {"label": [float(star - 1) for star in stars]}), ("none", {"label": [0, 1] * 10})):
        assert told(name, columns, ",task=classification") == ("classification", ())
