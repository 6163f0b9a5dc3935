"""What is refused: one sentence, with the numbers and the alternative."""

from __future__ import annotations

from typing import Any

import fusionkit
import pytest

from fusionkit_decision.plugin import OPERATORS


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "log_pool",
            {"weighting": "meen"},
            "weighting should be one of one, mean, learned; found 'meen'. Did you mean 'mean'?",
        ),
        ("log_pool", {"tau": 0}, "tau, the temperature, should be above 0; found 0."),
        ("log_pool", {"tau": "1"}, "tau, the temperature, should be a finite number; found '1'."),
        ("linear_pool", {"weighting": "one"}, "weighting should be one of mean, learned; found 'one'."),
        ("linear_pool", {"tau": -1.0}, "tau, the temperature, should be above 0; found -1.0."),
        ("dempster", {"evidence": "exp"}, "evidence should be one of softplus, relu, given; found 'exp'."),
        ("dempster", {"output": None}, "output should be one of log, evidence; found None."),
        (
            "confidence_pool",
            {"score": "margins"},
            "score should be one of entropy, margin, logsumexp; found 'margins'. Did you mean 'margin'?",
        ),
        ("confidence_pool", {"tau": True}, "tau, the temperature, should be a finite number; found True."),
        ("gaussian_product", {"weighting": "mean"}, "weighting should be one of one, learned; found 'mean'."),
        ("gaussian_product", {"prior": "false"}, "prior should be True or False; found 'false'."),
        ("gaussian_mixture", {"subsets": 1}, "subsets should be True or False; found 1."),
    ],
)
def test_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(fusionkit.FusionError) as caught:
        fusionkit.create(name, dims=[4, 4], **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "dims", "options", "message"),
    [
        *(
            (name, [1, 1], {}, f"{name} should get views of at least 2 classes; found width 1.")
            for name in ("log_pool", "linear_pool", "dempster", "confidence_pool")
        ),
        *(
            (name, [5, 5], {}, f"{name} should get views [mu; lv] of even width; found width 5.")
            for name in ("gaussian_product", "gaussian_mixture")
        ),
        ("comparison", [4], {}, "comparison should get at least 2 views, to compare them; found 1."),
        (
            "gaussian_mixture",
            [4] * 11,
            {"subsets": True},
            "gaussian_mixture should get at most 10 views with subsets=True, which makes 2^k - 1 experts; found 11: "
            "take subsets=False.",
        ),
    ],
)
def test_widths(name: str, dims: list[int], options: dict[str, Any], message: str) -> None:
    with pytest.raises(fusionkit.DimsError) as caught:
        fusionkit.create(name, dims=dims, **options)
    assert str(caught.value) == message
    with pytest.raises(fusionkit.DimsError):
        fusionkit.create(name, **options).calculate_n(dims)


@pytest.mark.parametrize("name", OPERATORS)
def test_unequal_widths(name: str) -> None:
    with pytest.raises(fusionkit.DimsError, match=r"views of equal width; .* view 1 has width 6 and view 0 has 4"):
        fusionkit.create(name, dims=[4, 6])


def test_the_most_views_of_all_subsets() -> None:
    assert fusionkit.create("gaussian_mixture", dims=[4] * 10, subsets=True).calculate_n() == 4
    assert fusionkit.create("gaussian_mixture", dims=[4] * 11).calculate_n() == 4
