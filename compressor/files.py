"""Atomic writing: a file is there whole or not at all, whenever the process is killed.

Everything is written to a temporary file in the same folder, flushed to the disk and moved over the target with
``os.replace``. Failures of the file system come out as a one-line ``CompressorError``; the target is then untouched
and the temporary file gone.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import CompressorError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OS_ERROR_CODE = re.compile(r"\(os error (\d+)\)")


@contextmanager
def storage_errors(path: Path, action: str = "write") -> Iterator[None]:
    """Turn an ``OSError`` (or one that safetensors reports as text) into a one-line ``CompressorError``."""
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise _storage_error(path, action, error.errno, error.strerror or str(error)) from error
    except SafetensorError as error:
        found = _OS_ERROR_CODE.search(str(error))
        if found is None:
            raise CompressorError(f"Cannot {action} {path}: {error}.") from error
        code = int(found.group(1))
        raise _storage_error(path, action, code, os.strerror(code)) from error


def _storage_error(path: Path, action: str, code: int | None, text: str) -> CompressorError:
    if code in _FULL:
        return CompressorError(
            f"Cannot {action} {path}: {text}. Free some space or choose another folder, and run again."
        )
    return CompressorError(f"Cannot {action} {path}: {text}.")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends well it replaces ``path``, else it is removed.

    The suffix of ``path`` is kept, for writers that choose their format by it. Missing parent folders are made.

    Raises:
        CompressorError: the disk is full, the folder cannot be written, or the like.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp{target.suffix}")
    with storage_errors(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _flush_file(temporary)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _flush_folder(target.parent)


def remove_stale_temporaries(folder: Path) -> None:
    """Delete what killed writers left under ``folder``. Only for a folder that no other process writes to."""
    for leftover in folder.rglob(".*.tmp*"):
        with suppress(OSError):
            leftover.unlink()


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8 with the line ends it has."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(
    path: str | os.PathLike[str], value: Any, *, indent: int | None = 2, allow_nan: bool = False
) -> None:
    """Write ``value`` as JSON atomically.

    NaN and infinity are no JSON and refused (``ValueError``), unless ``allow_nan`` says that only Python reads it.
    """
    atomic_write_text(path, json.dumps(value, indent=indent, allow_nan=allow_nan, ensure_ascii=False) + "\n")


def atomic_save_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``tensors`` (any device, strides and aliasing) and text ``metadata`` into one safetensors file atomically.

    Tensors that share memory are stored once per name, so that loading needs no knowledge of what was tied.
    """
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(_packed(tensors), temporary, metadata=dict(metadata or {}))
        temporary.chmod(mode)  # safetensors makes its files private; follow the umask as every other file does


def load_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors (on the CPU, each with memory of its own) and the text metadata of a safetensors file.

    Raises:
        UsageError: the file is missing or is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise UsageError(f"There is no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Cloned: the reader may hand out views of a mapped file, which would change if the file did.
            return {name: file.get_tensor(name).clone() for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} cannot be read as safetensors ({error}); delete it or name another file.") from error


def _packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values, contiguous, on the CPU and free of shared memory, as the format demands."""
    seen: set[int] = set()
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().to("cpu").contiguous()
        storage = plain.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != plain.numel() * plain.element_size():
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        packed[name] = plain
    return packed


def _flush_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # folders cannot be opened there, and the move is durable enough
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # file systems without folder sync
            raise
    finally:
        os.close(descriptor)
