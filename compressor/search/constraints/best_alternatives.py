"""Which alternative to take at every choice: those of the greatest total score that all budgets allow together.

Exchanges decide, from two sides. From the best of every choice downwards: while a budget is exceeded, the exchange that
loses least score per saving is made. Then upwards: whatever exchange, or two at once, raises the score and fits.
"""

from __future__ import annotations

import numpy as np

from compressor.arrays import BoolArray, FloatArray, IntArray, UnitMask
from compressor.search.constraints.projector import Projector

_NOTHING = 1e-12  # of a budget, or of the largest difference of scores
#: More exchanges than this are not looked at in pairs, but for those that gain most.
_PAIRS = 1500


def best_alternatives(
    projector: Projector, units: UnitMask, scores: FloatArray, gates: BoolArray | None = None
) -> UnitMask:
    """``units`` with the alternatives of greatest total score under every budget of ``projector``.

    Channels stay as ``units`` has them; so do choices that ``projector`` holds or that are chosen by hand, at what the
    network has or was chosen. If no assignment under the budgets is found, the cheapest comes back: whether there is
    one is what ``Projector.check_reachable`` says. The same arguments give the same answer.

    Args:
        units: a hard choice, shape (n_units + 1,) with the constant last entry.
        scores: how good every unit is, shape (n_units,); only those of alternatives count.
        gates: the blocks that are kept, shape (n_blocks,); default all.
    """
    units = _settled(projector, units)
    top = units.copy()
    for choice in projector.free_choices:
        top[choice.units] = np.isin(choice.units, choice.kept(1, scores))
    if not projector.free_choices or projector.fits(top, gates):
        return top
    down = _Exchanges(projector, top, scores, gates)
    up = _Exchanges(projector, projector.cheapest(units, gates), scores, gates)
    found = []
    for each in (down, up):
        if each.save():
            each.improve()
            found.append(each)
    if not found:
        return projector.cheapest(units, gates)
    return max(found, key=lambda each: each.score).units


def better_alternatives(
    projector: Projector,
    units: UnitMask,
    scores: FloatArray,
    gates: BoolArray | None = None,
    barred: frozenset[int] = frozenset(),
) -> UnitMask:
    """``units``, which is under every budget, with better alternatives as long as some fit; arguments likewise.

    Args:
        barred: indices of choices that stay as they are.
    """
    exchanges = _Exchanges(projector, units, scores, gates, barred)
    if len(exchanges.new):
        exchanges.improve()
    return exchanges.units


def _settled(projector: Projector, units: UnitMask) -> UnitMask:
    """``units`` with what is no free choice where it has to be."""
    units = units.copy()
    for choice in projector.graph.choices:
        if choice.index in projector.chosen:
            units[choice.units] = np.isin(choice.units, projector.chosen[choice.index])
        elif choice.index in projector.held:
            units[choice.units] = choice.as_it_is
    return units


