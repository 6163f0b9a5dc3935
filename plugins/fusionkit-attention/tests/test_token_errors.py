"""Options that embracenet, mixture_of_experts, transformer and perceiver refuse."""

from __future__ import annotations

from typing import Any

import fusionkit
import pytest
import torch


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("mixture_of_experts", {"experts": 1}, "experts, if not 'views', should be an integer of at least 2; found 1."),
        ("mixture_of_experts", {"experts": 2.5}, "at least 2; found 2.5."),
        (
            "mixture_of_experts",
            {"experts": "rows"},
            "experts should be an integer of at least 2, or 'views'; found 'rows'.",
        ),
        ("mixture_of_experts", {"top_k": 5}, "top_k should be from 2 to the number of experts, 4; found 5."),
        (
            "mixture_of_experts",
            {"top_k": 1},
            "top_k, the experts of a row, should be an integer of at least 2; found 1.",
        ),
        (
            "mixture_of_experts",
            {"top_k": 4, "experts": "views"},
            "top_k should be from 2 to the number of experts, 3; found 4.",
        ),
        ("mixture_of_experts", {"balance": -0.1}, "balance, the factor of the loss, should be at least 0; found -0.1."),
        ("mixture_of_experts", {"balance": "much"}, "should be a finite number; found 'much'."),
        ("transformer", {"width": 6}, "width should be a multiple of heads = 4; found 6."),
        (
            "transformer",
            {"heads": 0},
            "heads, the number of attention heads, should be an integer of at least 1; found 0.",
        ),
        ("transformer", {"depth": 0}, "depth, the number of layers, should be an integer of at least 1; found 0."),
        ("transformer", {"ff_width": 0}, "should be an integer of at least 1; found 0."),
        ("transformer", {"pool": "max"}, "pool should be one of cls, mean, concat; found 'max'."),
        ("perceiver", {"width": 8, "heads": 3}, "width should be a multiple of heads = 3; found 8."),
        ("perceiver", {"depth": -1}, "depth, the number of layers, should be an integer of at least 0; found -1."),
        ("perceiver", {"latents": 0}, "should be an integer of at least 1; found 0."),
        ("perceiver", {"pool": "cls"}, "pool should be one of mean, flatten; found 'cls'."),
    ],
)
def test_options(name: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(fusionkit.FusionError) as caught:
        fusionkit.create(name, dims=[3, 4, 5], n=2, **options)
    assert text in str(caught.value)
    # Also where nothing is built yet; only the number of views is unknown then.
    if options.get("experts") != "views":
        with pytest.raises(fusionkit.FusionError):
            fusionkit.create(name, n=2, **options)


@pytest.mark.parametrize("name", ["embracenet", "mixture_of_experts", "transformer", "perceiver"])
def test_n_is_needed(name: str) -> None:
    with pytest.raises(fusionkit.DimsError, match=r"should get n, or views of equal width; found dims \[4, 5\]\.$"):
        fusionkit.create(name, dims=[4, 5])


@pytest.mark.parametrize(
    ("name", "options", "owns"),
    [
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
        with pytest.raises(fusionkit.FusionError, match=r"should own its parameters; found"):
            op.restrict([2, 0])
    else:
        less = op.restrict([2, 0])
        assert less.dims == (6, 4)
        assert less([torch.ones(2, 6), torch.ones(2, 4)], torch.ones(less.calculate_l())).shape == (2, 4)
