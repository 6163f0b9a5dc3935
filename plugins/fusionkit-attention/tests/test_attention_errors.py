"""What is refused: one sentence, with the value and what would be right."""

from __future__ import annotations

from typing import Any

import fusionkit
import pytest
import torch


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "gated",
            {"gate": "softmx"},
            "gate should be one of sigmoid, softmax; found 'softmx'. Did you mean 'softmax'?",
        ),
        ("gated", {"gate": None}, "gate should be one of sigmoid, softmax; found None."),
        ("gated", {"tied": "yes"}, "tied should be True or False; found 'yes'."),
        (
            "gated",
            {"tied": True, "gate": "softmax"},
            "tied should be False for gate='softmax', whose gates add up to 1; found True.",
        ),
        (
            "attention_pool",
            {"scores": "feature_wise"},
            "scores should be one of plain, gated, joint, feature; found 'feature_wise'.",
        ),
        ("attention_pool", {"hidden": 0}, "hidden, the height of V, should be an integer of at least 1; found 0."),
        ("attention_pool", {"tau": 0}, "tau, the temperature, should be above 0; found 0."),
        ("attention_pool", {"tau": "1"}, "tau, the temperature, should be a finite number; found '1'."),
        ("film", {"main": 2}, "main should be the index of a view from 0 to 1; found 2."),
        ("film", {"main": -1}, "main should be the index of a view from 0 to 1; found -1."),
        ("film", {"main": True}, "main should be the index of a view from 0 to 1; found True."),
        ("adaptation_gate", {"main": 1.0}, "main should be the index of a view from 0 to 1; found 1.0."),
        ("adaptation_gate", {"beta": -0.5}, "beta should be above 0; found -0.5."),
        ("adaptation_gate", {"beta": float("inf")}, "beta should be a finite number; found inf."),
        ("squeeze_excite", {"hidden": 2.5}, "hidden, the height of W, should be an integer of at least 1; found 2.5."),
        (
            "residual_gate",
            {"hidden": -1},
            "hidden, the height of V and Q, should be an integer of at least 1; found -1.",
        ),
        ("adaptation_gate", {"n": 5}, "n, the width of the output, should be 4 for adaptation_gate with dims [4, 5]"),
        ("squeeze_excite", {"n": 5}, "n, the width of the output, should be 9 for squeeze_excite with dims [4, 5]"),
    ],
)
def test_options(name: str, options: dict[str, Any], message: str) -> None:
    width: dict[str, Any] = {} if name in ("adaptation_gate", "squeeze_excite") else {"n": 3}
    with pytest.raises(fusionkit.FusionError) as caught:
        fusionkit.create(name, dims=[4, 5], **{**width, **options})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("dims", [[4], [4, 3, 2]], ids=str)
def test_tied_gates_need_two_views(dims: list[int]) -> None:
    with pytest.raises(fusionkit.DimsError) as caught:
        fusionkit.create("gated", dims=dims, n=3, tied=True)
    found = f"found True with {len(dims)}."
    assert str(caught.value) == f"tied should be False unless there are two views; {found}"


def test_main_without_dims() -> None:
    op = fusionkit.create("adaptation_gate", main=2)
    assert op.calculate_n([3, 4, 5]) == 5
    with pytest.raises(fusionkit.FusionError, match=r"^main should be the index of a view from 0 to 1; found 2\.$"):
        op.calculate_n([3, 4])
    with pytest.raises(fusionkit.FusionError, match=r"^main should be the index of a view; found -1\.$"):
        fusionkit.create("film", main=-1)


@pytest.mark.parametrize("views", [[], [0, 0], [3], [-1], 1.5], ids=str)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gated", {"n": 2}),
        ("attention_pool", {"n": 2, "scores": "joint"}),
        ("film", {"n": 2}),
        ("adaptation_gate", {}),
        ("squeeze_excite", {}),
        ("residual_gate", {"n": 2}),
    ],
    ids=str,
)
def test_restriction_to_wrong_views(name: str, options: dict[str, Any], views: Any) -> None:
    op = fusionkit.create(name, dims=[2, 2, 2], **options)
    with pytest.raises(fusionkit.FusionError, match=r"^views should be different indices from 0 to 2, at least one;"):
        op.restrict(views)


def test_columns_need_parameters() -> None:
    op = fusionkit.create("film", dims=[2, 2, 2], require_parameters=False)
    with pytest.raises(fusionkit.FusionError, match="film should own its parameters"):
        op.restrict([0, 1])


def test_the_missing_main_view_is_no_error() -> None:
    torch.manual_seed(0)
    op = fusionkit.create("film", dims=[2, 3], n=4)
    assert op([None, torch.randn(5, 3)]).shape == (5, 4)
