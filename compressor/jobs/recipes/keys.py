"""The keys of a recipe, taken from where a job's settings are declared. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from compressor.jobs.config import JobConfig
from compressor.jobs.sweeps.config import WORKERS
from compressor.options import Flag, Kind, Names, Text, Wholes
from compressor.search.options import Method

SCHEMA_VERSION = 1
SCHEMA_KEYS = ("schema_version", "$schema")
"""What a recipe may have that says nothing about a job."""
_FIRST = ("model", "weights", "data", "search", "importance")
"""What recipes begin with; the rest follows as it is declared."""
DEPENDS = ("out", "search", "search_epochs", "finetune_epochs")
"""What is something else with data than without, where it is not said."""


@dataclass(frozen=True)
class Key:
    """A key with what it takes; ``default`` is None where there is none, or where it depends."""

    kind: Kind
    doc: str
    optional: bool = False
    default: Any = None


def job_keys() -> dict[str, Key]:
    """Keys of one job, without its budgets and the options of its search."""
    found = {"model": Key(Text(), "The model, as --model takes it.")} | keys_of(JobConfig)
    found |= {name: replace(found[name], default=None) for name in DEPENDS}
    return {name: found[name] for name in dict.fromkeys([*_FIRST, *found])}


def sweep_keys() -> dict[str, Key]:
    """Keys that a sweep has beside those of a job."""
    return {
        "methods": Key(Names(), "Search methods to sweep over."),
        "seeds": Key(Wholes(0, 2**63 - 1), "Seeds to sweep over."),
        "targets": Key(Names(), "Targets to sweep over."),
        "workers": Key(WORKERS, "Points that run side by side.", default=1),
        "cold": Key(Flag(), "Whether every search begins at the original.", default=False),
        "zip": Key(Flag(), "Whether the first budgets of each cost belong together, the second, and so on."),
    }


def method_keys(method: Method) -> dict[str, Key]:
    """The options of a search method."""
    return keys_of(method.config)


def keys_of(config: Any) -> dict[str, Key]:
    """A key for every field that is an option."""
    return {
        each.name: Key(
            each.metadata["kind"],
            each.metadata["doc"],
            each.metadata["optional"],
            None if each.default is MISSING else each.default,
        )
        for each in fields(config)
        if "kind" in each.metadata
    }


def plain(value: Any) -> Any:
    """A setting as JSON values."""
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
