"""Import of the user's own code by name, ``package.module:attribute``, with errors that tell what went wrong."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

from compressor.errors import UsageError
from compressor.plugins.registry import closest

_SPEC = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_attribute_spec(text: str) -> bool:
    """Whether text has the form ``package.module:attribute``."""
    return _SPEC.fullmatch(text) is not None


def import_attribute(spec: str, kind: str) -> object:
    """Import ``package.module:attribute``; modules in the current folder are found too.

    Args:
        kind: what is being looked for, for messages ("model factory").

    Raises:
        UsageError: the form is wrong, the module cannot be found or raises, or it lacks the attribute.
    """
    if not is_attribute_spec(spec):
        raise UsageError(f"{spec!r} names no {kind}; expected package.module:name, for example mynets.resnet:make.")
    module_name, _, path = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise UsageError(
                f"No module {error.name!r} for the {kind} {spec}; looked in {here} and in the installed packages."
            ) from error
        raise UsageError(
            f"The module {module_name!r} of the {kind} {spec} needs {error.name!r}, not installed."
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # one that ends the process, too, is a failure of the module
        raise UsageError(
            f"Importing {module_name!r} for the {kind} {spec} raised {type(error).__name__}: {error}"
        ) from error
    for name in path.split("."):
        if not hasattr(found, name):
            near = closest(name, [n for n in dir(found) if not n.startswith("_")])
            raise UsageError(f"{module_name!r} has no {name!r}.{f' Did you mean {near[0]!r}?' if near else ''}")
        found = getattr(found, name)
    return found
