"""Reading data sets of Hugging Face ``datasets``: from a folder or the cache, without a word to anybody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from compressor.errors import DataError, MissingDependencyError

SPLITS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}


def splits_of(place: str) -> dict[str, Any]:
    """The splits there are, by our names; a test split alone that has labels is one for validation, too."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "Data named hf:PLACE needs the library datasets; install it with pip install 'compressor[hf]'."
        ) from error
    folder = Path(place)
    saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
    if place.startswith((".", "/", "~")) and not folder.is_dir():
        raise DataError(f"The data folder '{place}' does not exist.")
    try:
        with _offline(datasets), _without_bars(datasets):
            found = datasets.load_from_disk(place) if saved else datasets.load_dataset(place)
    except Exception as error:  # whatever files may do to a reader of files
        raise DataError(
            f"The data set {place} cannot be read: {first_line(error)} Expected a folder that save_to_disk "
            "wrote, a folder of CSV, JSON, Parquet or text files, or a name in the cache (nothing is downloaded: hf "
            "download NAME --repo-type dataset)."
        ) from error
    splits = found if isinstance(found, dict) else {"train": found}
    named = {SPLITS[name]: split for name, split in splits.items() if name in SPLITS and len(split)}
    if "train" not in named:
        raise DataError(f"The data set {place} has the splits {', '.join(splits) or 'none'}; train is needed.")
    return named


def first_line(error: Exception) -> str:
    """The first line of what it says, as a sentence."""
    said = str(error).strip().splitlines() or [type(error).__name__]
    return f"{said[0].rstrip('.')}."


@contextmanager
def _without_bars(datasets: Any) -> Iterator[None]:
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if bars:
            datasets.enable_progress_bars()


@contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """Keep the libraries to what lies on this machine."""
    from huggingface_hub import constants

    with (
        mock.patch.object(datasets.config, "HF_HUB_OFFLINE", True),
        mock.patch.object(constants, "HF_HUB_OFFLINE", True),
    ):
        yield
