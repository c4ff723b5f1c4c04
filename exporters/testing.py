"""The contract suite of formats: subclass it and run pytest."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from exporters import registry
from exporters.base import Exporter
from exporters.errors import MissingPackageError


class FormatContract:
    """Set ``name``, under which the exporter is registered (the entry-point group ``compressor.exporters``)."""

    name: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}

    def test_it_keeps_what_a_format_promises(self) -> None:
        exporter = registry.get(self.name)
        assert isinstance(exporter, Exporter)
        assert exporter.name == self.name
        assert exporter.suffix.startswith(".")
        model, image = network(), torch.randn(1, 3, 8, 8)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{exporter.suffix}"
            found = exporter.is_available()
            if not found:
                assert found.reason, "it says what is missing"
                try:
                    exporter.export(model, image, path, **self.options)
                except MissingPackageError:
                    assert not list(Path(folder).iterdir())
                    return
                raise AssertionError("it wrote a file although it is not available")
            model.train()
            info = exporter.export(model, image, path, **self.options)
            assert model.training, "it leaves the model in its mode"
            assert info.path == path
            assert set(info.files) == set(Path(folder).iterdir()), "it leaves nothing else behind"
            assert info.bytes == sum(file.stat().st_size for file in info.files)
            assert info.checks or info.notes, "it was compared with PyTorch, or says why not"
            if info.rel_error is not None and info.tolerance is not None:
                assert info.rel_error <= info.tolerance
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def network() -> nn.Module:
    """Images (B, 3, 8, 8) to (B, 4)."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
