"""``FusionRegressor``: values against other ways to compute them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn import config_context
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_validate
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment import FusionRegressor
from tests.experiment.estimators import expected_failures, linear
from tests.messages import like


@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [FusionRegressor(epochs=15)], expected_failed_checks=expected_failures
)
def test_it_keeps_the_contract_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(
    "options",
    [
        {"views": 2, "fusion": "average", "encoder": "linear", "loss": "huber"},
        {"validation_fraction": 0.2, "patience": 3},
    ],
)
def test_other_options_keep_it_too(options: dict[str, Any]) -> None:
    estimator = FusionRegressor(epochs=15, **options)
    assert len(check_estimator(estimator, expected_failed_checks=expected_failures(estimator))) > 40


def plain(**options: Any) -> Any:
    """Return a regressor that is linear in X, without what keeps it from the optimum."""
    defaults = {"fusion": "concatenation", "activation": "none", "input_dropout": 0.0, "weight_decay": 0.0}
    return FusionRegressor(**{**defaults, "batch_size": 512, "epochs": 600, "random_state": 0, "lr": 0.05, **options})


def test_it_finds_what_least_squares_finds() -> None:
    X, y = linear()
    y = y + 20 * np.random.default_rng(0).standard_normal(120)
    found, wanted = plain(views=[2, 3]).fit(X, y), LinearRegression().fit(X, y)
    assert found.predict(X).shape == (120,)
    assert found.predict(X).dtype == np.float64
    np.testing.assert_allclose(found.predict(X), wanted.predict(X), atol=0.05)
    assert found.score(X, y) == r2_score(y, found.predict(X)) == pytest.approx(wanted.score(X, y), abs=1e-4)
    weight = np.arange(120)
    assert found.score(X, y, weight) == r2_score(y, found.predict(X), sample_weight=weight) != found.score(X, y)


def test_several_targets_each_in_its_units() -> None:
    X, y = linear()
    y = np.stack([y, 1e-6 * X[:, 3], -7e5 + 1e5 * X[:, 0]], axis=1)
    found, wanted = plain().fit(X, y), LinearRegression().fit(X, y)
    assert found.predict(X).shape == (120, 3)
    np.testing.assert_allclose(found.predict(X), wanted.predict(X), atol=1e-3 * y.std(0).max())
    np.testing.assert_allclose(found.predict(X) / y.std(0), wanted.predict(X) / y.std(0), atol=1e-3, rtol=1e-6)
    assert found.score(X, y) == r2_score(y, found.predict(X))
    assert plain(epochs=1).fit(X, y[:, :1]).predict(X).shape == (120, 1)


def huber(y: Any) -> float:
    """Return the number of the least Huber loss, which turns linear at one standard deviation of y."""

    def loss(value: float) -> float:
        distance = np.abs(y - value) / y.std()
        return float(np.where(distance < 1, distance**2 / 2, distance - 0.5).sum())

    return float(minimize_scalar(loss, (y.min(), y.max())).x)


SKEWED = np.random.default_rng(4).exponential(10.0, 101) + 50


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [(None, SKEWED.mean()), ("mse", SKEWED.mean()), ("mae", np.median(SKEWED)), ("huber", huber(SKEWED))],
)
def test_without_inputs_a_loss_gives_its_own_average(loss: str | None, wanted: float) -> None:
    found = plain(loss=loss).fit(np.zeros((101, 2)), SKEWED).predict(np.zeros((1, 2)))
    assert found == pytest.approx(wanted, abs=0.03)


def test_with_weights_the_mean_is_weighted() -> None:
    weight = np.random.default_rng(5).integers(0, 4, 101)
    found = plain().fit(np.zeros((101, 2)), SKEWED, sample_weight=weight).predict(np.zeros((1, 2)))
    assert found == pytest.approx(np.average(SKEWED, weights=weight), abs=0.03)
    assert abs(np.average(SKEWED, weights=weight) - SKEWED.mean()) > 0.3


def test_a_mask_goes_to_every_method() -> None:
    X, y = linear()
    mask = np.random.default_rng(0).random((120, 2)) < 0.8
    mask[:, 0] |= ~mask[:, 1]
    columns = np.repeat(mask, [2, 3], axis=1)
    lacking, junk = np.where(columns, X, np.nan), np.where(columns, X, 1e30)
    first, second = (FusionRegressor([2, 3], epochs=5, random_state=0) for _ in range(2))
    first.fit(lacking, y)
    second.fit(junk, y, mask)
    np.testing.assert_array_equal(first.predict(lacking), second.predict(junk, mask))
    assert first.score(lacking, y) == second.score(junk, y, mask=mask)
    with config_context(enable_metadata_routing=True):
        routed = FusionRegressor([2, 3], epochs=5, random_state=0)
        routed.set_fit_request(mask=True, sample_weight=True).set_score_request(mask=True, sample_weight=False)
        params = {"mask": mask, "sample_weight": np.ones(120)}
        assert cross_validate(routed, junk, y, cv=3, params=params)["test_score"].shape == (3,)


def test_a_refit_forgets_the_number_of_targets() -> None:
    X, y = linear()
    fitted = FusionRegressor(epochs=1).fit(X, np.stack([y, y], axis=1))
    assert fitted.fit(X, y).predict(X).shape == (120,)


@pytest.mark.parametrize(
    ("options", "y", "kind", "sentence"),
    [
        (
            {},
            np.full(120, 3.0),
            FusionError,
            "The target 'y' should vary in the training part; found 3 in all 120 rows.",
        ),
        (
            {},
            np.stack([np.arange(120), np.ones(120)], axis=1),
            FusionError,
            "The target '1' … found 1 in all 120 rows.",
        ),
        ({}, [*"abcd"] * 30, FusionError, "y should contain numbers; found dtype <U1."),
        (
            {"loss": "focal"},
            np.arange(120),
            ConfigError,
            "loss should be None or one of mse, mae, huber … found 'focal'.",
        ),
    ],
)
def test_what_does_not_fit(options: dict[str, Any], y: Any, kind: type[Exception], sentence: str) -> None:
    X, _ = linear()
    with pytest.raises(kind, match=like(sentence)):
        FusionRegressor(epochs=1, **options).fit(X, y)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        FusionRegressor(epochs=1).fit(X, np.where(np.arange(120) == 7, np.nan, 1.0))
