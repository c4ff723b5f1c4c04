"""Search methods. New ones register under ``compressor.search``."""

from compressor.plugins.registry import Registry

METHODS = Registry(
    "search method",
    {
        "oneshot": "compressor.search.methods.oneshot.method:OneShot",
        "figs": "compressor.search.methods.figs.method:Figs",
        "dnarch": "compressor.search.methods.dnarch.method:Dnarch",
    },
    group="compressor.search",
)

__all__ = ["METHODS"]
