"""What each tool of the coverage table does with one model. Findings are reported as soon as they are there.

All count multiply-adds and compare in float64 on the same random input; 1e-9 of the largest output counts as exact.
Seconds are those of the processor, on one thread, so other work on the machine does not count.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

TOLERANCE = 1e-9
Report = Callable[..., None]  # keyword arguments are added to the model's result


def ours(model: nn.Module, inputs: tuple[Any, ...], report: Report) -> None:
    """Capture, search for half of the multiply-adds (widths only), trim, verify. Seconds are capture plus trim."""
    import numpy as np

    from compressor.costs import build
    from compressor.graph import capture
    from compressor.search.base import SearchContext
    from compressor.search.constraints.constraint import Constraint, hard_sizes
    from compressor.search.constraints.projector import Projector
    from compressor.search.methods.oneshot.method import OneShot
    from compressor.trim import plan, trim, trim_verified

    started = time.process_time()
    graph = capture(model, inputs)
    captured_s = time.process_time() - started
    term = build("flops", graph)
    half = [Constraint(term, term.original / 2)]
    minimal = Projector(graph, half, depth=False).minimal(np.zeros(graph.n_units))
    smallest = float(term(hard_sizes(graph, minimal))) / term.original
    reasons = sorted(graph.fixed, key=lambda f: -f.channels)
    report(
        macs=term.original,
        smallest=smallest,
        fixed=sum(f.channels for f in graph.fixed) / max(1, graph.channels),
        why=next((f"{f.operator}: {f.reason}" if f.operator else f.reason for f in reasons), ""),
        on_meta=graph.on_meta,
    )
    units, gates = minimal, None
    if smallest < 0.5:
        started = time.process_time()
        result = OneShot().run(SearchContext(model, graph, half, options={"depth": False}))
        units, gates = result.units, result.gates
        report(search_s=time.process_time() - started)
    started = time.process_time()
    trim(model, plan(model, graph, units))
    report(
        seconds=captured_s + time.process_time() - started,
        half=float(term(hard_sizes(graph, units, gates))) / term.original,
    )
    started = time.process_time()
    verified = trim_verified(model, graph, units, inputs, gates=gates)
    status = "exact" if verified.check.error <= TOLERANCE else "differs"
    if status == "differs" and verified.check.passed:
        status = "float32 only"
        report(reason="compared in float32: in float64 it needs more memory than there was")
    if verified.refused:
        status = f"{status}, {len(verified.refused)} groups refused"
    report(status=status, error=verified.check.error, verify_s=time.process_time() - started)


def torch_pruning(model: nn.Module, inputs: tuple[Any, ...], report: Report) -> None:
    """``MetaPruner`` by magnitude with its defaults, outputs left out by the user.

    29.3 % of every layer's channels, which is about half of the multiply-adds; then 90 % for the smallest. Exact means:
    the pruned network computes what the original does with the input weights of removed channels at zero.
    """
    import torch_pruning as tp

    model, x = _in_double(model, inputs)
    example = x[0] if len(x) == 1 else x
    before = _macs(model, x)

    def prune(subject: nn.Module, ratio: float) -> dict[str, torch.Tensor]:
        names = {id(m): name for name, m in subject.named_modules()}
        kept = {n: torch.arange(_inputs(m)) for n, m in subject.named_modules() if _reads(m)}
        heads = [m for m in subject.modules() if _width(m) in (1000, 21, 400)]
        importance = tp.importance.MagnitudeImportance(p=2)
        pruner = tp.pruner.MetaPruner(
            subject, example, importance=importance, pruning_ratio=ratio, ignored_layers=heads
        )
        for group in pruner.step(interactive=True):
            for dependency, indices in group:
                name = names.get(id(dependency.target.module), "")
                if name in kept and "in_channels" in dependency.handler.__name__:
                    gone = set(indices)  # some lie beyond the end, which torch-pruning does not mind
                    kept[name] = kept[name][[i not in gone for i in range(len(kept[name]))]]
            group.prune()
        return kept

    pruned = copy.deepcopy(model)
    started = time.process_time()
    kept = prune(pruned, 0.293)
    report(seconds=time.process_time() - started)
    report(half=_macs(pruned, x) / before)
    original = copy.deepcopy(model)
    for name, indices in kept.items():
        _silence(original.get_submodule(name), indices)
    found = _compared(_outputs(original, x), _outputs(pruned, x))
    if found["status"] == "differs":
        found["status"] = unlike(original, found["error"])
    report(**found)
    prune(model_min := copy.deepcopy(model), 0.9)
    report(smallest=_macs(model_min, x) / before, **_fixed(model, model_min))


def fastnas(model: nn.Module, inputs: tuple[Any, ...], report: Report) -> None:
    """Model Optimizer's FastNAS with its defaults; the score is the mean share of widths kept, so nothing is trained.

    Exact means: the search space, its weights sorted, computes what the original does at its largest, and the network
    exported computes what the smallest subnetwork does.
    """
    import modelopt.torch.nas as mtn
    from modelopt.torch.nas.utils import sample, sort_parameters
    from modelopt.torch.opt.utils import named_hparams

    model, x = _in_double(model, inputs)
    before, expected = _macs(model, x), _outputs(model, x)
    started = time.process_time()
    space = mtn.convert(copy.deepcopy(model), "fastnas")
    converted_s = time.process_time() - started
    sample(space, max)
    sort_parameters(space)
    at_most = _compared(expected, _outputs(space, x))
    sample(space, min)
    selected = _outputs(space, x)
    small = mtn.export(space)
    at_least = _compared(selected, _outputs(small, x))
    worse = max(at_most, at_least, key=lambda c: float(c["error"]))
    report(smallest=_macs(small, x) / before, **_fixed(model, small), **worse)
    del space, small

    def share(subject: nn.Module) -> float:
        widths = [hp.active / hp.max for _, hp in named_hparams(subject, configurable=True) if isinstance(hp.max, int)]
        return sum(widths) / max(1, len(widths))

    started = time.process_time()
    space = mtn.convert(model, "fastnas")
    try:
        found, _ = mtn.search(space, {"flops": "50%"}, x, {"score_func": share, "verbose": False})
    except ValueError as error:
        if "NOT all constraints can be satisfied" not in str(error):
            raise
        report(reason="half of the multiply-adds lies outside of its search space")
        return
    report(seconds=converted_s + time.process_time() - started, half=_macs(found, x) / before)


TOOLS = {"ours": ours, "torch-pruning": torch_pruning, "fastnas": fastnas}


def unlike(model: nn.Module, error: float) -> str:
    """What it means that torch-pruning's result is not the original with weights at zero: not always a mistake."""
    if error == float("inf"):
        return "outputs cut"
    # Statistics are over all channels in the one and over what is left in the other.
    across = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return "not comparable" if any(isinstance(m, across) for m in model.modules()) else "differs"


