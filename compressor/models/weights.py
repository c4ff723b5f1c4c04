"""Weights files: read without running code, and fitted to a model only if every key fits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from compressor.errors import WeightsError
from compressor.models.checkpoints import best_fit, read_content, state_dicts
from compressor.storage.reading import require_file, require_memory_for

_TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
_NESTED_UNDER = ("state_dict", "model", "model_state_dict")
_WRAPPERS = ("module.", "_orig_mod.")
_SHOWN = 4


@dataclass(frozen=True)
class WeightsInfo:
    """Where a model's weights come from.

    Attributes:
        choice: what was asked for: ``"default"``, ``"none"`` or a path.
        origin: where they come from, in words.
        pretrained: whether they were trained; if not, accuracy means nothing.
        warning: what the user must know, or None.
        reset: parameters that stay random because their shape was changed on request.
        ignored: keys of the weights that the model has no use for.
    """

    choice: str
    origin: str
    pretrained: bool
    warning: str | None = None
    reset: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def read_state_dict(path: str | Path, model: nn.Module | None = None) -> dict[str, Tensor]:
    """Read a weights file: ``.safetensors``, or a state dict or checkpoint that ``torch.save`` wrote.

    Nothing in the file is run. A checkpoint of a trainer (Lightning, timm, torchvision's references) holds more than
    weights; with ``model`` the dictionary, and the prefix of its keys, are those that fit the model. Without, a state
    dict may lie under ``state_dict`` or ``model``, and prefixes of wrappers (``module.``) are taken off.

    Raises:
        WeightsError: the file is missing, unreadable, holds pickled code, or holds no tensors.
    """
    file = Path(path)
    if not file.is_file():
        raise WeightsError(f"Weights file '{path}' does not exist; give a file, or one of: default, none.")
    if file.suffix == ".safetensors":
        content: object = _read_safetensors(file)
    elif file.suffix in _TORCH_SUFFIXES:
        content = read_content(file)
    else:
        raise WeightsError(
            f"Weights file '{path}' has the unknown suffix '{file.suffix}'; expected .safetensors or a state dict "
            f"in {', '.join(_TORCH_SUFFIXES)}."
        )
    found = list(state_dicts(content))
    if not found:
        raise WeightsError(
            f"Weights file '{file}' holds no tensors by name; expected a state dict, or one under "
            f"{' or '.join(repr(key) for key in _NESTED_UNDER)}."
        )
    if model is not None:
        return best_fit(found, model.state_dict(), f"'{file}'")[0]
    named = dict(found)
    return _strip_wrappers(next((named[key] for key in _NESTED_UNDER if key in named), found[0][1]))


def _strip_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _WRAPPERS * 2:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    cure = "pass another file"
    require_memory_for(file, require_file(file, cure, kind=WeightsError), cure, kind=WeightsError)
    try:
        return dict(load_file(file))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"Weights file '{file}' is no readable safetensors file ({_first_line(error)}).") from error


def fit_state_dict(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    origin: str,
    may_reset: Callable[[str, Tensor, Tensor], bool] | None = None,
    optional_prefixes: tuple[str, ...] = (),
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Load ``state`` into ``model`` in place, or change nothing and raise.

    Args:
        origin: where the weights come from, for messages.
        may_reset: given a key, the model's tensor and the weights' tensor of another shape, whether the model may
            keep its own values there.
        optional_prefixes: prefixes of keys that are left out silently where the model lacks them.

    Returns:
        The keys that kept the model's own values, and the keys of ``state`` that were left out.

    Raises:
        WeightsError: keys are missing, unexpected or of another shape, or values are not finite.
    """
    own: dict[str, Tensor] = model.state_dict()
    ignored = [key for key in state if key not in own and key.startswith(optional_prefixes or ("\0",))]
    unexpected = [key for key in state if key not in own and key not in set(ignored)]
    # Counters of seen batches are bookkeeping: old files lack them, and evaluation does not read them.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    differing = [key for key in state if key in own and state[key].shape != own[key].shape]
    reset = [key for key in differing if may_reset is not None and may_reset(key, own[key], state[key])]
    wrong = [key for key in differing if key not in set(reset)]
    if missing or unexpected or wrong:
        shapes = [f"{key} {list(state[key].shape)} for {list(own[key].shape)}" for key in wrong]
        parts = [_some("missing", missing), _some("unexpected", unexpected), _some("of another shape", shapes)]
        raise WeightsError(
            f"The weights from {origin} do not fit {type(model).__name__}: {'; '.join(part for part in parts if part)}."
            + _class_count_hint(own, state, wrong if not missing and not unexpected else [])
        )
    used = {key: state[key] for key in state if key in own and key not in set(reset)}
    if broken := [key for key, value in used.items() if value.is_floating_point() and not bool(value.isfinite().all())]:
        raise WeightsError(f"The weights from {origin} hold values that are not finite: {_some('', broken)}.")
    merged = OrderedDict((key, used.get(key, value)) for key, value in own.items())
    # Modules with versioned formats read their version here; files without one are taken to be current.
    merged._metadata = getattr(state, "_metadata", None) or getattr(own, "_metadata", {})  # type: ignore[attr-defined]
    model.load_state_dict(merged)
    return tuple(reset), tuple(ignored)


def _some(what: str, keys: list[str]) -> str:
    """``3 missing (a, b, c)``, or nothing for no keys."""
    if not keys:
        return ""
    more = f", and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{len(keys)} {what}".rstrip() + f" ({', '.join(keys[:_SHOWN])}{more})"


def _class_count_hint(own: Mapping[str, Tensor], state: Mapping[str, Tensor], wrong: list[str]) -> str:
    """A hint if nothing but the outputs of one layer differ."""
    rows = {state[key].shape[0] for key in wrong if own[key].dim() and own[key].shape[1:] == state[key].shape[1:]}
    if 0 < len(wrong) <= 2 and len(rows) == 1:
        return f" If only the number of classes differs, pass --num-classes {rows.pop()}."
    return ""


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