class _Exchanges:
    """A hard choice, and all exchanges of one alternative for another.

    What exchanges cost is read off the gradients of the budgets, which is exact as long as choices add up; costs are
    worked out anew after each, and the gradients where they were wrong.

    Attributes:
        units: the choice as it stands, under every budget once ``save`` returned true.
        new: units of the alternatives that may be taken, shape (n,).
    """

    def __init__(
        self,
        projector: Projector,
        units: UnitMask,
        scores: FloatArray,
        gates: BoolArray | None,
        barred: frozenset[int] = frozenset(),
    ) -> None:
        self.projector, self.scores, self.gates = projector, scores, gates
        self._choices = [choice for choice in projector.free_choices if choice.index not in barred]
        numbers = [np.full(len(choice), number) for number, choice in enumerate(self._choices)]
        empty = np.zeros(0, dtype=np.int64)
        self.new: IntArray = np.concatenate([empty, *(choice.units for choice in self._choices)])
        self._site: IntArray = np.concatenate([empty, *numbers])
        own = scores[self.new]
        self._least = _NOTHING * max(float(np.ptp(own)) if len(own) else 0.0, 1e-300)
        self.units = units.copy()
        self._now = np.array([int(c.units[c.chosen(units)]) for c in self._choices], dtype=np.int64)
        self._ratio = self._ratios(units)
        self._table = projector.marginal(units, gates)

    @property
    def score(self) -> float:
        """Total score of the alternatives taken."""
        return float(self.scores[self._now].sum())

    def _ratios(self, units: UnitMask) -> FloatArray:
        ratio: FloatArray = self.projector.costs(units, self.gates) / self.projector.limits
        return ratio

    def _gains(self) -> FloatArray:
        gain: FloatArray = self.scores[self.new] - self.scores[self._now[self._site]]
        return gain

    def _changes(self) -> FloatArray:
        """What each exchange adds to every budget, in fractions of it: shape (n_constraints, n)."""
        change: FloatArray = self._table[:, self.new] - self._table[:, self._now[self._site]]
        return change

    def _take(self, exchanges: list[int], *, fitting: bool) -> bool:
        """Make exchanges, unless they turn out to cost more than was read off (over a budget, or more excess)."""
        units = self.units.copy()
        for each in exchanges:
            units[self._now[self._site[each]]], units[self.new[each]] = False, True
        ratio = self._ratios(units)
        good = self.projector.fits(units, self.gates) if fitting else _excess(ratio) < _excess(self._ratio)
        if not good:
            return False
        expected = self._ratio + self._changes()[:, exchanges].sum(axis=1)
        self.units, self._ratio = units, ratio
        for each in exchanges:
            self._now[self._site[each]] = self.new[each]
        if not np.allclose(expected, ratio, rtol=1e-9, atol=1e-12):
            self._table = self.projector.marginal(units, self.gates)
        return True

    def save(self) -> bool:
        """Exchange where least is lost per saving until every budget holds; ``False`` if nothing saves any more."""
        while not self.projector.fits(self.units, self.gates):
            after = np.maximum(self._ratio[:, None] + self._changes() - 1.0, 0.0).sum(axis=0)
            saved = _excess(self._ratio) - after  # what goes beyond the need is worth nothing
            able = np.flatnonzero(saved > _NOTHING)
            rate = -self._gains()[able] / saved[able]
            if not any(self._take([int(able[i])], fitting=False) for i in np.argsort(rate, kind="stable")):
                return False
        return True

    def improve(self) -> None:
        """Exchange for higher scores that fit, best gain first: one, or two of which one makes room for the other."""
        while self._one() or self._two():
            pass

    def _one(self) -> bool:
        gain, change = self._gains(), self._changes()
        fits = (self._ratio[:, None] + change <= 1.0 + _NOTHING).all(axis=0)
        able = np.flatnonzero((gain > self._least) & fits)
        order = able[np.lexsort((change[:, able].sum(axis=0), -gain[able]))]
        return any(self._take([int(each)], fitting=True) for each in order)

    def _two(self, tries: int = 20) -> bool:
        gain, change = self._gains(), self._changes()
        real = np.flatnonzero(self.new != self._now[self._site])
        real = real[np.argsort(-gain[real], kind="stable")][:_PAIRS]
        up = real[gain[real] > self._least]
        if not len(up):
            return False
        total = gain[up][:, None] + gain[real][None, :]
        able = (total > self._least) & (self._site[up][:, None] != self._site[real][None, :])
        for k, ratio in enumerate(self._ratio):
            able &= ratio + change[k, up][:, None] + change[k, real][None, :] <= 1.0 + _NOTHING
        first, second = np.nonzero(able)
        order = np.argsort(-total[first, second], kind="stable")[:tries]
        return any(self._take([int(up[first[i]]), int(real[second[i]])], fitting=True) for i in order)


def _excess(ratio: FloatArray) -> float:
    return float(np.maximum(ratio - 1.0, 0.0).sum())
