"""Which operators lead where: dependencies through views, liveness, and post-dominators, all in near-linear time.

Operator p *post-dominates* operator n when every way from n to the outputs of the network passes through p. The
operators that p post-dominates are exactly those that exist for p alone: if p is not needed, nor are they.
"""

from __future__ import annotations

from compressor.graph.recording.values import Node, Value


class Dataflow:
    """Dependencies among the nodes of one recording.

    Values are in single-assignment form except where memory is shared: a view of ``x`` that was taken before ``x`` was
    changed in place reads the change. Such reads depend on the operator that wrote last (``memory``).

    Attributes:
        live: per node, whether an output of the network depends on it.
        readers: per value index, the live nodes that take it as an input.
        outputs: indices of the values that the network returns.
    """

    def __init__(self, nodes: list[Node], outputs: list[Value]) -> None:
        self.nodes = nodes
        self.outputs = {value.index for value in outputs}
        self.exit = len(nodes)
        self.memory: list[tuple[int, ...]] = []
        ends = self._trace_memory(outputs)
        consumers = self._consumers(ends)
        self.live = [False] * (len(nodes) + 1)
        self.live[self.exit] = True
        for n in reversed(range(len(nodes))):
            self.live[n] = any(self.live[c] for c in consumers[n])
        self.readers: dict[int, list[int]] = {}
        for node in nodes:
            if self.live[node.index]:
                for value in node.inputs:
                    self.readers.setdefault(value.index, []).append(node.index)
        self._dominate(consumers)

    def producers(self, n: int) -> list[int]:
        """Nodes that node ``n`` depends on directly."""
        found = [value.producer.index for value in self.nodes[n].inputs if value.producer is not None]
        return [*found, *self.memory[n]]

    def post_dominator(self, n: int) -> int:
        """The first node that every way from ``n`` passes through; ``exit`` if only the end is."""
        return self._parent[n]

    def served(self, n: int) -> list[int]:
        """``n`` and the live nodes that exist for it alone, ascending."""
        return sorted(self._order[self._enter[n] : self._leave[n]])

    def serves(self, n: int, root: int) -> bool:
        """Whether ``n`` is ``root`` or exists for it alone."""
        return self.live[n] and self._enter[root] <= self._enter[n] < self._leave[root]

    def only_reader(self, value: Value, reader: Node, members: set[int]) -> bool:
        """Whether of the nodes between ``value`` and ``reader`` none but ``members`` read it or memory they wrote."""
        if any(n != reader.index for n in self.readers.get(value.index, ()) if n not in members):
            return False
        first = min(members)
        return not any(n not in members and not members.isdisjoint(self.memory[n]) for n in range(first, reader.index))

    # ---- construction

    def _trace_memory(self, outputs: list[Value]) -> set[int]:
        """Note which nodes read what another wrote in place under a different name; returns the nodes at the end."""
        version: dict[int, int] = {}
        seen: dict[int, int] = {}
        writer: dict[int, int] = {}

        def stale(value: Value) -> bool:
            return seen.get(value.index, 0) < version.get(value.storage, 0)

        for node in self.nodes:
            writers = {writer[value.storage] for value in node.inputs if stale(value)}
            if node.mutates:
                for storage in {value.storage for value in node.outputs}:
                    if storage in writer:
                        writers.add(writer[storage])
                    writer[storage] = node.index
                    version[storage] = version.get(storage, 0) + 1
            self.memory.append(tuple(writers))
            for value in node.outputs:
                if value.producer is node:
                    seen[value.index] = version.get(value.storage, 0)
        ends = {value.producer.index for value in outputs if value.producer is not None}
        return {n for n in ends if n < self.exit} | {writer[value.storage] for value in outputs if stale(value)}

    def _consumers(self, ends: set[int]) -> list[list[int]]:
        consumers: list[list[int]] = [[] for _ in self.nodes]
        for n in range(len(self.nodes)):
            for producer in self.producers(n):
                if producer < n:
                    consumers[producer].append(n)
        for n in ends:
            consumers[n].append(self.exit)
        return consumers

    def _dominate(self, consumers: list[list[int]]) -> None:
        """The post-dominator tree, from the end backwards: a node's parent is where its readers' ways meet again."""
        size = self.exit + 1
        self._parent = [self.exit] * size
        self._depth = [0] * size
        self._jump = [self.exit] * size
        children: list[list[int]] = [[] for _ in range(size)]
        for n in reversed(range(self.exit)):
            if not self.live[n]:
                continue
            parent = -1
            for consumer in consumers[n]:
                if self.live[consumer]:
                    parent = consumer if parent < 0 else self._meet(parent, consumer)
            self._parent[n] = parent
            self._depth[n] = self._depth[parent] + 1
            far = self._jump[parent]
            even = self._depth[parent] - self._depth[far] == self._depth[far] - self._depth[self._jump[far]]
            self._jump[n] = self._jump[far] if even else parent
            children[parent].append(n)
        self._order: list[int] = []
        self._enter, self._leave = [0] * size, [0] * size
        stack = [(self.exit, False)]
        while stack:
            n, done = stack.pop()
            if done:
                self._leave[n] = len(self._order)
                continue
            self._enter[n] = len(self._order)
            self._order.append(n)
            stack.append((n, True))
            stack += [(child, False) for child in children[n]]

    def _meet(self, a: int, b: int) -> int:
        """Lowest common ancestor, by pointers that jump (logarithmic in the depth)."""
        parent, depth, jump = self._parent, self._depth, self._jump
        if depth[a] < depth[b]:
            a, b = b, a
        while depth[a] > depth[b]:
            a = jump[a] if depth[jump[a]] >= depth[b] else parent[a]
        while a != b:
            a, b = (jump[a], jump[b]) if jump[a] != jump[b] else (parent[a], parent[b])
        return a
