"""The best network within budgets from what a sweep or a search for many budgets left, without training or data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from compressor.budget import Budget, normal_texts
from compressor.errors import UsageError
from compressor.jobs.networks import (
    FRONT,
    NetworksDocument,
    as_searched,
    graph_of,
    holds_networks,
    read_document,
    read_networks,
)
from compressor.jobs.sweeps.outcome import SweepDocument
from compressor.latency.known import known_latency
from compressor.models import artifact
from compressor.models.example_inputs import make_inputs
from compressor.models.rebuilding import rebuild
from compressor.pipeline.events import Events
from compressor.pipeline.networks import Networks
from compressor.pipeline.picked import Picked
from compressor.pipeline.settings import Settings
from compressor.pipeline.sweeping import build_picked
from compressor.report import BudgetResult, FileWritten, Report
from compressor.search.constraints.constraint import hard_sizes
from compressor.search.front import Candidate, Front
from compressor.storage.job import Job
from exporters.example import Example


@dataclass(frozen=True)
class PickConfig:
    """What to pick.

    Attributes:
        folder: of a sweep, or of a job whose search left networks.
        budgets: all of which hold in the network taken.
        out: the folder to write.
        export: names of formats.
        target: where a latency budget holds; of several targets of a sweep, the one meant.
        lut: the latency table, for networks whose latency the front does not know; ``threads`` those of the target.
        trust_factories: factories that the folder may name to be imported.
        force: whether to overwrite a folder that holds something else.
    """

    folder: str
    budgets: tuple[Budget, ...]
    out: str
    export: tuple[str, ...] = ("onnx",)
    target: str | None = None
    lut: str | None = None
    threads: int | None = None
    trust_factories: tuple[str, ...] = ()
    force: bool = False

    def identity(self) -> dict[str, Any]:
        """What decides the result, as JSON values."""
        return {
            "pick": Path(self.folder).name,
            "budgets": {budget.cost: budget.normal for budget in self.budgets},
            "export": list(self.export),
            "target": self.target,
        }


def comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier version of the program wrote of ``PickConfig.identity``, in today's form."""
    return {**identity, "budgets": normal_texts(identity.get("budgets", {}))}


def pick(config: PickConfig, *, events: Events) -> Report:
    """Write the network into ``config.out`` as an ordinary result; returns its report.

    Raises:
        UsageError: the folder is none of a sweep, or damaged, or what is to be written to; a budget of a cost, or a
            target, that is not known.
        UnreachableBudgetError: no network is within the budgets. VerificationError: the trim is not exact.
    """
    folder = Path(config.folder)
    if not (folder / FRONT).is_file():
        raise UsageError(
            f"{folder} has no {FRONT}: it is no folder of compress sweep, or of a job whose search leaves networks "
            "(--search supernet)."
        )
    if Path(config.out).resolve() == folder.resolve():
        raise UsageError(f"{folder} is what the network is taken from; name another folder to write to (--out).")
    with Job.open(config.out, config.identity(), force=config.force, warn=events.warn, upgrade=comparable) as job:
        if holds_networks(folder):
            report = _from_networks(config, folder, events)
        else:
            report = _from_sweep(config, folder, events)
        job.store("report", {"written": [file.path for file in report.files]})
    return report


