"""From labels to a ``Graph``'s parts, once all rules have run: units, axes, groups, masks and sites."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from compressor.arrays import IntArray
from compressor.graph.analysis.resolution import Resolutions
from compressor.graph.axis import Axis
from compressor.graph.graph import AttributeUse, Fixed, Order, Parameter, ParameterMask, Site
from compressor.graph.groups import Channels, Group, Rings
from compressor.graph.labels.flow import Flow
from compressor.graph.labels.labels import every, some
from compressor.graph.labels.notes import Adjustment, Reader
from compressor.graph.patterns import matches
from compressor.graph.recording.values import Call, Value

_MASKABLE_CALLS = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "einsum", "baddbmm", "addmm", "linear",
                   "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "mv",
                   "dot", "vdot", "addmv", "addbmm", "inner", "outer", "vecdot", "linalg_vecdot",
                   "grouped_mm", "_grouped_mm", "grouped_mm_fallback",
                   "tensordot", "bilinear"}  # fmt: skip


def _given(value: Value, call: Call) -> Value:
    """The argument of a call that an operand inside it is, in another layout."""
    while value.producer is not None and value.producer.call is call and len(value.producer.inputs) == 1:
        value = value.producer.inputs[0]
    return value


class Analysis:
    """Turns labels into units and axes after all rules have run."""

    def __init__(self, flow: Flow, parameters: dict[str, tuple[Value, tuple[str, ...], bool]]) -> None:
        self.flow = flow
        self.values = parameters
        self.axes: list[Axis] = []
        self.resolutions = Resolutions()
        self._units: dict[int, int] = {}
        self._tables: dict[int, tuple[IntArray, IntArray]] = {}
        self._by_array: dict[int, tuple[IntArray, Axis | None]] = {}
        self._by_factors: dict[bytes, Axis] = {}
        self._roots: list[IntArray] = []
        self._number: IntArray = np.zeros(0, dtype=np.int64)  # of the unit that an atom became

    # ---- before labels are final

    def restrict(self, include: tuple[str, ...], exclude: tuple[str, ...]) -> None:
        """Fix what the user's patterns leave out."""
        flow = self.flow
        free: set[int] = set()
        for value, names, is_buffer in self.values.values():
            places = [name.rpartition(".")[0] for name in names]
            if exclude and any(matches(place, exclude) for place in places):
                for axis in value.axes:
                    flow.fix(axis, "excluded by the user")
            if include and not is_buffer and any(matches(place, include) for place in places):
                kernel = [axis for d, axis in enumerate(value.axes) if (names[0], d) in flow.kernels]
                for axis in (*value.axes[:1], *kernel):
                    if axis is not None:
                        free.update(flow.labels.factors(axis, flow.reason("labels nested too deep")).ravel().tolist())
        if include:
            reason = flow.reason("not included by the user")
            for value, _, _ in self.values.values():
                for axis in value.axes:
                    if axis is not None:
                        roots = flow.labels.factors(axis, reason)
                        roots = np.unique(roots[roots >= 0])
                        flow.labels.fix(roots[[int(r) not in free for r in roots]], reason)

    def fix_unenforceable(self) -> None:
        """Fix contractions whose operands can be masked neither as a parameter nor at a call."""
        for reader in self.flow.readers:
            if self._parameter_operand(reader) is None and self._call_operand(reader) is None:
                self.flow.node = reader.node
                self.flow.fix(reader.labels, "sums over channels where no mask can act")
        self.flow.node = None

    def _parameter_operand(self, reader: Reader) -> tuple[str, int] | None:
        for value, axis in reader.operands:
            if value.param is not None and value.param_axes[axis] is not None:
                return value.param, int(value.param_axes[axis])  # type: ignore[arg-type]
        return None

    def _call_operand(self, reader: Reader) -> tuple[int | str, tuple[int, ...]] | None:
        """An argument of the program's call, and its axes (from the last, -1), that carry the labels being summed over.

        Where several do, all are meant: zeros along one that is not summed over are where nothing may be read anyway.
        """
        call = reader.node.call
        if call is None or call.name not in _MASKABLE_CALLS:
            return None
        labels = self.flow.labels
        wanted = labels.find(reader.labels)
        operands = {_given(value, call).index for value, _ in reader.operands}
        for position, value in sorted(call.values, key=lambda item: item[1].index not in operands):
            found = tuple(
                d - len(value.shape)
                for d, axis in enumerate(value.axes)
                if axis is not None and len(axis) == len(wanted) and np.array_equal(labels.find(axis), wanted)
            )
            if found:
                return position, found
        return None

    def fix_unowned(self, first: int) -> None:
        """Fix what no parameter carries: it is not removed. ``first`` is the first label not made for a parameter."""
        labels = self.flow.labels
        self.resolve(axis for value, _, _ in self.values.values() for axis in value.axes)
        later = labels.find(np.arange(first, len(labels)))
        later = later[(later >= first) & labels.are_free(later)]  # else a parameter's label is the root of the class
        if len(later):
            carried = np.zeros(len(labels) + 1, dtype=np.bool_)
            for _, table in self._tables.values():
                carried[table] = True
            labels.fix(later[~carried[later]], self.flow.reason("no parameter carries it"))

    # ---- resolution

    def resolve(self, every: Iterable[IntArray | None]) -> None:
        """Find the free factors of many label arrays at once: tables of shape (n, k), -1 where there is none."""
        arrays = {id(a): a for a in every if a is not None and id(a) not in self._tables}
        if not arrays:
            return
        labels = self.flow.labels
        table = labels.factors(np.concatenate(list(arrays.values())), self.flow.reason("labels nested too deep"))
        table[~labels.are_free(table)] = -1
        start = 0
        for key, array in arrays.items():
            self._tables[key] = (array, table[start : start + len(array)])
            start += len(array)

    def axis(self, labels: IntArray | None) -> Axis | None:
        """The resolved axis, one object per distinct content; ``None`` if all its indices are fixed."""
        if labels is None:
            return None
        known = self._by_array.get(id(labels))
        if known is not None:
            return known[1]
        self.resolve([labels])
        table = self._tables[id(labels)][1]
        used = np.count_nonzero(table >= 0, axis=0)
        axis: Axis | None = None
        if some(used > 0):
            table = table if every(used > 0) else table[:, used > 0]
            key = table.tobytes() + bytes([table.shape[1]])
            axis = self._by_factors.get(key)
            if axis is None:
                axis = Axis(len(self.axes), table)
                self.axes.append(axis)
                self._by_factors[key] = axis
        self._by_array[id(labels)] = (labels, axis)
        return axis

    def number_units(self, more: int = 0) -> int:
        """Replace atoms in all axes by unit numbers, in order of first appearance; returns the number of units.

        ``more`` units follow these; what stands for "always kept" comes after all.
        """
        if not self.axes:
            return 0
        every = np.concatenate([axis.factors.ravel() for axis in self.axes])
        every = every[every >= 0]
        first = np.full(len(self.flow.labels), -1, dtype=np.int64)
        first[every[::-1]] = np.arange(len(every))[::-1]  # of several writes to one place the last one stays
        atoms = np.flatnonzero(first >= 0)
        number = np.full(len(first) + 1, len(atoms) + more, dtype=np.int64)  # the last entry stands for -1
        number[atoms[np.argsort(first[atoms])]] = np.arange(len(atoms))
        for axis in self.axes:
            axis.factors = number[axis.factors]
        self._number = number
        return len(atoms)

    def units_of(self, labels: IntArray | None) -> IntArray | None:
        """The units along an axis that need not be one of the graph's, as in ``Axis.factors``, once they have numbers;
        ``None`` if all its indices are fixed."""
        if labels is None or not len(self._number):
            return None
        self.resolve([labels])
        factors: IntArray = self._number[self._tables[id(labels)][1]]
        return factors if some(factors < self._number[-1]) else None

    def parameters(self, reached: set[int]) -> dict[str, Parameter]:
        return {
            name: Parameter(
                name,
                value.shape,
                tuple(self.axis(labels) for labels in value.axes),
                names,
                is_buffer,
                value.index in reached,
            )
            for name, (value, names, is_buffer) in self.values.items()
        }

    def spatial(self, node: int, value: Value) -> tuple[float, tuple[Axis, ...]]:
        """The spatial axes that a value of a branch with a resolution of its own has, and one over their lengths."""
        spatial = self.resolutions.of(node)
        if spatial is None or not spatial.scales(node, value):
            return 1.0, ()
        return 1 / math.prod(spatial.lengths), spatial.found.axes

    def masks(self) -> tuple[list[ParameterMask], list[Site]]:
        """Where what is removed must read as zero: parameters first, calls where there is none."""
        masked: dict[str, dict[int, Axis]] = {}
        sites: dict[tuple[str, str, int, str, int], Site] = {}
        for reader in self.flow.readers:
            axis = self.axis(reader.labels)
            if axis is None:
                continue
            parameter = self._parameter_operand(reader)
            if parameter is not None:
                masked.setdefault(parameter[0], {})[parameter[1]] = axis
                continue
            operand = self._call_operand(reader)
            call = reader.node.call
            if operand is not None and call is not None:
                key = (call.place, call.name, call.ordinal, str(operand[0]), operand[1][0])
                options: dict[str, Any] = {"argument": operand[0], "dims": operand[1]}
                options |= {"convolution": True} if call.name.startswith("conv") else {}
                sites[key] = Site("operand", call.place, call.name, call.ordinal, axis, options)
        found = [ParameterMask(name, tuple(sorted(axes.items()))) for name, axes in masked.items()]
        return found, [*sites.values(), *self._adjustments(self.flow.adjustments)]

    def _adjustments(self, adjustments: list[Adjustment]) -> list[Site]:
        sites: dict[tuple[str, str, int, str], Site] = {}  # a pass in training mode meets the same calls again
        for adjustment in adjustments:
            axis, call = self.axis(adjustment.labels), adjustment.node.call
            if axis is not None and call is not None:
                where = [adjustment.options.get(each) for each in ("argument", "axis")]
                key = (call.place, call.name, call.ordinal, f"{adjustment.kind} {where}")
                sites[key] = Site(adjustment.kind, call.place, call.name, call.ordinal, axis, dict(adjustment.options))
        return list(sites.values())

    def attributes(self) -> list[AttributeUse]:
        uses = []
        for source, labels in self.flow.attributes.items():
            axis = self.axis(labels)
            if axis is not None:
                uses.append(AttributeUse(source.module, source.name, source.index, axis))
        for each in self.flow.derived:
            axis = self.axis(each.labels)
            if axis is not None:
                uses.append(AttributeUse(each.module, each.name, each.index, axis, each.offset, each.factor))
        return uses

    def orders(self) -> list[Order]:
        found = []
        for source, (entries, target) in self.flow.orders.items():
            axes = self.axis(entries), self.axis(target)
            if axes[0] is not None and axes[1] is not None:
                name, attribute = (source, "") if isinstance(source, str) else (source.module, source.name)
                found.append(Order(name, attribute, *axes))  # type: ignore[arg-type]
        return found

    def groups(self, n_units: int, parameters: dict[str, Parameter]) -> list[Group]:
        """Units that take part in the same axes form a group, named after the first weight that writes them."""
        if not n_units:
            return []
        signature = np.zeros(n_units + self.resolutions.units + 1, dtype=np.uint64)
        columns = [column for axis in self.axes for column in axis.factors.T]
        tags = np.random.default_rng(0).integers(1, 2**63, len(columns), dtype=np.uint64)
        for column, tag in zip(columns, tags, strict=True):
            signature[column] ^= tag  # once, however often a unit occurs
        _, first, member = np.unique(signature[:n_units], return_index=True, return_inverse=True)
        rank = np.empty(len(first), dtype=np.int64)
        rank[np.argsort(first, kind="stable")] = np.arange(len(first))
        group_of = np.append(rank[member], -1)
        groups_on = self._groups_on(np.sort(first))
        members: list[list[tuple[str, int]]] = [[] for _ in first]
        widths = [1] * len(first)
        for parameter in parameters.values():
            for d, axis_or_none in enumerate(parameter.axes):
                if axis_or_none is not None:
                    for g in groups_on[axis_or_none.index]:
                        members[g].append((parameter.name, d))
        groups: list[Group] = []
        taken: dict[str, int] = {}
        order = np.argsort(group_of[:n_units], kind="stable")
        units_of = np.split(order, np.searchsorted(group_of[order], np.arange(1, len(first))))
        for g, units in enumerate(units_of):
            name, d = next(((n, d) for n, d in members[g] if d == 0 and len(parameters[n].shape) > 1), members[g][0])
            axis = parameters[name].axes[d]
            if axis is not None:
                widths[g] = max(1, int((axis.factors == units[0]).any(axis=1).sum()))
            short = name.rpartition(".")[0] or name
            kind = "kernel" if (name, d) in self.flow.kernels else "channels"
            if kind == "kernel":
                short = f"{name.rpartition('.')[0]}.kernel_size[{d - 2}]".lstrip(".")
            count = taken.get(short, 0)
            taken[short] = count + 1
            short = short if not count else f"{short}#{count + 1}"
            group = Rings if kind == "kernel" else Channels
            groups.append(group(g, short, units, tuple(members[g]), widths[g]))
        return groups

    def _groups_on(self, firsts: IntArray) -> list[list[int]]:
        """Per axis the groups on it, ascending. A group is on an axis if its first unit is."""
        lengths = [axis.factors.size for axis in self.axes]
        every = np.concatenate([axis.factors.ravel() for axis in self.axes]) if self.axes else np.zeros(0, np.int64)
        axis_of = np.repeat(np.arange(len(self.axes)), lengths)
        group = np.full(max(int(every.max(initial=0)), int(firsts.max(initial=0))) + 1, -1, dtype=np.int64)
        group[firsts] = np.arange(len(firsts))
        found = group[every]
        pairs = np.unique(axis_of[found >= 0] * len(firsts) + found[found >= 0]) if len(firsts) else found
        on: list[list[int]] = [[] for _ in self.axes]
        for pair in pairs.tolist():
            on[pair // len(firsts)].append(pair % len(firsts))
        return on

    def fixed(self) -> list[Fixed]:
        """Reasons with the number of channels, written by weights along axis 0, that each one fixes."""
        written = [v.axes[0] for v, _, is_buffer in self.values.values() if not is_buffer and len(v.shape) > 1]
        labels = [axis for axis in written if axis is not None]
        counts = np.zeros(len(self.flow.reasons), dtype=np.int64)
        if labels:
            self.resolve(labels)
            atoms = np.concatenate([axis[(self._tables[id(axis)][1] < 0).all(axis=1)] for axis in labels])
            reasons = self.flow.labels.reasons(self.flow.labels.factors(atoms, 0)[:, 0]) if len(atoms) else atoms
            counts += np.bincount(reasons[reasons >= 0], minlength=len(counts))
        return [
            Fixed(reason.place, reason.operator, reason.text, int(n))
            for reason, n in zip(self.flow.reasons, counts, strict=True)
            if n
        ]
