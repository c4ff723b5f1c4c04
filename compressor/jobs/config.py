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

from compressor.budget import Budget, normal_list, normal_texts
from compressor.errors import UsageError
from compressor.options import Flag, Names, Number, Place, Shape, Text, Whole, option, shown
from compressor.options.shared import EPOCHS, THREADS
from compressor.pipeline.defaults import DEFAULT_BENCH_SECONDS
from compressor.pipeline.job_options import JobOptions
from compressor.search import METHODS, get_method
from compressor.search.constraints.wishes import WrittenWidths
from compressor.storage.places import DEFAULT_FOLDER

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps")


@dataclass(frozen=True)
class JobConfig(JobOptions):
    """One run of the main job. Validated on construction; ``to_json`` and ``from_json`` are inverse.

    Attributes:
        model: a torchvision name, ``timm:NAME``, ``pkg.module:factory``, a shipped backbone or a saved folder.
        budgets: at least one budget, at most one for each cost.
        options: the search method's own, by name (``docs/options.md``).
        start: of a folder of networks the best within the budgets is taken. Shares in budgets stay those of ``model``.
        trial_workers, data_workers: they say nothing about the result.
    """

    model: str
    budgets: tuple[Budget, ...]
    out: str = option("", Place(), "Folder to write; an interrupted job goes on there.")
    weights: str = option(
        "default",
        Text(),
        "default (the library's pretrained ones), none (random), or a file: .safetensors, .pt, .pth.",
    )
    data: str | None = option(None, Text(), "A data specification; without one nothing is trained.")
    search: str = option("oneshot", Text(), "The method that chooses, or several that follow each other.")
    importance: str | None = option(
        None,
        Text(),
        "What oneshot and dnarch rank channels by: sensitivity, magnitude (l2), l1, taylor, bn-scale or random.",
    )
    options: Mapping[str, Any] = field(default_factory=dict)
    search_epochs: int = option(0, EPOCHS, "Epochs of a search that trains.")
    data_workers: int = option(
        0,
        Whole(0, 1024),
        "Processes that read data of many files, images say; 0 reads in threads. Batches are the same.",
    )
    keep: tuple[str, ...] = option(
        (), WrittenWidths(), "Least widths of modules: channels, such as conv1=16, or a share, layer4*=50%."
    )
    export: tuple[str, ...] = option(("onnx",), Names(), "Formats to write, or none.")
    bench_seconds: float = option(
        DEFAULT_BENCH_SECONDS, Number(least=0), "How long to time both networks at the end, 0 for not at all."
    )
    num_classes: int | None = option(None, Whole(1, 10_000_000), "Classes of the model's head.")
    input_shape: tuple[int, ...] | None = option(None, Shape(), "Shape of one input, if not the model's or data's own.")
    device: str = option("auto", Text(), "Where to compute: auto, cpu, cuda, cuda:N or mps.")
    force: bool = option(False, Flag(), "Overwrite a folder that holds another job.")
    target: str | None = option(None, Text(), "Where a latency budget holds; 'compress targets' lists them.")
    lut: str | None = option(None, Place(), "The latency table; by default that of the user's cache folder.")
    threads: int | None = option(None, THREADS, "CPU threads on the target; by default all cores.")
    start: str | None = option(
        None,
        Place(),
        "What the search begins at: an earlier result of the same model, or a folder of networks that a search left.",
    )
    track: tuple[str, ...] = option(
        (), Names(), "Trackers that are told what happens: tensorboard, mlflow, wandb, trackio."
    )
    trust_factories: tuple[str, ...] = option(
        (), Names(), "Factories (pkg.module:name), modules or packages that a saved folder may name to be imported."
    )

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model.strip():
            raise UsageError("The model is empty; name one, for example --model resnet50 (compress models lists them).")
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
        found = {key: value for key, value in comparable(self.to_json()).items() if key not in _NO_IDENTITY}
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


def comparable(values: Mapping[str, Any]) -> dict[str, Any]:
    """``upgraded`` settings whose budgets are alike if they are the same limits, however they were written; also those
    of the option ``lowest``."""
    found = upgraded(values)
    if isinstance(found.get("budgets"), list):
        found["budgets"] = normal_texts({each["cost"]: each["text"] for each in found["budgets"]})
    told = found["options"]
    if isinstance(told, Mapping) and isinstance(told.get("lowest"), str):
        found["options"] = {**told, "lowest": normal_list(told["lowest"])}
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
    slug = "-".join([name, *(f"{budget.cost}-{budget.normal.replace('%', 'pct')}" for budget in budgets), *more])
    return str(Path(DEFAULT_FOLDER) / re.sub(r"[^\w.+-]+", "-", slug).strip("-"))
