"""What a job is asked to do: budgets as the user writes them, and the whole job as one frozen, JSON-able value.

Nothing here imports torch: the command line parses and refuses bad input before anything heavy is loaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from compressor.budget import Budget
from compressor.errors import UsageError
from compressor.options import Flag, Names, Options, Patterns, Place, Shape, Text, option, shown
from compressor.options.shared import (
    ACCUMULATE,
    BATCH_SIZE,
    BENCH_SECONDS,
    CLIP_NORM,
    DATA_WORKERS,
    DISTILL,
    EPOCHS,
    LR,
    LRS,
    NUM_CLASSES,
    OPTIMIZER,
    ROUND_TO,
    SEED,
    THREADS,
)
from compressor.pipeline.defaults import DEFAULT_BENCH_SECONDS
from compressor.pipeline.grid import (
    TRIAL_WORKERS,
    TUNE_EPOCHS,
    TUNE_SAMPLES,
    Grid,
    Tune,
    read_grid,
    require_finetuning,
)
from compressor.search import METHODS, get_method
from compressor.search.constraints.wishes import WrittenWidths
from compressor.storage.places import DEFAULT_FOLDER

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps")


@dataclass(frozen=True)
class JobConfig(Options):
    """One run of the main job. Validated on construction; ``to_json`` and ``from_json`` are inverse.

    Attributes:
        model: a torchvision name, ``timm:NAME``, ``pkg.module:factory``, a shipped backbone or a saved folder.
        budgets: at least one budget, at most one for each cost.
        out: the folder to write; a run that was cut off goes on from what lies there.
        weights: ``"default"``, ``"none"`` or the path of a weights file.
        data: a data specification, or None: then nothing is trained.
        search: name of a search method.
        importance: name of the measure that a method which ranks ranks by; None leaves it to the method.
        options: the search method's own, by name (``docs/options.md``).
        train_epochs: epochs of training the original first (it has no pretrained weights).
        search_epochs: epochs of the search itself, for methods that train.
        finetune_epochs: epochs of fine-tuning the compressed model.
        batch_size: samples in a batch, over all processes that train together.
        accumulate: batches that make one step, which is that of a batch as large as all of them.
        optimizer: ``"sgd"`` (with momentum) or ``"adamw"``, of the weights in training, search and fine-tuning.
        lr: learning rate of training and fine-tuning; None: what the optimizer usually takes.
        clip_norm: largest norm of the gradients of the weights in a step; None: any.
        amp: mixed precision; None: on a GPU only.
        compile: whether networks are compiled where they run as they are.
        distill: weight of the distillation loss from the original in search and fine-tuning, 0 for none.
        tune: grid of settings that is tried before fine-tuning, by name or as ``{"lr": (0.1, 0.01)}``; ``"auto"``
            leaves it to the search method.
        tune_epochs: epochs of a trial; None: a fifth of those of fine-tuning, at least one.
        tune_samples: share of the training samples in an epoch of a trial.
        trial_workers: processes that trials run in; says nothing about the result.
        data_workers: processes that read data which lies in files of its own, 0 for threads; says nothing about the
            result.
        round_to: widths are kept at multiples of this; None: at even ones (``search.even``), or with a latency budget
            at those that the target likes.
        include, exclude: patterns over module names; what is not included, or is excluded, keeps its width.
        keep: least widths by pattern, such as ``layer4*=50%`` or ``conv1=16``.
        absorb: whether, without data, biases and batch norms take up the mean of channels that go.
        export: names of the formats to write.
        bench_seconds: how long to time both networks at the end, 0 for not at all.
        num_classes: classes of the model's head; None takes them from the data, or the model's own default.
        input_shape: shape of one input without the batch axis, (channels, height, width) for images; None takes it
            from the data, or from the model's weights.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
        force: whether to overwrite a folder that holds another job.
        target: where a latency budget holds; needed for one.
        lut: file of the latency table; None is the default place.
        start: an earlier result of the same model, which the search begins at; or the folder of a search that left
            networks for many budgets, of which the best is taken. Shares in budgets stay those of ``model``.
        track: names of the trackers that are told what happens.
        trust_factories: factories, modules and packages that a saved folder may name to be imported.
        threads: CPU threads on the target; None takes every core.
    """

    model: str
    budgets: tuple[Budget, ...]
    out: str = option("", Place(), "The folder to write.")
    weights: str = option("default", Text(), "default, none, or a file.")
    data: str | None = option(None, Text(), "A data specification.")
    search: str = option("oneshot", Text(), "Name of the search method.")
    importance: str | None = option(None, Text(), "Name of the measure that units are ranked by.")
    options: Mapping[str, Any] = field(default_factory=dict)
    train_epochs: int = option(0, EPOCHS, "Epochs of training the original first.")
    search_epochs: int = option(0, EPOCHS, "Epochs of a search that trains.")
    finetune_epochs: int = option(0, EPOCHS, "Epochs of fine-tuning.")
    batch_size: int = option(64, BATCH_SIZE, "Samples in a batch.")
    accumulate: int = option(1, ACCUMULATE, "Batches that make one step.")
    optimizer: str = option("sgd", OPTIMIZER, "Optimizer of the weights.")
    lr: float = option(
        None,
        LR,
        f"Learning rate of training and fine-tuning; by default {LRS['sgd']}, of adamw {LRS['adamw']}.",
        optional=False,
    )
    clip_norm: float | None = option(None, CLIP_NORM, "Largest norm of the gradients.")
    amp: bool | None = option(None, Flag(), "Mixed precision; on a GPU unless said otherwise.")
    compile: bool = option(False, Flag(), "Whether networks are compiled where they run as they are.")
    distill: float = option(0.0, DISTILL, "Weight of the original's outputs in the loss.")
    tune: str | Grid = option("auto", Tune(), "Grid of settings that is tried before fine-tuning.")
    tune_epochs: int | None = option(None, TUNE_EPOCHS, "Epochs of a trial.")
    tune_samples: float = option(0.2, TUNE_SAMPLES, "Share of the training samples in an epoch of a trial.")
    trial_workers: int = option(1, TRIAL_WORKERS, "Processes that trials run in.")
    data_workers: int = option(0, DATA_WORKERS, "Processes that read images.")
    round_to: int | None = option(None, ROUND_TO, "What widths are multiples of.")
    include: tuple[str, ...] = option((), Patterns(), "What may be compressed.")
    exclude: tuple[str, ...] = option((), Patterns(), "What is left alone.")
    keep: tuple[str, ...] = option((), WrittenWidths(), "Least widths, such as layer4*=50%.")
    absorb: bool = option(True, Flag(), "Without data: whether layers take up the mean of channels that go.")
    export: tuple[str, ...] = option(("onnx",), Names(), "Formats to write.")
    bench_seconds: float = option(DEFAULT_BENCH_SECONDS, BENCH_SECONDS, "How long to time both networks.")
    num_classes: int | None = option(None, NUM_CLASSES, "Classes of the model's head.")
    input_shape: tuple[int, ...] | None = option(None, Shape(), "Shape of one input.")
    seed: int = option(0, SEED, "Of everything that is drawn.")
    device: str = option("auto", Text(), "Where to compute.")
    force: bool = option(False, Flag(), "Whether to overwrite a folder that holds another job.")
    target: str | None = option(None, Text(), "Where a latency budget holds.")
    lut: str | None = option(None, Place(), "File of the latency table.")
    threads: int | None = option(None, THREADS, "CPU threads on the target.")
    start: str | None = option(None, Place(), "An earlier result to begin at.")
    track: tuple[str, ...] = option((), Names(), "Trackers that are told what happens.")
    trust_factories: tuple[str, ...] = option((), Names(), "Factories that a saved folder may name.")

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model.strip():
            raise UsageError("The model is empty; name one, for example --model resnet50 (compress models lists them).")
        if self.lr is None:
            object.__setattr__(self, "lr", LRS.get(str(self.optimizer)))
        super().__post_init__()
        object.__setattr__(self, "options", dict(self.options))
        if not self.budgets:
            raise UsageError("No budget was given; pass at least one, for example --budget-flops 50%.")
        costs = [budget.cost for budget in self.budgets]
        if len(set(costs)) < len(costs):
            raise UsageError(f"Two budgets for one cost were given ({', '.join(costs)}); keep one for each cost.")
        if "latency" in costs and self.target is None:
            raise UsageError(
                "A latency budget needs a target to measure on; pass --target, for example --target onnxruntime-cpu."
            )
        if self.target is not None and "latency" not in costs:
            raise UsageError("A target was given but no latency budget; pass --budget-latency, for example 60%.")
        if not _DEVICE.fullmatch(self.device):
            raise UsageError(f"Unknown device {shown(self.device)}; choose auto, cpu, cuda, cuda:N or mps.")
        epochs = self.train_epochs + self.search_epochs + self.finetune_epochs
        if self.data is None and epochs:
            raise UsageError("Epochs were asked for but there is no data to train on; pass --data, for example digits.")
        if self.start is not None and "," in self.search:
            raise UsageError(f"Several searches ({self.search}) begin at the model itself; leave start out.")
        object.__setattr__(self, "tune", read_grid(self.tune))
        require_finetuning(self.tune, self.finetune_epochs)

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        from compressor.storage.codec import encode

        values: dict[str, Any] = encode(asdict(self))
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> JobConfig:
        """Read what ``to_json`` wrote. Raises ``UsageError`` for keys that do not exist."""
        values = upgraded(values)
        known = {f.name for f in fields(cls)}
        if strange := sorted(set(values) - known):
            raise UsageError(f"Unknown job settings: {', '.join(strange)}. Known are: {', '.join(sorted(known))}.")
        read: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        if missing := sorted({"model", "budgets", "out"} - set(values)):
            raise UsageError(f"The job settings lack {', '.join(missing)}.")
        read["budgets"] = tuple(Budget(**budget) for budget in values.get("budgets", ()))
        return cls(**read)

    def identity(self) -> dict[str, Any]:
        """The settings that decide the result: two runs with equal identities may share one folder and go on."""
        found = {key: value for key, value in upgraded(self.to_json()).items() if key not in _NO_IDENTITY}
        # Where the folder lies that it begins at may change, together with that of the job.
        return found | {"start": None if self.start is None else Path(self.start).name}


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as an earlier version of the program wrote them, in today's form: options of methods stood loose, and
    nothing was tuned, or begun elsewhere. An option that says what its default says is as one that is not given."""
    found = {**_FORMER, **values}
    if "options" not in found:
        given = {name: found.pop(name, default) for name, default in _LOOSE.items()}
        found["options"] = {name: value for name, value in given.items() if value != _LOOSE[name]}
    names = [name.strip() for name in str(found.get("search", "")).split(",")]
    if isinstance(found["options"], Mapping):
        several = len(names) > 1
        own = found["options"] if several else {names[0]: found["options"]}
        told = {name: _without_defaults(name, given, str(found["optimizer"])) for name, given in own.items()}
        found["options"] = {name: own for name, own in told.items() if own} if several else told[names[0]]
    return found


