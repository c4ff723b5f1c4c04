"""Does the code of a model name a part of it? What none of it names is left over, and nothing will run it."""

from __future__ import annotations

import dis
from collections.abc import Iterable, Iterator
from inspect import unwrap
from itertools import pairwise
from types import CodeType, FunctionType
from typing import Any

from torch import nn

_DECIDED = ("POP_JUMP", "JUMP_IF", "TO_BOOL", "UNARY_NOT", "STORE_FAST")
_BY_ANY_NAME = {"getattr", "children", "named_children", "modules", "named_modules", "_modules", "get_submodule"}


def decides_by_mode(module: nn.Module) -> bool:
    """Whether a method of a module of the user's own does something else in training: ``if self.training: ...``.

    To hand the mode on, ``dropout(x, p, self.training)``, is none.
    """
    classes = [cls for cls in type(module).__mro__ if not cls.__module__.startswith("torch.nn.")]
    members = ((name, value) for cls in classes for name, value in vars(cls).items())
    methods = [_function(value) for name, value in members if name not in ("train", "eval")]
    written = (unwrap(method) for method in methods if isinstance(method, FunctionType))
    codes = (code for method in written for code in _codes(method.__code__))
    return any(_branches(code) for code in codes if "training" in code.co_names)


def _branches(code: CodeType) -> bool:
    return any(
        a.argval == "training" and a.opname == "LOAD_ATTR" and b.opname.startswith(_DECIDED)
        for a, b in pairwise(dis.get_instructions(code))
    )


def named_parts(modules: Iterable[nn.Module]) -> set[str] | None:
    """The names that methods of these modules and functions they keep or call use; ``None`` if any may be meant."""
    names: set[str] = set()
    seen: set[int] = set()
    pending: list[Any] = []
    for module in modules:
        if type(module).__module__.startswith("torch.nn."):
            continue  # uses all its parts
        pending += [value for value in vars(module).values() if isinstance(value, FunctionType)]
        for cls in type(module).__mro__:
            if cls is nn.Module:
                break
            pending += [_function(value) for name, value in vars(cls).items() if name != "__init__"]
    while pending:
        function = pending.pop()
        if not isinstance(function, FunctionType) or id(function) in seen:
            continue
        seen.add(id(function))
        for code in _codes(function.__code__):
            used = {*code.co_names, *(text for text in code.co_consts if isinstance(text, str))}
            names |= used
            home = function.__module__
            called = (function.__globals__.get(name) for name in code.co_names)
            pending += [f for f in called if isinstance(f, FunctionType) and f.__module__ == home]
        pending += [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
    return None if names & _BY_ANY_NAME else names


def _function(member: Any) -> Any:
    """What a class member runs: that of a method, a property or a static method."""
    return getattr(member, "fget", None) or getattr(member, "__func__", member)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_full(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
