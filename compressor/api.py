"""The Python API: ``compress`` in one call, ``prepare`` for a loop of one's own; ``run_job`` for the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.architecture import Architecture
from compressor.config import DEFAULT_BENCH_SECONDS, DEFAULT_EPOCHS, JobConfig, default_search, parse_budgets
from compressor.console import Console
from compressor.errors import UsageError
from compressor.pipeline import Pipeline
from compressor.report import Report
from compressor.reporting import describe_result
from compressor.search import METHODS
from compressor.settings import Settings
from compressor.tensors import resolve_device, to_device

if TYPE_CHECKING:
    from compressor.data import Data
    from compressor.latency.session import TargetSettings
    from compressor.session import Session


@dataclass
class Result:
    """What ``compress`` returns.

    Attributes:
        model: the compressed network: an ordinary module of the original's class, in evaluation mode.
        architecture: what was kept; applies to a fresh original.
        report: what was asked, reached and measured.
    """

    model: nn.Module
    architecture: Architecture
    report: Report
    _example_inputs: Any = None

    def save(self, folder: str | Path) -> Path:
        """Write ``architecture.json``, ``model.safetensors``, ``report.json`` and ``report.html``.

        Load with ``compressor.load(folder, model=FreshOriginal())``. Raises ``CompressorError`` if writing fails.
        """
        from compressor import artifact

        artifact.save(folder, self.model, self.architecture, self.report, example_inputs=self._example_inputs)
        return Path(folder)

    def export(self, folder: str | Path, formats: tuple[str, ...] = ("onnx",)) -> list[Path]:
        """Export to runtimes' formats, each checked against PyTorch; returns the files."""
        from compressor.bench import export_all

        return [info.path for info in export_all(self.model, self._example_inputs, folder, formats)]


def compress(
    model: nn.Module,
    example_inputs: Any,
    budgets: Mapping[str, str | float],
    *,
    data: Data | tuple[Any, ...] | Mapping[str, Any] | None = None,
    search: str | None = None,
    options: Mapping[str, Any] | None = None,
    search_epochs: int | None = None,
    finetune_epochs: int | None = None,
    batch_size: int = 64,
    lr: float = 0.05,
    distill: float = 0.0,
    round_to: int = 1,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    keep_outputs: tuple[str, ...] = (),
    example_kwargs: dict[str, Any] | None = None,
    loss_fn: Callable[[Any, Tensor], Tensor] | None = None,
    seed: int = 0,
    target: str | TargetSettings | None = None,
    lut: str | Path | None = None,
    benchmark: bool = False,
    verbose: bool = False,
) -> Result:
    """Compress a network under budgets. The model passed in is not changed.

    Args:
        model: any module, on any device, in any mode. What ``DataParallel``, ``DistributedDataParallel`` or
            ``torch.compile`` wrap is compressed, without the wrapper.
        example_inputs: a tensor or a tuple of positional arguments; one example is enough.
        budgets: cost to limit: ``{"flops": "50%", "params": "5M", "memory": "12MB", "latency": "3ms"}``. All of them
            hold in the result.
        data: ``compressor.data.Data``, loaders ``(train, val)`` or ``(train, val, test)``, or a mapping with these
            names. Without data nothing is trained and channels are ranked by their weights.
        search: ``"figs"`` (default with data), ``"dnarch"``, or ``"oneshot"`` (default without).
        options: settings of the search method.
        search_epochs, finetune_epochs: epochs of training; default 5 with data.
        round_to: keep widths at multiples of this.
        include, exclude: shell-style patterns over module names.
        keep_outputs: patterns of modules whose outputs keep all channels.
        loss_fn: ``loss_fn(outputs, targets)``; default that of the data's task: cross entropy for classes, relative L2
            error for fields, squared error for other values.
        target: where a latency budget holds, such as ``"onnxruntime-cpu"``; or ``TargetSettings`` for more choice.
        lut: file of the latency table; default is the user's cache.
        benchmark: export to ONNX and time both networks, for the report.
        verbose: progress on stderr.

    Raises:
        UsageError: unusable arguments. UnreachableBudgetError: a budget below what the model can be brought to.
        UnsupportedModelError: the model cannot be traced. VerificationError: no exact trim was found.
    """
    splits = as_data(data)
    method = search or default_search("data" if splits is not None else None)
    default = DEFAULT_EPOCHS if splits is not None else 0
    settings = Settings(
        budgets=parse_budgets(budgets),
        search=method,
        options=_options(method, options, search_epochs if search_epochs is not None else default, batch_size),
        finetune_epochs=finetune_epochs if finetune_epochs is not None else default,
        batch_size=batch_size,
        lr=lr,
        distill=distill,
        round_to=round_to,
        include=tuple(include),
        exclude=tuple(exclude),
        keep_outputs=tuple(keep_outputs),
        seed=seed,
        loss_fn=loss_fn,
        target=_target(target, lut),
    )
    console = Console(quiet=not verbose)
    pipeline = Pipeline(model, example_inputs, settings, example_kwargs=example_kwargs, data=splits, console=console)
    pipeline.run()
    report = describe_result(pipeline, name=type(pipeline.model).__name__)
    if benchmark:
        _deliver(pipeline, report, None, ("onnx",))
    report.stage_seconds = dict(console.stage_seconds)
    report.warnings = list(console.warnings)
    return Result(pipeline.compressed.eval(), pipeline.architecture, report, pipeline.example_inputs)


