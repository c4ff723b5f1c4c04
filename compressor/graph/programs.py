"""Models that are programs already: graph modules of ``torch.fx`` and ``torch.export``, and what is none of ours.

A graph module has written into its code what the original computed from its attributes: the width of every view, the
heads, the groups. ``opened`` gives a copy, with the same tensors, that reads each such size from an integer attribute
of its own. The trace follows attributes, and the trim sets them anew. TorchScript and quantised modules keep their
weights where nothing can be taken out of them, and are refused by name.
"""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from compressor.errors import UnsupportedModelError, UsageError
from compressor.nn.modules import unwrapped

_PREFIX = "written_size_"

_Sizes = tuple[slice, tuple[str, ...]]


def _table() -> dict[str, _Sizes]:
    """Where sizes stand in the arguments of functions: positions, and names."""
    shapes: _Sizes = (slice(1, None), ("size", "shape", "sizes"))
    parts: _Sizes = (slice(1, 2), ("split_size_or_sections", "split_sizes", "split_size"))
    normal: _Sizes = (slice(1, 2), ("normalized_shape",))
    groups: _Sizes = (slice(6, 7), ("groups",))
    return {
        **dict.fromkeys(("view", "reshape", "_unsafe_view", "expand"), shapes),
        "unflatten": (slice(2, None), ("sizes", "unflattened_size")),
        **dict.fromkeys(("split", "split_with_sizes", "unsafe_split"), parts),
        **dict.fromkeys(("layer_norm", "rms_norm"), normal),
        "group_norm": (slice(1, 2), ("num_groups",)),
        **dict.fromkeys((f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)), groups),
    }


_SIZES = _table()


def opened(model: Any) -> nn.Module:
    """The network to work on: without wrappers, and where it has graph modules a copy of them that can be followed.

    Parameters and buffers are those of ``model`` itself.

    Raises:
        UsageError: no module at all.
        UnsupportedModelError: TorchScript, a quantised or a sharded module.
    """
    require_module(model)
    found = unwrapped(model.module() if isinstance(model, torch.export.ExportedProgram) else model)
    require_python(found)
    if not any(isinstance(module, fx.GraphModule) for module in found.modules()):
        return found
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*found.parameters(), *found.buffers())}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about attributes that are no modules and no tensors
        found = copy.deepcopy(found, memo)
        for module in found.modules():
            if isinstance(module, fx.GraphModule):
                for name in ("train", "eval"):  # that an exported module refuses
                    vars(module).pop(name, None)
                _free_sizes(module)
    return found


def require_module(model: Any) -> None:
    """Raise ``UsageError`` for what is neither a module nor an exported program."""
    if not isinstance(model, (nn.Module, torch.export.ExportedProgram)):
        raise UsageError(
            f"model must be a torch.nn.Module, not a {type(model).__name__}; pass the network itself"
            + (" (of a checkpoint: build the network, then load its state dict)." if isinstance(model, dict) else ".")
        )


def in_place(model: Any) -> nn.Module:
    """The network inside the user's own object, for a training loop that goes on calling that object.

    Raises:
        UnsupportedModelError: as ``opened``; or an exported program, which computes in evaluation mode for good.
    """
    found: nn.Module = unwrapped(model) if isinstance(model, nn.Module) else opened(model)
    require_python(found)
    exported = isinstance(model, torch.export.ExportedProgram) or any(
        isinstance(module, fx.GraphModule) and "eval" in vars(module) for module in found.modules()
    )
    if exported:
        raise UnsupportedModelError(
            "The model is a program of torch.export, which has one mode and cannot be trained by a loop; pass the "
            "module that was exported, or compress it in one call."
        )
    return found


def require_python(model: nn.Module) -> None:
    """Raise ``UnsupportedModelError`` for a model that has parts which cannot be changed from Python."""
    for name, module in model.named_modules():
        where = f"The module {name!r} of {type(model).__name__}" if name else "The model"
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedModelError(
                f"{where} is TorchScript (a {type(module).__name__}, scripted or traced): compiled code whose layers "
                "cannot be made smaller. Put the Python module that it was made from in its place, and load the "
                "weights into it with load_state_dict(scripted.state_dict()); script the result again."
            )
        kind = type(module).__module__
        if ".quantized" in kind and kind.startswith("torch.") and ".qat" not in kind:
            raise UnsupportedModelError(
                f"{where} is quantised ({kind}.{type(module).__name__}); compress the network in floating point first, "
                "then quantise the result."
            )
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and _is_foreign(tensor):
                raise UnsupportedModelError(
                    f"{where} keeps {key!r} as a {type(tensor).__name__} ({tensor.dtype}), not as a plain tensor: "
                    "quantised and sharded weights cannot be cut. Compress the network with plain weights first."
                )


def _is_foreign(tensor: Tensor) -> bool:
    data = tensor.data if isinstance(tensor, nn.Parameter) else tensor
    return data.is_quantized or is_traceable_wrapper_subclass(data)


def _free_sizes(module: fx.GraphModule) -> None:
    """Read every size that is written into the code from an attribute."""
    made: list[str] = []

    def attribute(value: int) -> str:
        made.append(f"{_PREFIX}{len(made)}")
        setattr(module, made[-1], value)
        return made[-1]

    def freed(value: Any, shared: dict[int, str]) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)([freed(item, shared) for item in value])
        if type(value) is not int or value < 2:
            return value
        return module.graph.get_attr(shared[value] if value in shared else attribute(value))

    divisors: dict[fx.Node, str] = {}
    for node in list(module.graph.nodes):
        name = _name(node)
        if name not in _SIZES:
            continue
        shared: dict[int, str] = {}
        for quotient in [n for n in node.all_input_nodes if n.target is operator.floordiv]:
            # ``view(b, 4, c // 4)`` was ``view(b, self.heads, c // self.heads)``: one number, twice.
            if quotient not in divisors and type(quotient.args[1]) is int:
                divisors[quotient] = attribute(quotient.args[1])
                with module.graph.inserting_before(quotient):
                    quotient.args = (quotient.args[0], module.graph.get_attr(divisors[quotient]))
            if quotient in divisors:
                shared[getattr(module, divisors[quotient])] = divisors[quotient]
        places, names = _SIZES[name]
        with module.graph.inserting_before(node):
            args = list(node.args)
            args[places] = [freed(value, shared) for value in args[places]]
            node.args = tuple(args)
            node.kwargs = {key: freed(value, shared) if key in names else value for key, value in node.kwargs.items()}
    if made:
        module.recompile()


def _name(node: fx.Node) -> str:
    """The function that a node calls, without overloads."""
    if node.op == "call_method":
        return str(node.target)
    if node.op != "call_function" or node.target is operator.getitem:
        return ""
    target: Callable[..., Any] | Any = node.target
    return str(getattr(target, "__name__", "")).partition(".")[0]
