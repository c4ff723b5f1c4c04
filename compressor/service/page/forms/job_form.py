"""The form of a new job: what was typed, the recipe that comes of it, and the mistakes at their fields."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compressor.errors import UsageError
from compressor.jobs.recipes.read import RecipeError
from compressor.options import read
from compressor.options.kinds import Whole
from compressor.pipeline.defaults import default_search
from compressor.search import METHODS
from compressor.service.page.forms.budgets import budgets_of, typed, units_of
from compressor.service.page.forms.fields import Field, all_fields, cost_names, label_of, written

PRIORITY = Whole(-1000, 1000)
MOST_NAME = 200
_LOOSE = ("name", "priority", "project")
"""What is said of a job beside its recipe."""


@dataclass
class JobForm:
    """What stands in the form.

    Attributes:
        typed: texts by control; a control with checks has several.
        errors: by control what is wrong there; under "" what is wrong with the whole.
    """

    typed: dict[str, list[str]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def text(self, name: str, default: str = "") -> str:
        """What stands in a control."""
        return (self.typed.get(name) or [default])[0]

    def chosen(self, each: Field) -> list[str]:
        """What is checked among the choices of a field; before anything was typed the default."""
        if each.name in self.typed or f"{each.name}.shown" in self.typed:
            return self.typed.get(each.name, [])
        return [part.strip() for part in each.default.split(",") if part.strip()]

    @property
    def search(self) -> str:
        """The search method that is chosen, empty for the usual one."""
        return self.text("search")

    def recipe(self) -> dict[str, Any]:
        """The recipe. What cannot be read is left out, and said in ``errors``."""
        found: dict[str, Any] = {}
        for each in all_fields().values():
            method, dot, name = each.name.rpartition(".")
            if dot and method not in self.methods:
                continue  # options of a search that is not chosen stay in the form
            try:
                value = self._value(each)
            except UsageError as error:
                self.errors[each.name] = str(error)
                continue
            if value is None:
                continue
            (found.setdefault(method, {}) if dot else found)[name] = value
        budgets = {}
        for cost in cost_names():
            control = f"budget.{cost}"
            try:
                said = budgets_of(cost, self.text(control), self.text(f"{control}.unit", units_of(cost)[0][0]))
            except UsageError as error:
                self.errors[control] = str(error)
                continue
            if said is not None:
                budgets[cost] = said
        if budgets:
            found["budgets"] = budgets
        elif not any(name.startswith("budget.") for name in self.errors):
            self.errors["budget.flops"] = "Give at least one budget, such as 50 % of the multiply-adds."
        if not found.get("model") and "model" not in self.errors:
            self.errors["model"] = "Name a model, such as resnet20_cifar or timm:resnet18."
        return found

    @property
    def methods(self) -> list[str]:
        """The methods whose options count."""
        named = [*self.search.split(","), *self.text("methods").split(",")]
        return [name for part in named if (name := part.strip())] or [
            default_search(self.text("data") or None, self.text("search_epochs").strip() not in ("", "0"))
        ]

    def _value(self, each: Field) -> Any:
        """What a field says to the recipe; None where it says nothing."""
        if each.control == "checks":
            chosen = self.chosen(each)
            default = [part.strip() for part in each.default.split(",") if part.strip()]
            if sorted(chosen) == sorted(default):
                return None
            return each.value(chosen or ("none" if each.name == "export" else []))
        said = self.text(each.name).strip()
        if not said:
            return None
        if each.control == "lines":
            return each.value([line.strip() for line in said.splitlines() if line.strip()])
        if each.name == "tune" and "=" in said:
            return each.value(_grid(said))
        return each.value(said)

    def require_loose(self) -> tuple[str, int, str | None]:
        """Name, priority and project; what is wrong with them is said in ``errors``."""
        name, priority = self.text("name").strip(), 0
        if len(name) > MOST_NAME:
            self.errors["name"] = f"A name has at most {MOST_NAME} characters, not {len(name)}."
        if said := self.text("priority").strip():
            try:
                priority = read("Priority", PRIORITY, said)
            except UsageError as error:
                self.errors["priority"] = str(error)
        return name, priority, self.text("project").strip() or None

    def take(self, error: UsageError) -> None:
        """Put what somebody else found at the field that it is about."""
        key = error.key if isinstance(error, RecipeError) else ""
        self.errors.setdefault(control_of(key or ""), _without_place(str(error)))

    @property
    def summary(self) -> list[tuple[str, str, str]]:
        """All mistakes: control, what it is called, what is wrong."""
        order = ["", "model", "weights", "data", *(f"budget.{cost}" for cost in cost_names()), *all_fields(), *_LOOSE]
        names = sorted(self.errors, key=lambda name: order.index(name) if name in order else len(order))
        return [(name, _called(name), self.errors[name]) for name in names]


def control_of(key: str) -> str:
    """The control that a key of a recipe stands in; empty if it is none of this form."""
    head, _, inner = key.partition(".")
    if head == "budgets":
        return f"budget.{inner}" if inner in cost_names() else f"budget.{cost_names()[0]}"
    return key if key in all_fields() else head if head in all_fields() else ""


def _called(control: str) -> str:
    if control.startswith("budget."):
        return f"Budget of {control.partition('.')[2]}"
    head, dot, _ = control.partition(".")
    return f"{label_of(control)} of {head}" if dot else label_of(control)


def _without_place(text: str) -> str:
    """A message of the recipe's reader without where it was read."""
    for start in ("The recipe: ", "The recipe, "):
        if text.startswith(start):
            rest = text.removeprefix(start).partition(": ")[2] if start.endswith(", ") else text.removeprefix(start)
            return (rest[:1].upper() + rest[1:]) or text
    return text


def _grid(said: str) -> dict[str, str]:
    """``lr=0.1,0.01; momentum=0.9`` as a grid. Its values are read with the key."""
    parts = [part.partition("=") for part in said.split(";") if part.strip()]
    return {name.strip(): values.strip() for name, _, values in parts}


def from_posted(pairs: Iterable[tuple[str, Any]]) -> JobForm:
    """The form as it was sent; files are not in it."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if isinstance(value, str):
            found.setdefault(name, []).append(value)
    return JobForm(found)


def from_recipe(recipe: Mapping[str, Any], *, name: str = "", priority: int = 0) -> JobForm:
    """The form that gives a recipe, to change it."""
    found: dict[str, list[str]] = {"name": [name]}
    if priority:
        found["priority"] = [str(priority)]
    for cost, said in dict(recipe.get("budgets") or {}).items():
        found[f"budget.{cost}"], found[f"budget.{cost}.unit"] = ([each] for each in typed(cost, said))
    flat = dict(_flat(recipe))
    for control, value in flat.items():
        each = all_fields().get(control)
        if each is None:
            continue
        if each.control == "checks":
            found[control] = _texts(value)
        elif each.control == "lines":
            found[control] = ["\n".join(_texts(value))]
        else:
            found[control] = [written(value)]
    return JobForm(found)


def _flat(recipe: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in recipe.items():
        if name in METHODS and isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", each) for inner, each in value.items())
        else:
            yield name, value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip() and part.strip() != "none"]
    if isinstance(value, Mapping):
        return [f"{name}={each}" for name, each in value.items()]
    return [str(each) for each in value] if isinstance(value, Sequence) else [str(value)]


def shown_recipe(recipe: Mapping[str, Any]) -> str:
    """A recipe as text, as it is sent."""
    return json.dumps(recipe, indent=2, ensure_ascii=False)


__all__ = ["JobForm", "control_of", "from_posted", "from_recipe", "shown_recipe"]