def prepare(
    model: nn.Module,
    example_inputs: Any,
    budgets: Mapping[str, str | float],
    *,
    search: str = "figs",
    options: Mapping[str, Any] | None = None,
    total_steps: int,
    round_to: int = 1,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    example_kwargs: dict[str, Any] | None = None,
    target: str | TargetSettings | None = None,
    lut: str | Path | None = None,
) -> Session:
    """Put masks into a model for a training loop of one's own. See ``compressor.session.Session``.

    Args:
        total_steps: how many times ``session.step()`` will be called; budgets are approached over them.
        target, lut: where a latency budget holds and the file of its table, as for ``compress``.

    Raises:
        UsageError: a method that does not train. UnreachableBudgetError, UnsupportedModelError: as ``compress``.
    """
    from compressor.session import Session

    return Session(
        model,
        example_inputs,
        parse_budgets(budgets),
        search=search,
        options=dict(options or {}),
        total_steps=total_steps,
        round_to=round_to,
        include=tuple(include),
        exclude=tuple(exclude),
        example_kwargs=example_kwargs,
        target=_target(target, lut),
    )


def run_job(config: JobConfig, *, console: Console) -> Report:
    """The command line's main job: everything lands in ``config.out``, and a killed job goes on from there."""
    from compressor import artifact
    from compressor.data import load_data
    from compressor.job import Job
    from compressor.models import load_model
    from exporters.registry import FORMATS  # noqa: F401  (fail early if the package is incomplete)

    device = _available(resolve_device(config.device))
    if METHODS.get(config.search).trains and config.data is None:
        raise UsageError(f"{config.search} learns from data: pass --data, or use --search oneshot.")
    with Job.open(config.out, config.identity(), force=config.force) as job:
        finished = job.stage("report")
        if finished is not None and artifact.is_complete(config.out):
            console.info(f"{config.out} is complete already; delete it or choose another --out to run again.")
            return artifact.load_report(config.out)
        with console.stage("load"):
            data = _load_data(load_data, config)
            asked: dict[str, Any] = {
                "weights": config.weights,
                "num_classes": config.num_classes or _implied_outputs(config.model, data),
                "example_shape": config.input_shape
                or (tuple(data.example_inputs.shape[1:]) if data is not None else None),
                "dense": data is not None and data.task.dense,
                "vocabulary": data.vocabulary if data is not None else None,
                "seed": config.seed,
            }
            loaded = load_model(config.model, **asked, grow=config.grow if config.grow > 1 else None)
        if loaded.weights.warning:
            console.warn(loaded.weights.warning)
        if data is None:
            console.info(
                "No --data: nothing is trained or evaluated; channels are ranked by the size of their weights."
            )
        example = data.example_inputs if data is not None else loaded.example_inputs
        if config.input_shape is not None and tuple(example.shape[1:]) != config.input_shape:
            raise UsageError(
                f"--input-shape is {shown(config.input_shape)}, but the inputs of {config.data or config.model} are "
                f"{shown(example.shape[1:])}; leave the option out, or pass data of that shape."
            )
        budgets = config.budgets
        if config.grow > 1:
            from compressor.growth import base_budgets, require_memory

            require_memory(loaded.model.to(device), to_device(example, device), config.batch_size, config.grow)
            budgets = base_budgets(budgets, load_model(config.model, **asked).model, example)
        settings = Settings(
            budgets=budgets,
            search=config.search,
            options=_options(config.search, _given(config), config.search_epochs, config.batch_size),
            train_epochs=config.train_epochs,
            finetune_epochs=config.finetune_epochs,
            batch_size=config.batch_size,
            lr=config.lr,
            distill=config.distill,
            round_to=config.round_to,
            include=config.include,
            exclude=config.exclude,
            seed=config.seed,
            target=_target(config.target, config.lut, config.threads),
        )
        pipeline = Pipeline(loaded.model.to(device), example, settings, data=data, job=job, console=console)
        pipeline.run()
        report = describe_result(pipeline, name=config.model)
        report.data = config.data
        report.weights = loaded.weights.origin or loaded.weights.choice
        report.pretrained = loaded.weights.pretrained or config.train_epochs > 0
        report.command = command_of(config)
        _deliver(pipeline, report, Path(config.out), config.export, config.bench_seconds)
        report.stage_seconds = dict(console.stage_seconds)
        report.warnings = list(console.warnings)
        artifact.save(
            config.out,
            pipeline.compressed.eval(),
            pipeline.architecture,
            report,
            description=loaded.describe(),
            example_inputs=pipeline.example_inputs,
        )
        job.store("report", {"written": [f.path for f in report.files]})
    return report


