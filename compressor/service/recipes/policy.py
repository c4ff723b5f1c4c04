"""What a recipe may say to a service: names, numbers and what was uploaded, but no place of the machine.

Every key that takes a free text or a place has a rule here. One that has none, of another package's search method
say, is refused, so that what is added later is closed until somebody thought about it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from compressor.budget import COSTS
from compressor.errors import UsageError
from compressor.jobs.asked import Asked, methods_in
from compressor.jobs.recipes.keys import Key, job_keys, method_keys, plain, sweep_keys
from compressor.jobs.recipes.read import RecipeError, recipe_of
from compressor.jobs.sweeps.asked import sweep_of
from compressor.jobs.sweeps.config import read_budgets
from compressor.options import Either, Flag, Number, OneOf, Patterns, Shape, SomeOf, Whole, Wholes, shown
from compressor.pipeline.grid import Tune
from compressor.plugins.importing import is_attribute_spec
from compressor.plugins.registry import closest
from compressor.search import get_method
from compressor.search.constraints.wishes import WrittenWidths
from compressor.service.recipes.places import JOB, UPLOAD, reference
from compressor.service.recipes.reading import Written

CODE = "code"
"""The label of jobs that run the user's own code."""
KINDS = ("compress", "sweep", "pick")
COMPILERS = ("inductor", "eager", "aot_eager")

