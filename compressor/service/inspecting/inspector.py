"""Answers what models cost: each question once, few at a time."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from compressor.service.errors import ForbiddenError, TooManyError
from compressor.service.recipes.policy import CODE, Submission
from compressor.service.records import UploadRecord

AT_ONCE = 2
WAITING = 16
REMEMBERED = 256
# What else a recipe says changes nothing about the trace.
_MATTERS = ("model", "data", "search", "methods", "importance", "num_classes", "input_shape", "include", "exclude")
_MATTERS_TOO = ("keep", "round_to")

Look = Callable[[Mapping[str, Any], str, Sequence[UploadRecord]], dict[str, Any]]


class Inspector:
    """Keeps answers, and lets those who ask the same wait for the same process.

    Args:
        look: answers a recipe of a kind that names some uploads; takes seconds.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._known: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._pending: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._turns: anyio.CapacityLimiter | None = None

    async def inspect(self, submission: Submission, uploads: Sequence[UploadRecord] = ()) -> dict[str, Any]:
        """Costs, groups, blocks and what is fixed, see ``trace.inspected``.

        Args:
            uploads: those that it names, which whoever asks may use.

        Raises:
            ForbiddenError: the model or the data is the user's own code, which runs on workers alone.
            TooManyError: too many are looked at.
            InspectionError, TooSlowError: see ``processes``.
        """
        if CODE in submission.labels:
            raise ForbiddenError("Code of your own is not run to look at it; submit the job, and its report says it.")
        recipe = _that_matters(submission)
        key = json.dumps([submission.kind, recipe], sort_keys=True)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        task = self._pending.get(key)
        if task is None:
            if len(self._pending) >= WAITING:
                error = TooManyError("Too many models are being looked at; try again in a while.")
                error.retry_after = 10
                raise error
            task = asyncio.create_task(self._looked(key, recipe, submission.kind, uploads))
            self._pending[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(task)  # who goes away does not take the answer from others

    async def _looked(
        self, key: str, recipe: dict[str, Any], kind: str, uploads: Sequence[UploadRecord]
    ) -> dict[str, Any]:
        if self._turns is None:
            self._turns = anyio.CapacityLimiter(AT_ONCE)
        found = await anyio.to_thread.run_sync(partial(self._look, recipe, kind, uploads), limiter=self._turns)
        self._known[key] = found
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found

    def _done(self, key: str, task: asyncio.Task[dict[str, Any]]) -> None:
        self._pending.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever asked has it; nobody left is no reason for a line in the log


def _that_matters(submission: Submission) -> dict[str, Any]:
    """What of a recipe the answer depends on. An id stands for the same upload for good."""
    recipe = submission.recipe
    found = {name: recipe[name] for name in (*_MATTERS, *_MATTERS_TOO) if recipe.get(name) is not None}
    if submission.weights is not None:
        found["weights"] = recipe["weights"]
    methods = [name for name, value in recipe.items() if isinstance(value, dict) and name not in ("budgets", "tune")]
    found |= {name: recipe[name] for name in methods}
    costs = [cost for cost in recipe.get("budgets", {}) if cost != "latency"]
    if costs:
        found["budgets"] = {cost: ["100%"] if submission.kind == "sweep" else "100%" for cost in sorted(costs)}
    return found
