"""The end of a job: exports, sizes and times of both networks, into the report."""

from __future__ import annotations

import tempfile
from pathlib import Path

from compressor.pipeline.defaults import DEFAULT_BENCH_SECONDS
from compressor.pipeline.events import FileWritten
from compressor.pipeline.stages import Pipeline
from compressor.report import Report


def deliver_result(
    pipeline: Pipeline,
    report: Report,
    out: Path | None,
    formats: tuple[str, ...],
    seconds: float = DEFAULT_BENCH_SECONDS,
) -> None:
    """Export and benchmark; fill in the report."""
    from compressor.deploy.deliver import deliver
    from compressor.deploy.timing import DEFAULT_TARGET, EAGER_TARGET

    base = pipeline.settings.base
    asked = pipeline.settings.target  # a network made for one target is to be seen there, under the same conditions
    known = asked is not None and isinstance(asked.target, str)
    with pipeline.events.stage("export and benchmark"), tempfile.TemporaryDirectory() as scratch:
        delivery = deliver(
            (pipeline.model if base is None else base.model).eval(),
            pipeline.compressed.eval(),
            pipeline.example,
            out or Path(scratch),
            formats=formats,
            targets=(str(asked.target) if asked is not None and known else DEFAULT_TARGET,) if seconds else (),
            threads=asked.threads if asked is not None and known else None,
            seconds=seconds,
            data=pipeline.data,
            # What a latency budget was held with has one length: open ones may take longer.
            dynamic_axes=None if asked is not None else "auto",
            instead=None if asked is not None else EAGER_TARGET,
        )
    if out is not None:
        report.files += delivery.files
        for file in delivery.files:
            pipeline.events.emit(FileWritten(file.path, file.format, file.bytes))
    report.sizes += delivery.sizes
    report.latencies += delivery.latencies
    report.quantisation = delivery.quantisation
    for warning in delivery.warnings:
        pipeline.events.warn(warning)
