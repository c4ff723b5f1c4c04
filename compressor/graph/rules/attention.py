"""``softmax(q k^T * scale + mask) v`` with q, k of ``(..., H, L, D)`` and v of ``(..., H, S, E)``.

Heads (and any axis before) are joined; D is read by the product of q and k; E passes to the output. The default scale
is ``D ** -0.5``, which changes with what is kept: the site handler computes it from the kept D.
"""

from __future__ import annotations

from compressor.graph.flow import Flow
from compressor.graph.record import Node
from compressor.graph.rules import rule


@rule("scaled_dot_product_attention")
def attention(flow: Flow, node: Node) -> None:
    q, k, v = node.inputs[:3]
    y = node.outputs[0]
    rank = len(y.shape)
    tokens = [(q.axes[-2], q.shape[-2]), (k.axes[-2], k.shape[-2])]
    flow.fix(flow.join(k.axes[-2], v.axes[-2], k.shape[-2], v.shape[-2]), "softmax over it")
    for axis in range(rank - 2):
        joined = flow.join(q.axes[axis], k.axes[axis], q.shape[axis], k.shape[axis])
        if q.shape[axis] == k.shape[axis]:
            y.axes[axis] = flow.join(joined, v.axes[axis], q.shape[axis], v.shape[axis])
        else:  # grouped queries: several query heads share one key head
            for part in (q, k, v):
                flow.fix(part.axes[axis], "grouped query attention")
            y.axes[axis] = q.axes[axis]
    depth = flow.join(q.axes[-1], k.axes[-1], q.shape[-1], k.shape[-1])
    flow.adjusts("attention", depth)
    y.axes[-2:] = [q.axes[-2], v.axes[-1]]
    mask = node.kwargs.get("attn_mask", node.args[3] if len(node.args) > 3 else None)
    if mask is not None:
        for i, n in enumerate(reversed(mask.shape)):
            axis = rank - 1 - i
            target = (y.axes[axis], y.shape[axis]) if i != 0 else tokens[1]
            flow.join(mask.axes[-1 - i], target[0], n, target[1])
    outer = [(y.axes[i], y.shape[i]) for i in range(rank - 2)]
    flow.costs("attention", 1.0, *outer, *tokens, (depth, q.shape[-1]))
    flow.costs("attention", 1.0, *outer, *tokens, (v.axes[-1], v.shape[-1]))
