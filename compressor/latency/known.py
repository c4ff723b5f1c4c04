"""Latency from what a table knows already: nothing is measured, and the target need not be here."""

from __future__ import annotations

import shlex
from pathlib import Path

from compressor.errors import UsageError
from compressor.graph.graph import Graph
from compressor.latency.calibrate import model_key
from compressor.latency.predict import Coefficients, Lookup
from compressor.latency.profile import known_surfaces
from compressor.latency.term import Latency
from lut import LatencyTable, LutError, Target
from profilers import registry


def known_latency(
    graph: Graph,
    target: str,
    lut: str | Path | None,
    *,
    threads: int | None = None,
    decides: frozenset[str] | None = None,
    model: str,
) -> Latency:
    """The latency term of ``graph`` on a target by its table: calibrated if the table has that, else plain sums.

    Args:
        decides: components that the networks to predict differ in.
        model: what the user calls the model, for messages.

    Raises:
        UsageError: there is no table of the target, or it lacks operators; names the command that measures them.
    """
    words = ["compress", "profile", "--model", model, "--target", target]
    words += ["--lut", str(lut)] if lut is not None else []
    words += ["--threads", str(threads)] if threads is not None else []
    cure = f"measure it first: {shlex.join(words)}"
    try:
        with LatencyTable(lut, read_only=True) as table:
            found = [t for t in table.targets() if _is(t, target, threads)]
            if not found:
                raise UsageError(f"The latency table {table.path} knows nothing of {target}; {cure}.")
            best = max(found, key=lambda each: len(table.signatures(each)))
            lookup = Lookup(graph, known_surfaces(table, best, graph))
            if lookup.estimated:
                listed = ", ".join(lookup.estimated[:3])
                raise UsageError(
                    f"The latency table {table.path} lacks {len(lookup.estimated)} operators of {model} on {target} "
                    f"({listed}{', ...' if len(lookup.estimated) > 3 else ''}); {cure}."
                )
            calibrations = table.calibrations(best)
            keys = (model_key(graph, decides), model_key(graph))
            known = next((calibrations[key] for key in keys if key in calibrations), None)
            fitted = Coefficients.from_json(known.coefficients) if known is not None else None
            return Latency(graph, lookup, fitted)
    except LutError as error:
        raise UsageError(f"There is no latency table to predict from ({error}); {cure}.") from error


def _is(found: Target, target: str, threads: int | None) -> bool:
    device = registry.elsewhere(target)
    same = found.runtime == target if device is None else device.measured(found)
    return same and found.batch == 1 and threads in (None, found.threads)
