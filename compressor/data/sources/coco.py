"""Images with boxes, as COCO writes them down: ``DIR/annotations/instances_train*.json`` with ``DIR/train*/*.jpg``.

Also found: ``train.json`` in ``DIR`` or ``DIR/annotations``, ``annotations.json`` or ``_annotations.coco.json`` in
``DIR/train``; images in a folder of the split, in ``images`` in it, in ``DIR/images`` or in ``DIR``. Likewise ``val``
(or ``valid``) and ``test``.

Format: T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", 2014. Boxes are (left, top, width, height).
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from compressor.data.base import Data
from compressor.data.boxes import LEAST_SIDE, Boxes
from compressor.data.decoding import Draw, Loading, decoded, draws_for
from compressor.data.folders import is_there, learned_by_heart
from compressor.data.holdout import stratified_holdout
from compressor.data.images import DRAWS, open_image, pixels, random_box, read_rgb, upright_size
from compressor.data.memory import index_batches
from compressor.data.task import Task
from compressor.errors import DataError, MissingDependencyError
from compressor.storage.reading import Limits, read_json, require_file, require_memory_for

_LIMITS = Limits(1 << 30, 200_000_000, 20_000_000)
_CURE = "expected a file of COCO's format with images, annotations and categories"
_MEMORY = 10  # bytes that a byte of the file may take
_NAMES = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}
_MEASURED_IN = 8
_CUT = "cut off {} boxes that reach beyond their image, where COCO has left, top, width and height"
_BEYOND, _OFTEN = 2, 0.1  # pixels that rounding explains, and the share of boxes from which it is no accident
_CROP = 0.5  # the share of images that a part is cut out of
_Box = tuple[list[float], int, bool, float]
Batch = tuple[tuple[list[Tensor], list[dict[str, Tensor]]], list[dict[str, Tensor]]]


@dataclass(frozen=True)
class Picture:
    """An image file with what is in it; sizes in pixels."""

    file: Path
    number: int
    width: int
    height: int
    boxes: Boxes


@dataclass
class Oddities:
    """What a file has that is not as it should be, by what is done with it and what it is."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    boxes: int = 0
    """Boxes that are used."""

    def add(self, what: str, which: str) -> None:
        """One of a kind; the first is remembered."""
        self.counts[what] += 1
        self.first.setdefault(what, which)

    def remarks(self, file: Path) -> tuple[str, ...]:
        """A line for each kind."""
        odd = {what: count for what, count in self.counts.items() if what != _CUT or count > _OFTEN * self.boxes}
        return tuple(
            f"'{file}': {what.format(f'{count:,}')} (the first: {self.first[what]})." for what, count in odd.items()
        )


