"""Weights inside what trainers save: which of a file's dictionaries are a model's, and under which prefix its keys are.

Nothing in a file is run: whatever is no tensor, number, text or container is replaced by an empty dictionary while the
file is read, hyperparameters for instance, and names in it are never looked up.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.errors import WeightsError
from compressor.storage.reading import require_memory_for, size_text

_DEPTH = 4
#: An archive may unpack to so many times its size, and this many bytes.
_PACKED, _SMALL = 4, 1 << 20
_AVERAGES = re.compile(r"(^|[._])(ema|averaged?|teacher|target|momentum|shadow)($|[._])", re.IGNORECASE)
#: Functions that stand in files of numbers; of other functions a file is suspected, classes are merely left out.
_HARMLESS = re.compile(r"(numpy(\._?core)?\.multiarray|numpy|_codecs|copyreg|functools|builtins)\.(\w+)")
_HARMLESS_NAMES = {
    "scalar",
    "_reconstruct",
    "dtype",
    "ndarray",
    "encode",
    "_reconstructor",
    "partial",
    "set",
    "frozenset",
}


class _Nothing:
    """Stands for an object of a file: takes any state and keeps none."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None: ...


class _Dictionary:
    """Stands for an object that may be a dictionary or a bag of attributes; makes a plain one."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict()


def read_content(file: Path) -> object:
    """What ``torch.save`` wrote, of tensors, numbers, text and containers alone.

    Raises:
        WeightsError: it holds code, is no such file, or would not fit into memory.
    """
    _require_as_large_as_it_says(file)
    kind = archive_kind(file)
    if kind in ("TorchScript", "a torch.package archive"):
        raise WeightsError(
            f"Weights file '{file}' is {kind}, which holds code; load it where you trust it, and save its state_dict() "
            "with safetensors.torch.save_file or torch.save."
        )
    try:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            allowed = _placeholders(file)
            if allowed is None:
                raise
            with torch.serialization.safe_globals(allowed):
                content: object = torch.load(file, map_location="cpu", weights_only=True)
            if not isinstance(content, Mapping) or not any(True for _ in state_dicts(content)):
                raise
            return content
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"Weights file '{file}' was refused: it is no plain state dict but holds pickled objects, which can run "
            "code when loaded. Save model.state_dict() with safetensors.torch.save_file or torch.save and pass that."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        line = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise WeightsError(f"Weights file '{file}' cannot be read as a state dict ({line}).") from error


def _require_as_large_as_it_says(file: Path) -> None:
    """Refuse what would not fit into memory, and archives that unpack to much more than they are.

    PyTorch writes tensors as they are, but would read ones that were packed.
    """
    size = file.stat().st_size
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        unpacked = size
    if unpacked > _PACKED * size + _SMALL:
        raise WeightsError(
            f"Weights file '{file}' unpacks to {size_text(unpacked)} from {size_text(size)}, and torch.save packs "
            "nothing; save model.state_dict() anew."
        )
    require_memory_for(file, max(size, unpacked), "name another file", kind=WeightsError)


def _placeholders(file: Path) -> list[Any] | None:
    """Something inert for every class that a file names; ``None`` if it names functions."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except (ValueError, RuntimeError, pickle.UnpicklingError, KeyError):
        return None
    found: list[Any] = []
    for name in names:
        last = name.rpartition(".")[2]
        known = _HARMLESS.fullmatch(name)
        if known is not None and known[3] in _HARMLESS_NAMES:
            found.append((_Nothing, name))
        elif last[:1].isupper():
            found.append((_Dictionary, name))
        else:
            return None
    return found


def archive_kind(file: Path) -> str | None:
    """What a zip archive of PyTorch's is, in words; ``None`` for other files."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError):
        return None
    if "constants.pkl" in names:
        return "TorchScript"
    if ".data/extern_modules" in names:
        return "a torch.package archive"
    return "a checkpoint" if "data.pkl" in names else None


def state_dicts(content: object, path: tuple[str, ...] = (), depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dictionary of tensors in what was read, with the keys that lead to it."""
    if not isinstance(content, Mapping) or depth > _DEPTH:
        return
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors and all(isinstance(key, str) for key in content):
        yield ".".join(path), tensors
    for key, value in content.items():
        yield from state_dicts(value, (*path, str(key)), depth + 1)


def best_fit(
    found: list[tuple[str, dict[str, Tensor]]], own: Mapping[str, Tensor], origin: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of a model with these keys, by them, and the keys of the same dictionary that are beside it.

    Plain weights come before averages of them (EMA). The dictionary that has most of the model's keys is taken; whether
    all fit is for the caller to say.

    Raises:
        WeightsError: several networks in the file fit alike.
    """
    wanted = {key for key in own if not key.endswith("num_batches_tracked")}
    ranked: list[tuple[int, bool, int, str, str, dict[str, Tensor]]] = []
    for path, tensors in found:
        for prefix in _prefixes(wanted, tensors):
            hits = sum(1 for key in wanted if prefix + key in tensors)
            ranked.append((-hits, bool(_AVERAGES.search(f"{path}.{prefix}")), len(prefix), path, prefix, tensors))
    ranked.sort(key=lambda entry: entry[:5])
    first = ranked[0]
    rivals = [entry for entry in ranked[1:] if entry[:2] == first[:2] and first[4] and (entry[3:5] != first[3:5])]
    if -first[0] == len(wanted) and any(not _same(entry, first, wanted) for entry in rivals):
        places = ", ".join(repr(".".join(filter(None, (e[3], e[4].rstrip("."))))) for e in (first, *rivals))
        raise WeightsError(
            f"The weights from {origin} hold several networks that fit, under {places}; save the one that is meant by "
            "itself."
        )
    prefix, tensors = first[4], first[5]
    inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    return inside, [key for key in tensors if not key.startswith(prefix)]


def _same(one: tuple[Any, ...], other: tuple[Any, ...], wanted: set[str]) -> bool:
    """Whether two candidates hold the same values."""
    return all(torch.equal(one[5][one[4] + key], other[5][other[4] + key]) for key in wanted)


def _prefixes(wanted: set[str], tensors: Mapping[str, Tensor]) -> list[str]:
    """What the model's keys may begin with in a dictionary: told by a few of its longest ones."""
    probes = sorted(wanted, key=lambda key: (-len(key), key))[:3] + sorted(wanted)[:3]
    found = {key.removesuffix(probe) for probe in probes for key in tensors if key.endswith(probe)}
    return sorted(prefix for prefix in {"", *found} if not prefix or prefix.endswith("."))
