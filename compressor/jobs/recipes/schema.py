"""The JSON Schema of recipes, made from the declarations that check them. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressor.budget import COSTS
from compressor.jobs.recipes.keys import SCHEMA_VERSION, Key, job_keys, method_keys, plain, sweep_keys
from compressor.options import schema_of
from compressor.pipeline.grid import AXES, Numbers
from compressor.search import usable_methods

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_AMOUNT = {"anyOf": [{"type": "string", "minLength": 1}, {"type": "number", "exclusiveMinimum": 0}]}


def recipe_schema(*, sweep: bool = False) -> dict[str, Any]:
    """What editors and other programs may check a recipe against, with the methods and costs that are installed.

    Args:
        sweep: for ``compress sweep``, which has keys of its own and lists of budgets.
    """
    methods = {method.name: method_keys(method) for method in usable_methods()}
    budget = {"anyOf": [*_AMOUNT["anyOf"], {"type": "array", "items": _AMOUNT, "minItems": 1}]} if sweep else _AMOUNT
    of_search = {
        name: _mapping({key: _property(each) for key, each in keys.items()}, f"Options of the search {name}.")
        for name, keys in methods.items()
    }
    inner = {"budgets": list(COSTS), **{name: list(keys) for name, keys in methods.items()}}
    dotted = {
        f"{name}.{key}": {"$ref": f"#/properties/{name}/properties/{key}"}
        for name, keys in inner.items()
        for key in keys
    }
    dotted |= {f"tune.{axis}": Numbers(kind).schema() for axis, kind in AXES.items()}
    own = job_keys() | (sweep_keys() if sweep else {})
    properties = {
        "$schema": {"type": "string"},
        "schema_version": {"const": SCHEMA_VERSION},
        **{name: _property(key) for name, key in own.items()},
        "budgets": _mapping(dict.fromkeys(COSTS, budget), "What the result may cost: 2G, 12MB, 3ms, 50%."),
        **of_search,
        **dotted,
    }
    kind = "compress sweep" if sweep else "compress"
    return {"$schema": DIALECT, "title": f"A recipe for {kind} --config", **_mapping(properties)}


def _property(key: Key) -> dict[str, Any]:
    found = schema_of(key.kind)
    if key.optional:
        found = {"anyOf": [found, {"type": "null"}]}
    found["description"] = f"{key.doc} It must be {key.kind.expected}."
    return found if key.default is None else {**found, "default": plain(key.default)}


def _same_as(*keys: str) -> dict[str, Any]:
    return {"$ref": "#" + "".join(f"/properties/{key}" for key in keys)}


def _mapping(properties: Mapping[str, Any], description: str | None = None) -> dict[str, Any]:
    about = {} if description is None else {"description": description}
    return {"type": "object", "additionalProperties": False, **about, "properties": dict(properties)}
