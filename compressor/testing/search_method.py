"""What every search method must do."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar

import compressor
from compressor.architecture.architecture import Architecture
from compressor.errors import UnreachableBudgetError, UsageError
from compressor.search import METHODS
from compressor.search.options import Method
from compressor.testing.networks import NETWORKS, batches, images, network


class SearchMethodContract:
    """Subclass it and set ``method``; ``options`` make a search quick, ``budgets`` may be others, and ``networks``
    fewer where there is nothing for the method to decide on.

    The method must be registered: an entry point of the group ``compressor.search``, or ``METHODS.register``.
    """

    method: ClassVar[Method]
    options: ClassVar[Mapping[str, Any]] = {}
    budgets: ClassVar[Sequence[Mapping[str, str]]] = ({"flops": "60%"}, {"params": "50%", "flops": "80%"})
    networks: ClassVar[Sequence[str]] = tuple(NETWORKS)

    def search(self, name: str, budgets: Mapping[str, str | float], **more: Any) -> compressor.Result:
        """Compress one of ``compressor.testing.networks`` with the method."""
        if self.method.trains:
            training = compressor.Training(search_epochs=1, finetune_epochs=0, batch_size=16)
            more |= {"data": (batches(), batches(1)), "training": training}
        options = dict(self.options)
        return compressor.compress(network(name), images(), budgets, search=self.method.name, options=options, **more)

    def test_it_is_registered_and_loads(self) -> None:
        assert METHODS.get(self.method.name) is self.method
        module, _, attribute = self.method.implementation.partition(":")
        assert callable(getattr(importlib.import_module(module), attribute).run)
        if self.method.own_loop:
            assert callable(self.method().learner)

    def test_options_have_words_and_defaults_that_they_take(self) -> None:
        default = self.method.config()
        for each in self.method.config.described():
            assert each.takes, each.name
            assert each.doc.endswith("."), each.name
        values = {each.name: getattr(default, each.name) for each in fields(default) if each.init}
        assert self.method.read(values) == default
        assert default.decides, "a method decides on something"
        assert "no_such_option" in refusal(UsageError, lambda: self.method.read({"no_such_option": 1}))

    def test_every_budget_holds_in_a_network_that_is_what_was_decided(self) -> None:
        for name in self.networks:
            for budgets in self.budgets:
                result = self.search(name, budgets)
                assert all(budget.met for budget in result.report.budgets), (name, budgets)
                check = result.report.verification
                assert check is not None, name
                assert check.error <= check.tolerance, name
                again = Architecture.from_json(result.architecture.to_json()).apply_(network(name))
                shapes = {key: value.shape for key, value in again.state_dict().items()}
                assert shapes == {key: value.shape for key, value in result.model.state_dict().items()}, name

    def test_the_same_seed_decides_the_same(self) -> None:
        first, second = (self.search("residual", self.budgets[0]) for _ in range(2))
        assert first.architecture == second.architecture

    def test_what_is_to_stay_stays(self) -> None:
        result = self.search("plain", self.budgets[0], scope=compressor.Scope(keep={"3": "100%"}))
        weight = dict(result.model.named_parameters())["3.weight"]
        assert len(weight) == 24

    def test_a_budget_out_of_reach_is_refused_with_the_smallest(self) -> None:
        assert "smallest" in refusal(UnreachableBudgetError, lambda: self.search("plain", {"params": 1}))


def refusal(kind: type[Exception], attempt: Callable[[], object]) -> str:
    """What an attempt is refused with; an ``AssertionError`` if it is not."""
    try:
        attempt()
    except kind as error:
        return str(error)
    raise AssertionError(f"expected a {kind.__name__}")
