"""Operators that act along some axes and do the same at every index of the others: transforms, orders, matrix algebra.

What they act along stays. All other axes pass: those of several operands are joined as in elementwise operators, and a
result that lacks what was acted along, or has other axes in its place, keeps the others in their order.
"""

from __future__ import annotations

from compressor.graph.labels.flow import Axis, Flow
from compressor.graph.recording.values import Node, Value
from compressor.graph.rules import rule

LAST_TWO = 2
EVERYWHERE = "*"

# The argument that names the axes; "~" before it for all axes but those; a number for as many of the last axes.
ALONG: dict[str, str | int] = {
    **dict.fromkeys(("_fft_r2c", "_fft_c2r", "_fft_c2c"), "dim"),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "sort", "topk", "argsort"), "dim"),
    **dict.fromkeys(("kthvalue", "mode", "nanmedian", "nansum", "count_nonzero", "aminmax", "linalg_cross"), "dim"),
    **dict.fromkeys(("gather", "scatter", "scatter_add", "scatter_reduce", "index_reduce", "index_copy"), "dim"),
    **dict.fromkeys(("index_select", "index_add", "index_fill", "slice_scatter"), "dim"),
    "rot90": "dims",
    "renorm": "~dim",
    **dict.fromkeys(("max_unpool2d", "tril", "triu", "linalg_inv_ex", "linalg_pinv", "linalg_qr"), LAST_TWO),
    **dict.fromkeys(("linalg_matrix_exp", "linalg_cholesky_ex", "linalg_eig", "linalg_lstsq"), LAST_TWO),
    **dict.fromkeys(("_linalg_svd", "_linalg_eigh", "_linalg_eigvals", "_linalg_det", "_linalg_slogdet"), LAST_TWO),
    **dict.fromkeys(("_linalg_solve_ex", "linalg_solve_triangular", "triangular_solve", "linalg_lu"), LAST_TWO),
    **dict.fromkeys(("linalg_lu_factor_ex", "linalg_lu_solve", "lu_unpack", "cholesky_solve"), LAST_TWO),
    **dict.fromkeys(("cholesky_inverse", "linalg_ldl_factor_ex", "_pdist_forward"), LAST_TWO),
    "max_unpool3d": 3,
    **dict.fromkeys(("histc", "masked_scatter", "masked_select", "take", "put", "nms", "nonzero"), EVERYWHERE),
}


@rule(*(ALONG.keys() - {"index_select", "index_add"}))  # which have rules of their own for what is a buffer
def along(flow: Flow, node: Node) -> None:
    x = node.inputs[0]
    act_along(flow, node, _axes(node, x))


@rule("_linalg_check_errors", "_assert_async", "_assert_tensor_metadata", "_assert_scalar")
def checked(flow: Flow, node: Node) -> None:
    """Raises or does nothing."""


def _axes(node: Node, x: Value) -> set[int]:
    """The axes an operator acts along, counted from the last one, -1."""
    rank = len(x.shape)
    where = ALONG[node.op if node.op in ALONG else node.op.rstrip("_")]
    every = set(range(-rank, 0))
    if isinstance(where, int):
        return set(range(-where, 0)) & every
    if where == EVERYWHERE:
        return every
    given = node.argument(where.lstrip("~"))
    named = {(d % rank) - rank for d in ([given] if isinstance(given, int) else given or every)} if rank else set()
    return every - named if where.startswith("~") else named


def act_along(flow: Flow, node: Node, axes: set[int]) -> None:
    """Fix ``axes`` (from the last, -1) of every operand, join and hand on all others."""
    rank = len(node.inputs[0].shape)
    shape: list[int] = list(node.inputs[0].shape)
    passed: list[Axis] = list(node.inputs[0].axes)
    for d in axes:
        flow.fix(passed[d], f"{node.op} along it")
    for other in node.inputs[1:]:
        if len(other.shape) != rank:
            flow.fix_value(other, f"used by {node.op} as a whole")
            continue
        for d in range(-rank, 0):
            if d in axes:
                flow.fix(other.axes[d], f"{node.op} along it")
            elif 1 != shape[d] != other.shape[d] != 1:  # a part of an axis, from its first index on
                flow.fix(passed[d], f"{node.op} takes part of it")
                flow.fix(other.axes[d], f"{node.op} takes part of it")
                passed[d] = None
            else:
                passed[d] = flow.join(passed[d], other.axes[d], shape[d], other.shape[d])
                shape[d] = max(shape[d], other.shape[d])
    kept = [d for d in range(-rank, 0) if d not in axes]
    for output in node.outputs:
        if len(output.shape) == rank:
            output.axes = [None if d in axes else passed[d] for d in range(-rank, 0)]
        else:
            output.axes = [*(passed[d] for d in kept), *[None] * (len(output.shape) - len(kept))]
