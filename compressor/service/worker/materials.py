"""What a job reads: its recipe with places in its folder, and the files at those places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from compressor.errors import UsageError
from compressor.options import shown
from compressor.plugins.importing import is_attribute_spec
from compressor.service.recipes.places import JOB, UPLOAD, replaced
from compressor.service.recipes.policy import SOURCES
from compressor.service.worker.config import CODE, WorkerConfig, data_place
from compressor.service.worker.errors import RequestRefusedError
from compressor.service.worker.folder import restored
from compressor.service.worker.link import Claimed
from compressor.service.worker.unpack import unpack_images

Fetch = Callable[[str, Path, int], None]
"""Writes the content with a hash to a new file: hash, place, bytes."""


class Upload(Protocol):
    """A file that a recipe names as ``upload:ID``."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def kind(self) -> str:
        """``weights``, ``arrays`` or ``images``."""

    @property
    def sha256(self) -> str | None:
        """The hash of its content; there is one once it can be used."""

    @property
    def bytes(self) -> int:
        """How many it has."""


def prepare(claimed: Claimed, config: WorkerConfig, folder: Path, fetch: Fetch) -> dict[str, Any]:
    """Fetch what a job reads, and what it made before; returns what ``job.json`` says.

    Raises:
        UsageError: the recipe asks for what this worker does not do. DataError: an archive is not to be unpacked.
        RequestRefusedError: the server sends what cannot be. Others are those of ``fetch``.
    """
    restored(claimed.files, folder / "result", fetch)
    restored(claimed.parent_files, folder / "parent", fetch)
    places = {} if claimed.parent is None else {f"{JOB}{claimed.parent}": "parent"}
    places |= place_uploads(claimed.uploads, folder, fetch, most_bytes=config.limits.folder_bytes)
    recipe = replaced(claimed.recipe, {**config.datasets, **places})
    _require_allowed(recipe, config)
    return {"id": claimed.id, "kind": claimed.kind, "recipe": recipe}


def place_uploads(
    uploads: Iterable[Upload], folder: Path, fetch: Fetch, *, most_bytes: int, most_each: int | None = None
) -> dict[str, str]:
    """Fetch uploads into ``folder/uploads``; returns what stands in the recipe for each.

    Args:
        most_bytes: what an archive of images may unpack to.
        most_each: so many images of each folder are enough; None: all.

    Raises:
        UsageError: an upload of an unknown kind. DataError: an archive is not to be unpacked.
        RequestRefusedError: an id that is none. Others are those of ``fetch``.
    """
    places = {}
    for upload in uploads:
        if not upload.id.isalnum() or not upload.id.isascii():
            raise RequestRefusedError(f"{upload.id[:60]!r} is no id of an upload.", 422)
        suffix, scheme = {"weights": ("safetensors", ""), "arrays": ("npz", "npz:"), "images": ("zip", "")}.get(
            upload.kind, (None, "")
        )
        if suffix is None:
            raise UsageError(f"The upload {upload.id} is of the kind {shown(upload.kind)}, which is not known here.")
        place = folder / "uploads" / f"{upload.id}.{suffix}"
        fetch(upload.sha256 or "", place, upload.bytes)
        if upload.kind == "images":
            unpack_images(place, folder / "uploads" / upload.id, most_bytes=most_bytes, most_each=most_each)
            place.unlink()
            places[f"{UPLOAD}{upload.id}"] = f"imagefolder:uploads/{upload.id}"
        else:
            places[f"{UPLOAD}{upload.id}"] = f"{scheme}uploads/{upload.id}.{suffix}"
    return places


def targets_of(recipe: Mapping[str, Any]) -> list[str]:
    """Where a job measures."""
    listed = recipe.get("targets") or ()
    return [each for each in (recipe.get("target"), *listed) if isinstance(each, str)]


def has_code(recipe: Mapping[str, Any]) -> bool:
    """Whether a job runs code of the user's own."""
    return any(_is_code(recipe.get(name)) for name in ("model", "data"))


def _is_code(spec: Any) -> bool:
    text = spec if isinstance(spec, str) else ""
    return is_attribute_spec(text) and text.partition(":")[0] not in {"timm", *SOURCES}


def _require_allowed(recipe: Mapping[str, Any], config: WorkerConfig) -> None:
    """Refuse what a server should not have handed out to this worker. Raises ``UsageError``."""
    if config.code == "no" and has_code(recipe):
        raise UsageError(
            f"The recipe names the user's own code ({shown(str(recipe.get('model')))}), and this worker runs none: it "
            f"has the label {CODE!r} only with compress worker --allow-code."
        )
    place = data_place(recipe.get("data"))
    if place is not None and not any(_inside(place, data_place(spec)) for spec in config.datasets.values()):
        raise UsageError(
            f"The data set {shown(str(recipe['data']))} is none of this worker's; set COMPRESSOR_DATASETS for it as "
            "for the server."
        )


def _inside(place: str, other: str | None) -> bool:
    return other is not None and (place == other or place.startswith(other.rstrip("/") + "/"))
