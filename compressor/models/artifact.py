"""The folder a compression leaves behind, and the way back to a model.

``model.safetensors`` holds every tensor once, ``architecture.json`` how a fresh original becomes the compressed
network, ``report.json`` and ``report.html`` what was measured. A folder is data, never code: nothing is pickled, and
the original is built again only through a registry (torchvision, timm, shipped backbones, installed plug-ins). A
factory of the user's own is imported where the user names or trusts it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor, nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.rounds import composed, left_to_apply, whole
from compressor.errors import CompressorError, UnsupportedModelError, UsageError, WeightsError
from compressor.models.example_inputs import describe_inputs, make_inputs
from compressor.nn.tensors import example_of
from compressor.printable import printable
from compressor.storage.codec import Keys, check, decode
from compressor.storage.files import atomic_save_safetensors, atomic_write_json, atomic_write_text, load_safetensors
from compressor.storage.reading import LARGE, SMALL, Limits, read_json, require_memory_for, sha256
from compressor.storage.version import VERSION

if TYPE_CHECKING:
    from compressor.report import Report
    from exporters.base import Inputs
    from exporters.example import Example

ARCHITECTURE, WEIGHTS, REPORT, PAGE = "architecture.json", "model.safetensors", "report.json", "report.html"

#: Raised whenever a reader of the previous version would build another network; folders of 1 are read.
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Manifest:
    """The content of ``architecture.json``.

    Attributes:
        description: how to build the original again, see ``compressor.models.rebuild``; ``None`` if only the user can.
        model_class: qualified name of the class.
        architecture: what was applied to the original, in every round of compression.
        tied: names of tensors that are stored under another name.
        weights: bytes and SHA-256 of the weights file.
        inputs: how to make example inputs again, see ``compressor.models.example_inputs``; ``None`` if they were not
        given.
    """

    description: Annotated[dict[str, Any], Keys({"spec": str, "source": str, "kwargs": dict[str, Any]})] | None
    model_class: str
    architecture: dict[str, Any]
    tied: dict[str, str]
    weights: Annotated[dict[str, Any], Keys({"bytes": int, "sha256": str})]
    inputs: Any

    def to_json(self) -> dict[str, Any]:
        """The document, ``schema_version`` first."""
        return {"schema_version": SCHEMA_VERSION, "compressor": VERSION, **vars(self)}


def save(
    folder: str | Path,
    model: nn.Module,
    architecture: Architecture,
    report: Report,
    *,
    description: Mapping[str, Any] | None = None,
    example_inputs: Inputs | None = None,
) -> None:
    """Write a compressed model and its report into ``folder``, each file atomically.

    ``report.files`` is completed with the files written here.

    Args:
        model: the compressed model.
        description: ``LoadedModel.describe()`` of the original; without it, loading needs a fresh original. If the
            original came from a saved folder, that folder's architectures are taken over, so the two stay independent.
        example_inputs: a tensor, a tuple of arguments or an ``Example``; only how to make such ones again is kept.

    Raises:
        CompressorError: the folder cannot be written.
        UnsupportedModelError: the model keeps something in its ``state_dict`` that is no tensor.
        UsageError: the model was compressed before, and it is not known how.
    """
    from compressor.report import FileWritten

    saved = save_model(folder, model, architecture, description=description, example_inputs=example_inputs)
    known = {file.path for file in report.files}
    report.files += [
        FileWritten(path.name, {WEIGHTS: "safetensors"}.get(path.name, "architecture"), path.stat().st_size)
        for path in saved
        if path.name not in known
    ]
    save_report(folder, report)


def save_model(
    folder: str | Path,
    model: nn.Module,
    architecture: Architecture,
    *,
    description: Mapping[str, Any] | None = None,
    example_inputs: Inputs | None = None,
) -> list[Path]:
    """Write the weights, then the architecture that names their checksum; returns both paths. See :func:`save`."""
    folder = Path(folder)
    tensors, tied = unshared(model)
    kept = dict(description) if description is not None else None
    if kept is not None and kept.get("source") == "folder":
        kept = read_manifest(kept["spec"]).description
    inputs = None
    if example_inputs is not None:
        inputs = describe_inputs(example_of(example_inputs))
    atomic_save_safetensors(folder / WEIGHTS, tensors, {"format": "pt"})
    manifest = Manifest(
        description=kept,
        model_class=class_name(model),
        architecture=whole(model, architecture).to_json(),
        tied=tied,
        weights={"bytes": (folder / WEIGHTS).stat().st_size, "sha256": sha256(folder / WEIGHTS)},
        inputs=inputs,
    )
    atomic_write_json(folder / ARCHITECTURE, manifest.to_json(), indent=None)
    return [folder / WEIGHTS, folder / ARCHITECTURE]


def save_report(folder: str | Path, report: Report) -> list[Path]:
    """Write ``report.json`` and ``report.html``; returns both paths."""
    from compressor.report import render_html

    folder = Path(folder)
    atomic_write_json(folder / REPORT, report.to_json())
    atomic_write_text(folder / PAGE, render_html(report))
    return [folder / REPORT, folder / PAGE]


def load(folder: str | Path, model: nn.Module | None = None, *, trust_factories: Sequence[str] = ()) -> nn.Module:
    """The compressed model in ``folder``: an ordinary module on the CPU, in eval mode.

    Args:
        model: a fresh original, built as it was when it was compressed, or where it was compressed several times what
            an earlier round made of one; it is changed in place. Without it the original is built from the description
            in the folder, if there is one.
        trust_factories: factories that the folder may name, ``package.module:factory``, or packages and modules whose
            factories it may name. Their code is imported and run; without them only registered names are built.

    Raises:
        UsageError: a file is missing or of a newer version, or ``model`` is not the original.
        WeightsError: the weights are damaged, or do not fit.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    tensors = _read_weights(folder, manifest)
    if model is None:
        model = _rebuild(folder, manifest, trust_factories)
    else:
        from compressor.graph.programs import opened

        model = opened(model)
    if not f".{manifest.model_class}".endswith(f".{type(model).__qualname__}"):  # a script's module is __main__
        raise UsageError(
            f"{folder} holds a {manifest.model_class}, the model passed is a {class_name(model)}; "
            "pass a fresh original, built with the arguments it had when it was compressed."
        )
    try:
        decided = Architecture.from_json(manifest.architecture)
    except UsageError as error:
        raise UsageError(f"{folder / ARCHITECTURE}: {error} Compress the model again.") from error
    if (rest := left_to_apply(model, decided)) is not None:
        model = rest.apply_(model)
    _fill(model, tensors, folder)
    return model.eval()


