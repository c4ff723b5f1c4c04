"""Search methods. New ones register under ``compressor.search``."""

from compressor.registry import Registry

METHODS = Registry(
    "search method",
    {
        "oneshot": "compressor.search.oneshot:OneShot",
        "figs": "compressor.search.figs:Figs",
        "dnarch": "compressor.search.dnarch:Dnarch",
    },
    group="compressor.search",
)

__all__ = ["METHODS"]
