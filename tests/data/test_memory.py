"""Splits in memory: order, determinism, normalisation and augmentation."""

from __future__ import annotations

import pytest
import torch

from compressor.data import CropFlip, Normalise, Split, TensorSplit
from compressor.errors import UsageError

IMAGES = torch.arange(10 * 2 * 4 * 5, dtype=torch.int64).remainder(251).to(torch.uint8).view(10, 2, 4, 5)
LABELS = torch.arange(10)


def collect(split: Split, *args: int, **settings: object) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(split.batches(*args, **settings))  # type: ignore[arg-type]
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def test_stored_order_and_types() -> None:
    split = TensorSplit(IMAGES, LABELS)
    assert isinstance(split, Split)
    assert len(split) == 10
    inputs, targets = collect(split, 4)
    assert inputs.dtype == torch.float32
    assert torch.equal(inputs, IMAGES.float())
    assert torch.equal(targets, LABELS)
    assert [len(y) for _, y in split.batches(4)] == [4, 4, 2]
    assert [len(y) for _, y in split.batches(4, drop_last=True)] == [4, 4]
    assert [len(y) for _, y in split.batches(5, drop_last=True)] == [5, 5]


def test_same_seed_same_batches_and_other_seeds_differ() -> None:
    split = TensorSplit(IMAGES, LABELS, augment=CropFlip(1))
    state = torch.random.get_rng_state()
    one = collect(split, 3, shuffle_seed=5, augment=True)
    two = collect(split, 3, shuffle_seed=5, augment=True)
    three = collect(split, 3, shuffle_seed=6, augment=True)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[1], three[1])
    assert torch.equal(one[1].sort().values, LABELS)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_indices_choose_samples() -> None:
    split = TensorSplit(IMAGES, LABELS, indices=torch.tensor([7, 2]))
    inputs, targets = collect(split, 10)
    assert targets.tolist() == [7, 2]
    assert torch.equal(inputs, IMAGES[[7, 2]].float())
    assert split.targets.tolist() == [7, 2]


def test_normalise_scales_bytes_and_leaves_floats_in_their_range() -> None:
    normalise = Normalise((0.5, 0.25), (0.5, 2.0))
    as_float = IMAGES.float() / 255
    expected = torch.stack([(as_float[:, 0] - 0.5) / 0.5, (as_float[:, 1] - 0.25) / 2.0], dim=1)
    assert torch.allclose(normalise(IMAGES), expected, atol=1e-6)
    assert torch.allclose(normalise(as_float), expected, atol=1e-6)
    assert as_float.max() <= 1, "the input was changed"


def test_every_augmented_image_is_a_shifted_and_perhaps_mirrored_original() -> None:
    padding = 2
    images = torch.randint(1, 255, (64, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    out = CropFlip(padding)(images, torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    seen = set()
    for index in range(len(images)):
        candidates = {
            (top, left, flip): (view.flip(2) if flip else view)
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            for flip in (False, True)
            for view in [padded[index, :, top : top + 6, left : left + 5]]
        }
        matches = [key for key, value in candidates.items() if torch.equal(value, out[index])]
        assert matches
        seen.update(matches)
    assert {flip for _, _, flip in seen} == {False, True}
    assert {top for top, _, _ in seen} == set(range(2 * padding + 1))
    assert {left for _, left, _ in seen} == set(range(2 * padding + 1))


def test_no_augmentation_unless_asked_for() -> None:
    split = TensorSplit(IMAGES, LABELS, augment=CropFlip(2))
    assert torch.equal(collect(split, 4)[0], IMAGES.float())


def test_bad_batch_size() -> None:
    with pytest.raises(UsageError, match="batch_size"):
        next(iter(TensorSplit(IMAGES, LABELS).batches(0)))