def shown(shape: Sequence[int]) -> str:
    """``3x224x224``."""
    return "x".join(str(size) for size in shape)


def command_of(config: JobConfig) -> str:
    """The command line that makes this job."""
    import shlex

    parts = ["compress", "--model", config.model]
    for budget in config.budgets:
        parts += [f"--budget-{budget.cost}", budget.text]
    defaults = {field.name: field.default for field in fields(JobConfig)}
    for name, option in _OPTIONS.items():
        value = getattr(config, name)
        if value != defaults[name]:
            for item in value if name in ("include", "exclude") else (value,):
                shown = ",".join(map(str, item)) if isinstance(item, tuple) else str(item)
                parts += [option, shown or "none"]
    return shlex.join([*parts, "--out", config.out])


_OPTIONS = {
    name: f"--{name.replace('_', '-')}"
    for name in (
        "weights", "data", "search", "learn", "penalty", "grow", "train_epochs", "search_epochs", "finetune_epochs",
        "batch_size", "lr", "distill", "round_to", "include", "exclude", "export", "bench_seconds", "num_classes",
        "input_shape", "seed", "device",
        "target", "lut", "threads",
    )
}  # fmt: skip


def _target(
    target: str | TargetSettings | None, lut: str | Path | None, threads: int | None = None
) -> TargetSettings | None:
    """Where latency is measured, refused now if it cannot be: not after hours of training."""
    if target is None:
        return None
    from compressor.latency.session import TargetSettings

    settings = TargetSettings(target, lut, threads) if isinstance(target, str) else target
    settings.runtime()
    return settings


def as_data(data: Any) -> Data | None:
    """``Data`` from what a user may pass. Raises ``UsageError`` for anything else."""
    from compressor.data import Data, from_loaders

    if data is None or isinstance(data, Data):
        return data
    if isinstance(data, Mapping):
        unknown = sorted(set(data) - {"train", "val", "test", "num_classes", "vocabulary"})
        if unknown or "train" not in data:
            found = ", ".join(sorted(map(str, data)))
            raise UsageError(
                f"data has {found}; it needs 'train' and may have 'val', 'test', 'num_classes', 'vocabulary'."
            )
        return from_loaders(**data)
    if isinstance(data, (tuple, list)) and 1 <= len(data) <= 3:
        return from_loaders(*data)
    if hasattr(data, "__iter__"):
        return from_loaders(data)
    raise UsageError(
        f"data must be a Data, loaders (train, val[, test]) or a mapping of them, not {type(data).__name__}."
    )


def _given(config: JobConfig) -> dict[str, Any]:
    """Settings of the search method that were asked for."""
    given = {"learn": config.learn or None, "penalty": config.penalty, "grow": config.grow if config.grow > 1 else None}
    return {name: value for name, value in given.items() if value is not None}


def _options(search: str, given: Mapping[str, Any] | None, epochs: int, batch_size: int) -> dict[str, Any]:
    options = dict(given or {})
    if METHODS.get(search).trains:
        options.setdefault("epochs", epochs)
        options.setdefault("batch_size", batch_size)
    METHODS.get(search).check_options(options)
    return options


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


def _deliver(
    pipeline: Pipeline,
    report: Report,
    out: Path | None,
    formats: tuple[str, ...],
    seconds: float = DEFAULT_BENCH_SECONDS,
) -> None:
    """Export and benchmark; fill in the report."""
    import tempfile

    from compressor.bench import DEFAULT_TARGET, deliver

    asked = pipeline.settings.target  # a network made for one target is to be seen there, under the same conditions
    known = asked is not None and isinstance(asked.target, str)
    with pipeline.console.stage("export and benchmark"), tempfile.TemporaryDirectory() as scratch:
        delivery = deliver(
            pipeline.model.eval(),
            pipeline.compressed.eval(),
            pipeline.example_inputs,
            out or Path(scratch),
            formats=formats,
            targets=(str(asked.target) if asked is not None and known else DEFAULT_TARGET,) if seconds else (),
            threads=asked.threads if asked is not None and known else None,
            seconds=seconds,
            data=pipeline.data,
        )
    report.files += delivery.files if out is not None else []
    report.sizes += delivery.sizes
    report.latencies += delivery.latencies
    report.quantisation = delivery.quantisation
    for warning in delivery.warnings:
        pipeline.console.warn(warning)
