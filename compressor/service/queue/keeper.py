"""The chores of a server, in a thread of their own."""

from __future__ import annotations

from compressor.service.services import Services


class Keeper:
    """Expires leases every few seconds, and sweeps every hour; it survives a database that is away.

    ``with Keeper(services): ...``
    """

    def __init__(self, services: Services) -> None:
        raise NotImplementedError

    def __enter__(self) -> Keeper:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError
