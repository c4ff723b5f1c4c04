"""Weights: a safetensors file."""

from __future__ import annotations

from pathlib import Path

from compressor.errors import WeightsError
from compressor.storage.reading import LARGE, parse_json, parsing

_CURE = "send a file that safetensors wrote"
_DTYPES = {
    "BOOL",
    "U8",
    "I8",
    "I16",
    "U16",
    "I32",
    "U32",
    "I64",
    "U64",
    "F16",
    "BF16",
    "F32",
    "F64",
    "F8_E4M3",
    "F8_E5M2",
}


def check_weights(file: Path, unpacked: int) -> None:
    """Refuse what is no safetensors file. Raises ``WeightsError``."""
    from safetensors import safe_open

    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= min(size - 8, LARGE.bytes):
            raise WeightsError(f"{file} is no safetensors file (its header would have {length:,} bytes); {_CURE}.")
        header = stream.read(length)
    try:
        tensors = parse_json(header, limits=LARGE)
    except ValueError as error:
        raise WeightsError(f"{file} is no safetensors file (of its header: {error}); {_CURE}.") from error
    if not isinstance(tensors, dict) or not set(tensors) - {"__metadata__"}:
        raise WeightsError(f"{file} holds no tensors; {_CURE}.")
    for name, told in tensors.items():
        dtype = told.get("dtype") if isinstance(told, dict) else None
        if name != "__metadata__" and dtype not in _DTYPES:
            raise WeightsError(f"{file} has the tensor {name[:80]!r} of type {str(dtype)[:20]!r}; {_CURE}.")
    # The library checks that shapes and places fit each other and the file.
    with parsing(file, "safetensors file", _CURE, kind=WeightsError), safe_open(file, framework="numpy") as opened:
        opened.keys()
