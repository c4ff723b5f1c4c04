"""Run a model's forward once and write down every operator call.

Three things watch the pass together. A dispatch mode sees every ATen operator with concrete shapes, whatever Python
the forward runs. A function mode sees the PyTorch function that each operator belongs to, with its arguments as the
program wrote them, so that sizes keep their origin (``dims``) and the masked model can act at the same places
(``masks/sites``). Module hooks tell in which module all this happens.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.graph.dims import Dim, FromAxis, Scalar, found_equal, tracing
from compressor.graph.direct import direct
from compressor.graph.labels import IntArray
from compressor.graph.shapes import quick_result
from compressor.walk import first_names, named_modules

Axes = list[IntArray | None]


def _storage_of(tensor: Tensor) -> int:
    """What tells whether two tensors share memory; a tensor that has none of its own (sparse, inside vmap) is alone."""
    try:
        return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else id(tensor)
    except NotImplementedError:
        return id(tensor)


class Value:
    """One tensor at one moment: in-place operators give a new value.

    ``axes`` holds, per axis, the labels or ``None`` for an axis that never changes size. ``param`` is the name of the
    parameter or buffer the value is, or is a part or a mere permutation of; ``param_axes`` then maps axes to the
    parameter's. Where the parameter is zero, the value is.
    """

    __slots__ = (
        "axes", "index", "is_mask", "itemsize", "param", "param_axes", "producer", "shape", "storage", "used",
    )  # fmt: skip

    def __init__(self, index: int, tensor: Tensor, producer: Node | None) -> None:
        self.index = index
        self.shape: tuple[int, ...] = tuple(tensor.shape)
        self.itemsize = tensor.element_size()
        self.is_mask = tensor.dtype is torch.bool
        self.storage: int = _storage_of(tensor)
        self.producer = producer
        self.axes: Axes = [None] * len(self.shape)
        self.param: str | None = None
        self.param_axes: tuple[int | None, ...] = ()
        self.used = False  # by a rule that has run: its labels may have been handed on

    def __repr__(self) -> str:
        return f"%{self.index}{list(self.shape)}"


# Functions whose sizes a program may spell out.
_TAKE_SIZES = {"view", "reshape", "unflatten", "resize", "expand", "broadcast_to", "repeat", "split", "narrow", "pad",
               "split_with_sizes", "tensor_split", "__getitem__", "__setitem__", "layer_norm", "rms_norm",
               "group_norm", "conv1d", "conv2d", "conv3d", "channel_shuffle", "pixel_shuffle"}  # fmt: skip
_NOT_THE_USERS = tuple(os.path.dirname(path) + os.sep for path in (torch.__file__, os.path.dirname(__file__)))


def _line() -> str:
    """The innermost line that is neither PyTorch's, einops' nor ours."""
    frame = sys._getframe(3)
    while frame.f_back is not None:
        path = frame.f_code.co_filename
        if not path.startswith(_NOT_THE_USERS) and "/einops/" not in path:
            return f"{os.path.basename(path)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


class Call:
    """A PyTorch function as the program called it; ``ordinal`` counts its calls inside one module and pass.

    ``line`` is where the program did, as "file:line", for functions that take sizes.
    """

    __slots__ = ("args", "func", "kwargs", "line", "name", "ordinal", "place", "values")

    def __init__(
        self,
        func: Callable[..., Any],
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: str,
        ordinal: int,
    ) -> None:
        self.func, self.name, self.args, self.kwargs, self.place, self.ordinal = (
            func,
            name,
            args,
            kwargs,
            place,
            ordinal,
        )
        self.values: list[tuple[int | str, Value]] = []
        self.line = _line() if name in _TAKE_SIZES else ""


class Node:
    """One operator call: ``args`` and ``kwargs`` as dispatched, with values in place of tensors."""

    __slots__ = ("args", "call", "index", "inputs", "kwargs", "mutates", "op", "outputs", "overload", "place", "scope")

    def __init__(self, index: int, op: str, overload: Any, place: str, call: Call | None, scope: int = -1) -> None:
        self.index, self.op, self.overload, self.place, self.call = index, op, overload, place, call
        self.scope = scope  # index of the innermost module call
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.mutates = False

    def argument(self, name: str) -> Any:
        """An argument by the name that the operator's schema gives it, its default where the call leaves it out."""
        for position, argument in enumerate(self.overload._schema.arguments):
            if argument.name == name:
                default = argument.default_value if argument.has_default_value() else None
                return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)
        raise KeyError(name)

    def __repr__(self) -> str:
        return f"{self.outputs} = {self.op}({self.inputs}) @ {self.place}"


