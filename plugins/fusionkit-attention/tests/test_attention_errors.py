"""What is refused: one sentence, with the value and what would be right."""

from __future__ import annotations

from typing import Any

import fusionkit
import pytest
import torch

from fusionkit_attention.bench import FIXED_N
from fusionkit_attention.plugin import OPERATORS

#: Refused with and without dims.
OPTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("gated", {"gate": "softmx"}, "gate should be one of sigmoid, softmax; found 'softmx'. Did you mean 'softmax'?"),
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
        "scores should be one of plain, gated, joint, feature; found 'feature_wise'. Did you mean 'feature'?",
    ),
    ("attention_pool", {"hidden": 0}, "hidden, the height of V, should be an integer of at least 1; found 0."),
    ("attention_pool", {"tau": 0}, "tau, the temperature, should be above 0; found 0."),
    ("attention_pool", {"tau": "1"}, "tau, the temperature, should be a finite number; found '1'."),
    ("adaptation_gate", {"beta": -0.5}, "beta should be above 0; found -0.5."),
    ("adaptation_gate", {"beta": float("inf")}, "beta should be a finite number; found inf."),
    ("squeeze_excite", {"hidden": 2.5}, "hidden, the height of W, should be an integer of at least 1; found 2.5."),
    ("residual_gate", {"hidden": -1}, "hidden, the height of V and Q, should be an integer of at least 1; found -1."),
    ("mixture_of_experts", {"experts": 1}, "experts, if not 'views', should be an integer of at least 2; found 1."),
    ("mixture_of_experts", {"experts": 2.5}, "experts, if not 'views', should be an integer of at least 2; found 2.5."),
    (
        "mixture_of_experts",
        {"experts": "rows"},
        "experts should be an integer of at least 2, or 'views'; found 'rows'.",
    ),
    ("mixture_of_experts", {"top_k": 5}, "top_k should be from 2 to the number of experts, 4; found 5."),
    ("mixture_of_experts", {"top_k": 1}, "top_k, the experts of a row, should be an integer of at least 2; found 1."),
    ("mixture_of_experts", {"balance": -0.1}, "balance, the factor of the loss, should be at least 0; found -0.1."),
    ("mixture_of_experts", {"balance": "1"}, "balance, the factor of the loss, should be a finite number; found '1'."),
    ("transformer", {"width": 6}, "width should be a multiple of heads = 4; found 6."),
    ("transformer", {"heads": 0}, "heads, the number of attention heads, should be an integer of at least 1; found 0."),
    ("transformer", {"depth": 0}, "depth, the number of layers, should be an integer of at least 1; found 0."),
    (
        "transformer",
        {"ff_width": 0},
        "ff_width, the inner width of the feed-forward networks, should be an integer of at least 1; found 0.",
    ),
    ("transformer", {"pool": "max"}, "pool should be one of cls, mean, concat; found 'max'."),
    ("perceiver", {"width": 8, "heads": 3}, "width should be a multiple of heads = 3; found 8."),
    ("perceiver", {"depth": -1}, "depth, the number of layers, should be an integer of at least 0; found -1."),
    (
        "perceiver",
        {"latents": 0},
        "latents, the number of learned latents, should be an integer of at least 1; found 0.",
    ),
    ("perceiver", {"pool": "cls"}, "pool should be one of mean, flatten; found 'cls'."),
]


@pytest.mark.parametrize("dims", [None, [4, 5]], ids=str)
@pytest.mark.parametrize(("name", "options", "message"), OPTIONS)
def test_options(name: str, options: dict[str, Any], message: str, dims: list[int] | None) -> None:
    width: dict[str, Any] = {} if name in FIXED_N else {"n": 3}
    with pytest.raises(fusionkit.FusionError) as caught:
        fusionkit.create(name, dims=dims, **width, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("film", {"main": 2, "n": 3}, "main should be the index of a view from 0 to 1; found 2."),
        ("film", {"main": -1, "n": 3}, "main should be the index of a view from 0 to 1; found -1."),
        ("film", {"main": True, "n": 3}, "main should be the index of a view from 0 to 1; found True."),
        ("adaptation_gate", {"main": 1.0}, "main should be the index of a view from 0 to 1; found 1.0."),
        ("adaptation_gate", {"n": 5}, "n, the width of the output, should be 4 for adaptation_gate with dims [4, 5]"),
        ("squeeze_excite", {"n": 5}, "n, the width of the output, should be 9 for squeeze_excite with dims [4, 5]"),
        (
            "mixture_of_experts",
            {"experts": "views", "top_k": 4, "n": 3},
            "top_k should be from 2 to the number of experts, 2; found 4.",
        ),
    ],
)
def test_options_that_do_not_fit_the_views(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(fusionkit.FusionError) as caught:
        fusionkit.create(name, dims=[4, 5], **options)
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
@pytest.mark.parametrize("name", OPERATORS)
def test_restriction_to_wrong_views(name: str, views: Any) -> None:
    op = fusionkit.create(name, dims=[2, 2, 2])
    with pytest.raises(fusionkit.FusionError, match=r"^views should be different indices from 0 to 2, at least one;"):
        op.restrict(views)


@pytest.mark.parametrize(
    ("name", "options", "owns"),
    [
        ("attention_pool", {}, False),
        ("attention_pool", {"scores": "joint"}, True),
        ("film", {}, True),
        ("embracenet", {}, False),
        ("mixture_of_experts", {}, True),
        ("mixture_of_experts", {"experts": "views"}, True),
        ("transformer", {}, False),
        ("transformer", {"pool": "concat"}, True),
        ("perceiver", {}, False),
    ],
    ids=str,
)
def test_restrict_without_own_parameters(name: str, options: dict[str, Any], owns: bool) -> None:
    op = fusionkit.create(name, dims=[4, 5, 6], n=4, require_parameters=False, **options).eval()
    if owns:
        with pytest.raises(fusionkit.FusionError, match=rf"^{name} should own its parameters"):
            op.restrict([2, 0])
    else:
        less = op.restrict([2, 0])
        assert less.dims == (6, 4)
        assert less([torch.ones(2, 6), torch.ones(2, 4)], torch.ones(less.calculate_l())).shape == (2, 4)


def test_the_missing_main_view_is_no_error() -> None:
    torch.manual_seed(0)
    op = fusionkit.create("film", dims=[2, 3], n=4)
    assert op([None, torch.randn(5, 3)]).shape == (5, 4)
