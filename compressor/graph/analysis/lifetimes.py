"""How long a buffer lives where those who read it last may go: operators side by side, of which any may be there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

Terms = list[tuple[float, tuple[int, ...]]]
"""A sum of factors times the gates of blocks."""

_MOST = 6  # that any of may be there: beyond, one of them always is


def any_of(sets: Collection[frozenset[int]] | None) -> Terms:
    """One if of any of ``sets`` all blocks are there, else zero; ``None`` for always.

    As ``1 - prod(1 - g)`` multiplied out, where g is the product of the gates of one set.
    """
    if sets is None or len(sets) > _MOST or frozenset() in sets:
        return [(1.0, ())]
    terms: list[tuple[float, frozenset[int]]] = [(-1.0, frozenset())]
    for blocks in sorted(sets, key=sorted):
        terms += [(-factor, gates | blocks) for factor, gates in terms]
    return [(factor, tuple(sorted(gates))) for factor, gates in terms[1:]]


def both(sides: Sequence[Terms]) -> Terms:
    """The product of sums: all of them are there."""
    terms: Terms = [(1.0, ())]
    for side in sides:
        terms = [(a * b, (*g, *(n for n in h if n not in g))) for a, g in terms for b, h in side]
    return terms


def stretches(
    start: int, end: int, readers: Sequence[int], gates: Mapping[int, tuple[int, ...]], known: Collection[int]
) -> Iterator[tuple[int, int, Terms]]:
    """A life from ``start`` to ``end`` in parts, each with when there is somebody left who reads: first and last node.

    Args:
        readers: nodes that read it, ascending.
        gates: by node, the blocks that it goes with.
        known: blocks that a part need not depend on.
    """
    left: dict[frozenset[int], None] = {}
    found: list[tuple[int, int, Terms]] = []
    within = [n for n in readers if start <= n <= end]
    if not within or within[-1] != end:
        yield start, end, any_of(None)
        return
    for position in reversed(range(len(within))):
        blocks = frozenset(gates.get(within[position], ())).difference(known)
        if not blocks:
            found.append((start, within[position], any_of(None)))
            break
        left[blocks] = None
        first = start if position == 0 else within[position - 1] + 1
        found.append((first, within[position], any_of(list(left))))
    merged: list[tuple[int, int, Terms]] = []
    for first, last, terms in reversed(found):
        if merged and merged[-1][2] == terms:
            merged[-1] = merged[-1][0], last, terms
        elif first <= last:
            merged.append((first, last, terms))
    yield from merged
