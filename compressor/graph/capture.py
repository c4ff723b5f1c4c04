"""``capture``: trace a model into a ``Graph``."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from compressor.errors import UnsupportedModelError
from compressor.graph.analysis.blocks import find_blocks
from compressor.graph.analysis.cost_terms import Accounts
from compressor.graph.analysis.effective import find_computed
from compressor.graph.analysis.kernels import label_kernels
from compressor.graph.analysis.reach import fix_unseen, scopes, tie_unreached
from compressor.graph.analysis.resolution import find_resolutions
from compressor.graph.analysis.roles import heads, shortcuts
from compressor.graph.analysis.runtime_operators import collect_operators
from compressor.graph.analysis.units import Analysis
from compressor.graph.graph import Graph, Span
from compressor.graph.inputs.batch import record_one
from compressor.graph.inputs.input_axes import BatchAxis, equal_axes, input_tensors, require_examples
from compressor.graph.inputs.retrace import retrace_of
from compressor.graph.labels.flow import Flow
from compressor.graph.labels.scalars import follow_comparisons, follow_scalars
from compressor.graph.recording.forward import GrewError, tensors_of
from compressor.graph.recording.further import reach
from compressor.graph.recording.values import ModuleCall, Node, Value
from compressor.graph.rules.apply import run_rules
from compressor.nn.modules import build_lazy, run_once, unwrapped
from compressor.process.sharing import Switch


def _stop_collecting() -> Callable[[], None]:
    """No garbage collection: a trace makes many objects and no garbage, and would be visited again and again."""
    enabled = gc.isenabled()
    gc.disable()
    return gc.enable if enabled else gc.disable


_UNCOLLECTED = Switch(_stop_collecting)


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
    squeeze: bool = False,
    batch_axis: BatchAxis = "auto",
) -> Graph:
    """Trace ``model`` and find what can be removed from it. The model is not changed and its weights are not copied.

    Args:
        model: any module; it stays on its device and in its mode.
        example_inputs: a tensor, or a tuple of positional arguments. Batches are cut to one example where examples do
            not see each other; see ``compressor.graph.inputs.batch``.
        example_kwargs: keyword arguments of the forward.
        include: shell-style patterns over module names; only channels written by matching modules may be removed.
        exclude: patterns of modules that stay exactly as they are.
        keep_outputs: patterns of modules whose outputs keep all their channels, whatever lies inside them.
        kernels: whether kernels may be cropped, too; see ``compressor.graph.analysis.kernels``.
        resolution: whether residual branches may compute on fewer samples; see
            ``compressor.graph.analysis.resolution``.
        squeeze: whether squeeze-and-excite may be taken out; see ``compressor.graph.analysis.squeezes``.
        batch_axis: the axis of the inputs along which examples lie: one for all tensors or one for each, with ``None``
            for those without; ``None`` if there is no batch; by default it is found.

    Raises:
        UnsupportedModelError: the forward raises, or there are no parameters.
        UsageError: inputs without a single number, a ``batch_axis`` that they do not have, or one along which the model
            cannot be cut.
    """
    model = unwrapped(model)
    args = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    require_examples(args, example_kwargs or {})
    build_lazy(model, args, example_kwargs or {})
    attempt = partial(
        _capture,
        model,
        args,
        example_kwargs or {},
        include,
        exclude,
        keep_outputs,
        kernels,
        resolution,
        squeeze,
        batch_axis,
    )
    with _UNCOLLECTED.on():
        try:
            return attempt()
        except GrewError:
            run_once(model, args, example_kwargs or {})
            return attempt()


def _capture(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    include: Sequence[str],
    exclude: Sequence[str],
    keep_outputs: Sequence[str],
    kernels: bool,
    resolution: bool,
    squeeze: bool,
    batch_axis: BatchAxis,
) -> Graph:
    started = time.perf_counter()
    tensors = tensors_of(model)
    if not any(not is_buffer for _, _, is_buffer in tensors.values()):
        raise UnsupportedModelError(
            f"{type(model).__name__} has no parameters, so there is nothing to compress; pass the network itself."
        )
    whole = args, kwargs
    seen, axes, (args, kwargs) = record_one(model, tensors, whole, batch_axis, keep_outputs)
    recorder, values, outputs = seen.recorder, seen.parameters, seen.outputs
    n_eval, calls = len(recorder.nodes), list(recorder.calls)
    further = reach(seen, model, axes or equal_axes(whole, 0), (args, kwargs), whole)
    flow = Flow(recorder.modules.by_name)
    described = {name: (values[name], names, is_buffer) for name, (_, names, is_buffer) in tensors.items()}
    flow.parameters = {name: value for value, names, _ in described.values() for name in names}
    _label_parameters(flow, described, kernels)
    made = len(flow.labels)
    run_rules(flow, recorder.nodes)
    follow_scalars(flow, recorder.nodes, recorder.escaped)
    follow_comparisons(flow, recorder.equal)
    reached = {value.index for node in recorder.nodes for value in node.inputs}
    tied = tie_unreached(flow, further, recorder.nodes[:n_eval], calls)
    for name, (value, _, _) in described.items():
        if value.index not in reached and name not in tied:
            flow.fix_value(value, "never used by the forward")
    for value in (*outputs, *further.outputs):
        flow.fix_value(value, "output of the network")
    fix_unseen(flow, recorder.nodes, described)
    analysis = Analysis(flow, described)
    analysis.restrict(tuple(include), tuple(exclude))
    analysis.fix_unenforceable()
    analysis.fix_unowned(made)
    parameters = analysis.parameters(reached)
    main = recorder.nodes[:n_eval]
    every = recorder.modules.by_every_name
    outputs = [*outputs, *seen.cached]  # which keep running what fills them, but no channel
    unsure = scopes(further, tied, calls)
    blocks = find_blocks(
        flow,
        main,
        outputs,
        calls,
        described,
        every,
        include=tuple(include),
        exclude=tuple(exclude),
        unsure=unsure,
        squeeze=squeeze,
    )
    if resolution:
        names = [block.name for block in blocks.blocks[: blocks.n_residual]]
        analysis.resolutions = find_resolutions(blocks.branches[: blocks.n_residual], names, main, calls)
    accounts = Accounts(analysis)
    products = accounts.products(blocks.gates_of)
    constants = {value.storage for value, _, _ in described.values()}
    beside = {block.index for block in blocks.blocks if block.beside}
    storages = accounts.storages(main, outputs, constants, blocks.gates_of, blocks.sums, blocks.aggregated, beside)
    operators = collect_operators(analysis, main, outputs, constants, blocks.runs_with)
    masks, sites = analysis.masks()
    attributes, orders = analysis.attributes(), analysis.orders()
    del products[sum(1 for p in flow.products if p.node.index < n_eval) :]
    resampling = accounts.resampling(blocks.gates_of)
    n_labelled = analysis.number_units(analysis.resolutions.units)
    groups = analysis.groups(n_labelled, parameters)
    blocks.assign(groups, analysis.units_of)
    n_units = analysis.resolutions.number(n_labelled, analysis.axes)
    groups += analysis.resolutions.groups(len(groups), blocks.blocks)
    graph = Graph(
        model_class=f"{type(model).__module__}.{type(model).__qualname__}",
        n_units=n_units,
        axes=analysis.axes,
        parameters=parameters,
        groups=groups,
        blocks=blocks.blocks,
        parallels=blocks.parallels,
        collapses=blocks.collapses,
        products=[*products, *resampling[0]],
        storages=[*storages, *resampling[1]],
        operators=operators,
        masks=masks,
        sites=[*sites, *blocks.sites],
        attributes=attributes,
        orders=orders,
        fixed=analysis.fixed(),
        input_shapes=[tuple(t.shape) for t in input_tensors(args, kwargs)],
        on_meta=seen.on_meta,
        gradients=seen.gradients,
        inputs=axes,
        seconds=0.0,
        whole_kernels=flow.whole_kernels,
        resolutions=[spatial.found for spatial in analysis.resolutions.spatial],
        whole_resolutions=analysis.resolutions.whole,
        computed=find_computed(analysis, main, {value.index for value in seen.inputs}, described),
        shortcuts=shortcuts(main),
        heads=heads(seen.outputs),
        spans=_spans(calls),
        ran=tuple(dict.fromkeys(call.module for call in calls)),
        written=_written(main, described),
        retrace=retrace_of(
            args, kwargs, axes, tuple(include), tuple(exclude), tuple(keep_outputs), kernels, resolution, squeeze
        ),
    )
    recorder.release()
    graph.seconds = time.perf_counter() - started
    return graph


def _written(nodes: Sequence[Node], described: dict[str, tuple[Value, tuple[str, ...], bool]]) -> tuple[str, ...]:
    """All names of parameters and buffers that the forward changes in place."""
    changed = {value.storage for node in nodes if node.mutates for value in (*node.inputs[:1], *node.outputs)}
    return tuple(name for value, names, _ in described.values() if value.storage in changed for name in names)


def _spans(calls: list[ModuleCall]) -> dict[str, Span]:
    """When the modules ran that ran once."""
    times = Counter(call.module for call in calls)
    return {
        call.module: Span(call.start, call.end, call.returned.shape if isinstance(call.returned, Value) else ())
        for call in calls
        if times[call.module] == 1
    }


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
