"""Text data sets of Hugging Face ``datasets`` that lie on disk or in its cache; needs the extra ``hf``.

Sentences with a label are classified; text without one is what a language model predicts, token by token. Nothing is
downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from compressor.data.base import Data
from compressor.data.batches import first_of
from compressor.data.classes import like_classes, unused_classes
from compressor.data.holdout import stratified_holdout
from compressor.data.loaders import DatasetSplit
from compressor.data.options import split_options, whole
from compressor.data.sources.hf_splits import first_line, splits_of
from compressor.data.task import Task, are_whole
from compressor.errors import DataError, MissingDependencyError, UsageError

TEXTS = ("text", "sentence", "content", "review", "question")
LABELS = ("label", "labels", "target", "class")
LENGTH = 128
"""Tokens of an input, unless asked for otherwise."""


def load(argument: str, *, model: str | None = None) -> Data:
    """Read ``PLACE`` or ``PLACE,length=64,tokenizer=NAME,text=COLUMN,label=COLUMN,task=language``.

    Args:
        argument: ``PLACE`` is a folder that ``save_to_disk`` wrote, a folder of CSV, JSON, Parquet or text files, or
            the name of a data set in the cache.
        model: the job's model; of ``hf:NAME`` the tokenizer is taken, if none is named and the data is no tokens yet.

    Raises:
        UsageError: an unknown option, or no tokenizer.
        DataError: the data is not there, or has no columns that are understood.
        MissingDependencyError: the libraries are not installed.
    """
    known: dict[str, Callable[[str], Any]] = {
        "length": whole(2), "tokenizer": str, "text": str, "label": str, "task": _kind,
    }  # fmt: skip
    place, options = split_options("hf", argument, known)
    splits = splits_of(place)
    columns = _Columns.of(place, splits["train"], options)
    for name, split in splits.items():
        if lacking := [column for column in columns.needed if column not in split.column_names]:
            raise DataError(
                f"The {name} split of {place} has no column {lacking[0]!r}, which train has; it has "
                f"{', '.join(split.column_names)}."
            )
    length = options.get("length", LENGTH)
    hint = model.removeprefix("hf:") if model is not None and model.startswith("hf:") else None
    tokenizer = None
    if not columns.are_tokens:
        named = options.get("tokenizer") or hint or (place if (Path(place) / "tokenizer.json").is_file() else None)
        tokenizer = _tokenizer(named)
        length = min(length, tokenizer.model_max_length)
    read = _language if columns.label is None else _classified
    parts, classes = read(place, splits, columns, tokenizer, length)
    _require_tokens(place, parts)
    if "val" in parts:
        train, val = (DatasetSplit(_loader(parts[name])) for name in ("train", "val"))
    else:
        kept, held = stratified_holdout(parts["train"].targets)
        train, val = (DatasetSplit(_loader(parts["train"]), part) for part in (kept, held))
    example = first_of(next(val.batches(1))[0])
    known_words = 0 if tokenizer is None else len(tokenizer)
    words = max(known_words, *(int(part.inputs["input_ids"].max()) + 1 for part in parts.values()))
    test = DatasetSplit(_loader(parts["test"])) if "test" in parts else None
    if columns.label is None:
        task, classes = Task("language", dense=True), None
    elif classes is None:
        task = Task("regression", outputs=1)
    else:
        task = Task(outputs=classes)
    remarks = tuple(_remarks(place, columns, options, splits["train"], parts, task))
    return Data(f"hf:{argument}", train, val, test, classes, example, task, words, remarks)


def _require_tokens(place: str, parts: Mapping[str, Tokens]) -> None:
    for name, part in parts.items():
        ids = part.inputs["input_ids"]
        if not ids.numel():
            raise DataError(f"The {name} split of {place} has no tokens: every text is empty.")
        if int(ids.min()) < 0:
            raise DataError(f"The {name} split of {place} has the token {int(ids.min())}; tokens count from 0.")


def _remarks(
    place: str, columns: _Columns, options: Mapping[str, Any], split: Any, parts: Mapping[str, Tokens], task: Task
) -> Iterator[str]:
    """What the user may not have meant."""
    if columns.label is not None:
        found = [None if "task" in options else like_classes(task, parts["train"].targets)]
        if not task.is_regression and getattr(split.features[columns.label], "num_classes", None) is None:
            found.append(unused_classes(task.outputs or 1, [part.targets for part in parts.values()]))
        yield from (said for said in found if said is not None)
    elif "task" not in options:
        others = [name for name in split.column_names if name not in (*columns.texts, "attention_mask", "labels")]
        if others:
            yield (
                f"{place} has no label by one of the usual names, so a language model learns its text, and "
                f"{', '.join(others)} is not used. label=COLUMN predicts a column, task=language ends this warning."
            )


class Tokens(Dataset[Any]):
    """Samples in memory: inputs by the names that models give them, (N, L) each, and targets (N,) or (N, L)."""

    def __init__(self, inputs: Mapping[str, Tensor], targets: Tensor) -> None:
        self.inputs, self.targets = dict(inputs), targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """A whole batch at once."""
        chosen = torch.as_tensor(indices)
        return {name: values[chosen] for name, values in self.inputs.items()}, self.targets[chosen]


def _loader(tokens: Tokens) -> DataLoader[Any]:
    return DataLoader(tokens, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch


class _Columns:
    """Which columns are what.

    Attributes:
        texts: one or two columns of text; or ``("input_ids",)``.
        label: what is to be predicted; None for the text itself.
        task: what the user says that is, if anything.
    """

    def __init__(self, texts: tuple[str, ...], label: str | None, task: str | None) -> None:
        self.texts, self.label, self.task = texts, label, task

    @property
    def needed(self) -> tuple[str, ...]:
        return self.texts if self.label is None else (*self.texts, self.label)

    @property
    def are_tokens(self) -> bool:
        return self.texts == ("input_ids",)

    @classmethod
    def of(cls, place: str, split: Any, options: Mapping[str, Any]) -> _Columns:
        names = list(split.column_names)
        there = ", ".join(names)

        def asked(option: str) -> tuple[str, ...] | None:
            wanted = tuple(options[option].split("+")) if option in options else None
            for name in wanted or ():
                if name not in names:
                    raise UsageError(f"The data set {place} has no column {name!r}; it has {there}.")
            return wanted

        found = asked("label")
        label = found[0] if found else next((name for name in LABELS if name in names), None)
        if options.get("task") == "language":
            label = None
        elif "task" in options and label is None:
            raise DataError(f"The data set {place} has no label; it has {there}. Name the column: label=COLUMN.")
        texts = asked("text")
        if texts is None and "input_ids" in names:
            return cls(
                ("input_ids",),
                None if label is None or isinstance(split[0][label], list) else label,
                options.get("task"),
            )
        if texts is None:
            written = [name for name in names if name != label and _is_text(split.features[name])]
            texts = next(((name,) for name in TEXTS if name in written), tuple(written))
        if not texts and (images := [name for name in names if type(split.features[name]).__name__ == "Image"]):
            raise DataError(
                f"The data set {place} has images ({', '.join(images)}) and no text, and only text is read here; write "
                "them into folders, one for each class, and pass imagefolder:DIR."
            )
        if not 1 <= len(texts) <= 2:
            raise DataError(
                f"Which columns of {place} are the text cannot be told; it has {there}. Name one or two: text=COLUMN "
                "or text=FIRST+SECOND."
            )
        return cls(texts, label, options.get("task"))


def _is_text(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")) in ("string", "large_string", "string_view")


def _texts(place: str, split: Any, column: str) -> list[str]:
    texts = list(split[column])
    if any(not isinstance(text, str) for text in texts):
        raise DataError(
            f"Samples of {place} have no {column}, or one that is no text; remove them, or name the column: "
            "text=COLUMN."
        )
    return texts


def _tokens(place: str, split: Any, column: str) -> list[list[int]]:
    """The numbers of a column that a tokenizer made, a list of whole ones for each sample."""
    kind = str(getattr(getattr(split.features[column], "feature", None), "dtype", "no list"))
    if not kind.startswith(("int", "uint", "bool", "null")):
        raise DataError(
            f"The column {column} of {place} has samples of {split.features[column]}; expected a list of whole numbers "
            "for each, as a tokenizer makes it."
        )
    rows: list[list[int]] = list(split[column])
    if any(row is None or None in row for row in rows):
        raise DataError(f"Samples of {place} have no {column}, or not all of it; remove them.")
    return rows


def _require_equal_lengths(place: str, rows: Mapping[str, list[list[int]]]) -> None:
    """Refuse a mask that says nothing of some tokens, or something of what is not there."""
    for column, found in rows.items():
        for number, (row, ids) in enumerate(zip(found, rows["input_ids"], strict=True)):
            if len(row) != len(ids):
                raise DataError(
                    f"Sample {number} of {place} has {len(ids)} input_ids and {len(row)} numbers as {column}; they "
                    "belong together one by one."
                )


def _classified(
    place: str, splits: Mapping[str, Any], columns: _Columns, tokenizer: Any, length: int
) -> tuple[dict[str, Tokens], int | None]:
    """Tokens with their labels by split, and how many classes; None for values."""
    assert columns.label is not None
    found = {name: list(split[columns.label]) for name, split in splits.items()}
    if any(value is None for values in found.values() for value in values):
        raise DataError(f"Samples of {place} have no {columns.label}; remove them.")
    found = {name: values for name, values in found.items() if name != "test" or set(values) != {-1}}  # kept secret
    numbers = {name: _numbers(place, columns.label, values, found["train"]) for name, values in found.items()}
    numbers = _as_asked(columns.task, numbers)
    inputs = _encoded(place, {name: splits[name] for name in found}, columns, tokenizer, length)
    parts = {name: Tokens(inputs[name], targets) for name, targets in numbers.items()}
    if numbers["train"].is_floating_point():
        return parts, None
    feature = splits["train"].features[columns.label]
    classes = getattr(feature, "num_classes", None) or int(max(int(each.max()) for each in numbers.values())) + 1
    for name, targets in numbers.items():
        if not 0 <= int(targets.min()) <= int(targets.max()) < classes:
            raise DataError(f"The {name} split of {place} has labels outside of 0 to {classes - 1}.")
    return parts, max(classes, 2)


def _as_asked(task: str | None, numbers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole numbers as classes, or any as values, where the user says so."""
    if task == "regression":
        return {name: targets.float() for name, targets in numbers.items()}
    if task == "classification" and all(are_whole(targets) for targets in numbers.values()):
        return {name: targets.long() for name, targets in numbers.items()}
    return numbers


