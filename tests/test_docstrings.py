"""Examples in docstrings of the public API run as they stand."""

from __future__ import annotations

import doctest
import importlib

import pytest

WITH_EXAMPLES = (
    "compressor.api",
    "compressor.architecture.architecture",
    "compressor.budget",
    "compressor.pipeline.arguments",
    "compressor.search.front",
    "compressor.graph.patterns",
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
