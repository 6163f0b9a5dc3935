from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch

import fusionkit
from fusionkit.contract.lookup import all_subjects, subjects_of
from fusionkit.contract.rules import Violation
from fusionkit.contract.subject import FabricationSubject, FusionSubject, Subject
from fusionkit.errors import DimsError, FusionError
from tests.contract.mutants.right import Mix, Thin, Total


def only(obj: Any) -> Subject:
    (subject,) = subjects_of(obj)
    return subject


def dims_of(subject: Subject, origin: str) -> list[list[int]]:
    return [case.options["dims"] for case in subject.cases() if case.origin == origin]


def test_every_registered_name_is_a_subject_once() -> None:
    subjects = all_subjects()
    assert [(s.kind, s.key) for s in subjects] == [
        *(("fusion", name) for name in fusionkit.fusions()),
        *(("fabrication", name) for name in fusionkit.fabrications()),
    ]
    assert {subject.kind for subject in all_subjects("fabrication")} == {"fabrication"}


def test_cases_of_an_operator_that_needs_equal_widths() -> None:
    subject = only(Total)
    assert dims_of(subject, "example") == [[4, 4, 4]]
    assert dims_of(subject, "generated") == [[5], [11, 11], [1, 1, 1], [2] * 7]


def test_cases_of_an_operator_that_takes_any_widths() -> None:
    assert dims_of(only("concatenation"), "generated") == [[5], [11, 3], [1, 4, 1], [2, 3, 1, 2, 3, 2, 1]]


def test_operator_is_crossed_with_every_fabrication() -> None:
    cases = [case for case in only("parameterized_concatenation").cases() if case.origin == "crossed"]
    assert [case.options["parameter_fabrication"]["name"] for case in cases] == fusionkit.fabrications()
    assert {case.tier for case in cases} == {2}


class Pair(Total):
    """``A_1 + A_2`` of two views of equal, even width."""

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        yield {"dims": [2, 2]}

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        width = self.resolve_equal_dims(dims)
        if len(self.resolve_dims(dims)) != 2:
            raise DimsError("two views")
        if width % 2:
            raise FusionError("an even width")
        return width


def test_generated_cases_are_those_that_the_operator_admits() -> None:
    assert dims_of(only(Pair), "generated") == []


def test_cases_of_a_fabrication() -> None:
    subject = only("lowrank")
    cases = {str(case): case.origin for case in subject.cases()}
    assert cases["n=6, dims=[4, 3, 5]"] == "example"
    assert cases["r=2, n=6, dims=[4, 3, 5]"] == "example"
    for size in ("n=7, dims=[5, 2, 4]", "n=11, dims=[2, 3]", "n=1, dims=[4, 3]", "n=6, dims=[6]", "n=3, dims=[1]"):
        assert cases[size] == "generated"
    assert cases["n=13, dims=[11, 2, 19, 5, 16]"] == "generated"


class Large(Thin):
    """``W = u v^T`` of at least 10 rows."""

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        if n < 10:
            raise FusionError("n should be at least 10")
        return super().shapes(n, D)


class Impossible(Thin):
    """``W = u v^T`` of no size."""

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        raise FusionError("never")


def test_sizes_are_those_that_the_fabrication_admits() -> None:
    assert [str(case) for case in only(Large).cases()] == [
        "n=16, dims=[12, 20]",
        "n=11, dims=[2, 3]",
        "n=13, dims=[11, 2, 19, 5, 16]",
    ]
    assert "every keyword set of examples() should fit one of the sizes" in str(
        fusionkit.check(Impossible).bad[0].reason
    )


def test_instance_is_its_own_case() -> None:
    op = fusionkit.create("parameterized_concatenation", dims=[2, 3], n=4)
    (case,) = only(op).cases()
    assert (str(case), case.origin) == ("dims=[2, 3], n=4", "instance")
    copy = only(op).build()
    assert copy is not op
    assert torch.equal(copy.flat_w(), op.flat_w())
    other = only(op).build(require_parameters=False)
    assert not list(other.parameters())


def test_instance_of_a_fabrication() -> None:
    subject = only(fusionkit.create_fabrication("lowrank", r=1))
    assert isinstance(subject, FabricationSubject)
    assert {case.options["r"] for case in subject.cases()} == {1}
    assert subject.made().calculate_l(4, 5) == 9


def test_fabrication_is_built_in_its_host() -> None:
    subject = only(Thin)
    op = subject.build()
    assert type(op).__name__ == "ParameterizedConcatenation"
    assert [name for name, _ in subject.own(op)] == ["u", "v"]


def test_constructor_that_fails_is_a_violation() -> None:
    class Fails(Mix):
        def create(self) -> None:
            raise RuntimeError("no")

    with pytest.raises(Violation, match=r"the constructor should .*found RuntimeError: no"):
        only(Fails).build()


def test_traits_of_a_fabrication_are_those_of_the_operator_around_it() -> None:
    subject = only("zero")
    assert subject.promises(subject.build()).constant
    crossed = only("parameterized_concatenation")
    case = next(case for case in crossed.cases() if case.options.get("parameter_fabrication") == {"name": "zero"})
    assert crossed.at(case).promises(crossed.at(case).build()).constant


def test_views() -> None:
    subject = only(Total)
    assert isinstance(subject, FusionSubject)
    views = subject.views(2, 3, dtype=torch.float32, requires_grad=True)
    assert [tuple(view.shape) for view in views] == [(2, 3, 4)] * 3
    assert all(view.dtype == torch.float32 and view.requires_grad and view.is_leaf for view in views)


def test_traits_that_are_none() -> None:
    class Untidy(Total):
        traits = {"linear": True}  # type: ignore[assignment]

    with pytest.raises(Violation, match=r"traits should .*found \{'linear': True\}"):
        _ = only(Untidy).traits