def is_complete(folder: str | Path) -> bool:
    """Whether every file that ``save`` writes is there."""
    return all((Path(folder) / name).is_file() for name in (ARCHITECTURE, WEIGHTS, REPORT, PAGE))


def load_whole_report(folder: str | Path) -> Report:
    """The report of a folder that is as it was written. Raises ``UsageError`` for one of its files that is not."""
    _read_weights(Path(folder), read_manifest(folder))
    return load_report(folder)


def load_report(folder: str | Path) -> Report:
    """The report in ``folder``. Raises ``UsageError`` if there is none or it is of a newer version."""
    from compressor.report import Report

    try:
        return Report.from_json(_read_json(Path(folder), REPORT))
    except UsageError as error:
        place = Path(folder) / REPORT
        raise UsageError(str(error) if str(place) in str(error) else f"{place}: {error}") from error


def load_architecture(folder: str | Path) -> Architecture:
    """What was decided about the model in ``folder``, in all rounds together."""
    return Architecture.from_json(read_manifest(folder).architecture)


def example_inputs(folder: str | Path, batch: int | None = None) -> Example | None:
    """Random inputs for the model in ``folder``, such as it was compressed with; ``None`` if it was saved without any.

    Raises ``UsageError`` if they cannot be made again.
    """
    found = read_manifest(folder).inputs
    try:
        return None if found is None else make_inputs(found, batch)
    except UsageError as error:
        raise UsageError(f"{Path(folder) / ARCHITECTURE}: {error}") from error


def read_manifest(folder: str | Path) -> Manifest:
    """``architecture.json`` of ``folder``, checked. Raises ``UsageError``."""
    value = _read_json(Path(folder), ARCHITECTURE, LARGE)
    place = Path(folder) / ARCHITECTURE
    found = value.get("schema_version")
    old = value.get("architectures")
    if type(found) is not int or found < 1 or (found == 1 and not (isinstance(old, list) and old)):
        raise UsageError(f"{place} was not written by compress; pass a folder that compress wrote.")
    if found > SCHEMA_VERSION:
        by = value.get("compressor")
        newer = f"compressor {printable(by)}" if isinstance(by, str) and len(by) < 40 else "a newer compressor"
        raise UsageError(
            f"{place} has schema_version {found} and was written by {newer}; this is {VERSION}, which reads up to "
            f"{SCHEMA_VERSION}: update compressor."
        )
    try:
        return decode(Manifest, _from_schema_1(value) if found == 1 else value, "architecture")
    except UsageError as error:
        raise UsageError(f"{place}: {error} Compress the model again.") from error


