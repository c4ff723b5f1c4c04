"""Contract suites: whoever adds a method, a cost, an operator rule, a choice or a tracker subclasses one, for pytest.

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
from compressor.testing.tracker import TrackerContract

__all__ = ["ChoiceContract", "CostTermContract", "OperatorRuleContract", "SearchMethodContract", "TrackerContract"]
