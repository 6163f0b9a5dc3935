"""Interleaved timing: contestants take turns, so that other work on the machine slows all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from random import Random
from statistics import quantiles
from time import perf_counter

#: One sample repeats a quick function until it takes this long, in seconds.
SAMPLE = 1e-3
#: A contestant is slow if it takes this many times as long as the first one, and more than this part of all the time.
SLOW = 8


def interleaved(
    contestants: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 1.0,
    least: int = 5,
    most: int = 200,
    synchronize: Callable[[], object] | None = None,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds per call of each contestant, one sample per round, in a new order every round.

    Before each sample the contestant is called once untimed, to fill the caches with its own data.

    Contestants that are much slower than the first one take part in the first rounds only, so that there are enough
    samples of the others.

    Args:
        contestants: the functions to time, by name.
        seconds: about how long all but the slow ones may take.
        least: the least number of rounds.
        most: the greatest.
        synchronize: waits for the device; called at both ends of every sample.
        clock: the time in seconds.
    """
    wait = synchronize or (lambda: None)
    once = {}
    for name, call in contestants.items():
        call()
        once[name] = max(_sample(call, 1, wait, clock), 1e-9)
    slow = {name for name, time in once.items() if time > max(seconds / SLOW, SLOW * next(iter(once.values())))}
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    order, shuffle = list(contestants.items()), Random(0).shuffle
    start = clock()
    for count in range(most):
        if count == least:
            start += sum(sum(samples[name]) for name in slow)
            order = [(name, call) for name, call in order if name not in slow]
        if count >= least and clock() - start > seconds:
            break
        shuffle(order)
        for name, call in order:
            if name not in slow:
                call()
            samples[name].append(_sample(call, ceil(SAMPLE / once[name]), wait, clock))
    return samples


def ratio(samples: Mapping[str, Sequence[float]], name: str, other: str) -> float:
    """Return the lower quartile of the times of ``name`` over that of ``other``.

    Other work on the machine only adds time, on a busy one to more than half of the samples.
    """
    return lower_quartile(samples[name]) / lower_quartile(samples[other])


def lower_quartile(times: Sequence[float]) -> float:
    """Return the time below which a quarter of the samples lie."""
    return _quartiles(times)[0]


def spread(times: Sequence[float]) -> float:
    """Return the upper quartile over the lower one, 1 if all times are equal."""
    lower, _, upper = _quartiles(times)
    return upper / lower


def _quartiles(times: Sequence[float]) -> list[float]:
    return quantiles(times, n=4, method="inclusive") if len(times) > 1 else [times[0]] * 3


def _sample(call: Callable[[], object], repeats: int, wait: Callable[[], object], clock: Callable[[], float]) -> float:
    wait()
    start = clock()
    for _ in range(repeats):
        call()
    wait()
    return (clock() - start) / repeats
