"""How much units and blocks matter, by name. New measures register under ``compressor.importance``.

A measure is a function of a ``Ranking`` (``base``) that gives one number per unit.
"""

from compressor.options import Called, Either, OneOf
from compressor.plugins.registry import Registry

MEASURES = Registry(
    "importance",
    {
        "magnitude": "compressor.search.importance.norms:l2",
        "l1": "compressor.search.importance.norms:l1",
        "l2": "compressor.search.importance.norms:l2",
        "sensitivity": "compressor.search.importance.sensitivity:sensitivity",
        "taylor": "compressor.search.importance.taylor:taylor",
        "random": "compressor.search.importance.norms:random",
        "bn-scale": "compressor.search.importance.batch_norm:bn_scale",
    },
    group="compressor.importance",
)

#: Measures that look at data.
FROM_DATA = frozenset({"sensitivity", "taylor"})

#: What an option takes that names a measure.
MEASURE = Either(OneOf(MEASURES.names), Called("importance(group)"))

__all__ = ["FROM_DATA", "MEASURE", "MEASURES"]
