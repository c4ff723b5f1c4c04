"""Run a model's forward once and write down every operator call.

Three things watch the pass together. A dispatch mode sees every ATen operator with concrete shapes, whatever Python
the forward runs. A function mode sees the PyTorch function that each operator belongs to, with its arguments as the
program wrote them, so that sizes keep their origin (``dims``) and the masked model can act at the same places
(``masks/sites``). Module hooks tell in which module all this happens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.graph.recording.dims import Dim, FromAxis, Scalar, found_equal, tracing
from compressor.graph.recording.fast_path import direct
from compressor.graph.recording.meta_shapes import quick_result
from compressor.graph.recording.module_stack import ModuleStack, function_name
from compressor.graph.recording.values import Call, Key, ModuleCall, Node, Value


class _CallStack(ModuleStack):
    """A module stack that writes down every module call of a recording."""

    def __init__(self, model: nn.Module, recorder: Recorder) -> None:
        super().__init__(model)
        self.recorder: Any = recorder
        self.open: list[int] = []

    def entered(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs: dict[Key, Value] = {}
        for given in (enumerate(args), kwargs.items()):
            inputs |= {key: self.recorder.value_outside(a) for key, a in given if isinstance(a, Tensor)}
        parent, start = self.open[-1] if self.open else -1, len(self.recorder.nodes)
        self.open.append(len(self.recorder.calls))
        self.recorder.calls.append(ModuleCall(name, parent, start, start, inputs, len(args) + len(kwargs)))

    def left(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        call = self.recorder.calls[self.open.pop()]
        call.end = len(self.recorder.nodes)
        call.args, call.kwargs, call.result = args, kwargs, output
        if isinstance(output, Tensor):
            call.returned = self.recorder.value_outside(output)
        elif type(output) is tuple and output:
            given: dict[int, Key] = {id(argument): key for key, argument in enumerate(args)}
            given |= {id(argument): key for key, argument in kwargs.items()}
            call.returned = tuple(self._item(call, item, given.get(id(item))) for item in output)

    def _item(self, call: ModuleCall, item: Any, key: Key | None) -> Any:
        if not isinstance(item, Tensor):
            return item if item is None else ... if key is None else key
        value = self.recorder.value_outside(item)
        return key if key is not None and call.inputs.get(key) is value else value  # else it was changed in place


_SHAPE_GETTER = Tensor.shape.__get__  # type: ignore[attr-defined]
_DATA_SETTER = Tensor.data.__set__  # type: ignore[attr-defined]
_operators: dict[Any, tuple[str, bool]] = {}
_QUIET = {"__get__", "__set__", "dim", "is_floating_point", "stride", "is_contiguous", "storage_offset"}
# One operator to us, whatever is inside.
_WHOLE = {"scaled_dot_product_attention", "lstm", "gru", "rnn_tanh", "rnn_relu", "rms_norm", "pad", "stft", "istft",
          "cosine_similarity", "pairwise_distance", "lstm_cell", "gru_cell", "rnn_tanh_cell",
          "rnn_relu_cell", "_pack_padded_sequence", "_pad_packed_sequence", "local_response_norm"}  # fmt: skip


def _described(overload: Any) -> tuple[str, bool]:
    """An operator's name without namespace and overload, and whether it changes an argument."""
    known = _operators.get(overload)
    if known is None:
        schema = overload._schema
        known = _operators[overload] = (schema.name.partition("::")[2], schema.is_mutable)
    return known


