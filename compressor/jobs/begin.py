"""Jobs that begin at what an earlier one left: a smaller network to go on from, or networks to take one of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.errors import UsageError
from compressor.jobs.config import JobConfig
from compressor.jobs.networks import NetworksDocument, as_searched, holds_networks, read_document, read_networks
from compressor.models import artifact
from compressor.nn.copying import deep_copy
from compressor.pipeline.picked import Picked
from compressor.pipeline.settings import Settings
from compressor.pipeline.stages import Pipeline
from compressor.pipeline.summary import describe_result
from compressor.pipeline.warm import describe_from, run_from
from compressor.printable import printable

if TYPE_CHECKING:
    from compressor.data import Data
    from compressor.pipeline.events import Events
    from compressor.report import Report
    from compressor.storage.shared_job import WholeJob
    from exporters.example import Example


def begin(
    config: JobConfig,
    settings: Settings,
    model: nn.Module,
    call: Example,
    *,
    data: Data | None,
    job: WholeJob,
    events: Events,
) -> tuple[Pipeline, Report]:
    """Run the stages of a job with a ``start``; returns the pipeline and its report.

    Args:
        model: the original, on the device of the job.

    Raises:
        UsageError: the folder cannot be used, or its networks were found with other settings.
        WeightsError: it belongs to another model. Other errors are those of the stages.
    """
    assert config.start is not None
    if settings.config.growth > 1:
        raise UsageError("A network grows from the model itself; leave start or grow out.")
    common: dict[str, Any] = {
        "example_kwargs": dict(call.kwargs),
        "data": data,
        "job": job,
        "events": events,
    }
    name = printable(config.model)
    if not holds_networks(config.start):
        before = artifact.load_report(config.start)
        device = next(model.parameters()).device
        start = artifact.load(config.start, deep_copy(model)).to(device)
        done = run_from(start, model, call.args, settings, **common)
        report = describe_from(done, before, name=name)
        report.pretrained = before.pretrained
        return done, report
    document = read_document(config.start)
    require_same(config, document)
    picked = Picked(read_networks(config.start, document), as_searched(model, document), call.args, settings, **common)
    picked.run()
    report = describe_result(picked, name=name)
    report.pretrained = document.pretrained
    return picked, report


def require_same(config: JobConfig, document: NetworksDocument) -> None:
    """Refuse settings under which the model would have other units than the networks were found with, and a target that
    their latencies are not of. Raises ``UsageError``."""
    mine = config.to_json()
    for name, value in document.settings.items():
        if name != "seed" and mine.get(name) != value:
            raise UsageError(
                f"The networks in {config.start} were found with {name} {value!r}, and {mine.get(name)!r} was asked "
                "for; ask for the same, or search again."
            )
    known = document.timed_on
    if config.target is not None and known is not None and not known.is_meant(config.target, config.threads):
        asked = f"--target {config.target}" + ("" if config.threads is None else f" --threads {config.threads}")
        raise UsageError(
            f"Latencies of the networks in {config.start} are of {known.label}, and {asked} was asked for; name that "
            f"target, search again, or have them predicted: compress pick {config.start} {asked}."
        )
