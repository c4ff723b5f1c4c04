"""From a hard choice of units to an ``Architecture``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.edits import Resample
from compressor.arrays import BoolArray, IntArray, UnitMask
from compressor.graph.gated import kept_units
from compressor.graph.graph import Graph
from compressor.nn import multihead
from compressor.nn.modules import evaluating


def plan(model: nn.Module, graph: Graph, units: UnitMask, gates: BoolArray | None = None) -> Architecture:
    """What keeping ``units`` and the blocks in ``gates`` means for every module and parameter.

    Args:
        units: shape (n_units,) or with the constant last entry.
        gates: shape (n_blocks,); default all.
    """
    removed, blocks, lost = _removed(graph, gates)
    units = kept_units(graph, units, graph.gates(gates))
    mask = np.append(np.asarray(units[: graph.n_units], dtype=np.bool_), True)
    kept = {axis.index: np.flatnonzero(axis.keep(mask)) for axis in graph.axes}
    indices: dict[str, dict[int, list[int]]] = {}
    for parameter in graph.parameters.values():
        if parameter.name in lost:
            continue
        for d, axis in enumerate(parameter.axes):
            if axis is not None and len(kept[axis.index]) < len(axis):
                indices.setdefault(parameter.name, {})[d] = kept[axis.index].tolist()
    decided = Architecture.of(
        graph.model_class,
        {p.name: list(p.shape) for p in graph.parameters.values()},
        indices=indices,
        removed=removed,
        aliases={p.name: list(p.names) for p in graph.parameters.values() if len(p.names) > 1},
    )
    lengths = {index: len(k) for index, k in kept.items()}
    with evaluating(model), torch.no_grad():  # weights that are computed are so when they are looked at
        attributes, renumbered = _sizes(model, graph, decided, lengths), {}
    for order in graph.orders:
        entries, target = kept[order.entries.index], kept[order.target.index]
        if len(target) == len(order.target):
            continue
        if not order.attribute:
            renumbered[order.name] = target.tolist()
        elif not decided.is_gone(order.name):
            values = np.asarray(getattr(model.get_submodule(order.name), order.attribute))[entries]
            attributes.setdefault(order.name, {})[order.attribute] = np.searchsorted(target, values).tolist()
    return Architecture.of(
        decided.model_class,
        decided.shapes,
        indices=indices,
        attributes=attributes,
        removed=removed,
        resolutions=_resolutions(graph, kept, graph.gates(gates)),
        renumbered=renumbered,
        blocks=blocks,
        groups={
            g.name: {
                "size": len(g),
                "kept": []
                if g.members and all(n in lost for n, _ in g.members)
                else np.flatnonzero(mask[g.units]).tolist(),
                "width": g.width,
                **({} if g.ranked else {"kind": g.kind}),
            }
            for g in graph.groups
        },
        aliases=decided.aliases,
    )


def _resolutions(graph: Graph, kept: dict[int, IntArray], gates: BoolArray) -> Iterator[Resample]:
    for found in graph.resolutions:
        sizes = [[len(axis), len(kept[axis.index])] for axis in found.axes]
        if gates[found.block] and any(inside < n for n, inside in sizes):
            yield Resample(found.output, list(found.inputs), sizes, graph.blocks[found.block].name)


def _removed(graph: Graph, gates: BoolArray | None) -> tuple[dict[str, str], list[str], set[str]]:
    """What replaces which module, the names of the blocks that go, and the parameters that go with them."""
    kept = graph.gates(gates)
    gone = [block for block in graph.blocks if not kept[block.index]]
    outermost = [block for block in gone if all(kept[i] for i in block.inside)]
    removed = {name: kind for block in outermost for name, kind in block.removal.items()}
    for collapse in graph.collapses:
        if not kept[list(collapse.blocks)].any():
            removed[collapse.module] = collapse.kind
    removed = {name: kind for name, kind in removed.items() if not any(above in removed for above in _above(name))}
    return removed, [block.name for block in gone], {name for block in gone for name in block.parameters}


def _above(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _sizes(
    model: nn.Module, graph: Graph, architecture: Architecture, lengths: dict[int, int]
) -> dict[str, dict[str, Any]]:
    """Attributes that hold sizes: those the trace saw in use, and those PyTorch's own modules keep."""
    modules = dict(model.named_modules())
    changes: dict[str, dict[str, Any]] = {}
    for use in graph.attributes:
        if architecture.is_gone(use.module):
            continue
        value = round(use.offset + use.factor * lengths[use.axis.index])
        if use.index is None:
            changes.setdefault(use.module, {})[use.name] = value
        else:
            current = changes.get(use.module, {}).get(use.name, getattr(modules[use.module], use.name))
            items: Any = dict(current) if isinstance(current, dict) else list(current)
            items[use.index] = value
            changes.setdefault(use.module, {})[use.name] = items
    for name, module in modules.items():
        if architecture.is_gone(name):
            continue
        for attribute, value in _own_sizes(name, module, architecture, changes.get(name, {})).items():
            changes.setdefault(name, {})[attribute] = value
    found = {}
    for name, values in changes.items():
        new = {k: v for k, v in values.items() if _differs(getattr(modules[name], k, None), v)}
        if new:
            found[name] = new
    return found