def _in_double(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[nn.Module, tuple[Any, ...]]:
    return model.double().eval(), tuple(t.double() if t.is_floating_point() else t for t in inputs)


class _Counter(TorchDispatchMode):
    """Multiply-adds as PyTorch's own counter has them, without its tracking of modules, which some models break."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in flop_registry and func is not torch.ops.prim.device.default:
            with self:
                decomposed = func.decompose(*args, **kwargs)
            if decomposed is not NotImplemented:
                return decomposed
        out = func(*args, **kwargs)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=out)
        return out


def _macs(model: nn.Module, x: tuple[Any, ...]) -> float:
    with torch.no_grad(), _Counter() as counter:
        model(*x)
    return counter.flops / 2


def _outputs(model: nn.Module, x: tuple[Any, ...]) -> list[torch.Tensor]:
    from compressor.graph.recording.forward import tensors_in

    with torch.no_grad():
        return tensors_in(model(*x))


def _compared(expected: list[torch.Tensor], found: list[torch.Tensor]) -> dict[str, Any]:
    error = max(
        float((a - b).abs().max() / a.abs().max()) if a.shape == b.shape else float("inf")
        for a, b in zip(expected, found, strict=True)
    )
    return {"status": "exact" if error <= TOLERANCE else "differs", "error": error}


def _fixed(before: nn.Module, after: nn.Module) -> dict[str, float]:
    """Share of the channels of layers that are as many as before."""
    widths = {name: _width(m) for name, m in before.named_modules() if _width(m)}
    now = {name: _width(m) for name, m in after.named_modules()}
    same = sum(n for name, n in widths.items() if now.get(name) == n)
    return {"fixed": same / max(1, sum(widths.values()))}


def _width(module: nn.Module) -> int:
    return int(getattr(module, "out_features", 0) or getattr(module, "out_channels", 0) or 0)


def _reads(module: nn.Module) -> bool:
    """Whether a layer's weights read channels; a depthwise convolution hands each on, for the next layer to read."""
    layer = isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
    return layer and (getattr(module, "groups", 1) == 1 or module.weight.shape[_input_axis(module)] > 1)


def _inputs(module: nn.Module) -> int:
    return int(getattr(module, "in_features", 0) or module.in_channels)


def _silence(module: nn.Module, kept: torch.Tensor) -> None:
    """Set the weights that read all other input channels to zero; in a grouped convolution those of their group."""
    axis, groups = _input_axis(module), getattr(module, "groups", 1)
    gone = torch.ones(_inputs(module), dtype=torch.bool)
    gone[kept] = False
    with torch.no_grad():
        if axis == 0:  # transposed: the groups lie along the inputs
            module.weight[gone] = 0.0
            return
        parts = module.weight.view(groups, -1, *module.weight.shape[1:])
        for part, lost in zip(parts, gone.view(groups, -1), strict=True):
            part[:, lost] = 0.0


def _input_axis(module: nn.Module) -> int:
    return 0 if getattr(module, "transposed", False) else 1
