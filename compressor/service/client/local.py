"""What a recipe names on this machine, made ready to be sent: weights, arrays, and folders of images."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from compressor.errors import UsageError
from compressor.options import shown
from compressor.storage.pictures import SUFFIXES, is_hidden
from compressor.storage.reading import opened

UPLOAD = "upload:"
_BLOCK = 1 << 20
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # the same folder is the same archive, whenever its files were made


@dataclass(frozen=True)
class LocalFile:
    """A file to send.

    Attributes:
        key: of the recipe, which is to name the upload.
        kind: ``"weights"``, ``"arrays"`` or ``"images"`` (a zip archive).
        name: what it is called here.
        stream: its bytes, from the beginning; it can be gone back in.
        bytes: how many.
        sha256: of all of them, hexadecimal.
    """

    key: str
    kind: str
    name: str
    stream: IO[bytes]
    bytes: int
    sha256: str


@contextmanager
def local_files(recipe: Mapping[str, Any]) -> Iterator[list[LocalFile]]:
    """What of a recipe lies on this machine, open while the block lasts.

    Raises:
        UsageError: something that cannot be sent is named: a file of another format, a saved folder, a missing file.
    """
    _require_sendable(recipe)
    with ExitStack() as stack:
        found = []
        weights, data = recipe.get("weights"), recipe.get("data")
        if isinstance(weights, str) and weights not in ("default", "none") and not weights.startswith(UPLOAD):
            found.append(stack.enter_context(_weights(Path(weights))))
        if isinstance(data, str):
            source, colon, place = data.partition(":")
            if source == "npz" and colon:
                found.append(stack.enter_context(_arrays(place)))
            elif source == "imagefolder" and colon:
                found.append(stack.enter_context(_images(Path(place))))
        yield found


def _require_sendable(recipe: Mapping[str, Any]) -> None:
    model, start = recipe.get("model"), recipe.get("start")
    if isinstance(model, str) and (os.sep in model or model.startswith(".")):
        raise UsageError(
            f"The model {shown(model)} is a folder of this machine, which is not sent; name the model itself and send "
            "its weights: --weights FILE.safetensors."
        )
    if start is not None and not str(start).startswith("job:"):
        raise UsageError(f"A job of a service begins at another job of it, --start job:ID, not at {shown(str(start))}.")


@contextmanager
def _weights(file: Path) -> Iterator[LocalFile]:
    if file.suffix != ".safetensors":
        raise UsageError(
            f"{file} is not sent: a service takes weights as .safetensors alone, which run no code. Write them anew: "
            "safetensors.torch.save_file(state_dict, file)."
        )
    with _opened("weights", "weights", file) as found:
        yield found


@contextmanager
def _arrays(place: str) -> Iterator[LocalFile]:
    file = Path(place)
    if file.suffix != ".npz" or file.is_dir():
        raise UsageError(
            f"{shown(place)} is not sent: a service takes arrays as one .npz file (numpy.savez) without more options."
        )
    with _opened("data", "arrays", file) as found:
        yield found


@contextmanager
def _opened(key: str, kind: str, file: Path) -> Iterator[LocalFile]:
    with opened(file, "name another file") as stream:
        digest = hashlib.sha256()
        while block := stream.read(_BLOCK):
            digest.update(block)
        yield LocalFile(key, kind, file.name, stream, stream.tell(), digest.hexdigest())


@contextmanager
def _images(folder: Path) -> Iterator[LocalFile]:
    """The images of a folder as one archive, which is the same for the same images."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {shown(str(folder))}; --data imagefolder:DIR names one with CLASS/*.jpg.")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    files = sorted(path for path in found if not is_hidden(path.relative_to(folder)))
    if not files:
        raise UsageError(f"The folder {shown(str(folder))} has no images; expected train/CLASS/*.jpg in it.")
    with tempfile.TemporaryFile(prefix="compressor-images-") as archive:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:  # images are packed already
            for file in files:
                entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), _FIRST_DAY)
                with (
                    opened(file, "remove or replace it") as source,
                    packed.open(entry, "w", force_zip64=True) as target,
                ):
                    while block := source.read(_BLOCK):
                        target.write(block)
        size = archive.tell()
        archive.seek(0)
        sha256 = hashlib.file_digest(archive, "sha256").hexdigest()
        yield LocalFile("data", "images", f"{folder.resolve().name}.zip", archive, size, sha256)
