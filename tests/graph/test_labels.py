"""Labels against a union-find that a child could write, and against what their constraints mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.graph.labels.labels import FIXED, FREE, MAX_FACTORS, PAIR, Labels

indices = st.integers(0, 10_000)


@dataclass
class Naive:
    """One class number per atom; a union renumbers."""

    classes: list[int] = field(default_factory=list)
    fixed: set[int] = field(default_factory=set)

    def fresh(self, n: int) -> None:
        self.classes += range(len(self.classes), len(self.classes) + n)

    def unite(self, a: int, b: int) -> None:
        old, new = self.classes[a], self.classes[b]
        if old in self.fixed:
            self.fixed.add(new)
        self.classes = [new if c == old else c for c in self.classes]

    def fix(self, a: int) -> None:
        self.fixed.add(self.classes[a])


@given(
    st.lists(
        st.tuples(st.sampled_from(["fresh", "fixed", "unite", "fix"]), st.integers(1, 8), indices, indices), max_size=40
    )
)
@settings(max_examples=200, deadline=None)
def test_same_classes_as_a_naive_union_find(program: list[tuple[str, int, int, int]]) -> None:
    labels, naive = Labels(), Naive()
    labels.fresh(8)
    naive.fresh(8)
    for operation, n, i, j in program:
        if operation in ("fresh", "fixed"):
            made = labels.fresh(n) if operation == "fresh" else labels.fixed(n, 0)
            naive.fresh(n)
            if operation == "fixed":
                for atom in made:
                    naive.fix(int(atom))
            continue
        a, b = ((start + np.arange(n) * step) % len(labels) for start, step in ((i, 1), (j, 3)))
        if operation == "unite":
            labels.unite(a, b)
            for x, y in zip(a, b, strict=True):
                naive.unite(int(x), int(y))
        else:
            labels.fix(a, 0)
            for x in a:
                naive.fix(int(x))
    every = np.arange(len(labels))
    roots = labels.find(every)
    pairs = set(zip(roots.tolist(), naive.classes, strict=True))
    assert len(pairs) == len({r for r, _ in pairs}) == len({c for _, c in pairs})  # one to one
    assert [k == FIXED for k in labels.kinds(every)] == [c in naive.fixed for c in naive.classes]
    assert ((labels.reasons(every) >= 0) == (labels.kinds(every) == FIXED)).all()


def factor_sets(labels: Labels) -> list[frozenset[int]]:
    """What each atom depends on: the free primitives that must all be kept. Empty: never removed."""
    every = np.arange(len(labels))
    table = labels.factors(every, 0)
    table = labels.factors(every, 0)  # resolving may fix what is nested too deep, once
    free = labels.are_free(table)
    return [frozenset(row[keep].tolist()) for row, keep in zip(table, free, strict=True)]


operations = st.sampled_from(["fresh", "unite", "fix", "product", "split", "cat"])


@given(st.lists(st.tuples(operations, st.integers(1, 4), st.integers(1, 3), indices, indices), max_size=25))
@settings(max_examples=400, deadline=None)
def test_constraints_hold_whatever_came_after(program: list[tuple[str, int, int, int, int]]) -> None:
    """United labels are equal, products are conjunctions, fixed stays fixed, also with pairs in pairs and circles."""
    labels = Labels()
    arrays = [labels.fresh(12)]
    united: list[tuple[Any, Any]] = []
    products: list[tuple[Any, Any, Any]] = []
    fixed: list[Any] = []

    def some(i: int, n: int) -> Any:
        array = arrays[i % len(arrays)]
        return np.resize(array, n)

    for operation, p, q, i, j in program:
        if operation == "fresh":
            arrays.append(labels.fresh(p))
        elif operation == "unite":
            a, b = some(i, p * q), some(j, p * q)
            labels.unite(a, b)
            united.append((a, b))
        elif operation == "fix":
            fixed.append(some(i, p))
            labels.fix(fixed[-1], 0)
        elif operation == "product":
            rows, columns = some(i, p), some(j, q)
            arrays.append(labels.product(rows, columns))
            products.append((rows, columns, arrays[-1]))
        elif operation == "split":
            merged = some(i, p * q)
            rows, columns = labels.split(merged, p, q)
            arrays += [rows, columns]
            products.append((rows, columns, merged))
        else:
            arrays.append(np.concatenate([arrays[i % len(arrays)], arrays[j % len(arrays)]])[:24])
    sets = factor_sets(labels)
    for a, b in united:
        assert [sets[x] for x in a] == [sets[y] for y in b]
    for rows, columns, merged in products:
        assert [sets[r] | sets[c] for r in rows for c in columns] == [sets[m] for m in merged]
    for array in fixed:
        assert all(not sets[x] for x in array)


def test_a_split_makes_a_rectangle() -> None:
    labels = Labels()
    axis = labels.fresh(6)
    rows, columns = labels.split(axis, 2, 3)
    assert (labels.kinds(axis) == PAIR).all()
    sets = factor_sets(labels)
    assert [sets[a] for a in axis] == [{int(r), int(c)} for r in rows for c in columns]


def test_two_splits_of_one_axis_agree() -> None:
    """Split as (2, 6) and as (4, 3), an axis of twelve has two rows and three columns to lose."""
    labels = Labels()
    axis = labels.fresh(12)
    labels.split(axis, 2, 6)
    labels.split(axis, 4, 3)
    sets = factor_sets(labels)
    assert len(frozenset().union(*(sets[a] for a in axis))) == 2 + 3
    assert [sets[axis[0]] == sets[a] for a in axis] == [i in (0, 3) for i in range(12)]


def test_a_pair_with_a_fixed_part_is_its_other_part() -> None:
    labels = Labels()
    rows, columns = labels.fresh(2), labels.fresh(3)
    merged = labels.product(rows, columns)
    labels.fix(columns, 0)
    assert labels.factors(merged, 0)[:, 0].tolist() == np.repeat(rows, 3).tolist()
    later = labels.product(rows, columns)
    assert later.tolist() == np.repeat(rows, 3).tolist()


def test_fixing_a_pair_fixes_its_parts() -> None:
    labels = Labels()
    rows, columns = labels.fresh(2), labels.fresh(2)
    labels.fix(labels.product(rows, columns)[:1], 0)
    assert labels.kinds(rows).tolist() == labels.kinds(columns).tolist() == [FIXED, FREE]


def test_a_reason_given_earlier_stays() -> None:
    labels = Labels()
    axis = labels.fixed(2, 4)
    labels.fix(axis, 7)
    labels.unite(axis, labels.fresh(2))
    assert labels.reasons(axis).tolist() == [4, 4]


def test_what_is_nested_too_deep_is_fixed() -> None:
    labels = Labels()
    axis = labels.fresh(1)
    for _ in range(MAX_FACTORS + 1):
        axis = labels.product(axis, labels.fresh(1))
    assert (labels.kinds(labels.factors(axis, 3)[:, 0]) == FIXED).all()
    assert labels.reasons(axis).tolist() == [3]


def test_a_label_inside_itself_is_fixed() -> None:
    labels = Labels()
    axis = labels.fresh(1)
    labels.unite(axis, labels.product(axis, labels.fresh(1)))
    labels.factors(axis, 3)
    assert labels.kinds(axis).tolist() == [FIXED]


def test_products_of_the_same_axes_are_the_same() -> None:
    labels = Labels()
    rows, columns = labels.fresh(2), labels.fresh(3)
    assert labels.product(rows, columns) is labels.product(rows, columns)


@pytest.mark.parametrize("n", [0, 1, 100_000])
def test_grows(n: int) -> None:
    labels = Labels()
    first = labels.fresh(3)
    labels.fix(first, 2)
    later = labels.fresh(n)
    assert len(labels) == n + 3
    assert (labels.find(later) == later).all()
    assert labels.reasons(first).tolist() == [2, 2, 2]
