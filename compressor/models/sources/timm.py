"""Models of the timm library, named ``timm:NAME`` or ``timm:NAME.TAG``; needs the extra ``timm``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch import nn

from compressor.errors import MissingDependencyError, UsageError
from compressor.models.base import Fetched, Plan, Request, WeightsUnavailableError
from compressor.models.network import transfer_timeout, unreachable_reason
from compressor.plugins.registry import unknown_name


def _timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise MissingDependencyError(
            "Models named timm:NAME need the timm library; install it with pip install 'compressor[timm]'."
        ) from error
    return timm


class TimmSource:
    """Builds through ``timm.create_model``, with timm's own pretrained configurations."""

    own_weights: str | None = None

    def own_weights_trained(self, name: str) -> bool:
        """A fresh model is random."""
        return False

    def names(self) -> list[str]:
        """All architectures of the installed timm, without the prefix."""
        return list(_timm().list_models())

    def plan(self, name: str, request: Request, *, pretrained: bool) -> Plan:
        """timm takes class and channel counts; image sizes are passed on to models that need to know theirs."""
        config = self._config(name)
        channels, height, width = config.input_size
        kwargs: dict[str, Any] = {}
        if request.num_classes is not None:
            kwargs["num_classes"] = request.num_classes
        if request.in_channels is not None and request.in_channels != channels:
            kwargs["in_chans"] = request.in_channels
        size = request.input_shape[1:] if request.input_shape is not None else (height, width)
        if tuple(size) != (height, width) and self._takes_image_size(name):
            kwargs["img_size"] = list(size)
        return Plan(kwargs, (request.in_channels or channels, *size))

    def build(self, name: str, kwargs: Mapping[str, Any]) -> nn.Module:
        """A randomly initialised model."""
        self._config(name)
        model: nn.Module = _timm().create_model(name, pretrained=False, **kwargs)
        return model

    def fetch(self, name: str) -> Fetched:
        """timm's pretrained weights, from its cache or the network."""
        config = self._config(name)
        if not config.has_weights:
            raise WeightsUnavailableError(f"timm has no pretrained weights for {name}")
        with _quick_offline(config) as reason, transfer_timeout():
            try:
                model = _timm().create_model(name, pretrained=True)
            except (OSError, RuntimeError, ValueError) as error:
                raise WeightsUnavailableError(reason or str(error).splitlines()[0]) from error
        return Fetched(model.state_dict(), f"timm {config.architecture}.{config.tag}")

    def _config(self, name: str) -> Any:
        """The pretrained configuration of ``name``. Raises ``UsageError`` with the closest names."""
        timm = _timm()
        architecture, _, tag = name.partition(".")
        if not timm.is_model(architecture):
            choices = [f"timm:{choice}" for choice in timm.list_models()]
            raise unknown_name("model", f"timm:{name}", choices, listing="compress models 'timm:*' lists them.")
        config = timm.get_pretrained_cfg(name, allow_unregistered=not tag)
        if config is None:
            raise UsageError(f"timm's {architecture} has no pretrained tag {tag!r}; leave it out, or see timm's list.")
        return config

    def _takes_image_size(self, name: str) -> bool:
        """Whether the model's grid depends on the image size, as in transformers with position embeddings."""
        timm = _timm()
        entry = timm.models.model_entrypoint(name.partition(".")[0])
        return bool(self._config(name).fixed_input_size) and bool(inspect.signature(entry).parameters)


@contextmanager
def _quick_offline(config: Any) -> Iterator[str | None]:
    """Keep the hub client to its cache where its server cannot be reached; yields the reason, or None."""
    reason = None
    if not config.hf_hub_id:
        yield unreachable_reason(config.url) if config.url else None
        return
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        yield "the hub client is set to offline"
        return
    reason = unreachable_reason(constants.ENDPOINT)
    if reason is None:
        yield None
        return
    with mock.patch.object(constants, "HF_HUB_OFFLINE", True):
        yield f"{constants.ENDPOINT}: {reason}"
