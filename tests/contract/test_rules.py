from __future__ import annotations

import pytest
import torch

from fusionkit.contract.rules import Skip, Violation, describe, equal, expect, rule, rule_of, skip


def test_rule_is_read_from_the_docstring() -> None:
    @rule(tier=3, kinds=("fusion",), scope="first", needs=("cuda",))
    def check_something(subject: object) -> None:
        """The thing holds.

        Mend it
        like this.
        """

    found = rule_of(check_something)
    assert (found.name, found.tier, found.kinds, found.scope, found.needs) == (
        "something", 3, ("fusion",), "first", ("cuda",)
    )  # fmt: skip
    assert (found.summary, found.mend) == ("The thing holds.", "Mend it like this.")


def test_plain_function_is_a_check_of_tier_1() -> None:
    def check_plain(subject: object) -> None: ...

    found = rule_of(check_plain)
    assert (found.name, found.tier, found.kinds, found.scope) == ("plain", 1, ("fusion", "fabrication"), "all")
    assert found.summary == "plain"


def test_violation_is_one_sentence() -> None:
    with pytest.raises(Violation, match=r"^n should .*found 4$") as caught:
        expect(False, "n should be 3", 4)
    assert (caught.value.should, caught.value.found) == ("n should be 3", "4")
    expect(True, "n should be 3", 4)


def test_skip_passes_handlers_of_errors() -> None:
    def operator_with_a_handler() -> None:
        try:
            skip("why")
        except Exception:
            raise AssertionError from None

    with pytest.raises(Skip, match="why"):
        operator_with_a_handler()


@pytest.mark.parametrize(
    ("found", "wanted", "exact"),
    [
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")]), True),
        (torch.tensor([1.0 + 1e-6]), torch.tensor([1.0]), False),
        (torch.tensor([float("inf")]), torch.tensor([float("inf")]), False),
        (torch.tensor([1.0], dtype=torch.bfloat16), torch.tensor([1.01], dtype=torch.float64), False),
        (torch.empty(0), torch.empty(0), False),
    ],
)
def test_equal(found: torch.Tensor, wanted: torch.Tensor, exact: bool) -> None:
    equal("it", found, wanted, exact=exact)


@pytest.mark.parametrize(
    ("found", "wanted", "exact", "message"),
    [
        (torch.ones(2), torch.ones(3), False, r"it should have shape \(3,\); found \(2,\)"),
        (
            torch.tensor([1.0, 2.0]),
            torch.tensor([1.0, 2.5]),
            False,
            r"agree with the expected values, 2.5 at \[1\]; found 2 there; 1 of 2 entries differ, by up to 0.5",
        ),
        (torch.tensor([1.0 + 1e-6]), torch.tensor([1.0]), True, "it should be bitwise equal"),
        (torch.tensor([float("nan")]), torch.tensor([1.0]), False, "found nan there; 1 of 1 entries"),
        (torch.tensor([1.0]), torch.tensor([float("inf")]), False, "by up to inf"),
    ],
)
def test_unequal(found: torch.Tensor, wanted: torch.Tensor, exact: bool, message: str) -> None:
    with pytest.raises(Violation, match=message):
        equal("it", found, wanted, exact=exact)


class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("a\n  b"), "ValueError: a b"),
        (KeyError(), "KeyError"),
        (ValueError("x" * 400), f"ValueError: {'x' * 300}..."),
        (_Mute(), "_Mute"),
    ],
)
def test_describe(error: Exception, text: str) -> None:
    assert describe(error) == text
