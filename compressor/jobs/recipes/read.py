"""Read a recipe: every value by the kind of the option that it is for, every mistake with its key, file and line.

Nothing here imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compressor.budget import COSTS, parse_budget
from compressor.errors import UsageError
from compressor.jobs.asked import Asked, checked_names
from compressor.jobs.recipes.keys import SCHEMA_KEYS, SCHEMA_VERSION, Key, job_keys, method_keys, sweep_keys
from compressor.options import Flag, read, shown
from compressor.pipeline.grid import read_grid
from compressor.plugins.registry import closest
from compressor.search import METHODS, get_method, usable_methods
from compressor.storage.places import RECIPE
from compressor.storage.reading import Limits, parse_json, read_bytes
from compressor.storage.yaml_text import MOST_BYTES, Document, Keys, parse_yaml

SUFFIXES = (".yaml", ".yml", ".json")
_CURE = "name a recipe (.yaml, .yml or .json), or a folder that compress wrote"
_LIMITS = Limits(MOST_BYTES, 20_000, 5_000)
_WORDS = {"yes": True, "on": True, "no": False, "off": False}  # what YAML takes for booleans, too


def read_recipe(path: str | os.PathLike[str], *, sweep: bool = False) -> Asked:
    """What the recipe in a file says, or that in a folder.

    Args:
        sweep: whether it is for ``compress sweep``, which has keys of its own and lists of budgets.

    Raises:
        UsageError: there is no such file, it is no recipe, or something in it is not what its key takes.
    """
    place = recipe_file(path)
    data = read_bytes(place, _CURE, limit=MOST_BYTES)
    is_json = place.suffix.lower() == ".json"
    try:
        document = Document(parse_json(data, limits=_LIMITS)) if is_json else parse_yaml(data)
    except ValueError as error:
        raise UsageError(f"{place} cannot be read as {'JSON' if is_json else 'YAML'}: {error}.") from error
    return _Reader(str(place), document.lines, sweep).asked(document.value)


class RecipeError(UsageError):
    """A mistake in a recipe. ``key`` is the key that it is at, with dots between those of nested mappings; ``line`` its
    line, counted from 1. Both are None where they are not known."""

    def __init__(self, text: str, *, key: str | None = None, line: int | None = None) -> None:
        super().__init__(text)
        self.key, self.line = key, line


def recipe_of(
    values: Mapping[str, Any],
    *,
    place: str = "The recipe",
    lines: Mapping[Keys, int] | None = None,
    sweep: bool = False,
) -> Asked:
    """What a recipe says that is a mapping already.

    Args:
        place: what messages call it.
        lines: where its keys stand, as ``Document`` has them.
        sweep: as for ``read_recipe``.

    Raises:
        RecipeError: something in it is not what its key takes.
    """
    return _Reader(place, dict(lines or {}), sweep).asked(values)


def recipe_file(path: str | os.PathLike[str]) -> Path:
    """The file itself. Raises ``UsageError`` if it is none, or cannot be a recipe by its name."""
    place = Path(path)
    if place.is_dir():
        if not (place / RECIPE).exists():
            raise UsageError(f"The folder {place} has no {RECIPE}; {_CURE}.")
        return place / RECIPE
    if place.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{place} is no recipe by its name; {_CURE}.")
    return place


@dataclass
class _Reader:
    """Reads one document. ``lines`` says where its keys stand, where that is known."""

    place: str
    lines: dict[Keys, int] = field(default_factory=dict)
    sweep: bool = False

    def asked(self, top: Any) -> Asked:
        """What it asks for. Raises ``UsageError``."""
        if not isinstance(top, Mapping):
            said = "is empty" if top is None else f"is {shown(top)}"
            raise RecipeError(f"{self.place} {said}; a recipe has keys with values, such as model: resnet50.")
        keys = job_keys() | (sweep_keys() if self.sweep else {})
        values: dict[str, Any] = {}
        budgets: dict[str, Any] = {}
        options: dict[str, dict[str, Any]] = {}
        for name, value in self._nested(top).items():
            if name in SCHEMA_KEYS:
                self._require_version(name, value)
            elif name == "budgets":
                budgets = {cost: self._budget(cost, each) for cost, each in self._section(name, value)}
            elif name in METHODS:
                options[name] = self._options(name, value)
            elif name not in keys:
                raise self._unknown(name, [*keys, "budgets", *METHODS])
            elif value is not None or not keys[name].optional:
                values[name] = self._value((name,), keys[name], value)
        for name in ("search", "importance", "export", "track"):
            with self._at((name,)):
                checked_names({key: value for key, value in values.items() if key == name})
        return Asked(values, budgets, options, self.place)

    def _nested(self, top: Mapping[Any, Any]) -> dict[str, Any]:
        """The document with dotted keys, ``figs.lr``, where they belong."""
        found: dict[str, Any] = {}
        for name, value in top.items():
            with self._at((name,)):
                if not isinstance(name, str):
                    raise UsageError(f"a key must be a text, not {shown(name)}.")
                head, dot, inner = name.partition(".")
                if not dot or head not in ("budgets", "tune", *METHODS):
                    head, inner = name, ""
                mine, there = {inner: value} if inner else value, found.get(head)
                if head in found:
                    if not isinstance(mine, Mapping) or not isinstance(there, Mapping) or set(mine) & set(there):
                        raise UsageError(f"{name} is said twice; keep one of them.")
                    mine = {**there, **mine}
                found[head] = mine
                if inner and (name,) in self.lines:
                    self.lines[head, inner] = self.lines[name,]
        return found

    def _options(self, method: str, value: Any) -> dict[str, Any]:
        """The options of a search method."""
        with self._at((method,)):
            keys = method_keys(get_method(method))
        found = {}
        for name, each in self._section(method, value):
            if name not in keys:
                has = f"It has {', '.join(sorted(keys))}."
                raise self._wrong((method, name), f"{method} has no option {name}.{_near(name, list(keys))} {has}")
            if each is not None or not keys[name].optional:
                found[name] = self._value((method, name), keys[name], each)
        return found

    def _budget(self, cost: str, value: Any) -> Any:
        """A budget as it is written; for a sweep several."""
        with self._at(("budgets", cost)):
            if cost not in COSTS:
                raise UsageError(
                    f"there is no cost {cost}.{_near(cost, COSTS.names())} Choose from: {', '.join(COSTS)}."
                )
            if not isinstance(value, (list, tuple)):
                return parse_budget(cost, value).text
            if not self.sweep:
                raise UsageError(f"{cost} has several budgets, which are for compress sweep; name one.")
            return [parse_budget(cost, each).text for each in value]

    def _section(self, name: str, value: Any) -> list[tuple[str, Any]]:
        """What stands in a mapping."""
        example = "budgets: {flops: 50%}" if name == "budgets" else f"{name}: {{lr: 0.01}}"
        if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value):
            raise self._wrong((name,), f"{name} must be a mapping, such as {example}, not {shown(value)}.")
        return list(value.items())

    def _value(self, path: Keys, key: Key, value: Any) -> Any:
        """A value as its kind reads it."""
        name = ".".join(map(str, path))
        with self._at(path):
            if value is None:
                raise UsageError(f"{name} has no value; write one, or leave it out. It must be {key.kind.expected}.")
            if isinstance(key.kind, Flag) and isinstance(value, str):
                value = _WORDS.get(value.strip().lower(), value)
            found = read(name, key.kind, value)
            return read_grid(found) if name == "tune" else found

    def _require_version(self, name: str, value: Any) -> None:
        if name == "schema_version" and str(value) != str(SCHEMA_VERSION):
            raise self._wrong(
                (name,),
                f"this recipe has the schema version {shown(value)}, and this program reads {SCHEMA_VERSION}; update "
                "the program, or leave the key out.",
            )

    def _unknown(self, name: str, known: list[str]) -> RecipeError:
        """What to say of a key that there is not."""
        having = [method.name for method in usable_methods() if name in method_keys(method)]
        if name in sweep_keys():
            cure = "It is for compress sweep."
        elif name.startswith("budget"):
            cure = "Write budgets: {flops: 50%}."
        elif having:
            cure = f"It is an option of {' and '.join(having)}; write {having[0]}: {{{name}: ...}}."
        else:
            written = name.replace("-", "_")
            near = [written] if written in known else closest(written, known)
            cure = f"Did you mean {' or '.join(near)}?" if near else "'compress config schema' lists all."
        return self._wrong((name,), f"there is no key {shown(name)} in a recipe. {cure}")

    def _wrong(self, path: Keys, text: str) -> RecipeError:
        key = ".".join(map(str, path))
        while path and path not in self.lines:
            path = path[:-1]
        line = self.lines[path] if path else None
        where = "" if line is None else f", line {line}"
        return RecipeError(f"{self.place}{where}: {text}", key=key, line=line)

    @contextmanager
    def _at(self, path: Keys) -> Iterator[None]:
        """Say where a mistake is that is found inside."""
        try:
            yield
        except UsageError as error:
            raise self._wrong(path, str(error)) from error


def _near(name: str, known: list[str]) -> str:
    near = closest(name, known, n=1)
    return f" Did you mean {near[0]}?" if near else ""
