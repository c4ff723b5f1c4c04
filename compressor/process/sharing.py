"""What all threads of a process share, and how several of them can use it at once.

Compressions run side by side in the threads of a service. Most settings of PyTorch that they need are a thread's own
(gradients, modes that watch functions, autocast). The rest is handled here, in two ways:

- A ``Switch`` is something that all who need it want the same way, such as algorithms that are deterministic. It is on
  while anybody needs it, and then as it was found.
- A ``Turn`` is something that one thread has to itself, such as the global random generators. Who has it for long
  gives way between two steps of its work.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Switch:
    """Args: ``turn_on`` does that and returns what puts things back."""

    def __init__(self, turn_on: Callable[[], Callable[[], None]]) -> None:
        self._turn_on = turn_on
        self._lock = threading.Lock()
        self._users = 0
        self._turn_off: Callable[[], None] | None = None

    @contextmanager
    def on(self) -> Iterator[None]:
        """Inside, it is on."""
        counted = False
        try:
            with self._lock:
                if self._turn_off is None:
                    self._turn_off = self._turn_on()
                self._users += 1
                counted = True
            yield
        finally:
            with self._lock:
                self._users -= counted
                if not self._users and self._turn_off is not None:
                    turn_off, self._turn_off = self._turn_off, None
                    turn_off()


class Turn:
    """A lock that is handed on in the order in which threads asked for it; a thread may take it several times over."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._owner: int | None = None
        self._depth = 0

    def take(self) -> None:
        """Wait until it is this thread's turn."""
        me, ticket = threading.get_ident(), object()
        with self._changed:
            if self._owner == me:
                self._depth += 1
                return
            self._waiting.append(ticket)
            try:
                while self._owner is not None or self._waiting[0] is not ticket:
                    self._changed.wait()
                self._owner, self._depth = me, 1
            finally:  # also where the wait was interrupted
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def leave(self) -> None:
        """As often as ``take`` was called."""
        with self._changed:
            self._depth -= 1
            if not self._depth:
                self._owner = None
                self._changed.notify_all()

    @property
    def wanted(self) -> bool:
        """Whether others wait, and this thread could let them in now."""
        return bool(self._waiting) and self._depth == 1
