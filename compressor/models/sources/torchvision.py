"""Models of torchvision: classification, segmentation, detection and video."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.models.base import Fetched, Plan, Request, WeightsUnavailableError
from compressor.models.network import transfer_timeout, unreachable_reason
from compressor.plugins.registry import unknown_name

_FRAMES = 16
_DEFAULT_SIZE = {"classification": (224, 224), "segmentation": (224, 224), "detection": (320, 320), "video": (112, 112)}
# Auxiliary heads help training from scratch only; evaluation never runs them, so they are left out of the model.
_WITHOUT_AUXILIARY = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
_AUXILIARY_PREFIXES = ("aux1.", "aux2.", "AuxLogits.", "aux_classifier.")
_RESCALING = ("googlenet", "inception_v3")  # their published weights expect inputs scaled another way
_OLD_DENSENET_KEY = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")


class TorchvisionSource:
    """Builds through ``torchvision.models.get_model``, with the ``DEFAULT`` entry of each weights enumeration."""

    own_weights: str | None = None

    def own_weights_trained(self, name: str) -> bool:
        """A fresh model is random."""
        return False

    def names(self) -> list[str]:
        """Every model that takes images or clips; quantised twins and optical flow are left out."""
        models = torchvision.models
        modules = (models, models.segmentation, models.detection, models.video)
        return sorted(name for module in modules for name in models.list_models(module=module))

    def plan(self, name: str, request: Request, *, pretrained: bool) -> Plan:
        """Input size: what the weights in use were made for; without weights, the smallest any of them was made for."""
        self._check(name)
        kind = self._kind(name)
        shape = request.input_shape or self._input_shape(name, kind, pretrained)
        if request.input_shape is None and request.in_channels is not None:
            shape = (request.in_channels, *shape[1:])
        kwargs: dict[str, Any] = dict(_WITHOUT_AUXILIARY.get(name, {}))
        if request.num_classes is not None:
            kwargs["num_classes"] = request.num_classes
        if request.in_channels is not None and request.in_channels != 3:
            if kind == "detection":
                raise UsageError(f"{name} normalises 3 channels itself and cannot take {request.in_channels}.")
            kwargs["in_channels"] = request.in_channels
        elif pretrained and name in _RESCALING:
            kwargs["transform_input"] = True
        if name.startswith("vit_") and shape[-1] != 224:
            kwargs["image_size"] = shape[-1]
        return Plan(kwargs, shape)

    def build(self, name: str, kwargs: Mapping[str, Any]) -> nn.Module:
        """A randomly initialised model; nothing is downloaded, backbones of detectors included."""
        self._check(name)
        arguments = dict(kwargs)
        in_channels = arguments.pop("in_channels", None)
        if "weights_backbone" in inspect.signature(torchvision.models.get_model_builder(name)).parameters:
            arguments["weights_backbone"] = None
        try:
            model: nn.Module = torchvision.models.get_model(name, weights=None, **arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UsageError(f"torchvision cannot build {name} with {arguments}: {error}") from error
        if in_channels is not None:
            _replace_input_convolution(model, in_channels, name)
        return model

    def fetch(self, name: str) -> Fetched:
        """The ``DEFAULT`` weights, from torch's hub cache or by download."""
        self._check(name)
        weights = self._default_weights(name)
        if weights is None:
            raise WeightsUnavailableError(f"torchvision has no pretrained weights for {name}")
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        if not cached.exists() and (reason := unreachable_reason(weights.url)):
            raise WeightsUnavailableError(f"{weights.url}: {reason}")
        try:
            with transfer_timeout():
                state = weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as error:
            raise WeightsUnavailableError(f"{weights.url}: {error}") from error
        return Fetched(_modern_densenet_keys(state), f"torchvision {weights}", _AUXILIARY_PREFIXES)

    def _check(self, name: str) -> None:
        if name not in self.names():
            raise unknown_name("model", name, self.names(), listing="compress models lists them.")

    def _kind(self, name: str) -> str:
        package = torchvision.models.get_model_builder(name).__module__
        return next((kind for kind in _DEFAULT_SIZE if f".{kind}." in package), "classification")

    def _default_weights(self, name: str) -> Any | None:
        weights = torchvision.models.get_model_weights(name)
        return weights.DEFAULT if len(weights) else None

    def _input_shape(self, name: str, kind: str, pretrained: bool) -> tuple[int, ...]:
        """(3, H, W) or (3, frames, H, W)."""
        size = _DEFAULT_SIZE[kind]
        if kind in {"classification", "video"}:
            every = list(torchvision.models.get_model_weights(name))
            used = [self._default_weights(name)] if pretrained and every else every
            size = min((_crop_size(weights, size) for weights in used), default=size)
        return (3, _FRAMES, *size) if kind == "video" else (3, *size)


def _crop_size(weights: Any, fallback: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) that the weights' preprocessing cuts out."""
    crop = getattr(weights.transforms, "keywords", {}).get("crop_size", fallback)
    return (crop, crop) if isinstance(crop, int) else tuple(crop)


def _replace_input_convolution(model: nn.Module, in_channels: int, name: str) -> None:
    """Give the first convolution that reads an RGB image another number of input channels."""
    for fqn, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.in_channels == 3 and module.groups == 1:
            other = type(module)(
                in_channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                stride=module.stride,  # type: ignore[arg-type]
                padding=module.padding,  # type: ignore[arg-type]
                dilation=module.dilation,  # type: ignore[arg-type]
                bias=module.bias is not None,
                padding_mode=module.padding_mode,
            )
            parent, _, attribute = fqn.rpartition(".")
            setattr(model.get_submodule(parent), attribute, other)
            if getattr(model, "transform_input", False):
                model.transform_input = False  # type: ignore[assignment]
            return
    raise UsageError(f"{name} has no convolution on 3 input channels to change to {in_channels}.")


def _modern_densenet_keys(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Published DenseNet files name ``norm.1`` what the model calls ``norm1``."""
    if not any(_OLD_DENSENET_KEY.fullmatch(key) for key in state):
        return state
    return {_OLD_DENSENET_KEY.sub(r"\1\2", key): value for key, value in state.items()}