def _differs(current: Any, new: Any) -> bool:
    return list(current) != new if isinstance(current, (tuple, list)) else bool(current != new)


def _own_sizes(prefix: str, module: nn.Module, architecture: Architecture, known: dict[str, Any]) -> dict[str, Any]:
    """Size attributes of PyTorch's own modules, from the shapes their parameters will have."""
    shape = _new_weight_shape(prefix, module, architecture)
    if isinstance(module, nn.modules.conv._ConvNd):
        if shape is None:
            return {}
        groups = known.get("groups", module.groups)
        first, second = shape[0], shape[1] * groups
        transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
        return dict(
            zip(("in_channels", "out_channels"), (first, second) if transposed else (second, first), strict=True)
        )
    if isinstance(module, nn.Linear):
        return {} if shape is None else {"in_features": shape[1], "out_features": shape[0]}
    if isinstance(module, nn.modules.batchnorm._NormBase):
        shape = shape or _new_shape(architecture, f"{prefix}.running_mean" if prefix else "running_mean")
        return {} if shape is None else {"num_features": shape[0]}
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return {} if shape is None else {"normalized_shape": shape}
    if isinstance(module, nn.GroupNorm):
        return {} if shape is None else {"num_channels": shape[0]}
    if isinstance(module, nn.Embedding):
        return {} if shape is None else {"num_embeddings": shape[0], "embedding_dim": shape[1]}
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return _recurrent_sizes(prefix, module, architecture)
    if isinstance(module, nn.MultiheadAttention):
        return _attention_sizes(prefix, module, architecture, known)
    if isinstance(module, nn.PReLU):
        return {} if shape is None else {"num_parameters": shape[0]}
    return {}


def _recurrent_sizes(prefix: str, module: nn.Module, architecture: Architecture) -> dict[str, Any]:
    """Of weights that read the input, the hidden state, and the cell's units where these are projected."""
    start, end = f"{prefix}." if prefix else "", "_l0" if isinstance(module, nn.RNNBase) else ""
    read, kept, projected = (_new_shape(architecture, f"{start}weight_{name}{end}") for name in ("ih", "hh", "hr"))
    sizes = {} if read is None else {"input_size": read[1]}
    if projected is not None:
        return {**sizes, "proj_size": projected[0], "hidden_size": projected[1]}
    return sizes if kept is None else {**sizes, "hidden_size": kept[1]}


def _attention_sizes(
    prefix: str, module: nn.MultiheadAttention, architecture: Architecture, known: dict[str, Any]
) -> dict[str, Any]:
    """All widths, if any of the module's parameters or attributes changes: it will then be of another class."""
    start = f"{prefix}." if prefix else ""
    if not known and not any(name.startswith(start) for name in architecture.indices):
        return {}
    sizes = {name: known.get(name, getattr(module, name, module.embed_dim)) for name in multihead.WIDTHS}
    shape = _new_shape(architecture, f"{start}out_proj.weight")
    sizes["embed_dim"] = module.embed_dim if shape is None else shape[0]
    for name, weight in (("kdim", "k_proj_weight"), ("vdim", "v_proj_weight")):
        shape = _new_shape(architecture, f"{start}{weight}") or _new_shape(architecture, f"{start}in_proj_weight")
        sizes[name] = getattr(module, name) if shape is None else shape[1]
    return {**sizes, "head_dim": sizes["qk_width"] // known.get("num_heads", module.num_heads)}


def _new_weight_shape(prefix: str, module: nn.Module, architecture: Architecture) -> list[int] | None:
    """The shape ``module.weight`` will have, be it a parameter or computed from one of the same shape."""
    start = f"{prefix}." if prefix else ""
    shape = _new_shape(architecture, f"{start}weight")
    if shape is not None or not isinstance(getattr(module, "weight", None), Tensor):
        return shape
    for source in ("parametrizations.weight.original", "parametrizations.weight.original1", "weight_v", "weight_orig"):
        if architecture.shapes.get(start + source) == list(module.weight.shape):  # type: ignore[arg-type]
            return _new_shape(architecture, start + source)
    return None


def _new_shape(architecture: Architecture, name: str) -> list[int] | None:
    """The shape a parameter will have; ``None`` if the module has none of that name."""
    first = architecture.first_name(name)
    if first not in architecture.shapes:
        return None
    kept = architecture.indices.get(first, {})
    return [len(kept[d]) if d in kept else n for d, n in enumerate(architecture.shapes[first])]
