"""``capture``: trace a model into a ``Graph``."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.errors import UnsupportedModelError
from compressor.graph.accounts import Accounts
from compressor.graph.analyze import Analysis
from compressor.graph.apply_rules import run_rules
from compressor.graph.blocks import find_blocks
from compressor.graph.collect import collect_operators
from compressor.graph.flow import Flow
from compressor.graph.graph import Graph
from compressor.graph.kernels import label_kernels
from compressor.graph.modules import build_lazy, evaluating, named_modules, run_once, uncompiled, unwrapped
from compressor.graph.record import Recorder, Value
from compressor.graph.resolution import find_resolutions
from compressor.graph.scalars import follow_scalars
from compressor.graph.stand_ins import shadowed, traceable_attributes, unchanged
from compressor.multihead import narrowed


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection inside: a trace makes many objects and no garbage, and would be visited again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_uncollected()
def capture(
    model: nn.Module,
    example_inputs: Any,
    *,
    example_kwargs: dict[str, Any] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    keep_outputs: Sequence[str] = (),
    kernels: bool = False,
    resolution: bool = False,
) -> Graph:
    """Trace ``model`` and find what can be removed from it. The model is not changed and its weights are not copied.

    Args:
        model: any module; it stays on its device and in its mode.
        example_inputs: a tensor, or a tuple of positional arguments. Batches are cut to one example.
        example_kwargs: keyword arguments of the forward.
        include: shell-style patterns over module names; only channels written by matching modules may be removed.
        exclude: patterns of modules that stay exactly as they are.
        keep_outputs: patterns of modules whose outputs keep all their channels, whatever lies inside them.
        kernels: whether kernels may be cropped, too; see ``compressor.graph.kernels``.
        resolution: whether residual branches may compute on fewer samples; see ``compressor.graph.resolution``.

    Raises:
        UnsupportedModelError: the forward raises, or there are no parameters.
    """
    model = unwrapped(model)
    args = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    build_lazy(model, args, example_kwargs or {})
    attempt = partial(_capture, model, args, example_kwargs or {}, include, exclude, keep_outputs, kernels, resolution)
    try:
        return attempt()
    except _GrewError:
        run_once(model, args, example_kwargs or {})
        return attempt()


def _n_parameters(model: nn.Module) -> int:
    return sum(len(module._parameters) for module in model.modules())


class _GrewError(Exception):
    """The forward added modules or parameters to the model, as some do when they run for the first time."""


def _capture(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    include: Sequence[str],
    exclude: Sequence[str],
    keep_outputs: Sequence[str],
    kernels: bool,
    resolution: bool,
) -> Graph:
    started = time.perf_counter()
    whole = args, kwargs
    args, kwargs = first_example(*whole)
    tensors = _tensors(model)
    if not any(not is_buffer for _, _, is_buffer in tensors.values()):
        raise UnsupportedModelError(
            f"{type(model).__name__} has no parameters, so there is nothing to compress; pass the network itself."
        )
    n_parameters = _n_parameters(model)
    tracing = unchanged(model), evaluating(model), torch.no_grad(), narrowed(model), _python_attention()
    with ExitStack() as stack:
        for context in (*tracing, uncompiled(model)):
            stack.enter_context(context)
        # On meta tensors if the forward can; on the inputs as given if it wants their whole batch, or has none.
        inputs = [(args, kwargs)] if args is whole[0] else [(args, kwargs), whole]
        for meta, given in [(meta, given) for given in inputs for meta in (True, False)]:
            args, kwargs = given
            try:
                with unchanged(model):
                    recorder, values, outputs = _record(
                        model, tensors, args, kwargs, meta=meta, keep_outputs=keep_outputs
                    )
                    grew = _n_parameters(model) != n_parameters
                on_meta = meta
                break
            except Exception as error:  # whatever a forward may raise
                failure = error
        else:
            raise UnsupportedModelError(
                f"The forward of {type(model).__name__} raises on the example inputs: {type(failure).__name__}: "
                f"{_first_line(failure)}. Check the inputs' shapes and types."
            ) from failure
        if grew:
            raise _GrewError
        # Auxiliary heads run in training only; record them too, so that they are trimmed with the rest.
        trained: list[Any] = []
        reached = {value.index for node in recorder.nodes for value in node.inputs}
        n_eval, calls = len(recorder.nodes), list(recorder.calls)
        if any(values[name].index not in reached for name, (_, _, is_buffer) in tensors.items() if not is_buffer):
            trained = _record_training(recorder, model, tensors, values, args, kwargs)
    flow = Flow(recorder.modules.by_name)
    described = {name: (values[name], names, is_buffer) for name, (_, names, is_buffer) in tensors.items()}
    _label_parameters(flow, described, kernels)
    made = len(flow.labels)
    run_rules(flow, recorder.nodes)
    follow_scalars(flow, recorder.nodes, recorder.escaped)
    reached = {value.index for node in recorder.nodes for value in node.inputs}
    for value, _, _ in described.values():
        if value.index not in reached:
            flow.fix_value(value, "never used by the forward")
    for value in (*outputs, *trained):
        flow.fix_value(value, "output of the network")
    analysis = Analysis(flow, described)
    analysis.restrict(tuple(include), tuple(exclude))
    analysis.fix_unenforceable()
    analysis.fix_unowned(made)
    parameters = analysis.parameters(reached)
    main = recorder.nodes[:n_eval]
    blocks = find_blocks(flow, main, outputs, calls, described, include=tuple(include), exclude=tuple(exclude))
    if resolution:
        names = [block.name for block in blocks.blocks]
        analysis.resolutions = find_resolutions(blocks.branches, names, main, calls)
    accounts = Accounts(analysis)
    products = accounts.products(blocks.gates_of)
    constants = {value.storage for value, _, _ in described.values()}
    storages = accounts.storages(main, outputs, constants, blocks.gates_of, blocks.sums)
    operators = collect_operators(analysis, main, outputs, constants, blocks.gates_of)
    masks, sites = analysis.masks()
    attributes = analysis.attributes()
    del products[sum(1 for p in flow.products if p.node.index < n_eval) :]
    resampling = accounts.resampling(blocks.gates_of)
    n_labelled = analysis.number_units(analysis.resolutions.units)
    groups = analysis.groups(n_labelled, parameters)
    blocks.assign(groups)
    n_units = analysis.resolutions.number(n_labelled, analysis.axes)
    groups += analysis.resolutions.groups(len(groups), blocks.blocks)
    graph = Graph(
        model_class=f"{type(model).__module__}.{type(model).__qualname__}",
        n_units=n_units,
        axes=analysis.axes,
        parameters=parameters,
        groups=groups,
        blocks=blocks.blocks,
        collapses=blocks.collapses,
        products=[*products, *resampling[0]],
        storages=[*storages, *resampling[1]],
        operators=operators,
        masks=masks,
        sites=[*sites, *blocks.sites],
        attributes=attributes,
        fixed=analysis.fixed(),
        input_shapes=[tuple(t.shape) for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)],
        on_meta=on_meta,
        seconds=0.0,
        whole_kernels=flow.whole_kernels,
        resolutions=[spatial.found for spatial in analysis.resolutions.spatial],
        whole_resolutions=analysis.resolutions.whole,
    )
    recorder.release()
    graph.seconds = time.perf_counter() - started
    return graph


def _label_parameters(flow: Flow, described: dict[str, tuple[Value, tuple[str, ...], bool]], kernels: bool) -> None:
    """Give every axis of every parameter and buffer labels of its own."""
    pool = flow.labels.fresh(sum(sum(value.shape) for value, _, _ in described.values()))
    start = 0
    for name, (value, names, _) in described.items():
        value.param, value.param_axes = name, tuple(range(len(value.shape)))
        owner = flow.modules.get(name.rpartition(".")[0].partition(".parametrizations")[0])
        labelled = 2 if isinstance(owner, nn.modules.conv._ConvNd) else len(value.shape)  # kernels keep their extent
        for d, n in enumerate(value.shape[:labelled]):
            if n > 1:
                value.axes[d] = pool[start : start + n]
                start += n
        if kernels and labelled == 2:
            label_kernels(flow, name, value, names)


def first_example(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Cut every tensor that shares the first tensor's batch to one example, so that costs are per example."""
    leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim() > 0]
    if not leaves or leaves[0].shape[0] <= 1 or any(leaf.shape[0] != leaves[0].shape[0] for leaf in leaves):
        return args, kwargs
    return pytree.tree_map(  # type: ignore[no-any-return]
        lambda leaf: leaf[:1] if isinstance(leaf, Tensor) and leaf.dim() > 0 else leaf, (args, kwargs)
    )


