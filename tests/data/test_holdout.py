"""The held-out tenth: complete, disjoint, stratified, always the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.data.holdout import stratified_holdout
from compressor.errors import DataError


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=200), st.sampled_from([0.05, 0.1, 0.2, 0.5]))
def test_partition_with_every_class_within_one_of_its_share(labels: list[int], fraction: float) -> None:
    targets = torch.tensor(labels)
    kept, held = stratified_holdout(targets, fraction)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    total = min(max(1, round(len(labels) * fraction)), len(labels) - 1)
    assert len(held) == total
    for label in set(labels):
        share = labels.count(label) * total / len(labels)
        assert abs(int((targets[held] == label).sum()) - share) < 1


def test_always_the_same_whatever_the_global_generator() -> None:
    targets = torch.arange(1000) % 7
    torch.manual_seed(1)
    one = stratified_holdout(targets)
    torch.manual_seed(2)
    two = stratified_holdout(targets)
    assert torch.equal(one[1], two[1])


def test_one_sample_for_each_class_still_gives_a_tenth() -> None:
    _, held = stratified_holdout(torch.arange(100))
    assert len(held) == 10
    assert held.tolist() != list(range(10))


def test_other_targets_are_split_by_count() -> None:
    assert len(stratified_holdout(torch.rand(50, 3))[1]) == 5


def test_one_sample_cannot_be_split() -> None:
    with pytest.raises(DataError, match="1 training samples"):
        stratified_holdout(torch.tensor([3]))
