"""Which check has to catch which mutant, and which tests show what the other checks catch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T", bound=type)
F = TypeVar("F", bound=Callable[..., object])

#: check -> the mutants that it has to catch.
MUTANTS: dict[str, list[type]] = {}


def caught_by(check: str) -> Callable[[T], T]:
    def mark(cls: T) -> T:
        MUTANTS.setdefault(check, []).append(cls)
        return cls

    return mark


#: check -> the tests that show what it catches, where that is no class.
TESTED: dict[str, list[str]] = {}


def shows(check: str) -> Callable[[F], F]:
    def mark(test: F) -> F:
        TESTED.setdefault(check, []).append(getattr(test, "__name__", repr(test)))
        return test

    return mark
