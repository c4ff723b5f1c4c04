"""From a model's name to a model with weights and an example input, and back from its description."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.data.batches import sample_shape
from compressor.errors import UsageError
from compressor.models.base import Plan, Request, Source, WeightsUnavailableError
from compressor.models.checkpoints import archive_kind
from compressor.models.described import require_registered
from compressor.models.rebuilding import name_in_source
from compressor.models.saved_folder import FolderSource
from compressor.models.sources import SOURCES
from compressor.models.weights import WeightsInfo, fit_state_dict, read_state_dict
from compressor.plugins.importing import is_attribute_spec
from compressor.plugins.registry import unknown_name
from compressor.process.generators import isolated_rng
from exporters.example import Example, as_example

_DEFAULT_SHAPE = (3, 224, 224)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for use.

    Attributes:
        model: in evaluation mode, on the CPU.
        spec: the name the user gave.
        weights: where its weights come from.
        example_inputs: one random input with a batch axis, (1, C, H, W) for images; of a saved folder whose network
            takes more, the whole call.
        source: which source built it.
        kwargs: the arguments it was built with.
    """

    model: nn.Module
    spec: str
    weights: WeightsInfo
    example_inputs: Tensor | Example
    source: str
    kwargs: dict[str, Any]

    @property
    def example(self) -> Example:
        """The whole call."""
        return as_example(self.example_inputs)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input without its batch axis."""
        return sample_shape(self.example)

    def describe(self) -> dict[str, Any]:
        """What ``rebuild`` needs to build a fresh model of the same structure, as JSON values."""
        return {"spec": self.spec, "source": self.source, "kwargs": self.kwargs, "input_shape": list(self.input_shape)}


def load_model(
    spec: str,
    *,
    weights: str = "default",
    num_classes: int | None = None,
    in_channels: int | None = None,
    example_shape: tuple[int, ...] | None = None,
    dense: bool = False,
    vocabulary: int | None = None,
    grow: int | None = None,
    seed: int = 0,
    trust_factories: Sequence[str] = (),
    folder: str | None = None,
) -> LoadedModel:
    """Build a model by name and give it weights.

    Args:
        spec: a torchvision name, a shipped backbone, ``timm:NAME``, ``hf:NAME``, ``pkg.module:factory`` or a saved
            folder.
        weights: ``"default"`` for the library's pretrained weights, from cache or download; where they cannot be had,
            weights are random and ``WeightsInfo.warning`` says so. ``"none"`` for random ones. Else a file.
        num_classes: outputs of the head: classes, or values of a regression; with default weights a head of another
            size stays random and is listed in ``WeightsInfo.reset``.
        in_channels: channels of the input; taken from ``example_shape`` if that is given.
        example_shape: shape of one input without the batch axis.
        dense: predict at every position; passed to factories and backbones that know the argument.
        vocabulary: inputs are tokens below this number, of shape (length,); likewise.
        grow: so many times as wide and as deep; likewise.
        seed: seed of the random initialisation and of the example input; the global generators are left alone.
        trust_factories: factories, modules and packages that a saved folder may name; see ``compressor.load``.
        folder: a saved folder whose original ``spec`` builds; ``spec`` is then the user's word, and the folder data.

    Raises:
        UsageError: an unknown name (with the closest), or settings that the model does not take.
        WeightsError: a weights file that is unreadable, unsafe, or does not fit.
        MissingDependencyError: an optional library is needed.
        UnsupportedModelError: the user's factory raised.
    """
    if folder is not None:
        return _into_folder(folder, spec, weights=weights, example_shape=example_shape, seed=seed)
    source_name, name = resolve(spec)
    source: Source = SOURCES.get(source_name)()
    if isinstance(source, FolderSource):
        source = FolderSource(trust_factories)
    if source_name in {"torchvision", "timm"} and example_shape is not None and len(example_shape) not in {3, 4}:
        raise UsageError(
            f"{spec} takes images or clips, not inputs of shape {'x'.join(map(str, example_shape))}; for signals and "
            "tokens use ccnn_4_140_1d, or a model factory of your own."
        )
    if example_shape is not None and in_channels is None and source_name != "folder" and vocabulary is None:
        in_channels = example_shape[0]
    request = Request(num_classes, in_channels, example_shape, dense, vocabulary, grow)
    if grow and source_name not in ("shipped", "factory"):
        raise UsageError(
            f"{spec} has one size; --dnarch.grow takes a shipped backbone such as ccnn_4_140, or a factory."
        )
    fetched, reason = None, None
    if weights == "default" and source.own_weights is None:
        try:
            fetched = source.fetch(name)
        except WeightsUnavailableError as error:
            reason = str(error)
    plan = source.plan(name, request, pretrained=fetched is not None)
    with isolated_rng(seed=seed):
        model = source.build(name, plan.kwargs).eval()
    if source_name == "shipped":
        _check_axes(spec, model, request)
    if fetched is not None and fetched.fill is not None:
        with isolated_rng(seed=seed):
            reset = fetched.fill(model)
        info = WeightsInfo(weights, fetched.origin, True, _reset_warning(reset), reset)
    elif fetched is not None:
        reset, ignored = fit_state_dict(
            model,
            fetched.state,
            origin=fetched.origin,
            may_reset=_reset_rule(num_classes, in_channels),
            optional_prefixes=fetched.optional_prefixes,
        )
        info = WeightsInfo(weights, fetched.origin, True, _reset_warning(reset), reset, ignored)
    else:
        info = _other_weights(model, spec, weights, source, source_name, reason)
    return LoadedModel(model, spec, info, _example(model, plan, request, seed), source_name, plan.kwargs)


def _into_folder(
    folder: str, spec: str, *, weights: str, example_shape: tuple[int, ...] | None, seed: int
) -> LoadedModel:
    """The network in a saved folder, its original built by ``spec``."""
    from compressor.models.artifact import read_manifest

    described = read_manifest(folder).description
    source_name, name = resolve(spec)
    if source_name == "folder":
        raise UsageError(f"--model says how the original of '{folder}' is built; '{spec}' is a saved folder itself.")
    source: Source = SOURCES.get(source_name)()
    same = described is not None and (described["source"], described["spec"]) == (source_name, spec)
    kwargs = dict(described["kwargs"]) if same and described is not None else {}
    if same and source_name != "factory":
        require_registered(source_name, source, name, kwargs, 2**20)
    with isolated_rng():
        torch.manual_seed(seed)
        original = source.build(name, kwargs).eval()
    saved = FolderSource(original=original)
    request = Request(input_shape=example_shape)
    plan = saved.plan(folder, request, pretrained=False)
    model = saved.build(folder, plan.kwargs).eval()
    info = _other_weights(model, folder, weights, saved, "folder", None)
    return LoadedModel(model, folder, info, _example(model, plan, request, seed), "folder", plan.kwargs)


def list_models(pattern: str | None = None) -> list[str]:
    """Names that ``load_model`` takes, sorted: shipped and torchvision's, and timm's if the pattern begins ``timm:``.

    Args:
        pattern: a shell pattern such as ``resnet*``, or a part of a name.
    """
    if pattern is not None and pattern.startswith("timm:"):
        names = [f"timm:{name}" for name in _source("timm").names()]
    else:
        names = _plain_names()
    if pattern is None:
        return sorted(names)
    wild = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return sorted(name for name in names if fnmatch.fnmatchcase(name, wild))


def resolve(spec: str) -> tuple[str, str]:
    """The source of a model, and its name there. Raises ``UsageError`` with the closest names."""
    for prefixed in ("timm", "hf"):
        if spec.startswith(f"{prefixed}:"):
            return prefixed, spec.removeprefix(f"{prefixed}:")
    for source_name in ("shipped", "torchvision"):
        if spec in _source(source_name).names():
            return source_name, spec
    if spec and Path(spec).is_dir():
        return "folder", spec
    if is_attribute_spec(spec):
        return "factory", spec
    if spec and Path(spec).is_file():
        raise UsageError(_file_refusal(spec))
    if "/" in spec:
        raise UsageError(f"No model folder '{spec}'; expected a folder that an earlier job wrote, or a model's name.")
    raise unknown_name(
        "model",
        spec,
        _plain_names(),
        listing="compress models lists all; timm:NAME, hf:NAME, pkg.module:factory and saved folders work too.",
    )


_WITHOUT_MODULES = {
    ".onnx": "an ONNX file",
    ".pt2": "an exported program (from Python: compressor.compress(torch.export.load(FILE).module(), ...))",
    ".xml": "an OpenVINO file",
    ".engine": "a TensorRT engine",
    ".rtx": "a TensorRT-RTX engine",
    ".safetensors": "a weights file",
}


def _file_refusal(spec: str) -> str:
    """Why a file is no model, by what it holds."""
    what = _WITHOUT_MODULES.get(Path(spec).suffix) or archive_kind(Path(spec)) or "a file"
    weights = what in ("a weights file", "a checkpoint")
    cure = "pass it as --weights, and as --model the network it belongs to" if weights else "pass a network"
    return f"'{spec}' is {what}, which holds no layers of PyTorch to compress; {cure}, {_HOW}."


_HOW = "by a torchvision name, timm:NAME, hf:NAME, package.module:factory, or a folder that compress wrote"


def _source(name: str) -> Source:
    source: Source = SOURCES.get(name)()
    return source


def _plain_names() -> list[str]:
    return _source("shipped").names() + _source("torchvision").names()


def _other_weights(
    model: nn.Module, spec: str, weights: str, source: Source, source_name: str, reason: str | None
) -> WeightsInfo:
    """Weights from a file, the source's own, or random ones."""
    if weights not in {"default", "none"}:
        _, ignored = fit_state_dict(model, read_state_dict(weights, model), origin=f"'{weights}'")
        return WeightsInfo(weights, f"file {Path(weights).name}", True, ignored=ignored)
    if source.own_weights is not None:
        if weights == "none" and source_name == "folder":
            raise UsageError(f"The saved model in '{spec}' has its own weights; leave --weights out.")
        name = name_in_source(spec, source_name)
        return WeightsInfo(weights, source.own_weights, weights == "default" and source.own_weights_trained(name))
    if weights == "none":
        return WeightsInfo(weights, "random initialisation", False)
    warning = (
        f"NO PRETRAINED WEIGHTS for {spec} ({reason}): its weights are RANDOM. Structure, cost and latency are real, "
        "accuracy is not; pass --weights FILE to give it weights."
    )
    return WeightsInfo(weights, "random initialisation", False, warning)


