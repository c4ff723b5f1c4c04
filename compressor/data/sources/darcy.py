"""Darcy flow: from where a medium lets a fluid through to the pressure, on a grid; two-phase coefficients, as in
Li et al., "Fourier Neural Operator for Parametric Partial Differential Equations", 2021.

Read from ``darcy.npz`` with ``x_train``, ``y_train``, ``x_test``, ``y_test`` and for the finer grid ``x_test32``,
``y_test32``; or from ``darcy_train_16.pt``, ``darcy_test_16.pt``, ``darcy_test_32.pt``: dictionaries of the tensors
``x`` and ``y``. All are (N, H, W).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from compressor.data.arrays import from_tensors
from compressor.data.base import Data
from compressor.data.memory import Normalise, TensorSplit
from compressor.errors import DataError, UsageError
from compressor.storage.packed import open_arrays
from compressor.storage.reading import parsing, require_file

RESOLUTION = 16
_FINER = 32


def load(argument: str) -> Data:
    """``DIR`` or ``DIR,RESOLUTION``: training always is on the 16 x 16 grid; with 32 the test is on the finer one, for
    networks that take inputs of any size.

    Inputs are (3, H, W): the coefficient, scaled to mean 0 and spread 1, and the coordinates, -1 to 1. Targets are the
    pressure, (1, H, W).

    Raises:
        DataError: files are missing or damaged.
        UsageError: another resolution.
    """
    place, comma, last = argument.rpartition(",")
    place, resolution = (place, last.strip()) if comma and last.strip().isdecimal() else (argument, str(RESOLUTION))
    if resolution not in {str(RESOLUTION), str(_FINER)}:
        raise UsageError(f"darcy is there at resolutions {RESOLUTION} and {_FINER}, not {resolution}.")
    finer = resolution == str(_FINER)
    pairs = _read(Path(place), "test32" if finer else "test")
    mean = float(pairs["train"][0].mean())
    normalise = Normalise((round(mean, 4), 0.0, 0.0), (round(float(pairs["train"][0].std()), 4) or 1.0, 1.0, 1.0))
    train, test = ((_with_coordinates(x), y[:, None]) for x, y in pairs.values())
    data = from_tensors(train, test=None if finer else test, name=f"darcy:{argument}", normalise=normalise)
    if not finer:
        return data
    found = TensorSplit(*test, normalise=normalise)
    return Data(data.name, data.train, data.val, found, None, data.example_inputs, data.task)


def _with_coordinates(coefficient: Tensor) -> Tensor:
    """(N, H, W) to (N, 3, H, W)."""
    count, height, width = coefficient.shape
    down = torch.linspace(-1, 1, height)[:, None].expand(count, height, width)
    across = torch.linspace(-1, 1, width).expand(count, height, width)
    return torch.stack([coefficient, down, across], dim=1)


def _read(root: Path, test: str) -> dict[str, tuple[Tensor, Tensor]]:
    file = root if root.suffix == ".npz" else root / "darcy.npz"
    if file.is_file():
        return {part: _checked(file, *_from_npz(file, part)) for part in ("train", test)}
    names = {"train": "darcy_train_16.pt", "test": "darcy_test_16.pt", "test32": "darcy_test_32.pt"}
    files = {part: root / names[part] for part in ("train", test)}
    lacking = [file.name for file in files.values() if not file.is_file()]
    if lacking:
        what = "does not exist" if not root.exists() else f"lacks {', '.join(lacking)}"
        raise DataError(f"'{root}' {what}; expected darcy.npz, or darcy_train_16.pt and darcy_test_16.pt in it.")
    return {part: _checked(file, *_from_torch(file)) for part, file in files.items()}


def _from_npz(file: Path, part: str) -> tuple[Tensor, Tensor]:
    with open_arrays(file) as archive:
        lacking = [key for key in (f"x_{part}", f"y_{part}") if key not in archive.files]
        if lacking:
            raise DataError(f"'{file}' lacks {' and '.join(lacking)}; fetch it again.")
        x, y = archive[f"x_{part}"], archive[f"y_{part}"]
        if x.dtype.kind not in "bfiu" or y.dtype.kind not in "bfiu":
            raise DataError(f"'{file}' holds {x.dtype} and {y.dtype}; expected numbers.")
    return torch.from_numpy(x), torch.from_numpy(y)


def _from_torch(file: Path) -> tuple[Tensor, Tensor]:
    size = require_file(file, "fetch it again", kind=DataError)
    with parsing(file, "readable file of plain tensors", "fetch it again", kind=DataError):
        content = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), Tensor) for key in ("x", "y")):
        raise DataError(f"'{file}' holds no tensors named x and y; fetch it again.")
    if any(content[key].numel() * content[key].element_size() > 2 * size for key in ("x", "y")):
        raise DataError(f"'{file}' announces more values than it has; fetch it again.")
    return content["x"], content["y"]


def _checked(file: Path, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.dim() == 4 and x.shape[1] == 1:
        x = x[:, 0]
    if y.dim() == 4 and y.shape[1] == 1:
        y = y[:, 0]
    if x.dim() != 3 or x.shape != y.shape or not len(x):
        raise DataError(f"'{file}' holds x of shape {list(x.shape)} and y of {list(y.shape)}; expected (N, H, W) both.")
    return x.float(), y.float()
