"""Walks over a model's modules, without the nested generators of ``nn.Module``, which would take a third of a trace."""

from __future__ import annotations

from torch import nn


def named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every module under every name it goes by, parents first: ``named_modules(remove_duplicate=False)``."""
    found: list[tuple[str, nn.Module]] = []

    def visit(name: str, module: nn.Module) -> None:
        found.append((name, module))
        prefix = f"{name}." if name else ""
        for key, child in module._modules.items():
            if child is not None:
                visit(prefix + key, child)

    visit("", model)
    return found


def every_module(*models: nn.Module) -> list[nn.Module]:
    """Every module once, parents first: ``modules()``."""
    found: dict[int, nn.Module] = {}
    pending = list(reversed(models))
    while pending:
        module = pending.pop()
        if id(module) not in found:
            found[id(module)] = module
            pending += [child for child in reversed(module._modules.values()) if child is not None]
    return list(found.values())


def first_names(modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Every module once, under the first of its names."""
    unique: dict[int, tuple[str, nn.Module]] = {}
    for name, module in modules.items():
        unique.setdefault(id(module), (name, module))
    return dict(unique.values()) if len(unique) < len(modules) else modules
