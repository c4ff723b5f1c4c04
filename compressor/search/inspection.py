"""``describe``: what a graph holds, as JSON values, for ``compress inspect``."""

from __future__ import annotations

import math
from typing import Any

from compressor.costs import Sizes, build
from compressor.costs.flops import Flops
from compressor.graph.graph import Graph
from compressor.graph.groups import Alternatives
from compressor.graph.stages import Stages
from compressor.search.constraints.wanted import Wanted


def describe(graph: Graph, wanted: Wanted | None = None) -> dict[str, Any]:
    """Costs, groups, blocks, layers, and what is fixed and why; of groups the least units, if some are ``wanted``."""
    least = wanted.least if wanted is not None else {}
    full = Sizes.full(graph)
    flops = Flops(graph)
    macs_each = flops.by_layer(full).tolist()
    macs: dict[str, float] = {}
    kinds: dict[str, str] = {}
    for product, value in zip(graph.products, macs_each, strict=True):
        macs[product.place] = macs.get(product.place, 0.0) + value
        kinds.setdefault(product.place, product.kind)
    layers = []
    for parameter in graph.parameters.values():
        place, _, attribute = parameter.name.rpartition(".")
        if parameter.is_buffer or len(parameter.shape) < 2 or attribute != "weight":
            continue
        layers.append(
            {
                "name": place,
                "op": kinds.get(place, "weight"),
                "macs": int(macs.get(place, 0)),
                "params": math.prod(parameter.shape),
                "in_channels": parameter.shape[1],
                "out_channels": parameter.shape[0],
            }
        )
    return {
        "model": graph.model_class.rpartition(".")[2],
        "macs": int(flops.original),
        "params": int(build("params", graph).original),
        "memory_bytes": int(build("memory", graph).original),
        "groups": [
            {
                "name": group.name,
                "size": len(group) * group.width,
                "units": len(group),
                **({"least": least.get(group.index, 1)} if least else {}),
                "layers": [name.rpartition(".")[0] for name, axis in group.members if axis == 0][:64],
            }
            for group in graph.groups
            if not isinstance(group, Alternatives)
        ],
        "choices": [
            {
                "name": choice.name,
                "kind": choice.of,
                "current": choice.alternatives[choice.current].name,
                "alternatives": [alternative.name for alternative in choice.alternatives],
            }
            for choice in graph.choices
        ],
        "no_choice": [{"name": name, "reason": reason} for name, reason in graph.no_choice.items()],
        **({} if graph.stages is None else {"stages": _stages(graph.stages)}),
        "blocks": [
            {"name": block.name} for block in graph.blocks if wanted is None or block.index not in wanted.blocks
        ],
        "layers": layers,
        "fixed": [
            {"place": f.place, "operator": f.operator, "reason": f.reason, "channels": f.channels} for f in graph.fixed
        ],
        "traced_on": "meta tensors" if graph.on_meta else "real tensors",
        "seconds": graph.seconds,
    }


def _stages(stages: Stages) -> dict[str, Any]:
    """Where the resolution falls and where it could, for those who look."""
    default = None if stages.default is None else list(stages.configurations[stages.default])
    return {
        "layers": list(stages.layers),
        "sizes": [list(size) for size in stages.sizes],
        "reductions": [
            {
                "modules": [*reduction.modules, *(f"{module}.{name}" for module, name, _ in reduction.attributes)],
                "before": stages.layers[reduction.before],
                "factor": list(reduction.factor),
            }
            for reduction in stages.reductions
        ],
        "configurations": len(stages.configurations),
        "default": default,
        "staying": list(stages.staying),
        "reason": stages.reason,
    }
