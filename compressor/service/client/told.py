"""Events of a service as those of a job on this machine, so that whoever listens to one listens to both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, get_origin, get_type_hints

from compressor.errors import UsageError
from compressor.pipeline import events as told
from compressor.pipeline.events import Event
from compressor.storage.codec import check

_KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in Event.__subclasses__()}


def event_of(kind: str, body: Mapping[str, Any]) -> Event | None:
    """The event that a document is; None for a kind that this program does not know, or that lacks something."""
    known = _KINDS.get(kind)
    if known is None:
        return None
    hints, values = get_type_hints(known), dict[str, Any]()
    for each in fields(known):
        if each.name in body:
            try:
                values[each.name] = _checked(hints[each.name], body[each.name], each.name)
            except UsageError:
                return None
        elif each.default is MISSING and each.default_factory is MISSING:
            return None
    return known(**values)


def _checked(hint: Any, value: Any, name: str) -> Any:
    if get_origin(hint) is not Mapping:
        return check(hint, value, name)
    if not isinstance(value, dict):
        raise UsageError(f"{name} is no mapping.")
    return value


class Teller:
    """Hands on a job's events to a listener. Training that ended with its worker ends for the listener, too."""

    def __init__(self, listener: told.Listener) -> None:
        self._listener = listener
        self._training: str | None = None

    def tell(self, kind: str, body: Mapping[str, Any]) -> None:
        """One event, if it is one that listeners know."""
        event = event_of(kind, body)
        if event is None:
            return
        if isinstance(event, (told.JobBegan, told.StageBegan, told.TrainingBegan)):
            self.close()
        if isinstance(event, told.TrainingBegan):
            self._training = event.stage
        if isinstance(event, told.TrainingEnded):
            self._training = None
        if isinstance(event, told.Step):
            numbers = {
                k: float(v) for k, v in event.values.items() if isinstance(v, (int, float)) and k != "done_steps"
            }
            event = told.Step(event.stage, event.done, event.total, numbers)
        self._listener(event)

    def close(self) -> None:
        """No more events come."""
        if self._training is not None:
            self._listener(told.TrainingEnded(self._training))
            self._training = None