@contextmanager
def _python_attention() -> Iterator[None]:
    """Keep ``nn.MultiheadAttention`` from its fused path, which hides everything it does."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


_Tensors = dict[str, tuple[Tensor, tuple[str, ...], bool]]


def _tensors(model: nn.Module) -> _Tensors:
    """Parameters and buffers by their first name, with all names they go by."""
    names: dict[int, list[str]] = {}
    first: dict[int, tuple[Tensor, bool]] = {}
    modules = named_modules(model)
    for is_buffer in (False, True):
        for owner, module in modules:
            for attribute, tensor in (module._buffers if is_buffer else module._parameters).items():
                if tensor is not None:
                    names.setdefault(id(tensor), []).append(f"{owner}.{attribute}" if owner else attribute)
                    first.setdefault(id(tensor), (tensor, is_buffer))
    return {names[key][0]: (tensor, tuple(names[key]), is_buffer) for key, (tensor, is_buffer) in first.items()}


def _record(
    model: nn.Module,
    tensors: _Tensors,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    meta: bool,
    keep_outputs: Sequence[str],
) -> tuple[Recorder, dict[str, Value], list[Value]]:
    recorder = Recorder(model)
    values: dict[str, Value] = {}
    shadows: dict[str, Tensor] = {}
    for name, (tensor, names, _) in tensors.items():
        seen = torch.empty_like(tensor, device="meta") if meta else tensor.detach()
        values[name] = recorder.define(seen, None)
        shadows.update(dict.fromkeys(names, seen))
    recorder.shadows = shadows
    if meta:
        args, kwargs = pytree.tree_map(lambda t: t.to("meta") if isinstance(t, Tensor) else t, (args, kwargs))
    kept = _KeptOutputs(model, keep_outputs)
    modules = recorder.modules
    shadowing = shadowed(model, shadows, modules.by_every_name)
    with shadowing, traceable_attributes(modules.by_name), kept.watch(), recorder.recording():
        output = model(*args, **kwargs)
    outputs = [recorder.value(t) for t in [*tensors_in(output), *kept.tensors]]
    return recorder, values, outputs


def _record_training(
    recorder: Recorder,
    model: nn.Module,
    tensors: _Tensors,
    values: dict[str, Value],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> list[Value]:
    """Append a pass in training mode, on meta tensors only. A model that cannot run so simply has no such pass."""
    if not next(iter(recorder.shadows.values())).is_meta:
        return []
    n = len(recorder.nodes)
    modes = [(module, module.training) for _, module in named_modules(model)]
    args, kwargs = pytree.tree_map(
        lambda t: torch.empty((2, *t.shape[1:]), dtype=t.dtype, device="meta") if isinstance(t, Tensor) else t,
        (args, kwargs),
    )
    buffers = [(module._buffers, dict(module._buffers)) for module in model.modules() if module._buffers]
    try:
        model.train()
        with shadowed(model, recorder.shadows), traceable_attributes(recorder.modules.by_name), recorder.recording():
            output = model(*args, **kwargs)
        return [recorder.value(t) for t in tensors_in(output)]
    except Exception:  # evaluation went through, which is what counts; the unused parameters stay as they are
        del recorder.nodes[n:]
        return []
    finally:
        for registered, before in buffers:
            registered.update(before)
        for module, mode in modes:
            vars(module)["training"] = mode


def tensors_in(output: Any) -> list[Tensor]:
    """All tensors in a model's output: tuples, dicts, named tuples and dataclasses included."""
    found: list[Tensor] = []
    for leaf in pytree.tree_leaves(output):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__"):
            found += [t for item in vars(leaf).values() for t in tensors_in(item)]
    return found


class _KeptOutputs:
    """Remembers what modules matching the user's patterns returned."""

    def __init__(self, model: nn.Module, patterns: Sequence[str]) -> None:
        self.tensors: list[Tensor] = []
        self.modules = [m for name, m in model.named_modules() if any(self._names(p, name) for p in patterns)]

    @staticmethod
    def _names(pattern: str, name: str) -> bool:
        """Whether the pattern means this very module: not one inside another that it matches."""
        parts = name.split(".")
        above = (".".join(parts[:n]) for n in range(1, len(parts)))
        return fnmatchcase(name, pattern) and not any(fnmatchcase(outer, pattern) for outer in above)

    @contextmanager
    def watch(self) -> Iterator[None]:
        handles = [m.register_forward_hook(lambda _m, _a, out: self._keep(out)) for m in self.modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, output: Any) -> None:
        self.tensors += tensors_in(output)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
