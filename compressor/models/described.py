"""What a saved folder may say about how its original is built: registered names, and arguments in bounds.

A description is data that anybody may have written. It is held against the registry it names before anything is built,
so that it reaches no other callable, file or address than a name typed by the user would.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from compressor.errors import UsageError
from compressor.models.base import Source
from compressor.models.sources import SOURCES
from compressor.options import shown
from compressor.plugins.importing import is_attribute_spec
from compressor.storage.codec import check

_FLAG, _COUNT, _SIZES = bool, int, list[int]
ARGUMENTS: dict[str, dict[str, Any]] = {
    "torchvision": {
        **{"num_classes": _COUNT, "in_channels": _COUNT, "image_size": _COUNT},
        **{"aux_logits": _FLAG, "init_weights": _FLAG, "transform_input": _FLAG},
    },
    "timm": {"num_classes": _COUNT, "in_chans": _COUNT, "img_size": _SIZES},
    "shipped": {
        **{"num_classes": _COUNT, "in_channels": _COUNT, "vocabulary": _COUNT, "grow": _COUNT},
        **{"dense": _FLAG, "input_shape": _SIZES},
    },
}
"""Per source, the arguments that ``Source.plan`` gives out, and their types."""
_MOST_PIXELS = 2**24


def require_registered(source_name: str, source: Source, name: str, kwargs: Mapping[str, Any], longest: int) -> None:
    """Refuse a description that names what its source does not list, or arguments that the source does not give out.

    Args:
        longest: the longest axis of the original's parameters; no count among the arguments can be larger.

    Raises:
        UsageError: with what was found and what is known.
    """
    if source_name == "hf":
        from compressor.models.sources.hf import require_description

        require_description(kwargs, longest)
        return
    known = source.names()
    if name.partition(".")[0] not in known if source_name == "timm" else name not in known:
        raise UsageError(f"The folder names the {source_name} model {shown(name)}, which is not there.")
    types = ARGUMENTS.get(source_name, {**ARGUMENTS["torchvision"], **ARGUMENTS["timm"], **ARGUMENTS["shipped"]})
    for key, value in kwargs.items():
        if key not in types:
            raise UsageError(f"The folder gives {name} the argument {shown(key)}; known are {', '.join(types)}.")
        check(types[key], value, f"description.kwargs.{key}")
        if types[key] is _COUNT and not 0 <= value <= max(longest, 4096):
            raise UsageError(f"The folder gives {name} {key}={shown(value)}, more than its parameters have.")
        if types[key] is _SIZES and not (0 < len(value) <= 4 and min(value) > 0 and _product(value) <= _MOST_PIXELS):
            raise UsageError(f"The folder gives {name} {key}={shown(value)}, which are no sizes of an input.")


def require_trusted(spec: str, trusted: Sequence[str]) -> None:
    """Refuse a factory that the user has not named: a folder must not choose what is imported.

    ``trusted`` has factories (``package.module:factory``) and modules or packages (``package``). Raises ``UsageError``.
    """
    if not is_attribute_spec(spec):
        raise UsageError(f"The folder names the factory {shown(spec)}, which has not the form package.module:name.")
    module = spec.partition(":")[0]
    if any(spec == each or module == each or module.startswith(f"{each}.") for each in trusted):
        return
    raise UsageError(
        f"The folder asks for the model factory {spec}, and a folder is not allowed to run code by itself. If you know "
        f"it, allow it: --trust-factories {spec}, or from Python compressor.load(..., trust_factories=({spec!r},))."
    )


def require_known_source(source_name: str) -> None:
    """Refuse a place that models do not come from."""
    if source_name not in SOURCES:
        raise UsageError(f"The original comes from {shown(source_name)}; known are {', '.join(SOURCES)}.")


def _product(sizes: Iterable[int]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result
