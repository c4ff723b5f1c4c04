"""Wrong keys, one after the other."""

from __future__ import annotations

import pytest

from compressor.service.access.throttle import Throttle
from compressor.service.errors import TooManyError


class Now:
    value = 0.0

    def __call__(self) -> float:
        return self.value


def test_an_address_waits_after_many_failures_and_others_do_not() -> None:
    now = Now()
    throttle = Throttle(most=3, seconds=10, now=now)
    throttle.accepted("a", b"good")
    for _ in range(3):
        throttle.admit("a", b"bad")
        throttle.failed("a")
    with pytest.raises(TooManyError) as caught:
        throttle.admit("a", b"other")
    assert caught.value.retry_after == 10
    throttle.admit("b", b"bad")
    throttle.admit("a", b"good")  # a colleague behind the same address
    now.value = 9.9
    with pytest.raises(TooManyError):
        throttle.admit("a", b"other")
    now.value = 10.1
    throttle.admit("a", b"other")
    throttle.failed("a")
    with pytest.raises(TooManyError):
        throttle.admit("a", b"other")


def test_it_forgets_rather_than_grow() -> None:
    throttle = Throttle(most=1, seconds=1e9, now=Now(), keep=5)
    for number in range(50):
        throttle.failed(str(number))
        throttle.accepted(str(number), b"k")
    assert len(throttle._failures) == len(throttle._good) == 5
    throttle.admit("0", b"x")
    with pytest.raises(TooManyError):
        throttle.admit("49", b"x")


def test_the_error_of_one_is_not_that_of_all() -> None:
    throttle = Throttle(most=0, seconds=7, now=Now())
    with pytest.raises(TooManyError):
        throttle.admit("a", b"x")
    assert TooManyError.retry_after == 30