def _reset_rule(num_classes: int | None, in_channels: int | None) -> Any:
    """Which shapes may differ from the pretrained ones: the head's outputs, and the image channels of a convolution."""

    def may_reset(key: str, own: Tensor, given: Tensor) -> bool:
        if own.dim() != given.dim():
            return False
        other_axes = [axis for axis in range(own.dim()) if own.shape[axis] != given.shape[axis]]
        head = num_classes is not None and other_axes == [0]
        stem = in_channels is not None and other_axes == [1] and own.dim() >= 4 and own.shape[1] == in_channels
        return head or stem

    return may_reset


def _reset_warning(reset: tuple[str, ...]) -> str | None:
    if not reset:
        return None
    return f"Random until trained, because the pretrained weights have none of their shape: {', '.join(reset)}."


def _check_axes(spec: str, model: nn.Module, request: Request) -> None:
    """Refuse data of another kind than a shipped backbone's, before its forward fails in a kernel."""
    own = getattr(model, "input_shape", None)
    if own is None or request.input_shape is None or len(own) == len(request.input_shape):
        return
    raise UsageError(
        f"{spec} takes inputs of {len(own)} axes, such as {'x'.join(map(str, own))}, not "
        f"{'x'.join(map(str, request.input_shape))}; images have 3 axes, signals 2 (ccnn_4_140_1d takes these)."
    )


def _example(model: nn.Module, plan: Plan, request: Request, seed: int) -> Tensor | Example:
    if plan.example_inputs is not None:
        return plan.example_inputs
    own = getattr(model, "input_shape", None)
    shape = request.input_shape or plan.input_shape or (tuple(own) if own is not None else None)
    if shape is None:
        shape = (request.in_channels or _DEFAULT_SHAPE[0], *_DEFAULT_SHAPE[1:])
    generator = torch.Generator().manual_seed(seed)
    if request.vocabulary is not None:
        return torch.randint(request.vocabulary, (1, *shape), generator=generator)
    return torch.randn(1, *shape, generator=generator)


def with_example(loaded: LoadedModel, example_inputs: Tensor) -> LoadedModel:
    """The same model with another example input, for instance one taken from the data."""
    return dataclasses.replace(loaded, example_inputs=example_inputs)