_HARMLESS = (Whole, Number, Flag, OneOf, SomeOf, Shape, Wholes, Patterns, WrittenWidths, Tune)
"""Kinds of options that no value can do harm with."""
_CHECKED = ("search", "importance", "export", "methods")
"""Names of registries, which the reader of recipes checks."""
_NEVER = {
    "out": "a service says itself where a job writes; download its files instead",
    "force": "every job has a folder of its own here",
    "lut": "a service has one latency table for all",
    "track": "jobs here speak to nobody; watch their events instead",
    "trust_factories": "saved folders are not taken here",
}
SOURCES = frozenset(
    {"digits", "cifar10", "cifar100", "fashionmnist", "imagefolder", "segmentation", "multilabel", "coco", "hf", "npz"}
    | {"fsdd", "listops", "darcy"}
)
"""Sources of data (``compressor.data.load``, which cannot be asked without torch)."""
_NAME = re.compile(r"[A-Za-z0-9_]+")
_TIMM = re.compile(r"timm:[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
_HF = re.compile(r"hf:[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
_OWN_DATA = re.compile(r"digits|listops(:[a-z0-9=,]*)?")


@dataclass(frozen=True)
class Policy:
    """What there is here.

    Attributes:
        datasets: names of registered data sets.
        targets: runtimes of the workers, and devices that have been here.
        models: names of models; None where they are not known yet, which leaves them to the worker.
        hugging_face: whether models of transformers may be taken from a worker's cache.
    """

    datasets: Collection[str] = ()
    targets: Collection[str] = ()
    models: Collection[str] | None = None
    hugging_face: bool = False


@dataclass
class Submission:
    """A recipe that may run here.

    Attributes:
        kind: ``"compress"`` or ``"sweep"``.
        recipe: what it says, as JSON values under the keys of recipes.
        labels: what a worker must have to take it.
        weights, data: ids of the uploads that it names.
        start: the id of the job that it begins at.
        targets: where its latency budgets hold.
    """

    kind: str
    recipe: dict[str, Any]
    labels: set[str] = field(default_factory=set)
    weights: str | None = None
    data: str | None = None
    start: str | None = None
    targets: tuple[str, ...] = ()

    @property
    def uploads(self) -> list[str]:
        """The uploads that it names."""
        return [each for each in (self.weights, self.data) if each is not None]


def submission_of(written: Written, policy: Policy, kind: str | None = None, *, whole: bool = True) -> Submission:
    """Check a recipe.

    Args:
        whole: whether it must be a whole job, or may lack budgets.
        kind: ``"compress"`` or ``"sweep"``; None tells it from what the recipe says.

    Raises:
        RecipeError: something in it cannot be, or is not taken here; with its key, and its line where that is known.
    """
    try:
        return _checked(written.values, policy, kind, {}, whole)
    except RecipeError as error:
        if error.line is not None or not error.key or not written.lines:
            raise
    return _checked(written.values, policy, kind, written.lines, whole)


def _checked(
    values: Mapping[str, Any], policy: Policy, kind: str | None, lines: Mapping[Any, int], whole: bool
) -> Submission:
    if kind not in (None, "compress", "sweep"):
        raise RecipeError(f"A recipe is of the kind compress or sweep, not {shown(kind)}.")
    sweep = kind == "sweep" or (kind is None and _is_sweep(values))
    asked = recipe_of(values, lines=lines, sweep=sweep)
    found = _Checker(policy, asked, lines).submission(sweep)
    if whole or asked.budgets:
        _require_whole(asked, sweep)
    elif "model" not in asked.values:
        raise RecipeError("The recipe names no model.", key="model")
    return found


def _is_sweep(values: Mapping[str, Any]) -> bool:
    """Whether several budgets of a cost are named, or what only sweeps have."""
    budgets = values.get("budgets")
    inner = list(budgets.values()) if isinstance(budgets, Mapping) else []
    dotted = [value for name, value in values.items() if isinstance(name, str) and name.startswith("budgets.")]
    return any(isinstance(each, list) for each in [*inner, *dotted]) or any(name in values for name in sweep_keys())


def _require_whole(asked: Asked, sweep: bool) -> None:
    """Refuse what is missing or does not go together, as the job would."""
    try:
        jobs = sweep_of(asked).jobs if sweep else (asked.job(),)
        for job in jobs:
            chosen = methods_in(job.search)
            for name in chosen:
                own = job.options.get(name, {}) if len(chosen) > 1 else job.options
                # Which compilers there are is known to torch alone; the rule above has looked at it.
                get_method(name).read({key: value for key, value in own.items() if key != "compiler"})
    except RecipeError:
        raise
    except UsageError as error:
        raise RecipeError(f"The recipe: {error}") from error


class _Checker:
    """Looks at every key of a recipe that has been read."""

    def __init__(self, policy: Policy, asked: Asked, lines: Mapping[Any, int]) -> None:
        self._policy, self._asked, self._lines = policy, asked, lines

    def submission(self, sweep: bool) -> Submission:
        """What is left to run. Raises ``RecipeError``."""
        asked = self._asked
        keys = job_keys() | (sweep_keys() if sweep else {})
        found = Submission("sweep" if sweep else "compress", {})
        for name, value in asked.values.items():
            self._look(found, (name,), keys[name], value)
        for method, options in asked.options.items():
            known = method_keys(get_method(method))
            for name, value in options.items():
                self._look(found, (method, name), known[name], value)
        found.recipe = {**plain(asked.values)}
        if asked.budgets:
            found.recipe["budgets"] = plain(asked.budgets)
        found.recipe |= {method: plain(options) for method, options in asked.options.items()}
        return found

    def _look(self, found: Submission, path: tuple[str, ...], key: Key, value: Any) -> None:
        """Refuse a value that is not for a service; write down what it asks for."""
        if path[0] in _NEVER and len(path) == 1:
            if value not in (key.default, (), None, False):
                raise self._refused(path, f"{path[0]} is not taken here: {_NEVER[path[0]]}.")
            return
        rule = getattr(self, f"_rule_{'__'.join(path)}", None)
        if rule is not None:
            rule(found, path, value)
        elif not (_is_harmless(key.kind) or (len(path) == 1 and path[0] in _CHECKED)):
            raise self._refused(path, f"{'.'.join(path)} takes free text, which is not taken here; leave it out.")

    def _rule_model(self, found: Submission, path: tuple[str, ...], value: str) -> None:
        models = self._policy.models
        if _HF.fullmatch(value):
            if not self._policy.hugging_face:
                raise self._refused(path, "models named hf:NAME are not taken here; ask whoever runs the service.")
        elif is_attribute_spec(value) and not value.startswith((UPLOAD, JOB, "timm:", "hf:")):
            found.labels.add(CODE)
        elif not (_NAME.fullmatch(value) or _TIMM.fullmatch(value)):
            raise self._refused(
                path,
                f"{shown(value)} is no model here; name one of 'compress models', timm:NAME or package.module:factory. "
                "Folders and files of the server are not taken; upload weights and name them as upload:ID.",
            )
        elif models is not None and _NAME.fullmatch(value) and value not in models:
            near = closest(value, list(models), n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise self._refused(path, f"there is no model {shown(value)}.{hint} GET /v1/models lists them.")

    def _rule_weights(self, found: Submission, path: tuple[str, ...], value: str) -> None:
        if value in ("default", "none"):
            return
        found.weights = reference(value, UPLOAD)
        if found.weights is None:
            raise self._refused(
                path, f"weights must be default, none or upload:ID here, not {shown(value)}; upload the file first."
            )

    def _rule_data(self, found: Submission, path: tuple[str, ...], value: str) -> None:
        names = self._policy.datasets
        if value in names or _OWN_DATA.fullmatch(value):
            return
        found.data = reference(value, UPLOAD)
        if found.data is not None:
            return
        if is_attribute_spec(value) and not value.startswith((UPLOAD, JOB)) and not _is_source(value):
            found.labels.add(CODE)
            return
        there = ", ".join(["digits", "listops", *names])
        raise self._refused(
            path, f"there is no data set {shown(value)} here; name one of {there}, upload:ID or package.module:factory."
        )

    def _rule_start(self, found: Submission, path: tuple[str, ...], value: Any) -> None:
        found.start = reference(value, JOB)
        if found.start is None:
            raise self._refused(path, f"start must be job:ID here, a job of the same project, not {shown(str(value))}.")

    def _rule_device(self, found: Submission, path: tuple[str, ...], value: str) -> None:
        if value not in ("auto", "cpu", "cuda"):
            raise self._refused(path, f"device must be auto, cpu or cuda here, not {shown(value)}.")

    def _rule_target(self, found: Submission, path: tuple[str, ...], value: str) -> None:
        self._rule_targets(found, path, (value,))

    def _rule_targets(self, found: Submission, path: tuple[str, ...], value: tuple[str, ...]) -> None:
        known = self._policy.targets
        for name in value:
            if name not in known:
                near = closest(name, list(known), n=1) if len(name) <= 80 else []
                hint = f" Did you mean {near[0]}?" if near else ""
                raise self._refused(path, f"there is no target {shown(name)} here.{hint} GET /v1/targets lists them.")
        found.targets = tuple(value)

    def _rule_dnarch__compiler(self, found: Submission, path: tuple[str, ...], value: str) -> None:
        if value not in COMPILERS:
            raise self._refused(path, f"compiler must be one of {', '.join(COMPILERS)} here, not {shown(value)}.")

    def _rule_supernet__lowest(self, found: Submission, path: tuple[str, ...], value: str) -> None:
        try:
            for cost in read_budgets([part for part in value.split(",") if part.strip()]):
                if cost not in COSTS:
                    raise UsageError(f"there is no cost {shown(cost)}.")
        except UsageError as error:
            raise self._refused(path, f"lowest takes budgets such as flops=25%,params=1M: {error}") from error

    def _refused(self, path: tuple[str, ...], text: str) -> RecipeError:
        line = next((self._lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self._lines), None)
        where = "" if line is None else f", line {line}"
        return RecipeError(f"The recipe{where}: {text}", key=".".join(path), line=line)


def _is_harmless(kind: Any) -> bool:
    if isinstance(kind, Either):
        # A function cannot be written in a recipe, so that the first of the two decides.
        return isinstance(kind.first, _HARMLESS)
    return isinstance(kind, _HARMLESS)


def _is_source(value: str) -> bool:
    """Whether a source of data is named, whose argument is a place: ``npz:x`` looks like a factory."""
    name = value.partition(":")[0]
    return name in SOURCES or name in entry_points(group="compressor.data_sources").names
