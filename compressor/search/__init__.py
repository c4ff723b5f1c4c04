"""Search methods. New ones register under ``compressor.search``: a ``Method`` (``search.options``) each."""

from compressor.plugins.registry import Registry

METHODS = Registry(
    "search method",
    {
        "oneshot": "compressor.search.methods.oneshot.config:METHOD",
        "figs": "compressor.search.methods.figs.config:METHOD",
        "dnarch": "compressor.search.methods.dnarch.config:METHOD",
    },
    group="compressor.search",
)

__all__ = ["METHODS"]
