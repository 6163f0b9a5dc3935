from __future__ import annotations

from collections.abc import Callable

import pytest

from fusionkit.bench.timing import interleaved, ratio, spread


def test_every_round_has_a_sample_of_each() -> None:
    calls: list[str] = []
    samples = interleaved(
        {name: lambda name=name: calls.append(name) for name in "ab"},  # type: ignore[misc]
        seconds=0.0,
        least=4,
    )
    assert {name: len(times) for name, times in samples.items()} == {"a": 4, "b": 4}
    assert set(calls) == {"a", "b"}
    assert all(time > 0 for times in samples.values() for time in times)


def test_every_sample_follows_an_untimed_call_of_the_same_in_orders_that_vary() -> None:
    calls: list[str] = []

    def recorded(name: str) -> Callable[[], None]:
        return lambda: calls.append(name)

    interleaved({name: recorded(name) for name in "abc"}, seconds=0.0, least=8, clock=iter(range(1000)).__next__)
    timed = calls[6:]  # Two calls of each come first, to see how long it takes.
    rounds = [timed[i : i + 6] for i in range(0, len(timed), 6)]
    assert len(rounds) == 8
    assert all(taken[::2] == taken[1::2] and sorted(taken[::2]) == ["a", "b", "c"] for taken in rounds)
    assert len({"".join(taken[::2]) for taken in rounds}) > 2


def test_ratio_is_that_of_the_lower_quartiles() -> None:
    samples = {"a": [9.0, 2.0, 1.0, 3.0, 1e6], "b": [4.0, 5.0, 1e6, 3.0, 1e6], "c": [7.0]}
    assert ratio(samples, "a", "b") == pytest.approx(2.0 / 4.0)
    assert ratio(samples, "c", "a") == pytest.approx(3.5)


def test_slow_contestants_take_part_in_the_first_rounds_only() -> None:
    now = 0.0

    def lasting(seconds: float) -> Callable[[], None]:
        def call() -> None:
            nonlocal now
            now += seconds

        return call

    calls = {"fast": lasting(0.02), "slow": lasting(2.0), "similar": lasting(0.1)}
    samples = interleaved(calls, seconds=3.0, least=4, clock=lambda: now)
    assert {name: len(times) for name, times in samples.items()} == {"fast": 13, "slow": 4, "similar": 13}
    assert samples["slow"] == pytest.approx([2.0] * 4)
    alike = interleaved({"a": lasting(1.0), "b": lasting(1.5)}, seconds=3.0, least=4, clock=lambda: now)
    assert {name: len(times) for name, times in alike.items()} == {"a": 4, "b": 4}


def test_spread_is_that_of_the_quartiles() -> None:
    assert spread([1e6, 1.0, 2.0, 3.0, 5.0]) == pytest.approx(5.0 / 2.0)
    assert spread([7.0]) == 1.0
