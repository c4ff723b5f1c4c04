"""The command line's main job: from a ``JobConfig`` to a folder with everything in it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from compressor.budget import BASE_UNITS
from compressor.errors import UsageError
from compressor.jobs.config import JobConfig, upgraded
from compressor.nn.tensors import resolve_device, to_device
from compressor.pipeline.delivery import deliver_result
from compressor.pipeline.events import Events
from compressor.pipeline.rounds import describe_rounds, round_settings, run_rounds
from compressor.pipeline.settings import Settings, measured_on
from compressor.printable import printable
from compressor.report import Report

if TYPE_CHECKING:
    from compressor.data import Data

_OPTIONS = {
    name: f"--{name.replace('_', '-')}"
    for name in (
        "weights", "data", "search", "importance",
        "train_epochs", "search_epochs",
        "finetune_epochs", "batch_size", "lr", "distill",
        "tune_epochs", "tune_samples", "trial_workers", "round_to", "include", "exclude", "keep", "export",
        "bench_seconds",
        "num_classes", "input_shape", "seed", "device",
        "target", "lut", "threads", "trust_factories",
    )
}  # fmt: skip


def run_job(config: JobConfig, *, events: Events) -> Report:
    """The command line's main job: everything lands in ``config.out``, and a killed job goes on from there."""
    from compressor.data import load_data
    from compressor.models import artifact, load_model
    from compressor.storage.job import Job
    from exporters.registry import FORMATS  # noqa: F401  (fail early if the package is incomplete)

    device = _available(resolve_device(config.device))
    rounds = _rounds(config)
    for settings in rounds:
        settings.require_data_for(config.data)
    grow = rounds[-1].config.growth
    with Job.open(config.out, config.identity(), force=config.force, warn=events.warn, upgrade=upgraded) as job:
        finished = job.stage("report")
        if finished is not None and artifact.is_complete(config.out):
            try:
                report = artifact.load_whole_report(config.out)
            except UsageError as error:
                events.warn(f"{error} What is damaged is made again.")
            else:
                events.info(f"{config.out} is complete already; delete it or choose another --out to run again.")
                return report
        with events.stage("load"):
            data = _load_data(load_data, config)
            asked: dict[str, Any] = {
                "weights": config.weights,
                "num_classes": config.num_classes or _implied_outputs(config.model, data),
                "example_shape": config.input_shape or (data.input_shape if data is not None else None),
                "dense": data is not None and data.task.dense,
                "vocabulary": data.vocabulary if data is not None else None,
                "seed": config.seed,
                "trust_factories": config.trust_factories,
            }
            if grow > 1:
                from compressor.pipeline.growth import require_room

                require_room(lambda n: load_model(config.model, **asked, grow=n).model, grow)
            loaded = load_model(config.model, **asked, grow=grow if grow > 1 else None)
        if not loaded.weights.pretrained and config.train_epochs and data is not None:
            events.info(f"No pretrained weights for {config.model}: it is trained from random ones.")
        elif loaded.weights.warning:
            events.warn(loaded.weights.warning)
        if data is None:
            events.info("No --data: nothing is trained or evaluated; channels are ranked by the size of their weights.")
        call = data.example if data is not None else loaded.example
        example, shape = call.args, tuple(call.tensors[0].shape[1:])
        if config.input_shape is not None and shape != config.input_shape:
            raise UsageError(
                f"--input-shape is {shown(config.input_shape)}, but the inputs of {config.data or config.model} are "
                f"{shown(shape)}; leave the option out, or pass data of that shape."
            )
        budgets, base = config.budgets, None
        if grow > 1:
            from compressor.pipeline.growth import base_budgets, describe_base, require_memory

            require_memory(loaded.model.to(device), to_device(example, device), config.batch_size, grow)
            base = describe_base(
                budgets, load_model(config.model, **asked).model.to(device), to_device(example, device)
            )
            budgets = base_budgets(budgets, base.costs)
        done = run_rounds(
            loaded.model.to(device),
            example,
            [replace(settings, budgets=budgets, base=base) for settings in rounds],
            example_kwargs=dict(call.kwargs),
            data=data,
            job=job,
            events=events,
        )
        pipeline = done[-1]
        report = describe_rounds(done, name=printable(config.model))
        report.data = None if config.data is None else printable(config.data)
        report.weights = loaded.weights.origin or loaded.weights.choice
        report.pretrained = loaded.weights.pretrained or config.train_epochs > 0
        report.command = printable(command_of(config))
        deliver_result(pipeline, report, Path(config.out), config.export, config.bench_seconds)
        report.stage_seconds = dict(events.stage_seconds)
        report.warnings = list(events.warnings)
        artifact.save(
            config.out,
            pipeline.compressed.eval(),
            pipeline.architecture,
            report,
            description=loaded.describe(),
            example_inputs=pipeline.example,
        )
        job.store("report", {"written": [f.path for f in report.files]})
    return report


def _rounds(config: JobConfig) -> tuple[Settings, ...]:
    """What the stages are told, all of it checked. Raises ``UsageError``, ``ProfilerError`` for a target."""
    return round_settings(
        config.search,
        config.options,
        epochs=config.search_epochs,
        importance=config.importance,
        budgets=config.budgets,
        train_epochs=config.train_epochs,
        finetune_epochs=config.finetune_epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        distill=config.distill,
        tune=config.tune,
        tune_epochs=config.tune_epochs,
        tune_samples=config.tune_samples,
        trial_workers=config.trial_workers,
        round_to=config.round_to,
        include=config.include,
        exclude=config.exclude,
        keep=config.keep,  # read from text
        seed=config.seed,
        target=measured_on(config.target, config.lut, config.threads),
    )


def shown(shape: Sequence[int]) -> str:
    """``3x224x224``."""
    return "x".join(str(size) for size in shape)


def command_of(config: JobConfig) -> str:
    """The command line that makes this job."""
    parts = ["compress", "--model", config.model]
    for budget in config.budgets:
        known = budget.cost in BASE_UNITS
        parts += [f"--budget-{budget.cost}", budget.text] if known else ["--budget", f"{budget.cost}={budget.text}"]
    defaults = {field.name: field.default for field in fields(JobConfig)}
    for name, option in _OPTIONS.items():
        value = getattr(config, name)
        if value != defaults[name]:
            for item in value if name in ("include", "exclude", "keep") else (value,):
                shown = ",".join(map(str, item)) if isinstance(item, tuple) else str(item)
                parts += [option, shown or "none"]
    if isinstance(config.tune, str):
        parts += ["--tune", config.tune] if config.tune != defaults["tune"] else []
    else:
        for axis, values in config.tune.items():
            parts += [f"--tune.{axis.replace('_', '-')}", _written(values)]
    several = "," in config.search
    for method, own in config.options.items() if several else ((config.search, config.options),):
        for name, value in own.items():
            parts += [f"--{method}.{name.replace('_', '-')}", _written(value)]
    return shlex.join([*parts, "--out", config.out])


def _written(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _implied_outputs(model: str, data: Data | None) -> int | None:
    """What the head is to give because of the data; a saved network has a head already."""
    from compressor.models import resolve

    return None if data is None or resolve(model)[0] == "folder" else data.outputs


def _load_data(load: Callable[..., Data], config: JobConfig) -> Data | None:
    if config.data is None:
        return None
    size = config.input_shape[-1] if config.input_shape and len(config.input_shape) > 1 else None
    return load(config.data, image_size=size) if size else load(config.data)


def _available(device: torch.device) -> torch.device:
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda was asked for, but PyTorch finds no CUDA device here; use --device cpu.")
    return device