def _from_schema_1(value: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 had a list of architectures, one for each round."""
    rounds = check(list[dict[str, Any]], value.get("architectures"), "architecture.architectures")
    return {**value, "architecture": composed([Architecture.from_json(each) for each in rounds]).to_json()}


def unshared(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of ``state_dict``, each once, and for every further name of one the name it is stored under.

    Raises ``UnsupportedModelError`` for entries that are no tensors or hold no data.
    """
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor) or value.is_meta:
            found = "a tensor without data" if isinstance(value, Tensor) else type(value).__name__
            raise UnsupportedModelError(f"The state_dict entry {name!r} is {found}; only tensors can be saved.")
        # Two tensors are one if they show the same memory in the same way.
        key = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride(), value.device)
        if value.numel() and key in seen:
            tied[name] = seen[key]
        else:
            seen[key] = name
            tensors[name] = value
    return tensors, tied


def class_name(model: nn.Module) -> str:
    """Module and qualified name of the model's class."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _rebuild(folder: Path, manifest: Manifest, trust_factories: Sequence[str]) -> nn.Module:
    from compressor.models.rebuilding import rebuild

    if manifest.description is None or manifest.description["source"] == "folder":  # which would not be this one
        raise UsageError(
            f"{folder} does not say how to build {manifest.model_class}; pass a fresh original: "
            f"compressor.load({str(folder)!r}, model=...)."
        )
    shapes = _shapes(manifest.architecture.get("parameters"))
    cure = "pass a fresh original: compressor.load(..., model=...)"
    require_memory_for(folder, 4.0 * sum(math.prod(shape) for shape in shapes), cure)
    try:
        longest = max((size for shape in shapes for size in shape), default=0)
        return rebuild(manifest.description, trust_factories=trust_factories, longest=longest)
    except CompressorError as error:
        raise type(error)(f"{error} {folder} needs it; or {cure}.") from error


def _shapes(parameters: Any) -> list[list[int]]:
    """The shapes of the original's parameters, as far as they are some."""
    shapes = parameters.values() if isinstance(parameters, dict) else ()
    return [
        s for s in shapes if isinstance(s, list) and all(type(size) is int and 0 <= size < 2**40 for size in s[:16])
    ]


def _read_weights(folder: Path, manifest: Manifest) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise UsageError(f"{folder} has no {WEIGHTS}; pass a folder that compress wrote and finished.")
    expected, size = manifest.weights["bytes"], path.stat().st_size
    if size == expected:
        require_memory_for(path, size, "compress the model again", kind=WeightsError)
    if size != expected or sha256(path) != manifest.weights["sha256"]:
        raise WeightsError(
            f"{path} is not the file that {ARCHITECTURE} was written with ({size} bytes, expected {expected}): it is "
            "damaged, or saving was interrupted. Compress the model again."
        )
    tensors, _ = load_safetensors(path)
    if lost := [stored for stored in manifest.tied.values() if stored not in tensors]:
        raise UsageError(
            f"{folder / ARCHITECTURE}: architecture.tied names {lost[0][:60]!r}, which {WEIGHTS} has not. "
            "Compress the model again."
        )
    tensors.update({name: tensors[stored] for name, stored in manifest.tied.items()})
    return tensors


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Copy ``tensors`` into ``model``, which takes over their types; every name must be there on both sides."""
    own = model.state_dict()
    missing, unexpected = [k for k in own if k not in tensors], [k for k in tensors if k not in own]
    wrong = [k for k in own if k in tensors and own[k].shape != tensors[k].shape]
    if missing or unexpected or wrong:
        parts = [_some("missing", missing), _some("unexpected", unexpected), _some("of another shape", wrong)]
        raise WeightsError(
            f"The weights in {folder} do not fit {class_name(model)}: {'; '.join(p for p in parts if p)}. "
            "Pass a fresh original, built with the arguments it had when it was compressed."
        )
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if name in tensors and value.dtype != tensors[name].dtype:
                value.data = value.data.to(tensors[name].dtype)
    model.load_state_dict(dict(tensors), strict=True)


def _read_json(folder: Path, name: str, limits: Limits = SMALL) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        what = "is no folder" if not folder.is_dir() else f"has no {name}"
        raise UsageError(f"{folder} {what}; pass a folder that compress wrote.")
    value = read_json(path, "compress the model again", limits=limits)
    if not isinstance(value, dict):
        raise UsageError(f"{path} was not written by compress; pass a folder that compress wrote.")
    return value


def _some(what: str, names: Iterable[str]) -> str:
    """``3 missing (a, b, ...)``, or nothing."""
    listed = list(names)
    if not listed:
        return ""
    return f"{len(listed)} {what} ({', '.join(listed[:3])}{', ...' if len(listed) > 3 else ''})"
