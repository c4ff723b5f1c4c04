"""What a value is made of without any weights: the stream that a residual branch is added to, and reads.

In ``x + m(x)`` both operands of the addition are the stream ``x`` itself; in ``0.5 * x + m(relu(x))``, in ``pool(x) +
m(x)`` or ``norm(x) + m(x)`` they come from it through operators that cost next to nothing. Ways back end at operators
with multiply-adds, where only a part is handed on or something is added to it: but additions of blocks let their stream
pass.
"""

from __future__ import annotations

from compressor.graph.recording.values import Node, Value

LAYOUT = {"view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "t", "unsqueeze", "squeeze",
          "contiguous", "clone", "alias", "detach", "_to_copy"}  # fmt: skip
_ENDS = {"cat", "stack", "embedding", "index", "index_select", "gather", "slice", "select", "pad", "constant_pad_nd"}
_FAR = 32  # values, after which a way back ends


class Streams:
    """Ways back from values. ``costly`` are the indices of nodes with multiply-adds."""

    def __init__(self, nodes: list[Node], costly: set[int]) -> None:
        self._nodes, self._costly = nodes, costly
        self._through: dict[int, Value] = {}  # by node of a block's addition, the stream
        self._plain: dict[int, Value] = {}  # by value, what it is but for its layout and blocks' branches
        self._sources: dict[int, frozenset[int]] = {}

    def laid_out(self, node: Node) -> None:
        """Note a change of layout."""
        source = self.plain(node.inputs[0])
        for output in node.outputs:
            self._plain[output.index] = source

    def passes(self, node: Node, stream: Value, *, plain: bool) -> None:
        """Note the addition of a block; ``plain`` if nothing but the stream is left without its branch."""
        self._through[node.index] = stream
        if plain:
            for output in node.outputs:
                self._plain[output.index] = self.plain(stream)

    def plain(self, value: Value) -> Value:
        """What the value was before other blocks' branches were added or its layout changed."""
        return self._plain.get(value.index, value)

    def sources(self, value: Value) -> frozenset[int]:
        """Indices of the values that ``value`` comes from without weights' products, itself among them."""
        known = self._sources.get(value.index)
        if known is None:
            known = self._sources[value.index] = frozenset(self._ways_back(value))
        return known

    def _ways_back(self, value: Value) -> set[int]:
        found, pending = {value.index}, [value]
        while pending and len(found) < _FAR:
            node = pending.pop(0).producer
            if node is None or node.index in self._costly or node.op in _ENDS:
                continue
            through = self._through.get(node.index)
            if through is not None:
                sources = [through]
            else:
                sources = [v for v in node.inputs if v.param is None]
                if len(sources) > 1 and node.op.rstrip("_") in ("add", "sub", "rsub"):
                    continue
            for source in sources:
                if source.index not in found:
                    found.add(source.index)
                    pending.append(source)
        return found
