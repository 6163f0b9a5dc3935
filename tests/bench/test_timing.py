from __future__ import annotations

import pytest

from fusionkit.bench.timing import interleaved, ratio


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


def test_ratio_is_that_of_the_lower_quartiles() -> None:
    samples = {"a": [9.0, 2.0, 1.0, 3.0, 1e6], "b": [4.0, 5.0, 1e6, 3.0, 1e6], "c": [7.0]}
    assert ratio(samples, "a", "b") == pytest.approx(2.0 / 4.0)
    assert ratio(samples, "c", "a") == pytest.approx(3.5)