def _numbers(place: str, label: str, values: list[Any], train: list[Any]) -> Tensor:
    """(N,) of classes, or of values."""
    if all(isinstance(value, str) for value in values):
        names = {name: i for i, name in enumerate(sorted(set(train)))}
        unknown = set(values) - set(names)
        if unknown:
            raise DataError(f"{place}: the label {sorted(unknown)[0]!r} is not among those of the training split.")
        return torch.tensor([names[value] for value in values])
    try:
        numbers = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(values[0]).__name__
        raise DataError(
            f"The column {label} of {place} has samples of the type {kind}, no classes and no numbers: "
            f"{first_line(error)}"
        ) from error
    if numbers.dim() != 1:
        raise DataError(f"The column {label} of {place} has several values for a sample; expected one.")
    if numbers.is_floating_point() and not bool(numbers.isfinite().all()):
        raise DataError(f"The column {label} of {place} has values that are not finite; remove those samples.")
    return numbers.float() if numbers.is_floating_point() else numbers.long()


def _encoded(
    place: str, splits: Mapping[str, Any], columns: _Columns, tokenizer: Any, length: int
) -> dict[str, dict[str, Tensor]]:
    """Inputs by split, as long as the longest sample, but at most ``length``."""
    encoded: dict[str, dict[str, list[list[int]]]] = {}
    for name, split in splits.items():
        if columns.are_tokens:
            kept = [each for each in ("input_ids", "attention_mask", "token_type_ids") if each in split.column_names]
            rows = {each: _tokens(place, split, each) for each in kept}
            _require_equal_lengths(place, rows)
            encoded[name] = {each: [row[:length] for row in found] for each, found in rows.items()}
        else:
            texts = [_texts(place, split, column) for column in columns.texts]
            encoded[name] = dict(tokenizer(*texts, truncation=True, max_length=length))
    longest = max(len(row) for inputs in encoded.values() for row in inputs["input_ids"])
    filler = {"input_ids": 0 if tokenizer is None else tokenizer.pad_token_id or 0}
    for inputs in encoded.values():
        inputs.setdefault("attention_mask", [[1] * len(row) for row in inputs["input_ids"]])
    return {
        name: {each: _padded(rows, longest, filler.get(each, 0)) for each, rows in inputs.items()}
        for name, inputs in encoded.items()
    }


