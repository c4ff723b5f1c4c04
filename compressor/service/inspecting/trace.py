"""The process that looks at a model: a recipe on stdin, a document on stdout. Started anew for every recipe."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

from compressor.errors import CompressorError
from compressor.printable import printable

MOST_ROWS = 500
"""Of each list; what is left out is counted."""
COSTS = ("flops", "params", "memory")


def main() -> int:
    """Answer one recipe. What cannot be is said in the document, too."""
    asked = json.loads(sys.stdin.buffer.read())
    warnings.simplefilter("ignore")
    try:
        with redirect_stdout(sys.stderr):
            found: dict[str, Any] = {"found": inspected(asked["recipe"], sweep=asked["kind"] == "sweep")}
    except CompressorError as error:
        found = {"error": {"kind": type(error).__name__, "text": str(error), "exit_code": error.exit_code}}
    except Exception as error:  # the model's own code may raise anything
        text = printable(" ".join(str(error).split()))[:500]
        found = {"error": {"kind": type(error).__name__, "text": f"{type(error).__name__}: {text}", "exit_code": 4}}
    sys.stdout.write(json.dumps(found, allow_nan=False, default=str))
    sys.stdout.flush()
    return 0


def inspected(recipe: Mapping[str, Any], *, sweep: bool = False) -> dict[str, Any]:
    """Costs of the original and the smallest that each can be brought to, groups, blocks, choices and what is fixed.

    Args:
        recipe: as the policy of the service let it through, with budgets for their costs alone. Its uploads are places
            in the current folder. Pretrained weights are not loaded, since costs are the same without.

    Raises:
        UsageError: it cannot be used. UnsupportedModelError: the model cannot be traced, or nothing in it can change.
    """
    from compressor.data.batches import sample_shape
    from compressor.jobs.asked import Asked
    from compressor.jobs.loading import load_subject
    from compressor.jobs.recipes.read import recipe_of
    from compressor.jobs.run import job_settings
    from compressor.jobs.sweeps.asked import sweep_of
    from compressor.pipeline.problem import Problem
    from compressor.search.constraints.constraint import Constraint
    from compressor.search.inspection import describe

    asked = recipe_of(recipe, sweep=sweep)
    costs = dict.fromkeys([*COSTS, *(cost for cost in asked.budgets if cost != "latency")])
    whole = {"flops": ["100%"]} if sweep else {"flops": "100%"}
    weights = asked.values.get("weights", "default")
    own = {"weights": "none" if weights == "default" else weights}
    plain = Asked({**asked.values, **own}, whole, asked.options, asked.place).without(("target", "targets"))
    config = sweep_of(plain).jobs[0] if sweep else plain.job()
    settings = job_settings(config)[-1]
    subject = load_subject(config)
    problem = Problem(subject.loaded.model, subject.call, settings, lambda _: None)
    problem.trace(tuple(costs))
    problem.constraints = [Constraint(term, term.original) for term in problem.terms.values()]
    projector = problem.projector()
    found = describe(problem.graph, problem.wanted)
    return {
        "model": found["model"],
        "input_shape": list(sample_shape(subject.call) or subject.loaded.input_shape),
        "costs": {
            term.name: {"original": term.original, "smallest": projector.least(k)[0], "unit": term.unit}
            for k, term in enumerate(problem.terms.values())
        },
        **{name: found[name][:MOST_ROWS] for name in _LISTS},
        "counts": {name: len(found[name]) for name in _LISTS},
    }


_LISTS = ("groups", "blocks", "choices", "fixed", "layers")

if __name__ == "__main__":
    sys.exit(main())
