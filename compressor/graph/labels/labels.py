"""Axis labels: a vectorised union-find over terms.

Every index of a labelled axis carries an *atom*. An atom is

- *free*: the index may be removed, together with every index that carries the same atom;
- *fixed*: the index is never removed, for a stated reason;
- a *pair* ``(l, r)``: the index is kept exactly when both ``l`` and ``r`` are. A view that splits an axis of
  ``p * q`` indices into ``(p, q)`` makes index ``i`` the pair ``(row[i // q], column[i % q])``, so whatever is
  removed leaves a rectangle (heads times head dimension, groups times channels per group).

``unite`` is first-order unification: free meets anything and becomes it; pair meets pair and their parts are united;
fixed meets pair and fixes both parts. It only ever adds constraints, so a union that was not needed costs freedom,
never correctness.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from compressor.arrays import BoolArray, IntArray

FREE, PAIR, FIXED = 0, 1, 2
MAX_FACTORS = 8  # a label that is a conjunction of more atoms than this is fixed


def some(mask: BoolArray) -> bool:
    """``mask.any()``, which takes a detour through Python that costs more than all else done to a short array."""
    return bool(np.count_nonzero(mask))


def every(mask: BoolArray) -> bool:
    """``mask.all()``, likewise."""
    return int(np.count_nonzero(mask)) == mask.size


class Labels:
    """Allocates atoms and unites them. Arrays of atoms are ``int64`` and one-dimensional, one entry per index."""

    def __init__(self) -> None:
        capacity = 1 << 16
        self._size = 0
        self._parent = np.arange(capacity, dtype=np.int64)
        self._kind = np.zeros(capacity, dtype=np.int8)
        self._left = np.empty(capacity, dtype=np.int64)  # only meaningful for pairs
        self._right = np.empty(capacity, dtype=np.int64)
        self._reason = np.empty(capacity, dtype=np.int64)  # only meaningful for what is fixed
        self._products: dict[tuple[int, int], tuple[IntArray, IntArray, IntArray]] = {}

    def __len__(self) -> int:
        return self._size

    def fresh(self, n: int) -> IntArray:
        """``n`` new free atoms."""
        start = self._size
        self._grow(start + n)
        self._size += n
        return np.arange(start, start + n, dtype=np.int64)

    def fixed(self, n: int, reason: int) -> IntArray:
        """``n`` new atoms that are fixed from the start."""
        atoms = self.fresh(n)
        self._kind[atoms] = FIXED
        self._reason[atoms] = reason
        return atoms

    def product(self, rows: IntArray, columns: IntArray) -> IntArray:
        """Pairs for the row-major merge of an axis ``rows`` (p) with an axis ``columns`` (q): ``p * q`` atoms."""
        if self._is_fixed(columns):
            return np.repeat(rows, len(columns))
        if self._is_fixed(rows):
            return np.tile(columns, len(rows))
        key = (id(rows), id(columns))
        known = self._products.get(key)
        if known is not None:  # the arrays are held by the cache, so their ids cannot have been reused
            return known[2]
        atoms = self.fresh(len(rows) * len(columns))
        self._kind[atoms] = PAIR
        self._left[atoms] = np.repeat(rows, len(columns))
        self._right[atoms] = np.tile(columns, len(rows))
        self._products[key] = (rows, columns, atoms)
        return atoms

    def find(self, atoms: IntArray) -> IntArray:
        """The representative of each atom."""
        parent = self._parent
        roots = parent[atoms]
        above = parent[roots]
        if every(above == roots):
            return roots
        while not every(above == roots):
            roots, above = above, parent[above]
        parent[atoms] = roots
        return roots

    def simplest(self, atoms: IntArray) -> IntArray:
        """``find`` where a pair with a fixed part is its other part."""
        return self._simplify(self.find(atoms))

    def kinds(self, atoms: IntArray) -> npt.NDArray[np.int8]:
        """FREE, PAIR or FIXED for each atom."""
        return self._kind[self.find(atoms)]

    def are_free(self, roots: IntArray) -> BoolArray:
        """Whether each representative (what ``factors`` gives; -1 is none) is free."""
        free: BoolArray = (roots >= 0) & (self._kind[roots] == FREE)
        return free

    def reasons(self, atoms: IntArray) -> IntArray:
        """The index of the reason each atom is fixed for, -1 where it is not fixed."""
        roots = self.find(atoms)
        return np.where(self._kind[roots] == FIXED, self._reason[roots], -1)

    def fix(self, atoms: IntArray, reason: int) -> None:
        """Fix atoms, and both parts of those that are pairs. A reason given earlier stays."""
        pending = [np.asarray(atoms, dtype=np.int64)]
        while pending:
            roots = np.unique(self.find(pending.pop()))
            roots = roots[self._kind[roots] != FIXED]
            if not roots.size:
                continue
            pairs = roots[self._kind[roots] == PAIR]
            self._kind[roots] = FIXED
            self._reason[roots] = reason
            if pairs.size:
                pending += [self._left[pairs], self._right[pairs]]

    def unite(self, a: IntArray, b: IntArray) -> None:
        """Make ``a[i]`` and ``b[i]`` live or die together, for every i."""
        pending = [(a, b)]
        while pending:
            a, b = pending.pop()
            if a is b:
                continue
            while True:
                ra, rb = self.find(a), self.find(b)
                all_free = not (np.count_nonzero(self._kind[ra]) or np.count_nonzero(self._kind[rb]))
                if not all_free:
                    ra, rb = self._simplify(ra), self._simplify(rb)
                differ = ra != rb
                if not some(differ):
                    break
                ra, rb = ra[differ], rb[differ]
                if all_free:  # nearly always, so worth a short way
                    child, root = np.maximum(ra, rb), np.minimum(ra, rb)
                    self._parent[child] = root
                    if every(self._parent[child] == root):
                        break
                    continue
                # The root of higher kind (then of lower index) stays: links always go one way, so no cycle can form.
                swap = (self._kind[ra] > self._kind[rb]) | ((self._kind[ra] == self._kind[rb]) & (ra < rb))
                child, root = np.where(swap, rb, ra), np.where(swap, ra, rb)
                was_pair = self._kind[child] == PAIR
                if some(was_pair):
                    pair, other = child[was_pair], root[was_pair]
                    both = self._kind[other] == PAIR
                    pending.append((self._left[pair[both]], self._left[other[both]]))
                    pending.append((self._right[pair[both]], self._right[other[both]]))
                    for reason in np.unique(self._reason[other[~both]]):
                        met = pair[~both][self._reason[other[~both]] == reason]
                        self.fix(np.concatenate([self._left[met], self._right[met]]), int(reason))
                self._parent[child] = root
                if every(self._parent[child] == root):
                    break
                # Where a child occurs twice one write wins; the next round does the rest.

    def _simplify(self, roots: IntArray) -> IntArray:
        """ "x and always" is x: link pairs with a fixed part to their other part."""
        while True:
            pairs = roots[self._kind[roots] == PAIR]
            if not pairs.size:
                return roots
            left, right = self.find(self._left[pairs]), self.find(self._right[pairs])
            left_fixed, right_fixed = self._kind[left] == FIXED, self._kind[right] == FIXED
            half = left_fixed | right_fixed
            if not some(half):
                return roots
            pairs, other = pairs[half], np.where(left_fixed, right, left)[half]
            nested = self._kind[other] == PAIR
            self._parent[pairs[~nested]] = other[~nested]
            for pair in np.unique(pairs[nested]).tolist():  # one by one, as pairs may lie in each other in a circle
                self._link_to_part(pair)
            roots = self.find(roots)

    def _link_to_part(self, pair: int) -> None:
        """Link a pair with a fixed part to the other; fix it if that is itself."""
        left, right = self.find(np.array([self._left[pair], self._right[pair]])).tolist()
        fixed, other = (left, right) if self._kind[left] == FIXED else (right, left)
        if other != pair:
            self._parent[pair] = other
        else:
            self._kind[pair], self._reason[pair] = FIXED, self._reason[fixed]

    def split(
        self, atoms: IntArray, p: int, q: int, rows: IntArray | None = None, columns: IntArray | None = None
    ) -> tuple[IntArray, IntArray]:
        """Labels of the two axes that a row-major split of ``p * q`` indices into ``(p, q)`` gives."""
        parts = self._separate(atoms, p, q)
        if parts is None:
            rows = self.fresh(p) if rows is None else rows
            columns = self.fresh(q) if columns is None else columns
            self.unite(atoms, self.product(rows, columns))
            return rows, columns
        for part, given in zip(parts, (rows, columns), strict=True):
            if given is not None:
                self.unite(part, given)
        return parts

    def _separate(self, atoms: IntArray, p: int, q: int) -> tuple[IntArray, IntArray] | None:
        """``split`` of pairs whose parts each vary along one of the two axes alone, however they are nested.

        ``(a and b) and c`` over ``(p, q)`` splits into ``a`` and ``b and c`` where only ``a`` varies along p: nothing
        has to be united.
        """
        roots = self.simplest(atoms)
        if (self._kind[roots] != PAIR).any():
            return None
        found: tuple[list[IntArray], list[IntArray]] = ([], [])
        pending = [roots]
        while pending:
            part = pending.pop()
            if len(pending) + len(found[0]) + len(found[1]) >= MAX_FACTORS:
                return None
            grid = part.reshape(p, q)
            if every(grid == grid[:, :1]):
                found[0].append(grid[:, 0].copy())
            elif every(grid == grid[:1]):
                found[1].append(grid[0].copy())
            elif (self._kind[part] == PAIR).all():
                pending += [self.find(self._right[part]), self.find(self._left[part])]
            else:
                return None
        if not found[0] or not found[1]:
            return None
        return self._all_of(found[0]), self._all_of(found[1])

    def _all_of(self, parts: list[IntArray]) -> IntArray:
        """Atoms that are kept when each of the parts is, index by index."""
        result = parts[-1]
        for part in parts[-2::-1]:
            atoms = self.fresh(len(part))
            self._kind[atoms] = PAIR
            self._left[atoms], self._right[atoms] = part, result
            result = atoms
        return result

    def grid(self, atoms: IntArray) -> tuple[IntArray, IntArray] | None:
        """Rows and columns of atoms that are the row-major pairs of two axes; ``None`` if they are not."""
        roots = self.simplest(atoms)
        if not len(roots) or (self._kind[roots] != PAIR).any():
            return None
        left, right = self.find(self._left[roots]), self.find(self._right[roots])
        changes = np.flatnonzero(left != left[0])
        q = int(changes[0]) if len(changes) else len(left)
        if len(left) % q:
            return None
        rows, columns = left.reshape(-1, q), right.reshape(-1, q)
        return (rows[:, 0], columns[0]) if (rows == rows[:, :1]).all() and (columns == columns[:1]).all() else None

    def factors(self, atoms: IntArray, reason: int) -> IntArray:
        """Each atom as a conjunction of primitive roots: shape ``(len(atoms), k)``, padded with -1.

        Labels nested deeper than ``MAX_FACTORS`` (or in a circle) are fixed with ``reason`` and resolved again.
        """
        columns = [self.find(atoms)]
        j = 0
        while j < len(columns):
            column = columns[j]
            pair = (column >= 0) & (self._kind[column] == PAIR)
            if not some(pair):
                j += 1
                continue
            if len(columns) > MAX_FACTORS:
                self.fix(atoms[pair], reason)
                return self.factors(atoms, reason)
            left = column.copy()
            right = np.full_like(column, -1)
            left[pair] = self.find(self._left[column[pair]])
            right[pair] = self.find(self._right[column[pair]])
            columns[j] = left
            columns.append(right)
        table = np.stack(columns, axis=1)
        for j in range(1, table.shape[1]):  # "x and x" is x: a repeated factor would count twice in an expectation
            repeated = (table[:, :j] == table[:, j : j + 1]).any(axis=1)
            table[repeated, j] = -1
        return table[:, (table >= 0).any(axis=0)] if table.size else table

    def _is_fixed(self, atoms: IntArray) -> bool:
        return every(self.kinds(atoms) == FIXED)

    def _grow(self, size: int) -> None:
        capacity = len(self._parent)
        if size <= capacity:
            return
        while capacity < size:
            capacity *= 2
        old = len(self._parent)
        self._parent = np.concatenate([self._parent, np.arange(old, capacity, dtype=np.int64)])
        self._kind = np.concatenate([self._kind, np.zeros(capacity - old, dtype=np.int8)])
        for name in ("_left", "_right", "_reason"):
            setattr(self, name, np.concatenate([getattr(self, name), np.empty(capacity - old, dtype=np.int64)]))
