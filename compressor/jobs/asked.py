"""What is asked for, before it is a whole job: some of a job's settings, from a command line, a recipe, or both.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from compressor.budget import Budget, parse_budgets
from compressor.errors import UsageError
from compressor.jobs.config import JobConfig, default_out
from compressor.pipeline.defaults import (
    DEFAULT_BENCH_SECONDS,
    DEFAULT_EPOCHS,
    default_epochs,
    default_options,
    default_search,
)
from exporters.registry import INT8_FORMAT


@dataclass(frozen=True)
class Asked:
    """Some of a job's settings.

    Attributes:
        values: by field of ``JobConfig``; what is not there is the default.
        budgets: as they are written, by cost.
        options: of search methods, by method.
        place: where these stand, for messages.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    budgets: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    place: str = ""

    def over(self, base: Asked) -> Asked:
        """Both together; what is said here wins, setting by setting. Where another search is asked for here, options
        there of methods that are not chosen are left out."""
        values = {**base.values, **self.values}
        mine, theirs = self.values.get("tune"), base.values.get("tune")
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            values["tune"] = {**theirs, **mine}
        chosen = self.chosen or list(base.options)
        options = {
            name: {**base.options.get(name, {}), **self.options.get(name, {})}
            for name in dict.fromkeys([*base.options, *self.options])
            if name in chosen or name in self.options
        }
        return Asked(values, {**base.budgets, **self.budgets}, options, base.place)

    def without(self, names: Collection[str]) -> Asked:
        """The same, with nothing said of these fields."""
        return replace(self, values={name: value for name, value in self.values.items() if name not in names})

    @property
    def chosen(self) -> list[str]:
        """The methods that are named, in a sweep each for jobs of its own; none if none is."""
        search = self.values.get("search")
        return list(self.values.get("methods") or (methods_in(search) if search is not None else ()))

    @property
    def named(self) -> str | None:
        """The search asked for, by its name or by options of it alone."""
        search = self.values.get("search") or (next(iter(self.options)) if len(self.options) == 1 else None)
        return None if search is None else str(search)

    @property
    def search(self) -> str:
        """The search asked for, or the default."""
        return self.named or default_search(self.values.get("data"), self.values.get("search_epochs"))

    def job(self) -> JobConfig:
        """The whole job. Raises ``UsageError`` for what is missing, or does not go together."""
        require_model(self.values)
        options = self.options_of(methods_in(self.search))
        values = {**self.values, "search": self.search}
        if self.named is None:
            data, epochs = values.get("data"), values.get("search_epochs")
            options = default_options(data, epochs, options) or {}
            if data is not None:
                planned = default_epochs(data, epochs, values.get("finetune_epochs"))
                values["search_epochs"], values["finetune_epochs"] = planned
        return completed({**values, "options": options}, parse_budgets(self.budgets))

    def options_of(self, chosen: Sequence[str]) -> Mapping[str, Any]:
        """As a job that searches by these methods has them. Raises ``UsageError`` if there are some of others."""
        if strange := next((name for name in self.options if name not in chosen), None):
            raise UsageError(
                f"{self.place}: {strange} has options of that search, and {' and '.join(chosen)} was chosen; say "
                f"search: {strange}, or leave {strange} out."
            )
        return self.options if len(chosen) > 1 else self.options.get(chosen[0], {})


def methods_in(search: str) -> list[str]:
    """The methods that are named, whether there are such or not."""
    return [name.strip() for name in search.split(",")]


def require_model(values: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` if no model is named."""
    if values.get("model") is None:
        raise UsageError("The model is missing; name one, for example --model resnet50 (compress models lists them).")


def completed(
    values: Mapping[str, Any],
    budgets: tuple[Budget, ...],
    *,
    finetune_epochs: int = DEFAULT_EPOCHS,
    bench_seconds: float = DEFAULT_BENCH_SECONDS,
) -> JobConfig:
    """A job from values by field; what is not given, or None, is the default here. Raises ``UsageError``."""
    given = {name: value for name, value in values.items() if value is not None}
    defaults = {"search_epochs": DEFAULT_EPOCHS, "finetune_epochs": finetune_epochs} if "data" in given else {}
    found = {**defaults, "bench_seconds": bench_seconds, **given}
    found |= checked_names(found)
    if INT8_FORMAT in found.get("export", ()) and "data" not in found:
        raise UsageError(f"{INT8_FORMAT} takes its ranges from data: pass --data, or leave the format out.")
    found["out"] = default_out(found["model"], budgets) if given.get("out") is None else given["out"]
    return JobConfig(budgets=budgets, **found)


def checked_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """``search`` without the spaces around methods. Raises ``UsageError`` for unknown names in ``values``, before
    anything is loaded or written."""
    from compressor.integrations.trackers import TRACKERS
    from compressor.plugins.registry import unknown_name
    from compressor.search import METHODS
    from compressor.search.importance import MEASURES
    from compressor.search.names import names_of

    found: dict[str, Any] = {}
    if "search" in values:
        for name in methods_in(values["search"]):
            if name not in METHODS:
                raise unknown_name(METHODS.kind, name, METHODS.names())
        found["search"] = ",".join(names_of(values["search"]))
    importance = values.get("importance")
    if importance is not None and importance not in MEASURES:
        raise unknown_name(MEASURES.kind, importance, MEASURES.names())
    known_formats(values.get("export", ()))
    for name in values.get("track", ()):
        if name not in TRACKERS:
            raise unknown_name(TRACKERS.kind, name, TRACKERS.names())
    return found


def known_formats(names: tuple[str, ...]) -> None:
    """Raise ``UsageError`` for a format that there is not."""
    from compressor.plugins.registry import unknown_name
    from exporters.registry import FORMATS

    for name in names:
        if name not in FORMATS.names():
            raise unknown_name("export format", name, FORMATS.names())
