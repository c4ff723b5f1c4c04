"""The command line's main job: from a ``JobConfig`` to a folder with everything in it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.budget import BASE_UNITS
from compressor.errors import UsageError
from compressor.integrations.trackers.listener import require_trackers
from compressor.jobs.begin import begin
from compressor.jobs.config import JobConfig, comparable
from compressor.jobs.loading import available_device, load_subject
from compressor.jobs.networks import require_whole, save_networks
from compressor.jobs.recipes.keys import DEPENDS, job_keys
from compressor.jobs.recipes.write import write_recipe
from compressor.jobs.telling import telling
from compressor.models import artifact
from compressor.nn.tensors import to_device
from compressor.options.shared import LRS
from compressor.pipeline.alike import OTHER_WORK
from compressor.pipeline.delivery import deliver_result
from compressor.pipeline.events import Events
from compressor.pipeline.job_options import JobOptions
from compressor.pipeline.networks import networks_of
from compressor.pipeline.rounds import describe_rounds, round_settings, run_rounds
from compressor.pipeline.settings import Settings, measured_on
from compressor.pipeline.warm import ORIGINAL
from compressor.printable import printable
from compressor.process.environment import own_device
from compressor.process.ranks import current
from compressor.process.together import launched, together
from compressor.report import Report
from compressor.storage.job import Job
from compressor.storage.places import RECIPE
from compressor.storage.shared_job import SharedJob, WholeJob

_SAID_APART = ("model", "out", "force", "tune")
"""Settings that ``command_of`` does not go through: how, and whether, they are written differs."""


def run_job(config: JobConfig, *, events: Events, trained: str | None = None) -> Report:
    """The command line's main job: everything lands in ``config.out``, and a killed job goes on from there.

    Args:
        trained: the folder of a job with the same training of the original, which is taken over if it is there.
    """
    from exporters.registry import FORMATS  # noqa: F401  (fail early if the package is incomplete)

    device = available_device(own_device(config.device))
    rounds = job_settings(config)
    for settings in rounds:
        settings.require_data_for(config.data)
    require_trackers(config.track)
    with launched(device), together(device=device) as ranks, ExitStack() as stack:
        if not ranks.is_first:
            events = Events()
        identity = config.identity()
        ranks.agree(identity, list(identity), OTHER_WORK)
        own: Job | None = None

        def opened() -> Report | None:
            nonlocal own
            job = Job.open(config.out, identity, force=config.force, warn=events.warn, upgrade=comparable)
            own = stack.enter_context(job)
            if (report := _finished(config, rounds, own, events)) is None:
                write_recipe(own.beside(RECIPE), config)
                _take_over(config, own, trained)
            return report

        if (report := ranks.first(opened)) is not None:
            return report
        if own is not None:
            stack.enter_context(telling(config, own, events))
        job = own if own is not None and ranks.size == 1 else SharedJob(ranks, own)
        return _compressed(config, rounds, job, events, device=device)


def _take_over(config: JobConfig, job: Job, trained: str | None) -> None:
    """What another job trained in the same way."""
    if trained is not None:
        there = f"{ORIGINAL}." if config.start is not None else ""
        for here in ("", f"{ORIGINAL}."):
            job.take_over(trained, {f"{here}{name}": f"{there}{name}" for name in ("train", "score-before")})


def _compressed(
    config: JobConfig,
    rounds: Sequence[Settings],
    job: WholeJob,
    events: Events,
    *,
    device: torch.device,
) -> Report:
    """What is not done yet of a job, from its model to the files of its result."""
    with events.stage("load"):
        subject = load_subject(config, rounds[-1].config.growth)
    loaded, data, call = subject.loaded, subject.data, subject.call
    if not loaded.weights.pretrained and config.train_epochs and data is not None:
        events.info(f"No pretrained weights for {config.model}: it is trained from random ones.")
    elif loaded.weights.warning:
        events.warn(loaded.weights.warning)
    if data is None:
        events.info("No --data: nothing is trained or evaluated; channels are ranked by the size of their weights.")
    elif config.search == "oneshot":
        events.info("No search: units are ranked and cut at once, and all epochs train what is left (docs/cli.md).")
    model = loaded.model.to(device)
    if config.start is not None:
        pipeline, report = begin(config, rounds[0], model, call, data=data, job=job, events=events)
    else:
        told = _measured_by_base(config, rounds, model, call.args, subject.fresh)
        kwargs = dict(call.kwargs)
        done = run_rounds(model, call.args, told, example_kwargs=kwargs, data=data, job=job, events=events)
        pipeline, report = done[-1], describe_rounds(done, name=printable(config.model))
    report.data = None if config.data is None else printable(config.data)
    report.weights = loaded.weights.origin or loaded.weights.choice
    if config.start is None:
        report.pretrained = loaded.weights.pretrained or config.train_epochs > 0
    networks = networks_of(pipeline) if config.start is None else None
    report.command = printable(command_of(config))

    def delivered() -> Report:
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
        if networks is not None:
            origin = {"origin": report.weights, "pretrained": report.pretrained}
            save_networks(config.out, networks, pipeline, config, loaded.describe(), **origin)
        job.store("report", {"written": [f.path for f in report.files], "networks": networks is not None})
        return report

    return current().first(delivered)


def _finished(config: JobConfig, rounds: Sequence[Settings], job: Job, events: Events) -> Report | None:
    """The report of a job that is done, and whose files are as they were written."""
    finished = job.stage("report")
    if finished is None or not artifact.is_complete(config.out):
        return None
    try:
        report = artifact.load_whole_report(config.out)
        if finished.data.get("networks"):
            require_whole(config.out)
    except UsageError as error:
        events.warn(f"{error} What is damaged is made again.")
        return None
    events.info(f"{config.out} is complete already; delete it or choose another --out to run again.")
    return report


def _measured_by_base(
    config: JobConfig, rounds: Sequence[Settings], model: nn.Module, example: Any, build: Callable[[], nn.Module]
) -> list[Settings]:
    """Settings of a grown network, with budgets that are shares of what ``build`` gives; of others as they are."""
    grow = rounds[-1].config.growth
    if grow <= 1:
        return list(rounds)
    from compressor.pipeline.growth import base_budgets, describe_base, require_memory

    device = next(model.parameters()).device
    require_memory(model, to_device(example, device), config.batch_size, grow)
    base = describe_base(config.budgets, build().to(device), to_device(example, device))
    budgets = base_budgets(config.budgets, base.costs)
    return [replace(settings, budgets=budgets, base=base) for settings in rounds]


def job_settings(config: JobConfig) -> tuple[Settings, ...]:
    """What the stages are told, all of it checked. Raises ``UsageError``, ``ProfilerError`` for a target."""
    return round_settings(
        config.search,
        config.options,
        epochs=config.search_epochs,
        importance=config.importance,
        budgets=config.budgets,
        keep=config.keep,  # read from text
        target=measured_on(config.target, config.lut, config.threads),
        **config.values(JobOptions),
    )


def command_of(config: JobConfig) -> str:
    """The command line that makes this job."""
    parts = ["compress", "--model", config.model]
    for budget in config.budgets:
        known = budget.cost in BASE_UNITS
        parts += [f"--budget-{budget.cost}", budget.text] if known else ["--budget", f"{budget.cost}={budget.text}"]
    defaults = {field.name: field.default for field in fields(JobConfig)} | {"lr": LRS[config.optimizer]}
    if config.data is not None:
        defaults |= dict.fromkeys(DEPENDS)  # a command line with data has other defaults, so these are written
    for name in job_keys():
        if name in _SAID_APART:
            continue
        option, value = f"--{name.replace('_', '-')}", getattr(config, name)
        if value != defaults[name]:
            if isinstance(value, bool):
                parts += [option if value else option.replace("--", "--no-", 1)]
                continue
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