def _from_sweep(config: PickConfig, folder: Path, events: Events) -> Report:
    """Of a sweep: the best point itself, or, where one search served all and left something better, from that."""
    document = SweepDocument.read(folder)
    fronts = document.fronts
    if not fronts:
        raise UsageError(f"No point of the sweep in {folder} is done yet; run the sweep first.")
    if not document.finished:
        events.warn(f"Some points of the sweep in {folder} are not done; the best of those that are is taken.")
    searches = {name: read_document(folder / name) for name in document.searches if holds_networks(folder / name)}
    if len(searches) > 1 and config.target is not None:  # one search for each target
        meant = {n: d for n, d in searches.items() if d.timed_on is not None and d.timed_on.name == config.target}
        searches = meant or searches
    methods = {row["method"] for front in fronts.values() for row in front.points}
    if len(searches) == 1 and len(methods) == 1:
        ((name, left),) = searches.items()
        point = _finished(config, fronts, Front.from_json(left.front, int))
        if point is None:
            return _from_networks(config, folder / name, events)
        events.info(f"{point.name} is the best point within the budgets; it was trained on after the search")
        return _copied(config, folder / point.found, point, events)
    for front in fronts.values():
        _require_timed(front, config.budgets)
    if config.target is not None:
        _require_target(config.target, [target for target in fronts if target is not None])
        fronts = {config.target: fronts[config.target]}
    if len(fronts) > 1:
        raise UsageError(f"The sweep has points for {', '.join(map(str, fronts))}; name one with --target.")
    (front,) = fronts.values()
    point = front.best(config.budgets)
    events.info(f"{point.name} is the best point within the budgets")
    return _copied(config, folder / point.found, point, events)


def _finished(
    config: PickConfig, fronts: Mapping[str | None, Front[str]], networks: Front[int]
) -> Candidate[str] | None:
    """The point that is better than all networks within the budgets; None if there is none, or nobody knows.

    Points were fine-tuned, the networks that the search left were not. Where there is no room for a point, or no
    fine-tuning was asked for, the networks are the finer choice.
    """
    meant = [front for target, front in fronts.items() if config.target in (None, target)]
    asked = {budget.cost for budget in config.budgets}
    if len(meant) != 1 or not asked <= set(meant[0].original) & set(networks.original):
        return None
    (front,) = meant
    if not front.within(config.budgets):
        return None
    point, sign = front.best(config.budgets), -1 if front.lower_is_better else 1
    if point.score is None:
        return None
    others = [each.score for each in networks.within(config.budgets) if each.score is not None]
    return point if all(sign * point.score > sign * score for score in others) else None


def _require_target(target: str, known: Sequence[str]) -> None:
    """Raise ``UsageError`` for a target that latencies are not of."""
    if not known:
        raise UsageError(f"Nothing there was timed on a target, so --target {target} says nothing; leave it out.")
    if target not in known:
        raise UsageError(
            f"Latencies are known on {', '.join(known)}, not on {target}; name one that is known, or none."
        )


def _require_timed(front: Front[str], budgets: Sequence[Budget]) -> None:
    """Raise ``UsageError`` for a latency budget where the front knows none."""
    if any(budget.cost == "latency" for budget in budgets) and "latency" not in front.original:
        raise UsageError(
            "The points of this sweep were not timed, so nothing is known of their latency; sweep with a latency "
            "budget: compress sweep --budgets latency=... --target T."
        )


def _copied(config: PickConfig, place: Path, point: Candidate[str], events: Events) -> Report:
    """A finished point: loaded, exported anew and saved."""
    report = artifact.load_report(place)
    manifest = artifact.read_manifest(place)
    with events.stage("load"):
        model = artifact.load(place, trust_factories=config.trust_factories)
        example = artifact.example_inputs(place)
        architecture = artifact.load_architecture(place)
    report.budgets = _budget_results(config.budgets, report, point.costs)
    report.files = _exported(config, model, example, events)
    artifact.save(config.out, model, architecture, report, description=manifest.description, example_inputs=example)
    return report


def _exported(
    config: PickConfig, model: nn.Module, example: Example | None, events: Events, template: Path | None = None
) -> list[FileWritten]:
    """The files in the formats asked for, each checked against PyTorch; ONNX from ``template`` if that is of it."""
    from compressor.deploy.exports import export_all

    if example is None or not config.export:
        return []
    with events.stage("export"):
        written = export_all(model, example, config.out, config.export, dynamic_axes="auto", template=template)
    return [FileWritten.from_export(info) for info in written]


