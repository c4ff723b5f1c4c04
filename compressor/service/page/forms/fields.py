"""Fields of the form, made of what options declare: their kinds, defaults and docs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from compressor.budget import COSTS
from compressor.jobs.recipes.keys import Key, job_keys, method_keys, plain, sweep_keys
from compressor.options import Called, Either, Flag, Kind, OneOf, Patterns, SomeOf, Whole, read
from compressor.options.kinds import Number
from compressor.pipeline.grid import Tune
from compressor.search import usable_methods
from compressor.search.constraints.wishes import WrittenWidths
from exporters.registry import FORMATS

NEVER = ("out", "force", "lut", "track", "trust_factories")
"""Keys of recipes that mean nothing in a service."""
MAIN = ("model", "weights", "data", "search", "target", "export", "train_epochs", "search_epochs", "finetune_epochs")
"""Keys that stand in the open part of the form."""
_GROUPS: dict[str, tuple[str, ...]] = {
    "Training": ("optimizer", "lr", "batch_size", "accumulate", "clip_norm", "amp", "compile", "distill"),
    "Settings of fine-tuning that are tried": ("tune", "tune_epochs", "tune_samples", "trial_workers"),
    "What may change": ("importance", "round_to", "include", "exclude", "keep", "absorb"),
    "The network": ("num_classes", "input_shape", "start"),
    "Where and how it runs": ("device", "seed", "threads", "bench_seconds", "data_workers"),
}
_DEVICES = ("auto", "cpu", "cuda")
_LABELS = {
    "lr": "Learning rate",
    "amp": "Mixed precision",
    "train epochs": "Training epochs",
    "finetune epochs": "Fine-tuning epochs",
    "clip norm": "Largest norm of gradients",
    "num classes": "Classes",
    "bench seconds": "Seconds of timing",
}
_COSTS = ("flops", "params", "memory", "latency")


@dataclass(frozen=True)
class Field:
    """A control of the form.

    Attributes:
        name: of the control, and of the key in the recipe; options of methods are ``figs.lr``.
        control: "text", "lines", "choice" (one of several), or "checks" (some of several).
        choices: values that may be chosen; for "text" those that are proposed.
        default: what holds where nothing is said, as it is written.
        takes: what it takes, in words.
    """

    name: str
    label: str
    control: str
    kind: Kind
    doc: str
    takes: str
    default: str = ""
    choices: tuple[str, ...] = ()
    numeric: bool = False
    optional: bool = False

    def value(self, said: Any) -> Any:
        """What was typed, as a recipe has it. Raises ``UsageError`` in the words of the option."""
        found = read(self.label, self.kind, said, optional=self.optional)
        return plain(found)


@dataclass(frozen=True)
class Group:
    """Fields that stand together. ``method`` is the search that they are options of, if they are."""

    title: str
    fields: tuple[Field, ...]
    method: str | None = None


def field_of(name: str, key: Key, choices: tuple[str, ...] = ()) -> Field:
    """The control of one key."""
    kind = key.kind.first if isinstance(key.kind, Either) and isinstance(key.kind.second, Called) else key.kind
    control, offered = _control(kind)
    offered = choices or offered
    if name == "device":
        control, offered = "choice", _DEVICES
    if name == "export":
        control, offered = "checks", tuple(FORMATS.names())
    return Field(
        name=name,
        label=label_of(name),
        control=control,
        kind=key.kind,
        doc=key.doc if key.doc.endswith(".") else f"{key.doc}.",
        takes=kind.expected,
        default=written(key.default),
        choices=offered,
        numeric=isinstance(kind, (Whole, Number)),
        optional=key.optional,
    )


def _control(kind: Kind) -> tuple[str, tuple[str, ...]]:
    """Which control takes values of a kind, and what it offers."""
    if isinstance(kind, Flag):
        return "choice", ("true", "false")
    if isinstance(kind, OneOf):
        return "choice", tuple(kind.choices)
    if isinstance(kind, SomeOf):
        return "checks", tuple(kind.choices)
    if isinstance(kind, (Patterns, WrittenWidths)):
        return "lines", ()
    if isinstance(kind, Tune):
        return "text", tuple(kind.choices)
    return "text", ()


def label_of(name: str) -> str:
    """``figs.batch_size`` as "Batch size"."""
    words = name.rpartition(".")[2].replace("_", " ")
    return _LABELS.get(words, words[:1].upper() + words[1:])


def written(value: Any) -> str:
    """A setting as one would type it; sequences with commas."""
    value = plain(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(written(each) for each in value)
    if isinstance(value, Mapping):
        return "; ".join(f"{name}={written(each)}" for name, each in value.items())
    return str(value)


@cache
def main_fields() -> dict[str, Field]:
    """The open part's, by name; what can be chosen from is not known here."""
    keys = job_keys()
    return {name: field_of(name, keys[name]) for name in MAIN if name in keys}


@cache
def advanced_groups() -> tuple[Group, ...]:
    """All else that a job may be told. A key that no group names stands in the last one."""
    keys = {name: key for name, key in job_keys().items() if name not in (*NEVER, *MAIN)}
    grouped = {name for names in _GROUPS.values() for name in names}
    groups = {**_GROUPS, "More": tuple(name for name in keys if name not in grouped)}
    found = [
        Group(title, tuple(field_of(name, keys[name]) for name in names if name in keys))
        for title, names in groups.items()
    ]
    found.append(Group("Only for several budgets", tuple(field_of(name, key) for name, key in sweep_keys().items())))
    return tuple(group for group in found if group.fields)


@cache
def method_groups() -> tuple[Group, ...]:
    """The options of every search method, without those that the job says for all."""
    found = []
    for method in usable_methods():
        keys = {name: key for name, key in method_keys(method).items() if name not in ("epochs", "batch_size")}
        fields = tuple(field_of(f"{method.name}.{name}", key) for name, key in keys.items())
        found.append(Group(f"Options of {method.name}", fields, method.name))
    return tuple(found)


def method_names() -> tuple[str, ...]:
    """Search methods that can be loaded."""
    return tuple(method.name for method in usable_methods())


@cache
def all_fields() -> dict[str, Field]:
    """Every field of the form but budgets, by name."""
    groups = (*advanced_groups(), *method_groups())
    return main_fields() | {field.name: field for group in groups for field in group.fields}


def cost_names() -> list[str]:
    """What budgets can be about, the usual ones first."""
    return [*_COSTS, *(name for name in COSTS.names() if name not in _COSTS)]
