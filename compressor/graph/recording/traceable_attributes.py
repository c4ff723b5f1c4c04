"""Sizes that modules keep as attributes, for the length of one trace."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import nn

from compressor.graph.recording.dims import SIZES_OF_TORCH, Dim, FromAttribute
from compressor.process.sharing import Switch


@contextmanager
def traceable_attributes(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Replace the integer attributes of modules by ``Dim`` for the length of one pass.

    Of PyTorch's own modules only those that say how large their weights are: a user's forward may ask for them.
    """
    saved: list[tuple[dict[str, Any], str, Any]] = []
    for fqn, module in modules.items():
        space = vars(module)
        if type(module).__module__.startswith("torch.nn."):
            for name in SIZES_OF_TORCH.intersection(space):
                attribute = space[name]
                if type(attribute) is int:
                    saved.append((space, name, attribute))
                    space[name] = Dim(attribute, FromAttribute(fqn, name))
            continue  # their other numbers are mended by class
        for name, attribute in list(space.items()):
            if type(attribute) is int:
                saved.append((space, name, attribute))
                space[name] = Dim(attribute, FromAttribute(fqn, name))
            elif type(attribute) in (tuple, list) and attribute and all(type(a) is int for a in attribute):
                saved.append((space, name, attribute))
                space[name] = type(attribute)([Dim(a, FromAttribute(fqn, name, i)) for i, a in enumerate(attribute)])
            elif type(attribute) is dict and attribute and all(type(a) is int for a in attribute.values()):
                saved.append((space, name, attribute))
                space[name] = {k: Dim(a, FromAttribute(fqn, name, k)) for k, a in attribute.items()}
                if name == "axes_lengths" and "_axes_lengths" in space:  # an einops layer computes with a second copy
                    saved.append((space, "_axes_lengths", space["_axes_lengths"]))
                    space["_axes_lengths"] = tuple(space[name].items())
    try:
        yield
    finally:
        for space, name, attribute in saved:
            space[name] = attribute


def _compute_anew() -> Callable[[], None]:
    einops = sys.modules.get("einops.einops")
    cached = getattr(einops, "_reconstruct_from_shape", None)
    anew = getattr(einops, "_reconstruct_from_shape_uncached", None)
    if cached is None or anew is None:
        return lambda: None
    vars(einops)["_reconstruct_from_shape"] = anew
    return lambda: vars(einops).update(_reconstruct_from_shape=cached)


_EINOPS_ANEW = Switch(_compute_anew)


def uncached() -> AbstractContextManager[None]:
    """Inside, einops computes shapes anew: what it keeps, by shape, would be sizes of another trace."""
    return _EINOPS_ANEW.on()
