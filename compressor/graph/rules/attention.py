"""``softmax(q k^T * scale + mask) v`` with q, k of ``(..., H, L, D)`` and v of ``(..., H, S, E)``.

Heads (and any axis before) are joined, query heads that share a key head in rows of equally many; D is read by the
product of q and k; E passes to the output. The default scale is ``D ** -0.5``, which changes with what is kept: the
site handler computes it from the kept D.
"""

from __future__ import annotations

from compressor.graph.labels.flow import Axis, Flow
from compressor.graph.recording.values import Node
from compressor.graph.rules import rule


@rule("scaled_dot_product_attention")
def attention(flow: Flow, node: Node) -> None:
    given = dict(zip(("query", "key", "value", "attn_mask"), node.args, strict=False)) | node.kwargs
    q, k, v, mask = given["query"], given["key"], given["value"], given.get("attn_mask")
    y = node.outputs[0]
    rank = len(y.shape)
    tokens = [(q.axes[-2], q.shape[-2]), (k.axes[-2], k.shape[-2])]
    flow.fix(flow.join(k.axes[-2], v.axes[-2], k.shape[-2], v.shape[-2]), "softmax over it")
    for axis in range(rank - 2):
        y.axes[axis] = _head(flow, [(part.axes[axis], part.shape[axis]) for part in (q, k, v)])
    depth = flow.join(q.axes[-1], k.axes[-1], q.shape[-1], k.shape[-1])
    flow.adjusts("attention", depth)
    y.axes[-2:] = [q.axes[-2], v.axes[-1]]
    if mask is not None:
        for i, n in enumerate(reversed(mask.shape)):
            axis = rank - 1 - i
            target = (y.axes[axis], y.shape[axis]) if i != 0 else tokens[1]
            flow.join(mask.axes[-1 - i], target[0], n, target[1])
    outer = [(y.axes[i], y.shape[i]) for i in range(rank - 2)]
    flow.costs("attention", 1.0, *outer, *tokens, (depth, q.shape[-1]))
    flow.costs("attention", 1.0, *outer, *tokens, (v.axes[-1], v.shape[-1]))


def _head(flow: Flow, parts: list[tuple[Axis, int]]) -> Axis:
    """An axis before the tokens of query, key and value, joined.

    Where several query heads in a row share one key head, query heads are ``(key heads, heads per key head)``, so that
    whatever goes leaves equally many for each.
    """
    axis, n = parts[0]
    for other, m in parts[1:]:
        if 1 < m < n:
            rows, _ = flow.split(axis, m, n // m)
            flow.join(rows, other, m, m)
        else:
            axis, n = flow.join(axis, other, n, m), max(n, m)
    return axis
