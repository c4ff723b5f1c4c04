"""A store on fsspec: a folder, memory, or a bucket, by its URL."""

from __future__ import annotations

from typing import BinaryIO

from compressor.service.artefacts.base import Store


class FsspecStore:
    """Contents as ``ab/cdef...`` below a folder or URL; written under a temporary name and moved. See ``Store``."""

    def __init__(self, url: str) -> None:
        raise NotImplementedError

    def put(self, stream: BinaryIO, sha256: str | None = None, limit: int | None = None) -> tuple[str, int]:
        raise NotImplementedError

    def open(self, sha256: str, start: int = 0) -> BinaryIO:
        raise NotImplementedError

    def has(self, sha256: str) -> bool:
        raise NotImplementedError

    def delete(self, sha256: str) -> None:
        raise NotImplementedError

    def check(self) -> None:
        raise NotImplementedError

    def remove_temporaries(self, older_than: float) -> int:
        raise NotImplementedError


def open_store(url: str) -> Store:
    """The store at a folder or fsspec URL. Raises ``UsageError`` for one that cannot be used."""
    return FsspecStore(url)
