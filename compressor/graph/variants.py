"""What a runtime runs for a module under each alternative of a choice.

A choice says what it changes of a module's operators; here every operator of the module gets one variant for each
alternative, so that costs that measure need not know of the kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compressor.arrays import IntArray
from compressor.errors import UnsupportedModelError
from compressor.graph.graph import Graph
from compressor.graph.operators import Extent, Operator

#: Of an operator: one number per spatial axis each.
_SPATIAL = ("kernel", "stride", "padding", "dilation", "spatial")
#: What an alternative may change of an operator. Channel counts are not among it: they follow from units.
FIELDS = (*_SPATIAL, "kind", "out_positions", "fused", "attributes")


def add_variants(
    graph: Graph, what: str, place: str, changes: Sequence[Mapping[str, Any]], current: int, units: IntArray
) -> None:
    """Give the operators of one module a variant for each alternative, in place.

    Where a module reads weights, these operators are meant; else all that it runs.

    Args:
        what: the choice, for messages.
        place: the module's name.
        changes: for each alternative, fields of the operators with their values.
        current: the alternative that the network has; its values must be those of the operators.
        units: those of the alternatives, shape (n_alternatives,).

    Raises:
        UnsupportedModelError: no such operators, values that are none, or another choice that changes the same.
    """
    found = [operator for operator in graph.operators if operator.place == place]
    found = [operator for operator in found if operator.weights] or found
    if not found:
        raise UnsupportedModelError(f"{what} changes the operators of {place}, which runs none.")
    if len(changes) != len(units):
        raise UnsupportedModelError(
            f"{what} says of {len(changes)} alternatives what {place} runs; expected all of its {len(units)}."
        )
    for operator in found:
        if operator.variants:
            raise UnsupportedModelError(f"{what} changes the operators of {place}, and another choice does, too.")
        values = [_read(what, place, operator, change) for change in changes]
        for name, value in values[current].items():
            if getattr(operator, name) != value:
                raise UnsupportedModelError(
                    f"{what} says that {place} has the {name} {value} now, and it has {getattr(operator, name)}."
                )
        # What of a kernel may be cropped is known for the kernel that is there alone.
        plain = replace(operator, taps=Extent(), cropped=None)
        variants = [replace(plain, **value) for value in values]
        variants[current] = replace(operator)
        operator.variants = tuple(variants)
        operator.variant_units = tuple(units.tolist())


def _read(what: str, place: str, operator: Operator, change: Mapping[str, Any]) -> dict[str, Any]:
    """The values of one alternative, as an operator has them."""
    found: dict[str, Any] = {}
    for name, value in change.items():
        had = getattr(operator, name, None)
        good: bool
        if name in _SPATIAL:
            good = isinstance(value, (tuple, list)) and len(value) == len(had or ())
            least = 0 if name == "padding" else 1
            good = good and all(isinstance(n, (int, np.integer)) and int(n) >= least for n in value)
            found[name] = tuple(int(n) for n in value) if good else None
        elif name == "fused":
            good = isinstance(value, (tuple, list)) and all(isinstance(each, str) for each in value)
            found[name] = tuple(value) if good else None
        elif name == "attributes":
            good = isinstance(value, Mapping) and all(isinstance(each, str) for each in value)
            found[name] = dict(value) if good else None
        elif name == "out_positions":
            good = isinstance(value, (int, np.integer)) and int(value) >= 1
            found[name] = int(value) if good else None
        elif name == "kind":
            good = isinstance(value, str)
            found[name] = value
        else:
            raise UnsupportedModelError(
                f"{what} changes the {name} of the operators of {place}; it may change {', '.join(FIELDS)}."
            )
        if not good:
            raise UnsupportedModelError(
                f"{what} gives the operators of {place} the {name} {value!r}; they have {had!r} now."
            )
    return found
