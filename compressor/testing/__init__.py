"""Contract suites: whoever adds a search method, a cost, an operator rule or a choice subclasses one and runs pytest.

    from compressor.testing import SearchMethodContract

    class TestThrifty(SearchMethodContract):
        method = METHOD

Runtimes and formats have theirs in ``profilers.testing`` and ``exporters.testing``. The program's own are tested by the
same suites. ``docs/extending.md`` shows one of each.
"""

from compressor.testing.choice import ChoiceContract
from compressor.testing.cost_term import CostTermContract
from compressor.testing.operator_rule import OperatorRuleContract
from compressor.testing.search_method import SearchMethodContract

__all__ = ["ChoiceContract", "CostTermContract", "OperatorRuleContract", "SearchMethodContract"]
