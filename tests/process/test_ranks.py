"""Alone, nothing is exchanged; and what goes through which group."""

from __future__ import annotations

import pytest
import torch

from compressor.errors import CompressorError, ProcessLostError, UsageError
from compressor.process.ranks import ALONE, Ranks, _reached, current, working
from compressor.process.together import launched, together


def test_alone_nothing_is_exchanged() -> None:
    assert current() is ALONE
    ones = [torch.ones(3), torch.ones(2, dtype=torch.float64)]
    with launched(torch.device("cpu")), together(device=torch.device("cpu")) as ranks:
        assert (ranks.size, ranks.rank, ranks.is_first) == (1, 0, True)
        ranks.sum_(ones)
        ranks.copy_(ones)
        assert all(bool((tensor == 1).all()) for tensor in ones)
        assert ranks.gather("mine") == ["mine"]
        assert ranks.share("mine") == "mine"
        assert ranks.any_of([True, False]) == [True, False]
        assert ranks.all_of(ones[0]).shape == (1, 3)
        assert ranks.first(lambda: "done") == "done"
        ranks.require_same("weights", "bits")
        assert ranks.agree({"seed": 3}, ["seed"]) == {"seed": 3}
    with pytest.raises(UsageError, match="as it is"):
        ALONE.first(lambda: (_ for _ in ()).throw(UsageError("as it is")))


def test_who_works_together_is_a_matter_of_the_thread() -> None:
    others = Ranks()
    with working(others):
        assert current() is others
        with working(ALONE):
            assert current() is ALONE
        assert current() is others
    assert current() is ALONE


def test_tensors_of_the_cpu_go_where_words_go() -> None:
    ranks = Ranks("tensors", "words")
    assert ranks._group_of(torch.device("cpu")) == "words"
    assert ranks._group_of(torch.device("cuda:1")) == "tensors"


@pytest.mark.parametrize(
    "said",
    [
        "[/home/pair.cc:545] Read error [127.0.0.1]:1: Connection reset. This is typical. Look there.",
        "Connection reset",
        "several lines\n[../pair.cc:561] Connection reset",
    ],
)
def test_a_lost_process_is_told_in_a_sentence(said: str) -> None:
    with pytest.raises(ProcessLostError, match=r"cannot be reached \((Read error \S+ )?Connection reset\)"), _reached():
        raise RuntimeError(said)
    assert issubclass(ProcessLostError, CompressorError)
