"""The cases on which an operator or a fabrication is checked: those of ``examples()``, and generated ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from fusionkit import registry
from fusionkit.contract.rules import describe, expect, no_error, outcome

if TYPE_CHECKING:
    from fusionkit.contract.subject import FabricationSubject, FusionSubject, Subject

#: An endless generator of examples would fill the memory.
MAX_EXAMPLES = 1000
EXAMPLES = "examples() should yield at least one set of keywords for the constructor"

#: Kind of generated case -> candidate widths; the first that the operator accepts are used.
GENERATED: dict[str, tuple[tuple[int, ...], ...]] = {
    "one view": ((5,), (4,)),
    "primes": ((11, 3), (11, 11), (7, 3, 5), (5, 5, 5), (5,)),
    "width 1": ((1, 4, 1), (1, 4), (1, 1, 1), (1, 1), (1,)),
    "many views": ((2, 3, 1, 2, 3, 2, 1), (2, 2, 2, 2, 2, 2, 2)),
}
GENERATED_N = 3
#: Candidate widths for an operator with every fabrication.
CROSSED: tuple[tuple[int, ...], ...] = ((4, 8), (6, 6), (4, 4, 4), (6,))
CROSSED_N = 6

#: Sizes (n, dims) of a fabrication: all that fit are used for its first example, the first that fits for the others.
SIZES: tuple[tuple[int, tuple[int, ...]], ...] = ((6, (4, 3, 5)), (16, (12, 20)), (64, (76, 216)))
ODD_SIZES: tuple[tuple[int, tuple[int, ...]], ...] = (
    (7, (5, 2, 4)),
    (11, (2, 3)),
    (1, (4, 3)),
    (6, (6,)),
    (3, (1,)),
    (13, (11, 2, 19, 5, 16)),
)


@dataclass(frozen=True)
class Case:
    """The arguments with which a subject is built.

    Attributes:
        options: keywords of the constructor.
        n: width of the output of the host, for a fabrication.
        dims: widths of the views of the host, for a fabrication.
        origin: from ``examples()``, generated, crossed with a fabrication, or the instance itself.
        tier: the lowest tier that includes the case.
        problem: if ``examples()`` fails, what should be and what was found.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    n: int | None = None
    dims: tuple[int, ...] | None = None
    origin: Literal["example", "generated", "crossed", "instance"] = "example"
    tier: int = 1
    problem: tuple[str, str] | None = None

    def __str__(self) -> str:
        if self.problem is not None:
            return "examples()"
        options = {key: list(value) if isinstance(value, tuple) else value for key, value in self.options.items()}
        if self.n is not None and self.dims is not None:
            options.update(n=self.n, dims=list(self.dims))
        return ", ".join(f"{key}={value!r}" for key, value in options.items()) or "no options"


def fusion_cases(subject: FusionSubject) -> list[Case]:
    """Return the examples and the generated cases that the operator accepts; some have each registered fabrication."""
    cases = [Case(options) for options in _examples(subject)]
    base = {key: value for key, value in cases[0].options.items() if key not in ("n", "dims")}
    for candidates in GENERATED.values():
        cases += _accepted(subject, base, candidates, GENERATED_N, "generated")
    if subject.accepts("parameter_fabrication"):
        for key in importable_fabrications():
            crossed = {**base, "parameter_fabrication": {"name": key}}
            cases += _accepted(subject, crossed, CROSSED, CROSSED_N, "crossed")
    return _unique(cases)


def fabrication_cases(subject: FabricationSubject, instance_options: Mapping[str, Any] | None = None) -> list[Case]:
    """Return the first example with every size that fits, and the others with the first of these.

    Args:
        subject: the fabrication.
        instance_options: options of the instance that is checked, used instead of the examples.
    """
    examples = _examples(subject) if instance_options is None else [dict(instance_options)]
    should = f"every keyword set of examples() should fit one of the sizes (n, dims) {list(SIZES)}"
    cases: list[Case] = []
    for i, options in enumerate(examples):
        fitting, problem = _fitting(subject, options, SIZES)
        if not fitting:
            cases.append(Case(options, problem=(should, f"{options}: {problem}")))
        cases += fitting[:1]
        if i == 0:
            cases += [replace(case, origin="generated") for case in _fitting(subject, options, ODD_SIZES)[0]]
    return _unique(cases)


def importable_fabrications() -> list[str]:
    """Return the registered fabrications that can be imported; the checks of the others report that they cannot."""
    keys = registry.names("fabrication")
    return [key for key in keys if outcome(partial(registry.load, "fabrication", key))[1] is None]


def _examples(subject: Subject) -> list[dict[str, Any]]:
    cls: Any = subject.cls
    with no_error(EXAMPLES):
        found = list(islice(cls.examples(), MAX_EXAMPLES + 1))
    expect(len(found) <= MAX_EXAMPLES, f"{EXAMPLES}, and at most {MAX_EXAMPLES}", "more")
    expect(found and all(isinstance(options, Mapping) for options in found), EXAMPLES, repr(found)[:200])
    return [dict(options) for options in found]


def _accepted(
    subject: FusionSubject,
    base: Mapping[str, Any],
    candidates: Iterable[tuple[int, ...]],
    n: int,
    origin: Literal["generated", "crossed"],
) -> Iterator[Case]:
    """Yield the first candidate that is not refused with a ValueError; the checks report other errors."""
    free_n = subject.traits.free_n
    for dims in candidates:
        options = {"dims": list(dims), **({"n": n} if free_n else {}), **base}
        case = Case(options, origin=origin, tier=2 if origin == "crossed" else 1)
        if not isinstance(outcome(subject.at(case).construct)[1], ValueError):
            yield case
            return


def _fitting(
    subject: FabricationSubject, options: Mapping[str, Any], sizes: Iterable[tuple[int, tuple[int, ...]]]
) -> tuple[list[Case], str]:
    """Return the cases at sizes that are not refused with a ValueError, and why one is; checks report other errors."""
    cases, problem = [], ""
    for n, dims in sizes:
        case = Case(options, n=n, dims=dims)
        _, error = outcome(subject.at(case).check_size)
        if isinstance(error, ValueError):
            problem = describe(error)
        else:
            cases.append(case)
    return cases, problem


def _unique(cases: Iterable[Case]) -> list[Case]:
    """Return the first of all cases with the same text."""
    unique: dict[str, Case] = {}
    for case in cases:
        unique.setdefault(str(case), case)
    return list(unique.values())