class CocoSplit:
    """Images with boxes; implements ``Split``.

    A batch has lists, as images differ in size: ``((images, targets), targets)`` with images of float32 (3, H, W) in
    [0, 1] and, for each, what ``Boxes.targets`` gives. A detector is called as ``model(images, targets)``.

    Augmentation mirrors half of the images, and cuts out a part of half of them.
    """

    measured_in = _MEASURED_IN
    """Samples in a batch where nothing is trained and nobody says how many."""

    def __init__(self, pictures: list[Picture], loading: Loading | None = None) -> None:
        self._pictures, self._loading = pictures, loading or Loading()

    def __len__(self) -> int:
        return len(self._pictures)

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, drop_last: bool = False
    ) -> Iterator[Batch]:
        """See ``Split.batches``. The next batch is decoded while the current one is used."""
        chosen = index_batches(len(self), batch_size, shuffle_seed, drop_last)
        draws = draws_for(chosen, DRAWS + 1, (shuffle_seed or 0) if augment else None)
        for samples in decoded(self._read, list, chosen, draws, self._loading):
            images = [image.float().div_(255) for image, _ in samples]
            targets = [target for _, target in samples]
            yield (images, targets), targets

    def _read(self, index: int, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        picture = self._pictures[index]
        rgb = read_rgb(picture.file, (picture.width, picture.height))
        if rgb.size != (picture.width, picture.height):
            raise DataError(
                f"'{picture.file}' has {rgb.width} x {rgb.height} pixels, the annotations say {picture.width} x "
                f"{picture.height}; boxes would be in other places. Fetch the data set again."
            )
        boxes = picture.boxes
        if draw is not None and draw[5] < _CROP:
            left, top, right, bottom = map(round, random_box(rgb.width, rgb.height, draw))
            part = left, top, max(right, left + 1), max(bottom, top + 1)
            rgb, boxes = rgb.crop(part), boxes.within(*part)
        image = pixels(rgb)
        if draw is not None and draw[4] < 0.5:
            image, boxes = image.flip(2), boxes.mirrored(image.shape[2])
        return image.contiguous(), boxes.targets(picture.number)


def load(argument: str, loading: Loading | None = None) -> Data:
    """A folder with images and annotations of ``train``, and optionally ``val`` and ``test``.

    Classes are the categories of ``train`` in the order of their ids; a detector has one more output, for the
    background. Annotations that cannot be used, and images whose file is missing, are skipped and said
    (``Data.remarks``).

    Raises:
        DataError: a file is missing or no COCO file, or nothing of it can be used.
        MissingDependencyError: pycocotools is not installed.
    """
    if find_spec("pycocotools") is None:  # what will be needed after hours of training
        raise MissingDependencyError(
            "Detectors are judged by pycocotools, which is not installed; pip install 'compressor[detection]'."
        )
    root = Path(argument)
    if not root.is_dir():
        raise DataError(f"Data folder '{root}' does not exist; {_LAYOUT}.")
    found = {part: file for part in _NAMES if (file := _annotations(root, part)) is not None}
    if "train" not in found:
        raise DataError(f"'{root}' has no annotations of train; {_LAYOUT}.")
    documents = {part: _document(file) for part, file in found.items()}
    labels = _labels(found["train"], documents["train"])
    _require_same_names(found, documents)
    pictures: dict[str, list[Picture]] = {}
    remarks: list[str] = []
    for part, file in found.items():
        odd = Oddities()
        pictures[part] = _pictures(root, part, file, documents.pop(part), labels, odd)
        remarks += (said := odd.remarks(file))
        if part != "test":
            _require_boxes(file, pictures[part], said)
    remarks += learned_by_heart({part: [picture.file for picture in each] for part, each in pictures.items()})
    if "val" not in pictures:
        kept, held = stratified_holdout(torch.zeros(len(pictures["train"])))
        pictures["val"] = [pictures["train"][int(i)] for i in held]
        pictures["train"] = [pictures["train"][int(i)] for i in kept]
    splits = {part: CocoSplit(each, loading) for part, each in pictures.items()}
    (images, _), _ = next(CocoSplit(pictures["val"][:1]).batches(1))
    return Data(
        f"coco:{argument}",
        splits["train"],
        splits["val"],
        splits.get("test"),
        len(labels) + 1,
        images[0][None],  # detectors take images of one size as one tensor, too
        Task("detection", outputs=len(labels) + 1),
        remarks=tuple(remarks),
    )


_LAYOUT = (
    "expected annotations/instances_train*.json (or train.json) and the images in train*/ or images/; see "
    "'compress --help' and docs/tasks.md"
)


def _annotations(root: Path, part: str) -> Path | None:
    for name in _NAMES[part]:
        several = sorted((root / "annotations").glob(f"instances_{name}*.json"))
        if len(several) > 1:
            raise DataError(
                f"'{root / 'annotations'}' has {len(several)} files for {part}: "
                f"{', '.join(file.name for file in several)}; leave one."
            )
        places = (
            *several,
            root / "annotations" / f"{name}.json",
            root / f"{name}.json",
            root / name / "annotations.json",
            root / name / "_annotations.coco.json",
        )
        if (file := next((place for place in places if place.is_file()), None)) is not None:
            return file
    return None


def _document(file: Path) -> dict[str, Any]:
    size = require_file(file, _CURE, limit=_LIMITS.bytes, kind=DataError)
    require_memory_for(file, _MEMORY * size, _CURE, kind=DataError)
    value = read_json(file, _CURE, limits=_LIMITS, kind=DataError)
    if not isinstance(value, dict):
        raise DataError(f"'{file}' holds a {type(value).__name__}; {_CURE}.")
    for key in ("images", "annotations", "categories"):
        rows = value.get(key)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            what = "lacks" if key not in value else "has no list of objects as"
            raise DataError(f"'{file}' {what} {key!r}; {_CURE}.")
    return value


def _labels(file: Path, document: Mapping[str, Any]) -> dict[int, int]:
    """From ids of categories to labels, which count from 1."""
    ids = [row.get("id") for row in document["categories"]]
    if not ids or not all(_is_whole(each) for each in ids) or len(set(ids)) < len(ids):
        raise DataError(f"'{file}' needs categories, each with a whole number of its own as id; {_CURE}.")
    return {each: label for label, each in enumerate(sorted(ids), start=1)}


def _pictures(
    root: Path, part: str, file: Path, document: Mapping[str, Any], labels: Mapping[int, int], odd: Oddities
) -> list[Picture]:
    rows: dict[int, dict[str, Any]] = {}
    for row in document["images"]:
        number, name = row.get("id"), row.get("file_name")
        if not _is_whole(number) or not isinstance(name, str) or not name:
            raise DataError(f"'{file}' has an image without a whole id and a file_name: {str(row)[:80]}; {_CURE}.")
        if number in rows:
            raise DataError(f"'{file}' has two images with the id {number}; {_CURE}.")
        rows[number] = row
    folder = _folder(root, part, file, rows)
    places: dict[int, Path] = {}
    for number, row in rows.items():
        place = folder / row["file_name"]
        there = is_there(place)
        written = Path(os.path.normpath(place)).is_relative_to(os.path.normpath(folder))
        if not written or (there and not place.resolve().is_relative_to(folder.resolve())):
            raise DataError(f"'{file}' names the image '{row['file_name']}', which is not in '{folder}'; {_CURE}.")
        if there:
            places[number] = place
        else:
            odd.add("skipped {} images whose file is missing", str(place))
    if not places:
        what = f"none of the {len(rows)} images of '{file}' is in '{folder}'" if rows else f"'{file}' has no images"
        raise DataError(f"{what[0].upper()}{what[1:]}; {_LAYOUT}.")
    sizes = {number: _size(file, place, rows[number]) for number, place in places.items()}
    found: dict[int, list[_Box]] = {number: [] for number in places}
    for row in document["annotations"]:
        number = _id(row.get("image_id"))
        if number is None or number not in rows:
            odd.add("skipped {} annotations of images that it does not list", f"image_id {row.get('image_id')!r}")
        elif number in places and (box := _box(row, labels, sizes[number], odd)) is not None:
            if any(box[:3] == other[:3] for other in found[number]):
                odd.add("skipped {} boxes that are there already", f"id {row.get('id')!r}")
            else:
                found[number].append(box)
    return [Picture(place, number, *sizes[number], _as_boxes(found[number])) for number, place in places.items()]


def _folder(root: Path, part: str, file: Path, rows: Mapping[int, dict[str, Any]]) -> Path:
    """Where the images are: the first place that has one of the first few."""
    own = file.stem.removeprefix("instances_")
    places = [root / own, file.parent, *(root / name for name in _NAMES[part]), root / "images", root]
    places = [folder for place in places for folder in (place, place / "images") if folder.is_dir()]
    few = [row["file_name"] for row in list(rows.values())[:20]]
    return next((folder for folder in places if any(is_there(folder / name) for name in few)), root)


def _size(file: Path, place: Path, row: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height as the annotations have them, or the image's own where they do not say."""
    width, height = row.get("width"), row.get("height")
    if width is None and height is None:
        with open_image(place) as header:
            return upright_size(header)
    if not (_is_whole(width) and _is_whole(height) and width > 0 and height > 0):
        raise DataError(f"'{file}' has an image of {width!r} x {height!r} pixels, '{place.name}'; {_CURE}.")
    return width, height


def _box(row: Mapping[str, Any], labels: Mapping[int, int], size: tuple[int, int], odd: Oddities) -> _Box | None:
    """Corners within the image, label, whether it is a crowd, and the area; None for what cannot be used."""
    which = f"id {row.get('id')!r}"
    category, box = _id(row.get("category_id")), row.get("bbox")
    if category is None or category not in labels:
        odd.add(
            "skipped {} annotations of a category that is not listed",
            f"{which}, category_id {row.get('category_id')!r}",
        )
        return None
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        odd.add("skipped {} annotations without a box of four numbers", which)
        return None
    if (crowd := row.get("iscrowd", 0)) not in (0, 1, None):
        odd.add("skipped {} annotations whose iscrowd is neither 0 nor 1", f"{which}, {crowd!r}")
        return None
    left, top, width, height = map(float, box)
    corners = [max(left, 0.0), max(top, 0.0), min(left + width, size[0]), min(top + height, size[1])]
    if corners[2] - corners[0] < LEAST_SIDE or corners[3] - corners[1] < LEAST_SIDE:
        odd.add("skipped {} boxes that are empty or outside of their image", which)
        return None
    odd.boxes += 1
    if left + width > size[0] + _BEYOND or top + height > size[1] + _BEYOND:
        odd.add(_CUT, which)
    area = row.get("area")
    whole = (corners[2] - corners[0]) * (corners[3] - corners[1])
    return corners, labels[category], bool(crowd), float(area) if _is_number(area) else whole


def _as_boxes(rows: list[tuple[list[float], int, bool, float]]) -> Boxes:
    return Boxes(
        torch.tensor([corners for corners, *_ in rows], dtype=torch.float32).view(-1, 4),
        torch.tensor([label for _, label, _, _ in rows], dtype=torch.int64),
        torch.tensor([crowd for _, _, crowd, _ in rows], dtype=torch.bool),
        torch.tensor([area for *_, area in rows], dtype=torch.float32),
    )


def _require_boxes(file: Path, pictures: list[Picture], said: tuple[str, ...]) -> None:
    """Refuse a file in which nothing is to be found, or whose boxes are shares of their images."""
    corners = torch.cat([picture.boxes.corners[~picture.boxes.crowd] for picture in pictures])
    if not len(corners):
        raise DataError(" ".join((f"'{file}' has no box that can be used; {_CURE}.", *said)))
    if float(corners.max()) <= 1:
        raise DataError(f"The boxes of '{file}' all lie within the first pixel; COCO's are in pixels, and no shares.")


def _require_same_names(files: Mapping[str, Path], documents: Mapping[str, Any]) -> None:
    """Refuse categories that are called something else than those of ``train`` with the same ids."""
    names = {row["id"]: row.get("name") for row in documents["train"]["categories"]}
    for part, file in files.items():
        for row in documents[part]["categories"]:
            number, name = row.get("id"), row.get("name")
            known = names.get(number) if _is_whole(number) else None
            if known is not None and name is not None and name != known:
                raise DataError(
                    f"'{file}' calls the category {number} {name!r}, '{files['train']}' calls it {known!r}; ids of "
                    "categories must mean the same in all files."
                )


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _id(value: object) -> int | None:
    """A number that names an image or a category, which tables write as 7.0, too."""
    return int(value) if _is_number(value) and value == int(value) else None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
