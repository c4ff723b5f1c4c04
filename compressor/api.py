"""The Python API: ``compress`` in one call, ``prepare`` for a loop of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.budget import Budget, parse_budgets
from compressor.errors import UsageError
from compressor.graph.programs import require_module
from compressor.options import Flag, read
from compressor.pipeline.arguments import Scope, Training, former_lut, gathered, refuse_unknown
from compressor.pipeline.console import Console
from compressor.pipeline.defaults import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_EPOCHS,
    default_epochs,
    default_options,
    default_search,
    default_sweep_search,
)
from compressor.pipeline.delivery import deliver_result
from compressor.pipeline.events import Events, JobBegan, Listener, require_listeners
from compressor.pipeline.job_options import TrainingOptions
from compressor.pipeline.result import Result, result_of
from compressor.pipeline.rounds import configuration, describe_rounds, round_settings, run_rounds
from compressor.pipeline.session_plan import SessionPlan, require_example
from compressor.pipeline.settings import Settings, measured_on
from compressor.pipeline.stages import Pipeline
from compressor.process.ranks import Ranks
from compressor.process.together import together
from compressor.report import Report
from compressor.search.front import Front
from compressor.train.modes import model_device

if TYPE_CHECKING:
    from compressor.data import Data
    from compressor.graph.inputs.input_axes import BatchAxis
    from compressor.latency.target import TargetSettings
    from compressor.pipeline.session import Session


def compress(
    model: nn.Module,
    example_inputs: Any,
    budgets: Mapping[str, str | float],
    *,
    data: Data | tuple[Any, ...] | Mapping[str, Any] | None = None,
    search: str | None = None,
    options: Mapping[str, Any] | None = None,
    importance: str | Callable[..., Any] | None = None,
    training: Training | None = None,
    scope: Scope | None = None,
    target: str | TargetSettings | None = None,
    example_kwargs: dict[str, Any] | None = None,
    batch_axis: BatchAxis = "auto",
    benchmark: bool = False,
    verbose: bool = False,
    listeners: Sequence[Listener] = (),
    process_group: Any = None,
    **former: Any,
) -> Result:
    """Compress a network under budgets. The model passed in is not changed.

    Args:
        model: any module, on any device, in any mode. What ``DataParallel``, ``DistributedDataParallel`` or
            ``torch.compile`` wrap is compressed, without the wrapper.
        example_inputs: a tensor or a tuple of positional arguments; one example is enough.
        budgets: cost to limit: ``{"flops": "50%", "params": "5M", "memory": "12MB", "latency": "3ms"}``. All of them
            hold in the result.
        data: ``compressor.data.Data``, loaders ``(train, val)`` or ``(train, val, test)``, or a mapping with these
            names; a pair of tensors, inputs and targets, may stand for a loader (``data.from_tensors``). Without data
            nothing is trained and channels are ranked by their weights.
        search: ``"oneshot"`` (default: all epochs train what it keeps), ``"figs"`` (default where the training names
            ``search_epochs``; what is too short for it is left to one shot), ``"dnarch"``, ``"dash"``; or several that
            follow each other, such as ``"dash,figs"``.
        options: settings of the search method (``docs/options.md``); of several by method.
        importance: what units are ranked by where the method ranks them: "sensitivity" (default with data),
            "magnitude" (default without), "l1", "l2", "taylor", "random", "bn-scale", or a function of a group
            (``docs/importance.md``).
        training: epochs, learning rate, loss and the like, see ``compressor.Training``.
        scope: which parts may change and how far, see ``compressor.Scope``.
        target: where a latency budget holds, such as ``"onnxruntime-cpu"``; or ``TargetSettings`` for more choice.
        batch_axis: the axis along which examples lie: one for all input tensors, or one for each (positional ones
            first) with ``None`` for those without; ``None`` where there is no batch. By default it is found: the axis
            along which examples do not see each other. Costs are those of one example, or of the inputs as they are.
        benchmark: export to ONNX and time both networks, for the report.
        verbose: progress on stderr.
        listeners: functions that are told what happens, see ``compressor.pipeline.events``; a tracker is one:
            ``compressor.TrackerListener("mlflow")``.
        process_group: the processes that do this together, each with a part of every batch; default those of the
            ``DistributedDataParallel`` passed in, or all, where a process group of ``torch.distributed`` runs. Each
            makes the same call and gets the same result; the first alone measures, exports and tells. For work that
            each process does by itself, a group of one.
        former: fields of ``Training`` and ``Scope``, and ``lut``, as keywords of their own; deprecated.

    Raises:
        UsageError: unusable arguments, all found before any work. UnreachableBudgetError: a budget below what the
        model can be brought to.
        UnsupportedModelError: the model cannot be traced. VerificationError: no exact trim was found.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
    >>> result = compress(model, torch.randn(1, 8), {"params": "50%"})
    >>> sum(p.numel() for p in result.model.parameters()) <= 0.5 * sum(p.numel() for p in model.parameters())
    True
    >>> result.architecture.kept("2.weight", 1) == result.architecture.kept("0.weight", 0)
    True
    """
    require_module(model)
    require_example(example_inputs, example_kwargs)
    told_to = require_listeners(listeners)
    train = gathered("training", training, Training(), former, stacklevel=3)
    within = gathered("scope", scope, Scope(), former, stacklevel=3)
    lut = former_lut(former, stacklevel=3)
    refuse_unknown("compress", former)
    if search is None:
        given = "data" if data is not None else None
        search, options = (
            default_search(given, train.search_epochs),
            default_options(given, train.search_epochs, options),
        )
        searching, finetuning = default_epochs(given, train.search_epochs, train.finetune_epochs)
        train = replace(train, search_epochs=searching, finetune_epochs=finetuning)
    rounds = _rounds(
        search,
        options,
        parse_budgets(budgets),
        train,
        within,
        data=data,
        importance=importance,
        batch_axis=batch_axis,
        target=measured_on(target, lut),
    )
    for name, flag in (("benchmark", benchmark), ("verbose", verbose)):
        read(name, Flag(), flag)
    with together(Ranks.of(model, process_group).group, device=model_device(model)) as ranks:
        splits = as_data(data, own_loss=train.loss_fn is not None)
        events = Events(Console(quiet=not verbose), *told_to) if ranks.is_first else Events()
        name = type(model).__name__

        def reported(done: Sequence[Pipeline]) -> Report:
            report = describe_rounds(done, name=type(done[0].model).__name__)
            if benchmark:
                deliver_result(done[-1], report, None, ("onnx",))
            report.stage_seconds = dict(events.stage_seconds)
            report.warnings = list(events.warnings)
            return report

        with events.job(JobBegan(name, configuration(name, rounds))):
            with torch.inference_mode(False), torch.enable_grad():  # whatever the caller is in: this may train
                kwargs = example_kwargs
                done = run_rounds(model, example_inputs, rounds, example_kwargs=kwargs, data=splits, events=events)
            return result_of(done[-1], ranks.first(lambda: reported(done)))


def sweep(
    model: nn.Module,
    example_inputs: Any,
    budgets: Sequence[Mapping[str, str | float]],
    *,
    data: Data | tuple[Any, ...] | Mapping[str, Any] | None = None,
    search: str | None = None,
    options: Mapping[str, Any] | None = None,
    importance: str | Callable[..., Any] | None = None,
    training: Training | None = None,
    scope: Scope | None = None,
    target: str | TargetSettings | None = None,
    example_kwargs: dict[str, Any] | None = None,
    batch_axis: BatchAxis = "auto",
    folder: str | Path | None = None,
    cold: bool = False,
    verbose: bool = False,
    listeners: Sequence[Listener] = (),
) -> Front[Any]:
    """Compress a network to several budgets; returns the front of score and cost. The model is not changed.

    A search for many budgets (``"supernet"``, the default with data) trains once, and its front holds every network
    that it left; other searches compress once for each combination, from the large budgets to the small.

    Args:
        budgets: combinations of the same costs, such as ``[{"flops": "25%"}, {"flops": "50%"}]``.
        folder: where to save a result for each combination, ``front.json`` and ``front.html``.
        cold: begin every search at the model itself, not at the result for the next larger budgets.

    Other arguments and errors are those of ``compress``. ``front.points`` are plain rows, and
    ``front.pick({"flops": "40%"})`` is the ``Result`` of the best network within other budgets, without training.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
    >>> front = sweep(model, torch.randn(1, 8), [{"params": "25%"}, {"params": "50%"}])
    >>> [point["name"] for point in front.points]
    ['params-25pct', 'params-50pct']
    >>> sum(p.numel() for p in front.pick({"params": "40%"}).model.parameters()) <= 0.25 * 836
    True
    """
    from compressor.jobs.sweeps.in_memory import front_of, save_sweep
    from compressor.pipeline.many import read_combinations
    from compressor.pipeline.sweeping import run_all

    require_module(model)
    require_example(example_inputs, example_kwargs)
    told_to = require_listeners(listeners)
    train = gathered("training", training, Training(), {}, stacklevel=3)
    within = gathered("scope", scope, Scope(), {}, stacklevel=3)
    combinations = read_combinations(budgets)
    method = search if search is not None else default_sweep_search("data" if data is not None else None)
    rounds = _rounds(
        method,
        options,
        combinations[0],
        train,
        within,
        data=data,
        importance=importance,
        batch_axis=batch_axis,
        target=measured_on(target, None),
    )
    splits = as_data(data, own_loss=train.loss_fn is not None)
    events = Events(Console(quiet=not verbose), *told_to)
    kind = type(model).__name__
    told = {**configuration(kind, rounds), "budgets": [{b.cost: b.text for b in each} for each in combinations]}
    with torch.inference_mode(False), torch.enable_grad(), events.job(JobBegan(kind, told)):
        swept = run_all(
            model,
            example_inputs,
            rounds,
            combinations,
            example_kwargs=example_kwargs,
            data=splits,
            events=events,
            cold=cold,
        )
    notes = {"method": method, "seed": train.seed}
    front = front_of(swept, combinations, notes)
    if folder is not None:
        name = splits.name if splits is not None else None
        save_sweep(folder, front, combinations, notes=notes, data=name, networks=swept.networks)
    return front


def prepare(
    model: nn.Module,
    example_inputs: Any,
    budgets: Mapping[str, str | float],
    *,
    total_steps: int,
    search: str = "figs",
    options: Mapping[str, Any] | None = None,
    importance: str | Callable[..., Any] | None = None,
    scope: Scope | None = None,
    target: str | TargetSettings | None = None,
    example_kwargs: dict[str, Any] | None = None,
    batch_axis: BatchAxis = "auto",
    process_group: Any = None,
    **former: Any,
) -> Session:
    """Put masks into a model for a training loop of one's own. See ``compressor.pipeline.session.Session``.

    Args:
        total_steps: how many times ``session.step()`` will be called; budgets are approached over them.
        search: ``"figs"`` or ``"dnarch"``; of its ``options`` those of the program's own training are left aside.
        importance, scope, target, batch_axis: as for ``compress``.
        process_group: the processes that train this model together; default those of the ``DistributedDataParallel``
            passed in, or all. For work that each process does by itself, a group of one.
        former: fields of ``Scope``, and ``lut``, as keywords of their own; deprecated.

    Raises:
        UsageError: a method that does not train, an option that a loop of one's own cannot have, a model that has an
            open session or sharded weights.
        UnreachableBudgetError, UnsupportedModelError: as ``compress``.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    >>> session = prepare(model, torch.randn(1, 8), {"params": "50%"}, total_steps=4)
    >>> for _ in range(4):
    ...     (model(torch.randn(16, 8)).square().mean() + session.cost_loss()).backward()
    ...     session.step()
    >>> sum(p.numel() for p in session.finish().parameters()) <= 210
    True
    """
    require_module(model)
    require_example(example_inputs, example_kwargs)
    within = gathered("scope", scope, Scope(), former, stacklevel=3)
    lut = former_lut(former, stacklevel=3)
    refuse_unknown("prepare", former)
    plan = SessionPlan(
        example_inputs,
        budgets,
        search=search,
        options=options,
        importance=importance,
        scope=within,
        target=measured_on(target, lut) if lut is not None else target,
        example_kwargs=example_kwargs,
        batch_axis=batch_axis,
        process_group=process_group,
    )
    return plan.open(model, total_steps)


def _rounds(
    search: str,
    options: Mapping[str, Any] | None,
    budgets: tuple[Budget, ...],
    train: Training,
    within: Scope,
    *,
    data: Any,
    **common: Any,
) -> tuple[Settings, ...]:
    """What each round is told, all of it checked."""
    from compressor.data.loaders import batch_size_of

    default = DEFAULT_EPOCHS if data is not None else 0
    told = train.values(TrainingOptions) | within.values()
    told["batch_size"] = train.batch_size or batch_size_of(data) or DEFAULT_BATCH_SIZE
    if train.finetune_epochs is None:
        told["finetune_epochs"] = default
    rounds = round_settings(
        search,
        options,
        epochs=train.search_epochs if train.search_epochs is not None else default,
        budgets=budgets,
        loss_fn=train.loss_fn,
        **common,
        **told,
    )
    for settings in rounds:
        settings.require_data_for(data)
    return rounds


def as_data(data: Any, *, own_loss: bool = False) -> Data | None:
    """``Data`` from what a user may pass; ``own_loss`` as for ``from_loaders``.

    Raises ``UsageError`` for anything else.
    """
    from compressor.data import Data, from_loaders, from_tensors

    if data is None or isinstance(data, Data):
        return data
    if isinstance(data, str):
        raise UsageError(f"data must be loaders or a Data, not a text; pass compressor.data.load_data({data!r}).")
    if isinstance(data, Mapping):
        unknown = sorted(set(data) - {*PARTS, "num_classes", "vocabulary", "task"})
        if unknown or "train" not in data:
            found = ", ".join(sorted(map(str, data)))
            raise UsageError(
                f"data has {found}; it needs 'train' and may have 'val', 'test', 'num_classes', 'vocabulary', 'task'."
            )
        if all(_is_pair(data[part]) for part in data if part in PARTS):
            return from_tensors(**data)
        return from_loaders(**data, own_loss=own_loss)
    if _is_pair(data):
        return from_tensors(data)
    if isinstance(data, (tuple, list)) and 1 <= len(data) <= 3:
        if all(map(_is_pair, data)):
            return from_tensors(*data)
        return from_loaders(*data, own_loss=own_loss)
    if hasattr(data, "__iter__"):
        return from_loaders(data, own_loss=own_loss)
    raise UsageError(
        f"data must be a Data, loaders (train, val[, test]) or a mapping of them, not {type(data).__name__}."
    )


PARTS = ("train", "val", "test")


def _is_pair(part: Any) -> bool:
    """Whether it is inputs and targets in memory, and no loader."""
    return isinstance(part, (tuple, list)) and len(part) == 2 and all(isinstance(each, Tensor) for each in part)
