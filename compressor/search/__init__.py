"""Search methods. New ones register under ``compressor.search``: a ``Method`` (``search.options``) each."""

from compressor.errors import UsageError
from compressor.plugins.registry import Registry
from compressor.search.options import Method

METHODS = Registry(
    "search method",
    {
        "oneshot": "compressor.search.methods.oneshot.config:METHOD",
        "figs": "compressor.search.methods.figs.config:METHOD",
        "dnarch": "compressor.search.methods.dnarch.config:METHOD",
        "dash": "compressor.search.methods.dash.config:METHOD",
        "pooling": "compressor.search.methods.pooling.config:METHOD",
        "supernet": "compressor.search.methods.supernet.config:METHOD",
    },
    group="compressor.search",
)


def get_method(name: str) -> Method:
    """The method called ``name``. Raises ``UsageError`` if there is none, or what is registered is none."""
    found = METHODS.get(name)
    if not isinstance(found, Method):
        raise UsageError(
            f"The search method {name!r} is registered as {METHODS.targets()[name]!r}, which is no Method (see "
            "docs/extending.md); update or remove the package that it comes from."
        )
    return found


def usable_methods() -> list[Method]:
    """All methods that can be loaded. What is wrong with others is said when they are asked for by name."""
    found = []
    for name in METHODS:
        try:
            found.append(get_method(name))
        except UsageError:
            continue
    return found


__all__ = ["METHODS", "get_method", "usable_methods"]
