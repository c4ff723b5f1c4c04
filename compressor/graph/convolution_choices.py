"""Which kernel size and dilation each convolution has: the choices of DASH (Shen et al., 2022), on any backbone.

A site is an ordinary convolution, its alternatives are kernel sizes times dilations of the same centre, and what it has
is always one of them. Shortcuts, 1x1 convolutions and heads stay as they are, unless they are asked for by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from compressor.architecture.edits import ReplaceConvolution, Work
from compressor.errors import UnsupportedModelError, UsageError
from compressor.graph.choices import ChoiceSite
from compressor.graph.graph import Graph
from compressor.graph.groups import Alternative
from compressor.graph.operators import Operator
from compressor.graph.patterns import matches

#: The paper's rules (section 3.3) by the number of spatial axes: 3 + 4(p - 1) and 3 + 2(p - 1), and 2^q - 1.
KERNEL_SIZES = {1: (3, 7, 11, 15, 19), 2: (3, 5, 7, 9)}
DILATIONS = (1, 3, 7, 15)

_TYPES = {nn.Conv1d: 1, nn.Conv2d: 2}


@dataclass(frozen=True)
class Kernel:
    """Kernel size and dilation along every spatial axis."""

    size: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def name(self) -> str:
        """``7x7 d3``, and ``7 d3`` in one dimension."""
        alike = len(set(self.dilation)) == 1
        holes = str(self.dilation[0]) if alike else "x".join(map(str, self.dilation))
        return f"{'x'.join(map(str, self.size))} d{holes}"


def find(
    model: nn.Module,
    graph: Graph,
    *,
    kernel_sizes: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> list[ChoiceSite]:
    """The sites, in the order of their first use. What has no choice is noted in ``graph.no_choice`` with the reason.

    Args:
        kernel_sizes: odd; default the paper's for so many axes.
        dilations: default the paper's.
        include: patterns over names; only these modules, be they shortcuts, 1x1 convolutions or heads.
        exclude: patterns of modules that stay as they are.

    Raises:
        UsageError: no input is as long as one of the ``dilations`` asked for.
    """
    operators: dict[str, Operator] = {}
    for operator in graph.operators:
        if operator.kind.startswith("conv"):
            operators.setdefault(operator.place, operator)
    work = Work(model)
    sites, reach, beyond = [], set[int](), list[str]()
    for name, operator in operators.items():
        module = work.modules.get(name)
        reason = _reason(name, module, graph, include, exclude)
        if reason is None:
            kernels, met, out = _kernels(work, name, operator, kernel_sizes, dilations)
            reach |= met
            if out:
                at = "x".join(map(str, operator.spatial))
                beyond.append(f"{out[-1].name} at {name}, whose input is {at}")
            if len(kernels) > 1:
                sites.append(_site(name, work.modules[name], operator, kernels))
                continue
            reason = _no_other(module)
        graph.no_choice[name] = reason
    _require_reach(dilations, reach, bool(sites) or bool(reach))
    if beyond:
        graph.remarks.append(
            f"Kernels that reach beyond their input are no choice, at {len(beyond)} convolutions: {beyond[0]}"
            f"{', and others' if len(beyond) > 1 else ''}."
        )
    return sites


def require_some(graph: Graph) -> None:
    """Raise ``UnsupportedModelError`` with the reasons if no convolution has a choice."""
    if graph.choices:
        return
    reasons: dict[str, list[str]] = {}
    for name, reason in graph.no_choice.items():
        reasons.setdefault(reason, []).append(name or "the model itself")
    listed = "; ".join(f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''}: {reason}"
                       for reason, names in reasons.items())  # fmt: skip
    raise UnsupportedModelError(
        f"No convolution of {graph.model_class} can be replaced by one of another kernel size or dilation"
        f"{f' ({listed})' if listed else ', as it has none'}. Name some with --include, give other --kernel-sizes or "
        "--dilations, or choose another search method."
    )


def _reason(
    name: str, module: nn.Module | None, graph: Graph, include: Sequence[str], exclude: Sequence[str]
) -> str | None:
    """Why a convolution has no choice; None if it may have one."""
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return "a transposed convolution"
    if isinstance(module, nn.Conv3d):
        return "a convolution in three dimensions"
    if module is not None and is_parametrized(module):
        return "its weight is computed from others"
    if type(module) not in _TYPES:
        return "no module of PyTorch's own" if module is None else f"a {type(module).__name__}"
    assert isinstance(module, (nn.Conv1d, nn.Conv2d))
    weight = module._parameters.get("weight")
    if weight is None:
        return "its weight is computed from others"
    if not weight.requires_grad:
        return "its weight is frozen"
    known = graph.parameters.get(f"{name}.weight" if name else "weight")
    if known is None or len(known.names) > 1:
        return "its weight is shared with another module"
    if module.padding_mode != "zeros":
        return f"padding mode {module.padding_mode}"
    if exclude and matches(name, exclude):
        return "excluded"
    if include:
        return None if matches(name, include) else "not included"
    if name in graph.shortcuts:
        return "on a shortcut"
    if name in graph.heads:
        return "it writes an output of the network"
    return "a 1x1 convolution" if max(module.kernel_size) == 1 else None


def _kernels(
    work: Work,
    name: str,
    operator: Operator,
    kernel_sizes: Sequence[int] | None,
    dilations: Sequence[int] | None,
) -> tuple[list[Kernel], set[int], list[Kernel]]:
    """What can stand there, first what does; the dilations asked for that meet the input; and what reaches beyond."""
    module: Any = work.modules[name]
    own = Kernel(tuple(module.kernel_size), tuple(module.dilation))
    asked, spaced = kernel_sizes or KERNEL_SIZES[len(own.size)], dilations or DILATIONS
    found, met, out = [own], set[int](), list[Kernel]()
    for size in asked:
        for dilation in spaced:
            kernel = _along(own, size, dilation)
            if not _meets(kernel, own, operator.spatial):
                out.append(kernel)
                continue
            met.add(dilation)
            if kernel != own and _fits(work, name, kernel):
                found.append(kernel)
    return list(dict.fromkeys(found)), met, out


def _along(own: Kernel, size: int, dilation: int) -> Kernel:
    """The kernel along the axes that the convolution looks along: where its own extent is 1 it stays so."""
    looks = [k > 1 or max(own.size) == 1 for k in own.size]
    return Kernel(
        tuple(size if looking else 1 for looking in looks), tuple(dilation if looking else 1 for looking in looks)
    )


def _meets(kernel: Kernel, own: Kernel, spatial: tuple[int, ...]) -> bool:
    """Whether the outermost taps meet the input from some position, along every axis."""
    return all(
        k == 1 or d * (k - 1) // 2 < n
        for k, d, n in zip(kernel.size, kernel.dilation, spatial or (1,) * len(own.size), strict=True)
    )


def _fits(work: Work, name: str, kernel: Kernel) -> bool:
    """Whether the output stays as large as it is with some padding."""
    try:
        ReplaceConvolution(name, list(kernel.size), list(kernel.dilation)).check(work)
    except UsageError:
        return False
    return True


def _no_other(module: Any) -> str:
    even = [k for k in module.kernel_size if k % 2 == 0]
    if even and not isinstance(module.padding, str):
        return f"an even kernel ({even[0]}) with whole padding, which no odd one can replace"
    return "no other kernel fits its input and padding"


def _require_reach(dilations: Sequence[int] | None, met: set[int], some: bool) -> None:
    beyond = [d for d in dilations or () if d not in met]
    if some and beyond:
        raise UsageError(
            f"Dilations of {', '.join(map(str, beyond))} reach beyond the input of every convolution; give smaller "
            "ones, or larger inputs (--input-shape)."
        )


def _site(name: str, module: Any, operator: Operator, kernels: list[Kernel]) -> ChoiceSite:
    alternatives = [Alternative(kernels[0].name)]
    alternatives += [
        Alternative(k.name, (ReplaceConvolution(name, list(k.size), list(k.dilation)),)) for k in kernels[1:]
    ]
    return ChoiceSite(
        name,
        alternatives,
        scaled={name: [math.prod(k.size) for k in kernels]},
        operators={name: [_runs(module, operator, kernels[0], k) for k in kernels]},
    )


def _runs(module: Any, operator: Operator, own: Kernel, kernel: Kernel) -> dict[str, tuple[int, ...]]:
    """What of the operator differs: padding grows with the extent, so that the output stays as large as it is."""
    padding = tuple(
        p + (d * (k - 1) - d0 * (k0 - 1)) // 2
        for p, k, d, k0, d0 in zip(operator.padding, kernel.size, kernel.dilation, own.size, own.dilation, strict=True)
    )
    return {"kernel": kernel.size, "dilation": kernel.dilation, "padding": padding}


def kernels_of(edits: Sequence[Any], own: Kernel) -> Kernel:
    """The kernel that an alternative's edits give; ``own`` without any."""
    for edit in edits:
        if isinstance(edit, ReplaceConvolution):
            return Kernel(tuple(edit.kernel_size), tuple(edit.dilation))
    return own
