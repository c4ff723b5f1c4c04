"""Data by name, as ``--data`` takes it."""

from __future__ import annotations

import inspect

from compressor.data.base import Data
from compressor.data.decoding import Loading
from compressor.errors import UsageError
from compressor.plugins.importing import is_attribute_spec
from compressor.plugins.registry import Registry

SOURCES = Registry(
    "data set",
    {
        "digits": "compressor.data.sources.digits:load",
        "cifar10": "compressor.data.sources.cifar:load_cifar10",
        "cifar100": "compressor.data.sources.cifar:load_cifar100",
        "fashionmnist": "compressor.data.sources.fashionmnist:load",
        "imagefolder": "compressor.data.sources.imagefolder:load",
        "segmentation": "compressor.data.sources.segmentation:load",
        "multilabel": "compressor.data.sources.multilabel:load",
        "coco": "compressor.data.sources.coco:load",
        "hf": "compressor.data.sources.hf:load",
        "npz": "compressor.data.sources.npz:load",
        "fsdd": "compressor.data.sources.fsdd:load",
        "listops": "compressor.data.sources.listops:load",
        "darcy": "compressor.data.sources.darcy:load",
    },
    group="compressor.data_sources",
)
_WITHOUT_ARGUMENT = {"digits", "listops"}
EXAMPLES = (
    "digits, cifar10:DIR, cifar100:DIR, fashionmnist:DIR, imagefolder:DIR, multilabel:DIR, segmentation:DIR, "
    "coco:DIR, fsdd:DIR, listops[:n=N,length=L], darcy:DIR, hf:PLACE, npz:FILE or pkg.module:factory"
)


def load_data(
    spec: str, *, image_size: int | None = None, loading: Loading | None = None, model: str | None = None
) -> Data:
    """Load a data set.

    Args:
        spec: as ``EXAMPLES`` has it; some take options behind a comma.
        image_size: side of the images that a source which scales them gives; others have their own size.
        loading: how sources that read file by file read.
        model: what the data is for, where a source has to know it: text is cut into tokens by a model's tokenizer.

    Raises:
        UsageError: an unknown name, or a name without its folder.
        DataError: the data is missing or cannot be used.
    """
    name, _, argument = spec.partition(":")
    if name not in SOURCES:
        if is_attribute_spec(spec):
            from compressor.data.sources.factory import load

            return load(spec)
        raise UsageError(f"{_unknown(spec)} Expected {EXAMPLES}.")
    if not argument and name not in _WITHOUT_ARGUMENT:
        raise UsageError(f"The data set {name!r} needs a place, {name}:PLACE. Expected {EXAMPLES}.")
    source = SOURCES.get(name)
    given = {"image_size": image_size, "loading": loading, "model": model}
    taken = {key: value for key, value in given.items() if key in inspect.signature(source).parameters}
    data: Data = source(argument, **taken)
    return data


def _unknown(spec: str) -> str:
    from compressor.plugins.registry import closest

    near = closest(spec.partition(":")[0], SOURCES.names(), n=1)
    return f"Unknown data set {spec!r}." + (f" Did you mean {near[0]}?" if near else "")