class _Functions(TorchFunctionMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        recorder = self.recorder
        if func == _SHAPE_GETTER or func is Tensor.size:
            return recorder.sized(args[0], func(*args, **kwargs), args[1:], kwargs)
        if func is Tensor.numel:
            return recorder.count(args[0])
        if func == _DATA_SETTER and args[0].shape == args[1].shape:
            func(*args)
            return recorder.add("copy_", torch.ops.aten.copy_.default, args, {}, args[0], mutates=True)
        name = function_name(func)
        if name in _QUIET:
            return func(*args, **kwargs)
        call = Call(func, name, args, kwargs, recorder.modules.place, recorder.modules.ordinal(name))
        call.values = [(i, recorder.value(a)) for i, a in enumerate(args) if isinstance(a, Tensor)]
        if kwargs:
            call.values += [(k, recorder.value(a)) for k, a in kwargs.items() if isinstance(a, Tensor)]
        outer, recorder.call = recorder.call, call
        try:
            known = direct(func, args, kwargs)
            if known is not None:
                (op, overload, arranged, mutates), output = known
                recorder.add(op, overload, arranged, {}, output, mutates=mutates)
                return output[0] if type(output) is tuple else output  # of batch normalisation no statistics
            if name not in _WHOLE:
                return func(*args, **kwargs)
            recorder.paused = True
            try:
                output = func(*args, **kwargs)
            finally:
                recorder.paused = False
            recorder.add(name, None, args, kwargs, output)
            return output
        finally:
            recorder.call = outer


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the guard against it would run at every operator

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name, mutates = _described(func)
        output = quick_result(name, args, kwargs)
        if output is None:
            output = func(*args, **kwargs)
        if not self.recorder.paused:
            self.recorder.add(name, func, args, kwargs, output, mutates=mutates)
        return output


class Recorder:
    """Collects nodes and values. ``tensors`` keeps every tensor seen alive, so that identities stay unique."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = _CallStack(model, self)
        self.nodes: list[Node] = []
        self.calls: list[ModuleCall] = []
        self.values: list[Value] = []
        self.call: Call | None = None
        self.paused = False
        self.shadows: dict[str, Tensor] = {}
        self.escaped: list[Dim | Scalar] = []  # sizes the program turned into plain numbers
        self.equal: list[tuple[Dim, int]] = []  # sizes the program compared and found equal
        self._tensors: dict[int, tuple[Tensor, Value]] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        self.modules.counts.clear()
        with self.modules.watch(), tracing() as escaped, _Operators(self), _Functions(self):
            yield
            self.escaped += escaped
            self.equal += found_equal()

    def value(self, tensor: Tensor) -> Value:
        """The value a tensor is now; a tensor never seen before (a constant) becomes a new one."""
        known = self._tensors.get(id(tensor))
        return known[1] if known is not None else self.define(tensor, None)

    def value_outside(self, tensor: Tensor) -> Value:
        """``value`` for use outside of the modes' own handlers, where looking at a tensor would be recorded too."""
        known = self._tensors.get(id(tensor))
        if known is not None:
            return known[1]
        with torch._C.DisableTorchFunction():
            return self.define(tensor, None)

    def define(self, tensor: Tensor, producer: Node | None) -> Value:
        value = Value(len(self.values), tensor, producer)
        self.values.append(value)
        self._tensors[id(tensor)] = (tensor, value)
        return value

    def sized(self, tensor: Tensor, size: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A shape, or one size, whose integers remember the axis they came from."""
        value = self.value(tensor)
        if isinstance(size, int):
            axis = args[0] if args else kwargs["dim"]
            return Dim(size, FromAxis(value, axis % len(value.shape)))
        return torch.Size([Dim(n, FromAxis(value, axis)) for axis, n in enumerate(size)])

    def release(self) -> None:
        """Undo references in circles, so that all goes when the trace ends rather than in some garbage collection."""
        for value in self.values:
            value.producer = None
        for call in self.calls:
            call.args, call.kwargs, call.result = (), {}, None
        self.modules.recorder = None

    def count(self, tensor: Tensor) -> int:
        """The number of elements: the product of the sizes of all axes."""
        value = self.value(tensor)
        sizes = [Dim(n, FromAxis(value, axis)) for axis, n in enumerate(value.shape) if n != 1]
        return math.prod(sizes[1:], start=sizes[0]) if sizes else 1

    def add(
        self,
        op: str,
        overload: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,
        *,
        mutates: bool = False,
    ) -> None:
        scope = self.modules.open[-1] if self.modules.open else -1
        node = Node(len(self.nodes), op, overload, self.modules.place, self.call, scope)
        self.nodes.append(node)
        node.args = tuple(self._resolve(arg, node.inputs) for arg in args)
        if kwargs:
            node.kwargs = {k: self._resolve(v, node.inputs) for k, v in kwargs.items()}
        node.mutates = mutates
        for tensor in output if isinstance(output, (tuple, list)) else (output,):
            if isinstance(tensor, Tensor):
                known = self._tensors.get(id(tensor))
                node.outputs.append(known[1] if known and not mutates else self.define(tensor, node))

    def _resolve(self, arg: Any, inputs: list[Value]) -> Any:
        if isinstance(arg, Tensor):
            value = self.value(arg)
            inputs.append(value)
            return value
        if type(arg) is list or type(arg) is tuple:
            if arg and type(arg[0]) is int:  # sizes, the most common lists by far
                return list(arg)
            return [self._resolve(a, inputs) for a in arg]
        return arg