def _without_defaults(method: str, given: Any, optimizer: str) -> Any:
    """A method's options without those that say what is so anyway, but for those that the job has one of, too."""
    if not isinstance(given, Mapping) or method not in METHODS:
        return given
    try:
        config = get_method(method).config
    except UsageError:  # another package's mistake
        return given
    known = {each.name: each.default for each in fields(config)}
    if "lr" in known and known["lr"] is None:
        known["lr"] = config.rates.get(optimizer)
    return {
        name: value
        for name, value in given.items()
        if name in OF_THE_JOB or name not in known or _json(value) != _json(known[name])
    }


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


OF_THE_JOB = ("epochs", "batch_size")
"""Options of methods that the job says for all of them: ``--search-epochs``, ``--batch-size``."""
_NO_IDENTITY = {"out", "force", "lut", "track", "trust_factories", "trial_workers", "data_workers"}
_FORMER: dict[str, Any] = {
    "tune": "auto",
    "tune_epochs": None,
    "tune_samples": 0.2,
    "start": None,
    "accumulate": 1,
    "clip_norm": None,
    "amp": None,
    "compile": False,
    "optimizer": "sgd",
    "absorb": True,
}
_LOOSE: dict[str, Any] = {"learn": [], "penalty": None, "penalty_ramp": None, "compiler": None, "grow": 1}


def default_out(model: str, budgets: tuple[Budget, ...], *more: str) -> str:
    """The folder of a job that names none, such as ``compressed/resnet50-flops-2G``; ``more`` words end its name."""
    name = model.removesuffix("/").rsplit("/", 1)[-1] if os.path.exists(model) else model
    slug = "-".join([name, *(f"{budget.cost}-{budget.text.replace('%', 'pct')}" for budget in budgets), *more])
    return str(Path(DEFAULT_FOLDER) / re.sub(r"[^\w.+-]+", "-", slug).strip("-"))
