"""Data that the user's own code makes, named ``package.module:factory``."""

from __future__ import annotations

from collections.abc import Mapping

from compressor.data.base import Data
from compressor.data.loaders import from_loaders
from compressor.errors import DataError
from compressor.plugins.importing import import_attribute

_KEYS = {"train", "val", "test", "num_classes", "vocabulary", "task"}


def load(argument: str) -> Data:
    """Call the factory, without arguments.

    It returns a ``Data``, loaders ``(train, val)`` or ``(train, val, test)``, or a mapping with those keys and
    ``num_classes`` or, for tokens, ``vocabulary``, or what the ``task`` is where the targets do not say so.

    Raises:
        DataError: it raises, or returns something else.
    """
    factory = import_attribute(argument, "data factory")
    if not callable(factory):
        raise DataError(f"The data factory {argument} is a {type(factory).__name__}; expected a function.")
    try:
        made = factory()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # one that ends the process, too, is a failure of the factory
        raise DataError(f"The data factory {argument} raised {type(error).__name__}: {error}") from error
    if isinstance(made, Data):
        return made
    if isinstance(made, Mapping) and "train" in made and set(made) <= _KEYS:
        return from_loaders(**made)
    if isinstance(made, tuple) and len(made) in {2, 3}:
        return from_loaders(*made)
    raise DataError(
        f"The data factory {argument} returned a {type(made).__name__}; expected (train, val) or (train, val, test) "
        "loaders, a mapping of them, or compressor.data.Data."
    )