def _budget_results(budgets: Sequence[Budget], report: Report, costs: Any) -> list[BudgetResult]:
    """What was asked now, against what the point reached."""
    known = {cost.name: (cost.unit, cost.original) for cost in report.costs}
    known |= {budget.cost: (budget.unit, budget.original) for budget in report.budgets}
    return [
        BudgetResult(b.cost, known[b.cost][0], b.text, known[b.cost][1], b.limit(known[b.cost][1]), costs[b.cost])
        for b in budgets
    ]


def _from_networks(config: PickConfig, folder: Path, events: Events) -> Report:
    """From what a search left: built, verified, exported and saved."""
    with events.stage("load"):
        document = read_document(folder)
        networks = read_networks(folder, document)
        model = _rebuilt(folder, document, networks, config.trust_factories)
        example = make_inputs(document.inputs)
    if config.target is not None or any(budget.cost == "latency" for budget in config.budgets):
        networks = _with_latency(config, document, networks, model, example, events)
    picked, report = build_picked(networks, model, example, _settings(document), config.budgets, events=events)
    report.model, report.search = document.model, str(document.settings["search"])
    report.weights, report.pretrained = document.origin, document.pretrained
    report.files = _exported(config, picked.compressed.eval(), picked.example, events, graph_of(folder, document))
    report.stage_seconds = dict(events.stage_seconds)
    report.warnings = list(events.warnings)
    artifact.save(
        config.out,
        picked.compressed.eval(),
        picked.architecture,
        report,
        description=document.description,
        example_inputs=picked.example,
    )
    return report


def _rebuilt(folder: Path, document: NetworksDocument, networks: Networks, trust_factories: Sequence[str]) -> nn.Module:
    """The model that was searched in, without its weights."""
    if document.description is None or document.description["source"] == "folder":
        raise UsageError(
            f"{folder} does not say how to build {document.model_class}; pick from Python: front.pick(...)."
        )
    longest = max((size for tensor in networks.weights.values() for size in tensor.shape), default=0)
    fresh = rebuild(document.description, trust_factories=trust_factories, longest=longest)
    return as_searched(fresh, document)


def _settings(document: NetworksDocument) -> Settings:
    """What decides which units the model has. It has no budgets: those asked for now choose among networks."""
    told = document.settings
    return Settings(
        budgets=(),
        search=told["search"],
        options=told["options"],
        include=tuple(told.get("include", ())),
        exclude=tuple(told.get("exclude", ())),
        keep=tuple(told.get("keep", ())),
        round_to=told.get("round_to"),
        seed=told["seed"],
    )


def _with_latency(
    config: PickConfig,
    document: NetworksDocument,
    networks: Networks,
    model: nn.Module,
    example: Example,
    events: Events,
) -> Networks:
    """The networks with their latency on the target, predicted from its table where the front does not know it.

    Raises:
        UsageError: no target is named, or its table does not know the network: names the command that measures it.
    """
    front, known = networks.front, document.timed_on
    unnamed = known is None and config.target is None and config.threads is None  # from an earlier version
    if "latency" in front.original and (unnamed or (known and known.is_meant(config.target, config.threads))):
        return networks
    target = config.target or (known.name if known is not None else None)
    if target is None:
        raise UsageError(
            "The front does not know latencies of that; name the target whose table they are to be predicted from: "
            "--target T, such as onnxruntime-cpu."
        )
    if known is not None:
        events.info(f"  the front's latencies are of {known.label}; those of {target} are predicted from its table")
    settings = _settings(document)
    graph = Picked(networks, model, example.args, settings, example_kwargs=dict(example.kwargs)).traced()
    term = known_latency(
        graph,
        target,
        config.lut,
        threads=config.threads,
        decides=settings.config.decides,
        model=document.model,
    )
    candidates = [
        replace(c, costs={**c.costs, "latency": float(term(hard_sizes(graph, c.found.units, c.found.gates)))})
        for c in front
    ]
    original = front.original | {"latency": term.original}
    timed = Front(candidates, original, lower_is_better=front.lower_is_better, compared=front.compared)
    return replace(networks, front=timed, units={**networks.units, "latency": "ms"})
