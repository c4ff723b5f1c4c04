"""The networks that a search left, in the folder of its job, which ``front.json`` tells of.

``supernet.safetensors`` has the weights that they share, and what each keeps of them; ``supernet.graph`` is what an
ONNX file of any of them is made from without a trace, where the model can be exported; ``front.json``, which is written
last, has all else and the checksums of both. A folder is data, never code, as in ``models.artifact``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from torch import nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.history import history
from compressor.architecture.rounds import composed, left_to_apply
from compressor.errors import UsageError
from compressor.jobs.config import JobConfig
from compressor.models.artifact import class_name, read_manifest
from compressor.models.example_inputs import describe_inputs
from compressor.pipeline.networks import Networks
from compressor.pipeline.settings import Scores
from compressor.pipeline.stages import Pipeline
from compressor.search.front import Front
from compressor.search.points import point_tensors, read_points
from compressor.storage.codec import Keys, decode, encode
from compressor.storage.files import atomic_save_safetensors, atomic_write_json, load_safetensors
from compressor.storage.reading import LARGE, read_json, sha256
from compressor.storage.version import VERSION

FRONT, WEIGHTS, GRAPH = "front.json", "supernet.safetensors", "supernet.graph"
SCHEMA_VERSION = 1
NETWORKS = "networks"
"""The ``kind`` of a front whose rows are networks in one set of weights."""
_OF_THE_MODEL = "weights."

#: What of a job decides which units its model has, see ``pipeline.settings.Settings``.
_SETTINGS = ("search", "options", "include", "exclude", "keep", "round_to", "seed")


@dataclass(frozen=True)
class TimedOn:
    """Where latencies are of: the target by its name and threads, and the device in words."""

    name: str
    threads: int
    label: str

    def is_meant(self, target: str | None, threads: int | None) -> bool:
        """Whether it is what was asked for; None is any."""
        return target in (None, self.name) and threads in (None, self.threads)


@dataclass(frozen=True)
class NetworksDocument:
    """The content of ``front.json``.

    Attributes:
        kind: ``"networks"``.
        weights: bytes and SHA-256 of the tensors' file.
        front: ``Front.to_json``; what was found of a row is its number among the points.
        units: by cost the unit of its values.
        scores: the metric that points are scored by, and what the original scores.
        settings: what decides which units the model has.
        description, model_class, inputs: as in ``models.artifact.Manifest``.
        before: the architecture that had been applied to the original before the search; None for none.
        model: what the user named; ``origin`` is where its weights came from, ``data`` what was trained on.
        timed_on: where the front's latencies are of, if it has any; None also if an earlier version wrote the file.
        evaluated: all networks that were tried.
        history: how the space that was searched in changed.
        graph: the SHA-256 of ``supernet.graph``; None if there is none.
    """

    kind: str
    weights: Annotated[dict[str, Any], Keys({"bytes": int, "sha256": str})]
    front: dict[str, Any]
    units: dict[str, str]
    scores: dict[str, Any]
    settings: Annotated[dict[str, Any], Keys({"search": str, "options": dict[str, Any], "seed": int})]
    description: Annotated[dict[str, Any], Keys({"spec": str, "source": str, "kwargs": dict[str, Any]})] | None
    model_class: str
    inputs: Any
    before: dict[str, Any] | None
    model: str
    origin: str = ""
    pretrained: bool = True
    data: str | None = None
    timed_on: TimedOn | None = None
    evaluated: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    graph: str | None = None


def save_networks(
    folder: str | Path,
    networks: Networks,
    pipeline: Pipeline,
    config: JobConfig,
    description: Mapping[str, Any],
    **provenance: Any,
) -> list[Path]:
    """Write the files, each atomically; returns their paths. Raises ``CompressorError`` if that fails."""
    folder = Path(folder)
    points = [candidate.found for candidate in networks.front]
    tensors = {f"{_OF_THE_MODEL}{name}": tensor for name, tensor in networks.weights.items()}
    atomic_save_safetensors(folder / WEIGHTS, tensors | point_tensors(points))
    numbers = {id(point): number for number, point in enumerate(points)}
    kept = dict(description)
    if kept.get("source") == "folder":
        kept = read_manifest(kept["spec"]).description or {}
    rounds = [Architecture.from_json(document) for document in history(pipeline.model)]
    values = config.to_json()
    document = NetworksDocument(
        kind=NETWORKS,
        weights={"bytes": (folder / WEIGHTS).stat().st_size, "sha256": sha256(folder / WEIGHTS)},
        front=networks.front.to_json(lambda point: numbers[id(point)]),
        units=dict(networks.units),
        scores=encode(networks.scores),
        settings={name: values[name] for name in _SETTINGS},
        description=kept or None,
        model_class=class_name(pipeline.model),
        inputs=describe_inputs(pipeline.example),
        before=composed(rounds).to_json() if rounds else None,
        model=config.model,
        data=config.data,
        timed_on=_timed_on(config, pipeline),
        evaluated=networks.evaluated,
        history=networks.history,
        graph=_save_graph(folder / GRAPH, pipeline),
        **provenance,
    )
    content = {"schema_version": SCHEMA_VERSION, "compressor": VERSION, **encode(document)}
    atomic_write_json(folder / FRONT, content, indent=None)
    return [folder / WEIGHTS, folder / FRONT]


def _save_graph(path: Path, pipeline: Pipeline) -> str | None:
    """The checksum of what was written; None, and no file, for a model that cannot be exported."""
    from exporters.errors import ExportCheckError, UnsupportedExportError
    from exporters.formats.onnx_template import write_template

    try:
        write_template(pipeline.searched, pipeline.example, path)
    except (UnsupportedExportError, ExportCheckError):  # picks try again, and say why
        path.unlink(missing_ok=True)
        return None
    return sha256(path)


def _timed_on(config: JobConfig, pipeline: Pipeline) -> TimedOn | None:
    from compressor.latency.target import LatencySession

    device = pipeline.problem.device
    if config.target is None or not isinstance(device, LatencySession):  # the first process, which writes, measured
        return None
    return TimedOn(config.target, device.target.threads, device.target.label)


def holds_networks(folder: str | Path) -> bool:
    """Whether a search left networks in ``folder``."""
    file = Path(folder) / FRONT
    return file.is_file() and _kind(read_json(file, "search again", limits=LARGE)) == NETWORKS


def read_document(folder: str | Path) -> NetworksDocument:
    """``front.json``, checked. Raises ``UsageError``."""
    file = Path(folder) / FRONT
    value = read_json(file, "search again", limits=LARGE)
    if _kind(value) != NETWORKS:
        raise UsageError(f"{file} has no networks of one search; pass the folder of a job whose method leaves some.")
    if value.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(f"{file} has schema_version {value.get('schema_version')!r}; this program reads 1.")
    try:
        return decode(NetworksDocument, value, "front")
    except UsageError as error:
        raise UsageError(f"{file}: {error} Search again.") from error


def read_networks(folder: str | Path, document: NetworksDocument | None = None) -> Networks:
    """The networks in ``folder``. Raises ``UsageError`` for what is damaged."""
    folder = Path(folder)
    found = read_document(folder) if document is None else document
    require_whole(folder, found)
    tensors, _ = load_safetensors(folder / WEIGHTS)
    rows = found.front.get("rows", [])
    try:
        shown = [{**row, "settings": row["notes"].get("settings", {})} for row in rows]
        points = read_points(shown, tensors)
        front = Front.from_json(found.front, lambda number: points[number])
        scores = Scores(**found.scores)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        place = folder / FRONT
        raise UsageError(f"{place} does not hold together ({type(error).__name__}: {error}); search again.") from error
    weights = {name.removeprefix(_OF_THE_MODEL): t for name, t in tensors.items() if name.startswith(_OF_THE_MODEL)}
    return Networks(front, weights, found.units, scores, found.evaluated, found.history)


def require_whole(folder: str | Path, document: NetworksDocument | None = None) -> None:
    """Raise ``UsageError`` unless the tensors are those that ``front.json`` was written with."""
    found = read_document(folder) if document is None else document
    path = Path(folder) / WEIGHTS
    cure = "search again"
    if sha256(path, cure) != found.weights["sha256"]:
        raise UsageError(f"{path} is not the file that {FRONT} was written with: it is damaged; {cure}.")


def graph_of(folder: str | Path, document: NetworksDocument) -> Path | None:
    """The graph that ONNX files are made from; None if there is none, or another than was written."""
    path = Path(folder) / GRAPH
    whole = document.graph is not None and path.is_file() and sha256(path) == document.graph
    return path if whole else None


def as_searched(model: nn.Module, document: NetworksDocument) -> nn.Module:
    """``model``, a fresh original or what an earlier round made of one, as the search had it; changed in place."""
    if document.before is None:
        return model
    rest = left_to_apply(model, Architecture.from_json(document.before))
    return model if rest is None else rest.apply_(model)


def _kind(value: Any) -> Any:
    return value.get("kind") if isinstance(value, dict) else None
