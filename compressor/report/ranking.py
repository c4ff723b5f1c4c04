"""Networks that a search ranked, and how well a ranking agrees with accuracies that are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compressor.errors import UsageError
from compressor.report.structure import Count


@dataclass(frozen=True)
class Ranked:
    """One network of a ranking.

    Attributes:
        name: of the configuration, such as ``"[4, 3, 3]"``.
        score: what ``metric`` says on the held-out split; None if it was ranked by its ``average`` alone.
        average: the moving average of what it scored during the search, in [0, 1].
        weight_set: the weights it was judged with, from 0.
        costs: by name, in the units of the report's costs; latency in ms.
        chosen: whether it is what was taken.
    """

    name: str
    average: float
    score: float | None = None
    metric: str = ""
    weight_set: Count = 0
    costs: dict[str, float] = field(default_factory=dict)
    chosen: bool = False


def front(ranking: Sequence[Ranked], cost: str) -> list[Ranked]:
    """Those that no other one of a ranking beats in both score and ``cost``, by cost; the ranking is best first."""
    found: list[Ranked] = []
    least = math.inf
    for each in ranking:
        if each.score is not None and each.costs.get(cost, math.inf) < least:
            least = each.costs[cost]
            found.append(each)
    return sorted(found, key=lambda each: each.costs[cost])


def agreement(ranking: Sequence[Ranked], known: Mapping[str, float]) -> float:
    """Kendall's tau (b) between a ranking and accuracies that are known of its configurations, by name.

    Raises:
        UsageError: the names are not those of the ranking, there are fewer than two, or all accuracies are the same.
    """
    from scipy.stats import kendalltau

    names = [each.name for each in ranking]
    spaced = {_plain(name): value for name, value in known.items()}
    strange = sorted(set(spaced) - {_plain(name) for name in names})
    missing = [name for name in names if _plain(name) not in spaced]
    if strange or missing:
        what = f"there is no {strange[0]} among them" if strange else f"{missing[0]} is missing"
        raise UsageError(
            f"The accuracies given are of {len(known)} configurations and the ranking has {len(names)}, such as "
            f"{names[0]}; {what}. Give one number for each configuration of the ranking."
        )
    if len(names) < 2:
        raise UsageError("A ranking of one configuration agrees with everything; two at least are needed.")
    if len(set(spaced.values())) < 2:
        raise UsageError("All accuracies given are the same, so no ranking agrees with them more than another.")
    places = [-float(place) for place in range(len(names))]
    return float(kendalltau(places, [spaced[_plain(name)] for name in names]).statistic)


def _plain(name: str) -> str:
    return name.replace(" ", "")
