"""Models of Hugging Face ``transformers`` that lie on disk or in its cache, ``hf:PATH`` or ``hf:NAME``; needs the extra
``hf``.

A model is its configuration and a head. Nothing is downloaded, and no code of a repository is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import MissingDependencyError, UnsupportedModelError, UsageError
from compressor.models.base import Fetched, Plan, Request, WeightsUnavailableError
from compressor.options import shown
from exporters.example import Example

HEADS = {
    "sequence-classification": ("AutoModelForSequenceClassification", ("ForSequenceClassification",)),
    "causal-lm": ("AutoModelForCausalLM", ("ForCausalLM", "LMHeadModel")),
    "image-classification": ("AutoModelForImageClassification", ("ForImageClassification",)),
    "backbone": ("AutoModel", ("Model",)),
}
"""By name: the class that builds it, and how the classes of such models end."""
_LENGTH = 128
_FOREIGN = ("auto_map", "quantization_config", "_name_or_path", "transformers_version", "custom_pipelines")


def _transformers() -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "Models named hf:NAME need the library transformers; install it with pip install 'compressor[hf]'."
        ) from error
    return transformers


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the library tells nothing of weights that it lacks: the job does."""
    logging = _transformers().utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


class HuggingFaceSource:
    """Builds through the ``Auto`` classes of transformers, from configurations."""

    own_weights: str | None = None

    def own_weights_trained(self, name: str) -> bool:
        """A fresh model is random."""
        return False

    def names(self) -> list[str]:
        """What lies in the cache is not listed."""
        return []

    def plan(self, name: str, request: Request, *, pretrained: bool) -> Plan:
        """The head follows from the data: labels of tokens want a classifier, text a language model, images their
        classifier. Without data it is the one that the configuration names.

        Raises ``UsageError`` for tokens that the model does not know, or more positions than it has.
        """
        config = self._config(name)
        text = bool(getattr(config, "vocab_size", 0))
        head = self._head(config, request, text)
        document = {key: value for key, value in config.to_dict().items() if key not in _FOREIGN}
        if request.num_classes is not None and head != "causal-lm":
            labels = {str(i): f"LABEL_{i}" for i in range(request.num_classes)}
            document |= {"id2label": labels, "label2id": {label: int(i) for i, label in labels.items()}}
        if head == "causal-lm":
            document["use_cache"] = False  # of earlier calls, which compression has nothing to do with
        if head == "sequence-classification" and getattr(config, "pad_token_id", None) is None and text:
            document["pad_token_id"] = 0  # classifiers of decoders look for the last token before it
        kwargs = {"config": json.loads(json.dumps(document, default=str)), "head": head}
        if not text:
            return Plan(kwargs, self._image(config, request))
        length = self._length(name, config, request)
        if request.vocabulary is not None and request.vocabulary > config.vocab_size:
            raise UsageError(
                f"hf:{name} knows {config.vocab_size} tokens, and the data has {request.vocabulary}; cut the text with "
                f"its own tokenizer (tokenizer={name})."
            )
        ids = torch.randint(config.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))
        named: dict[str, Tensor] = {"input_ids": ids}
        if head != "causal-lm":
            named["attention_mask"] = torch.ones_like(ids)
        return Plan(kwargs, (length,), Example((), named))

    def build(self, name: str, kwargs: Mapping[str, Any]) -> nn.Module:
        """A randomly initialised model of the configuration. Raises ``UnsupportedModelError`` if there is none."""
        transformers = _transformers()
        require_description(kwargs)
        document = dict(kwargs["config"])
        builder = getattr(transformers, HEADS[kwargs["head"]][0])
        try:
            config = transformers.AutoConfig.for_model(document.pop("model_type"), **document)
            model: nn.Module = builder.from_config(config)
        except (ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
            raise UnsupportedModelError(
                f"transformers {transformers.__version__} cannot build hf:{name} with the head {kwargs['head']}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        return model

    def fetch(self, name: str) -> Fetched:
        """The weights in the folder or the cache; a head that they lack stays random."""
        place = self._place(name)
        if not any(place.glob("*.safetensors")) and not any(place.glob("pytorch_model*.bin")):
            raise WeightsUnavailableError(f"there are none in {name}")

        def fill(model: Any) -> tuple[str, ...]:
            try:
                with _quiet():
                    loaded, info = type(model).from_pretrained(
                        str(place),
                        config=model.config,
                        local_files_only=True,
                        ignore_mismatched_sizes=True,
                        output_loading_info=True,
                    )
            except Exception as error:
                raise UnsupportedModelError(
                    f"transformers cannot load the weights of hf:{name}: {str(error).splitlines()[0]}"
                ) from error
            random = {*info["missing_keys"], *(each[0] for each in info["mismatched_keys"])}
            own = model.state_dict()
            dtype = next(model.parameters()).dtype
            for key, value in loaded.state_dict().items():
                if key not in random:
                    own[key].copy_(value.to(dtype) if value.is_floating_point() else value)
            return tuple(sorted(random))

        return Fetched({}, f"hf:{name}", fill=fill)

    def _head(self, config: Any, request: Request, text: bool) -> str:
        if request.vocabulary is not None and request.dense:
            return "causal-lm"
        if request.num_classes is not None:
            return "sequence-classification" if text else "image-classification"
        for architecture in getattr(config, "architectures", None) or ():
            for head, (_, endings) in HEADS.items():
                if architecture.endswith(endings):
                    return head
        return "backbone"

    def _length(self, name: str, config: Any, request: Request) -> int:
        most = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        if request.input_shape is not None and len(request.input_shape) != 1:
            sizes = "x".join(map(str, request.input_shape))
            raise UsageError(f"hf:{name} takes tokens, inputs of one axis such as 128, not {sizes}.")
        length = request.input_shape[0] if request.input_shape is not None else min(_LENGTH, most or _LENGTH)
        if most is not None and length > most:
            raise UsageError(
                f"hf:{name} has {most} positions, and inputs have {length} tokens; shorten them (length=)."
            )
        return int(length)

    def _image(self, config: Any, request: Request) -> tuple[int, ...]:
        if request.input_shape is not None:
            return request.input_shape
        size = getattr(config, "image_size", None) or 224
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        return (getattr(config, "num_channels", 3), int(height), int(width))

    def _place(self, name: str) -> Path:
        """The folder of a model. Raises ``UsageError`` if there is none on this machine."""
        if (Path(name) / "config.json").is_file():
            return Path(name)
        if Path(name).is_dir():
            raise UsageError(f"The folder '{name}' has no config.json; expected what save_pretrained writes.")
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(name, local_files_only=True, allow_patterns=["*.json", "*.safetensors"]))
        except Exception as error:
            raise UsageError(
                f"There is no model hf:{name} on this machine, neither a folder nor in the cache of huggingface_hub, "
                f"and nothing is downloaded; get it with: hf download {name}"
            ) from error

    def _config(self, name: str) -> Any:
        transformers, place = _transformers(), self._place(name)
        try:
            return transformers.AutoConfig.from_pretrained(str(place), local_files_only=True)
        except Exception as error:
            raise UnsupportedModelError(
                f"transformers {transformers.__version__} does not know the configuration of hf:{name}: "
                f"{str(error).splitlines()[0]}"
            ) from error


def require_description(kwargs: Mapping[str, Any], longest: int = 2**31) -> None:
    """Refuse what a saved folder may say of a model, but for a configuration of transformers' own models with counts in
    bounds, and one of our heads. Raises ``UsageError``."""
    config, head = kwargs.get("config"), kwargs.get("head")
    if set(kwargs) != {"config", "head"} or not isinstance(config, Mapping) or head not in HEADS:
        raise UsageError(
            f"The folder describes a model of transformers by {shown(dict(kwargs))}; expected a config and a head."
        )
    known = _transformers().models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    if config.get("model_type") not in known:
        raise UsageError(
            f"The folder names the model type {shown(config.get('model_type'))}, which transformers has not."
        )
    foreign = [key for key in _FOREIGN if key in config]
    if foreign:
        raise UsageError(f"The folder's configuration has {foreign[0]}, which may lead to other code; remove it.")
    _require_counts(config, max(longest, 2**20))


def _require_counts(value: Any, most: int, depth: int = 0) -> None:
    if isinstance(value, Mapping):
        for item in value.values():
            _require_counts(item, most, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _require_counts(item, most, depth + 1)
    elif (isinstance(value, int) and not isinstance(value, bool) and abs(value) > most) or depth > 8:
        raise UsageError(f"The folder's configuration has {shown(value)}, more than a model has of anything.")
