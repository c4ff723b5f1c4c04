"""Atomic writing: a file is there whole or not at all, whenever the process is killed.

Everything is written to a temporary folder beside its place, flushed to the disk and moved over the target with
``os.replace``. A target that is a symbolic link stays one, and what it points to is replaced; mode and owner stay.
Devices, pipes and the like are never replaced. Failures of the file system come out as a one-line ``CompressorError``;
the target is then untouched and the temporary folder gone.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import CompressorError, UsageError
from compressor.printable import printable_json
from compressor.storage.lock import alive
from compressor.storage.reading import kind_of, require_file, require_memory_for

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
    """Yield a temporary path near ``path``; when the block ends well it replaces ``path``, else it is removed.

    The name of ``path`` is kept, for writers that choose their format by it. Missing parent folders are made.

    Raises:
        UsageError: ``path`` is there and is no file: a folder, a device, a pipe, a link to nothing.
        CompressorError: the disk is full, the folder cannot be written, or the like.
    """
    with storage_errors(Path(path)):
        target, present = destination(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.parent / f".{target.stem[:20]}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        scratch.mkdir(mode=0o700)
        try:
            temporary = scratch / target.name
            yield temporary
            if present is not None:
                with suppress(OSError):  # only an administrator may give files away
                    os.chown(temporary, present.st_uid, present.st_gid)
                temporary.chmod(stat.S_IMODE(present.st_mode))
            _flush_file(temporary)
            os.replace(temporary, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        _flush_folder(target.parent)


def destination(path: str | os.PathLike[str]) -> tuple[Path, os.stat_result | None]:
    """The file to write when ``path`` is named, links followed, and what is there already.

    Raises ``UsageError`` for what is no regular file, ``OSError`` for a path that cannot be looked at.
    """
    try:
        present = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            raise UsageError(
                f"Cannot write {os.fspath(path)}: it is a symbolic link to nothing; delete it or name another file."
            ) from None
        return Path(path), None
    if (kind := kind_of(present.st_mode)) is not None:
        raise UsageError(f"Cannot write {os.fspath(path)}: it is {kind}; name a file to write to.")
    return Path(os.path.realpath(path)), present


_TEMPORARY = re.compile(r"\..*\.(\d+)-\w+\.tmp(\..*)?")
_OF_SAFETENSORS = re.compile(r"\.tmp\w{6}")  # earlier versions of this program let it write beside the target
_STARTED = time.time()


@contextmanager
def made_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder, made with those above it. If the work inside fails, those made that are still empty go again.

    Raises ``CompressorError`` if it cannot be made.
    """
    folder = Path(path)
    with storage_errors(folder):
        new = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        for each in new:
            with suppress(OSError):  # not empty
                each.rmdir()
        raise


def remove_stale_temporaries(folder: Path) -> None:
    """Delete what killed writers left under ``folder``. Only for a folder that no other process writes to."""
    for leftover in list(folder.rglob(".*.tmp*")) + list(folder.rglob(".tmp??????")):
        _remove(leftover)


def remove_dead_temporaries(folder: Path) -> None:
    """Delete what killed writers left in ``folder`` itself. What a living process is writing stays."""
    with suppress(OSError):
        for leftover in list(os.scandir(folder)):
            with suppress(OSError):
                if _is_stale(leftover):
                    _remove(Path(leftover.path))


def _remove(leftover: Path) -> None:
    with suppress(OSError):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink()


def _is_stale(entry: os.DirEntry[str]) -> bool:
    if _OF_SAFETENSORS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
        return not _is_open(entry)
    found = _TEMPORARY.fullmatch(entry.name)
    if found is None:
        return False
    if int(found[1]) == os.getpid():  # ours, or that of a dead process whose number we have
        return entry.stat(follow_symlinks=False).st_mtime < _STARTED
    return not alive(found[1])


def _is_open(entry: os.DirEntry[str]) -> bool:
    """Whether some process has the file open; where that cannot be told, whether it is younger than an hour."""
    status = entry.stat(follow_symlinks=False)
    processes = list(Path("/proc").glob("[0-9]*/fd")) if Path("/proc/self/fd").is_dir() else None
    if processes is None:
        return time.time() - status.st_mtime < 3600
    for files in processes:
        with suppress(OSError):
            for descriptor in os.scandir(files):
                with suppress(OSError):
                    if os.path.samestat(os.stat(descriptor.path), status):
                        return True
    return False


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8 with the line ends it has."""
    atomic_write_bytes(path, text.encode("utf-8", "backslashreplace"))


def atomic_write_json(
    path: str | os.PathLike[str], value: Any, *, indent: int | None = 2, allow_nan: bool = False
) -> None:
    """Write ``value`` as JSON atomically.

    NaN and infinity are no JSON and refused (``ValueError``), unless ``allow_nan`` says that only Python reads it.
    """
    text = json.dumps(value, indent=indent, allow_nan=allow_nan, ensure_ascii=False)
    atomic_write_text(path, printable_json(text) + "\n")


def atomic_save_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``tensors`` (any device, strides and aliasing) and text ``metadata`` into one safetensors file atomically.

    Tensors that share memory are stored once per name, so that loading needs no knowledge of what was tied. The same
    content gives the same bytes.
    """
    from safetensors.torch import save_file

    packed = _packed(tensors)
    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(packed, temporary, metadata={**(metadata or {}), _CHECKSUM: _checksum(packed)})
        _sort_metadata(temporary)
        temporary.chmod(mode)  # safetensors makes its files private; follow the umask as every other file does


def load_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors (on the CPU, each with memory of its own) and the text metadata of a safetensors file.

    Raises:
        UsageError: the file is missing, is no safetensors file, or is not as it was written.
    """
    from safetensors import SafetensorError, safe_open

    cure = "delete it or name another file"
    require_memory_for(path, require_file(path, cure), cure)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            # Cloned: the reader may hand out views of a mapped file, which would change if the file did.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as safetensors ({error}); {cure}.") from error
    expected = metadata.pop(_CHECKSUM, None)
    if expected is not None and expected != _checksum(tensors):
        raise UsageError(f"{path} is damaged: its tensors are not those that were written; {cure}.")
    return tensors, metadata


def _sort_metadata(path: Path) -> None:
    """Sort the metadata in the header of a safetensors file, which its library writes in any order."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size)
        if len(text) == size:
            file.seek(8)
            file.write(text)


_CHECKSUM = "crc32"


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    import torch

    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(name.encode(), total)
        tensor = tensors[name]  # contiguous; only the stride of a single element may be anything
        flat = tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
        total = zlib.crc32(flat.view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


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
