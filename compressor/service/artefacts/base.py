"""What a store of contents does."""

from __future__ import annotations

from typing import BinaryIO, Protocol


class Store(Protocol):
    """Contents by the SHA-256 of their bytes. A content is there whole or not at all."""

    def put(self, stream: BinaryIO, sha256: str | None = None, limit: int | None = None) -> tuple[str, int]:
        """Store what the stream has; its hash and its bytes.

        Raises:
            RefusedError: another hash than ``sha256``.
            TooLargeError: more than ``limit`` bytes.
            StorageFullError, StorageError: it cannot be written. Nothing of it stays.
        """
        ...

    def open(self, sha256: str, start: int = 0) -> BinaryIO:
        """The content from byte ``start``. Raises ``NotFoundError``."""
        ...

    def has(self, sha256: str) -> bool:
        """Whether it is there."""
        ...

    def delete(self, sha256: str) -> None:
        """Remove it, if it is there."""
        ...

    def check(self) -> None:
        """Raises ``StorageError`` if it cannot be reached."""
        ...

    def remove_temporaries(self, older_than: float) -> int:
        """Delete what killed writers left more than ``older_than`` seconds ago; how many."""
        ...