Key = int | str


@dataclass(eq=False, slots=True)
class ModuleCall:
    """One run of a module's forward: nodes ``start`` up to (not including) ``end``.

    ``inputs`` are the arguments that are tensors, by position or keyword, and ``arity`` is the number of all arguments.
    ``returned`` is the tensor that it returns, or the items of the tuple: tensors, ``None``, the position or keyword of
    an argument that is handed on, or ``...`` for anything else. ``args``, ``kwargs`` and ``result`` are what it was
    given and returned itself, until the recording is released.
    """

    module: str
    parent: int
    start: int
    end: int
    inputs: dict[Key, Value]
    arity: int
    returned: Value | tuple[Any, ...] | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    result: Any = None

    @property
    def first(self) -> Value | None:
        """The first tensor among the arguments."""
        return next(iter(self.inputs.values()), None)

    def returns(self) -> list[Value]:
        """The tensors returned that were not among the arguments."""
        items = self.returned if isinstance(self.returned, tuple) else (self.returned,)
        return [item for item in items if isinstance(item, Value)]


def function_name(func: Callable[..., Any]) -> str:
    """A short name for a PyTorch function: ``conv2d``, ``layer_norm``, ``view``, ``__getitem__``."""
    name: str = getattr(func, "__name__", None) or str(func)
    return name.partition(".")[0]  # an exported program calls operators by overload, ``view.default``


class ModuleStack:
    """Knows which module is running."""

    def __init__(self, model: nn.Module) -> None:
        self.by_every_name: dict[str, nn.Module] = dict(named_modules(model))
        self.by_name: dict[str, nn.Module] = first_names(self.by_every_name)
        self.stack: list[str] = [""]
        self.counts: dict[tuple[str, str], int] = {}

    @property
    def place(self) -> str:
        return self.stack[-1]

    def ordinal(self, name: str) -> int:
        """How often the function ``name`` was called before in the running module."""
        key = (self.stack[-1], name)
        count = self.counts.get(key, 0)
        self.counts[key] = count + 1
        return count

    def entered(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A module starts to run."""

    def left(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """The module that entered last returns."""

    @contextmanager
    def watch(self) -> Iterator[ModuleStack]:
        """Inside, the stack follows the model.

        Each module sees, in its own dictionary, another ``_call_impl``. Global forward hooks would tell the same, but
        with any hook PyTorch takes a path through a module call that costs more than the operators we record.
        """
        placed: list[tuple[dict[str, Any], Any]] = []
        try:
            for name, module in self.by_name.items():
                space = vars(module)
                placed.append((space, space.get("_compiled_call_impl")))
                space["_call_impl"] = self._watched(name, module._call_impl)
                space["_compiled_call_impl"] = None  # a compiled forward would not be seen
            yield self
        finally:
            for space, compiled in placed:
                space.pop("_call_impl", None)
                space.pop("_compiled_call_impl", None)
                if compiled is not None:
                    space["_compiled_call_impl"] = compiled

    def _watched(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            output = None
            self.stack.append(name)
            self.entered(name, args, kwargs)
            try:
                output = run(*args, **kwargs)
            finally:
                self.left(args, kwargs, output)
                self.stack.pop()
            return output

        return call


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
          "cosine_similarity", "pairwise_distance", "rnn_tanh_cell", "rnn_relu_cell"}  # fmt: skip


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
