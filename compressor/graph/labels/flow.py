"""Carries labels through the recorded operators; the rules (``rules/``) are written against this class.

A rule reads the axes of a node's inputs, states what must stay together (``join``, ``bind``), sets the axes of the
outputs, and notes three things for later: ``reads`` (a sum over a labelled axis: what is removed must be zero there),
``adjusts`` (arithmetic across channels that must be taken over what is kept) and ``costs`` (multiply-adds).
An operator without a rule fixes every label it touches, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import nn

from compressor.arrays import IntArray
from compressor.graph.labels.labels import FIXED, Labels, every
from compressor.graph.labels.notes import Adjustment, Derived, Product, Reader, Reason
from compressor.graph.recording.dims import SIZES_OF_TORCH, Dim, FromAttribute, FromAxis, FromOperation
from compressor.graph.recording.values import Call, Node, Value

Axis = IntArray | None


_WEIGHTS = ("weight", "parametrizations.weight.original", "parametrizations.weight.original1", "weight_v",
            "weight_orig", "running_mean")  # fmt: skip


class Flow:
    """State of one label pass over the nodes of a recording."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.modules = modules
        self.parameters: dict[str, Value] = {}  # and buffers, by every name
        self.derived: list[Derived] = []
        self.kernels: set[tuple[str, int]] = set()  # (parameter, axis) of kernels that may be cropped
        self.whole_kernels: dict[str, str] = {}  # by module, why a kernel stays whole
        self.labels = Labels()
        self.reasons: list[Reason] = []
        self.readers: list[Reader] = []
        self.adjustments: list[Adjustment] = []
        self.products: list[Product] = []
        self.attributes: dict[FromAttribute, IntArray] = {}
        self.orders: dict[str | FromAttribute, tuple[IntArray, IntArray]] = {}
        """Buffers and attributes that say an order: labels of their entries, and of the axis that these point at."""
        self.node: Node | None = None
        self._reason_index: dict[Reason, int] = {}

    # ---- stating facts about labels

    def reason(self, text: str, place: str = "") -> int:
        """The index of a reason at the operator in hand, or at ``place``."""
        node = self.node
        reason = Reason(node.place if node else place, node.op if node else "", text)
        index = self._reason_index.get(reason)
        if index is None:
            index = self._reason_index[reason] = len(self.reasons)
            self.reasons.append(reason)
        return index

    def fix(self, axis: Axis, text: str) -> None:
        """The indices of this axis are never removed."""
        if axis is not None:
            self.labels.fix(axis, self.reason(text))

    def fix_value(self, value: Value, text: str) -> None:
        for axis in value.axes:
            self.fix(axis, text)

    def keep_positions(self, value: Value, text: str) -> None:
        """The value holds positions in a table: none of them is removed."""
        self.fix_value(value, text)

    def is_fixed(self, axis: Axis) -> bool:
        return axis is None or every(self.labels.kinds(axis) == FIXED)

    def join(self, a: Axis, b: Axis, n_a: int, n_b: int) -> Axis:
        """One axis where two meet elementwise, an axis of one index broadcasting. Returns the labels of the result."""
        if n_a != n_b:
            return a if n_b == 1 else b
        if a is None or b is None:
            self.fix(a, "meets an axis that cannot change")
            self.fix(b, "meets an axis that cannot change")
            return a if b is None else b
        self.labels.unite(a, b)
        return a

    def adopt(self, value: Value, d: int, axis: Axis) -> Axis:
        """``join`` for an axis of a parameter: one that no rule has used yet simply takes the other's labels."""
        own = value.param is not None and value.producer is None and not value.used
        if axis is not None and own and value.axes[d] is not None and len(axis) == value.shape[d]:
            value.axes[d] = axis
            return axis
        n = value.shape[d]
        return self.join(axis, value.axes[d], n if axis is None else len(axis), n)

    def broadcast(self, values: Iterable[Value]) -> list[Axis]:
        """The axes of an elementwise result of ``values``."""
        shape: list[int] = []
        axes: list[Axis] = []
        none: list[Axis] = [None]
        for value in values:
            extra = len(value.shape) - len(shape)
            if extra > 0:
                shape = [1] * extra + shape
                axes = none * extra + axes
            offset = len(shape) - len(value.shape)
            for i, n in enumerate(value.shape):
                j = i + offset
                axes[j] = self.join(axes[j], value.axes[i], shape[j], n)
                shape[j] = max(shape[j], n) if n != 0 else 0
        return axes

    # ---- sizes in the program

    def bind(self, size: Any, axis: Axis, what: str = "size") -> None:
        """The program computes this axis' size as ``size``; make sure it still does after a trim."""
        if axis is None or size == -1 or self.is_fixed(axis):
            return
        source = self.labels_of(size)
        if source is None:
            self.fix(axis, self._constant(f"{what} {int(size)}"))
        elif len(source) != len(axis):
            self.fix(axis, f"{what} {int(size)} is computed in a way that is not understood")
            self.fix(source, f"{what} {int(size)} is computed in a way that is not understood")
        else:
            self._equal_in_number(source, axis)

    def _equal_in_number(self, a: IntArray, b: IntArray) -> None:
        """As many of ``a`` are kept as of ``b``. A number does not care for the order: where both consist of distinct
        labels, each as often as all others, those are united one by one (the same ones are one anyway); where one is
        ``(p, q)`` and the other ``(q, p)``, their factors are united crosswise."""
        if a is b or np.array_equal(self.labels.find(a), self.labels.find(b)):
            return
        distinct_a, distinct_b = self._evenly_repeated(a), self._evenly_repeated(b)
        if distinct_a is not None and distinct_b is not None and len(distinct_a) == len(distinct_b):
            if not np.array_equal(np.sort(distinct_a), np.sort(distinct_b)):
                self.labels.unite(distinct_a, distinct_b)
            return
        grid_a, grid_b = self.labels.grid(a), self.labels.grid(b)
        if grid_a is not None and grid_b is not None:
            (rows_a, columns_a), (rows_b, columns_b) = grid_a, grid_b
            crosswise = len(rows_a) == len(columns_b) and len(columns_a) == len(rows_b)
            if crosswise and (len(rows_a) != len(rows_b) or np.array_equal(rows_a, columns_b)):
                self.labels.unite(rows_a, columns_b)
                self.labels.unite(columns_a, rows_b)
                return
        self.labels.unite(a, b)

    def _evenly_repeated(self, axis: IntArray) -> IntArray | None:
        """The distinct labels of an axis, in order, if all occur equally often and more than once; else ``None``."""
        roots, first, counts = np.unique(self.labels.simplest(axis), return_index=True, return_counts=True)
        if counts[0] == 1 or not every(counts == counts[0]):
            return None
        return np.asarray(roots[np.argsort(first)], dtype=np.int64)

    def labels_of(self, size: Any) -> Axis:
        """Labels of which ``size`` is the count; ``None`` for a constant."""
        if not isinstance(size, Dim):
            return None
        origin = size.origin
        if isinstance(origin, FromAxis):
            return origin.value.axes[origin.axis]
        if isinstance(origin, FromAttribute):
            if self.of_torch(origin):
                return self._labels_of_weight(origin)
            if origin not in self.attributes:
                self.attributes[origin] = self.labels.fresh(int(size))
            return self.attributes[origin]
        return self._labels_of_operation(origin)

    def of_torch(self, attribute: FromAttribute) -> bool:
        """Whether it is a size of one of PyTorch's own modules, which is that of its weight before and after a trim."""
        module = self.modules.get(attribute.module)
        return attribute.name in SIZES_OF_TORCH and type(module).__module__.startswith("torch.nn.")

    def _labels_of_weight(self, attribute: FromAttribute) -> Axis:
        """``self.conv.out_channels``, read by a forward, is the length of an axis of that layer's weight."""
        module = self.modules[attribute.module]
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            return self._labels_of_state(attribute)
        convolution = isinstance(module, nn.modules.conv._ConvNd)
        d = int(attribute.name in ("in_channels", "in_features", "embedding_dim"))
        if isinstance(module, nn.modules.conv._ConvTransposeNd):
            d = 1 - d
        start = f"{attribute.module}." if attribute.module else ""
        for name in _WEIGHTS:
            value = self.parameters.get(start + name)
            if value is not None and d < len(value.shape) and not (convolution and d == 1 and module.groups != 1):
                value.used = True  # so that the labels stay those of the weight
                return value.axes[d]
        return None

    def _labels_of_state(self, attribute: FromAttribute) -> Axis:
        """The sizes of a recurrent layer: columns of what its hidden state is read by, rows of a projection."""
        start = f"{attribute.module}." if attribute.module else ""
        d = int(attribute.name == "hidden_size")
        for name in ("weight_hr_l0", "weight_hh_l0", "weight_hh"):
            value = self.parameters.get(start + name)
            if value is not None:
                value.used = True
                return value.axes[d]
        return None

    def _labels_of_operation(self, origin: FromOperation) -> Axis:
        if origin.operator == "//" and (quotient := _cancelled(origin.left, origin.right)) is not None:
            return self.labels_of(quotient)
        left, right = self.labels_of(origin.left), self.labels_of(origin.right)
        if left is None and right is None:
            return None
        n_left, n_right = int(origin.left), int(origin.right)
        if origin.operator == "//" and left is not None and n_right > 0 and n_left % n_right == 0:
            if self.is_fixed(right) and (runs := self._in_runs(left, n_right)) is not None:
                return runs
            if right is not None and (rows := self._rows_over(left, right)) is not None:
                return rows
            known = (self.labels_of(origin.right) is None, False)
            rows, columns = self.split(left, n_right, n_left // n_right, constant=known)
            if rows is not None:
                self.bind(origin.right, rows)
            return columns
        if origin.operator == "*" and n_left > 0 and n_right > 0:
            return self.product(left, n_left, right, n_right, constants=True)
        if origin.operator == "+" and n_left > 0 and n_right > 0:
            parts = [p if p is not None else self.constant(n) for p, n in ((left, n_left), (right, n_right))]
            return np.concatenate(parts)
        if origin.operator == "-" and left is not None and 0 <= n_right < n_left:
            # What is left of an axis after its first indices: those are tied to what is subtracted.
            if right is None:
                self.fix(left[:n_right], self._constant(f"size {n_right}"))
            else:
                self.labels.unite(left[:n_right], right)
            return left[n_right:]
        for part in (left, right):
            self.fix(part, "a size is computed from it in a way that is not understood")
        return None

    def _in_runs(self, axis: IntArray, n: int) -> IntArray | None:
        """One label for every ``n`` indices in a row, if they live or die together: heads of a literal width."""
        grid = self.labels.simplest(axis).reshape(-1, n)
        return grid[:, 0].copy() if n > 1 and every(grid == grid[:, :1]) else None

    def _rows_over(self, axis: IntArray, columns: IntArray) -> IntArray | None:
        """The rows of an axis of ``(rows, columns)``: heads of a width that can change."""
        grid = self.labels.grid(axis)
        same = grid is not None and np.array_equal(self.labels.find(grid[1]), self.labels.find(columns))
        return grid[0] if grid is not None and same else None

    def constant(self, n: int) -> IntArray:
        """Labels of an axis whose length is a constant of the program."""
        return self.labels.fixed(n, self.reason(self._constant(f"size {n}")))

    def _constant(self, what: str) -> str:
        """Why a size that the program spells out cannot change, where it does so, and what would follow instead."""
        line = self.node.call.line if self.node is not None and self.node.call is not None else ""
        text = f"{what} is a constant of the program"
        return f"{text} ({line}: write -1, a size of a tensor or an integer attribute instead)" if line else text

    # ---- merging and splitting axes

    def product(self, a: Axis, n_a: int, b: Axis, n_b: int, *, constants: bool = False) -> Axis:
        """Labels of the row-major merge of two axes of ``n_a`` and ``n_b`` indices."""
        if a is None and b is None:
            return None
        if b is None:
            if n_b == 1 and not constants:
                return a
            return self.labels.product(a, self.constant(n_b)) if constants else np.repeat(a, n_b)  # type: ignore[arg-type]
        if a is None:
            if n_a == 1 and not constants:
                return b
            return self.labels.product(self.constant(n_a), b) if constants else np.tile(b, n_a)
        return self.labels.product(a, b)

    def split(self, axis: Axis, p: int, q: int, *, constant: tuple[bool, bool] = (False, False)) -> tuple[Axis, Axis]:
        """Labels of the axes ``(p, q)`` of a row-major split of an axis of ``p * q`` indices.

        ``constant`` says which of the two sizes the program gives as a literal, so that it cannot change.
        """
        if axis is None:
            return None, None
        if p == 1 or q == 1:
            return self._unchanged(None if p == 1 else axis, None if q == 1 else axis, constant)
        if self.is_fixed(axis):
            reason = int(self.labels.reasons(axis[:1])[0])
            return self.labels.fixed(p, reason), self.labels.fixed(q, reason)
        grid = self.labels.find(axis).reshape(p, q)
        if every(grid == grid[:, :1]):
            return self._unchanged(axis.reshape(p, q)[:, 0].copy(), None, constant)
        if every(grid == grid[:1]):
            return self._unchanged(None, axis[:q], constant)
        rows, columns = (self.constant(n) if fixed else None for n, fixed in zip((p, q), constant, strict=True))
        return self.labels.split(axis, p, q, rows, columns)

    def _unchanged(self, rows: Axis, columns: Axis, constant: tuple[bool, bool]) -> tuple[Axis, Axis]:
        """Axes of a split of which one has no labels; what the program gives as a literal stays."""
        for part, fixed in zip((rows, columns), constant, strict=True):
            if fixed and part is not None:
                self.fix(part, self._constant(f"size {len(part)}"))
        return rows, columns

    # ---- notes for masks and costs

    def reads(self, labels: Axis, *operands: tuple[Value, int]) -> None:
        """The operator in hand sums over ``labels``."""
        if labels is not None and self.node is not None:
            self.readers.append(Reader(self.node, list(operands), labels))

    def adjusts(self, kind: str, labels: Axis, **options: Any) -> None:
        if labels is not None and self.node is not None:
            self.adjustments.append(Adjustment(kind, self.node, labels, options))

    def costs(self, kind: str, coefficient: float, *axes: tuple[Axis, int]) -> None:
        """The operator in hand takes ``coefficient`` times the product of these axes (labels, size) multiply-adds."""
        labelled: list[IntArray] = []
        for axis, n in axes:
            if axis is None:
                coefficient *= n
            else:
                labelled.append(axis)
        if self.node is not None:
            self.products.append(Product(self.node, kind, float(coefficient), labelled))

    def mends(self, name: str, labels: Axis, index: int | None = None) -> None:
        """The attribute ``name`` of PyTorch's own module in hand (or item ``index`` of it) is the length of these
        labels."""
        if labels is None or self.node is None or self.owner(self.node) is None:
            return
        source = FromAttribute(self.node.place, name, index)
        known = self.attributes.setdefault(source, labels)
        if known is not labels:
            self.labels.unite(known, labels)

    def owner(self, node: Node) -> nn.Module | None:
        """The module whose forward made this operator call."""
        return self.modules.get(node.place)

    def call(self, *names: str) -> Call | None:
        """The program's function call that the operator in hand belongs to, if it is one of ``names``."""
        call = self.node.call if self.node is not None else None
        return call if call is not None and call.name in names else None


def _cancelled(product: Any, factor: Any) -> Any:
    """The other factor if ``product`` was computed as ``factor`` times it, else ``None``."""
    origin = product.origin if isinstance(product, Dim) else None
    if not isinstance(origin, FromOperation) or origin.operator != "*" or int(factor) == 0:
        return None
    for one, other in ((origin.left, origin.right), (origin.right, origin.left)):
        same = one is factor or (isinstance(one, Dim) and isinstance(factor, Dim) and one.origin == factor.origin)
        if same and isinstance(other, int):
            return other
    return None