def _padded(rows: list[list[int]], length: int, filler: int) -> Tensor:
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows])


def _language(
    place: str, splits: Mapping[str, Any], columns: _Columns, tokenizer: Any, length: int
) -> tuple[dict[str, Tokens], int | None]:
    """The text of each split, cut into pieces of ``length`` tokens; targets are the tokens that follow each."""
    parts = {}
    for name, split in splits.items():
        rows = (
            _tokens(place, split, "input_ids")
            if tokenizer is None
            else _sentences(place, split, columns.texts[0], tokenizer)
        )
        stream = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.int64)
        pieces = (len(stream) - 1) // length
        if pieces < 1:
            if name == "train":
                raise DataError(
                    f"The text of {place} has {len(stream)} tokens, less than one input of {length} and the token that "
                    "follows; give a smaller length=, or more text."
                )
            continue
        inputs, targets = stream[: pieces * length], stream[1 : pieces * length + 1]
        parts[name] = Tokens({"input_ids": inputs.view(pieces, length)}, targets.view(pieces, length))
    return parts, None


def _sentences(place: str, split: Any, column: str, tokenizer: Any) -> Iterator[list[int]]:
    """The tokens of each text, and what ends it."""
    end = next((i for i in (tokenizer.eos_token_id, tokenizer.sep_token_id) if i is not None), None)
    for row in tokenizer(_texts(place, split, column), add_special_tokens=False, verbose=False)["input_ids"]:
        yield row if end is None else [*row, end]


def _tokenizer(named: str | None) -> Any:
    if named is None:
        raise UsageError(
            "Text has to be cut into tokens, and by which tokenizer is not known; use a model hf:NAME that has one, or "
            "name it: tokenizer=NAME."
        )
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "Text needs a tokenizer of the library transformers; install it with pip install 'compressor[hf]'."
        ) from error
    try:
        return AutoTokenizer.from_pretrained(named, local_files_only=True)
    except Exception as error:
        raise UsageError(
            f"There is no tokenizer in {named}: {first_line(error)} Name one that is on this machine: tokenizer=NAME."
        ) from error


def _kind(text: str) -> str:
    if text not in ("classification", "language", "regression"):
        raise ValueError("expected classification, language or regression")
    return text
