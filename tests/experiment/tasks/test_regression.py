from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from fusionkit.config.options import TrainOptions
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment.tasks.choice import from_description
from fusionkit.experiment.tasks.regression import Regression
from tests.messages import like


def settings(**changes: Any) -> TrainOptions:
    return TrainOptions(**{"epochs": 1, "batch_size": 16, "lr": 0.1, **changes})


def target(rows: int = 40) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((rows, 2)) * [3.0, 100.0] + [-2.0, 7.0]


def fitted() -> Regression:
    return Regression(["a", "b"]).fitted(target())


def output() -> Tensor:
    return torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2


# -- units -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "mean", "scale"),
    [
        ([1e9 - 1, 1e9 + 1] * 500, 1e9, 1.0),
        ([1e-12, 3e-12], 2e-12, 1e-12),
        ([1e100, 3e100], 2e100, 1e100),
        ([-5, 5, -5, 5], 0.0, 5.0),
        ([2**53 - 2, 2**53], 2.0**53 - 1, 1.0),
    ],
    ids=["offset", "tiny", "huge", "whole", "large whole"],
)
def test_targets_have_mean_0_and_deviation_1_and_come_back(values: list[float], mean: float, scale: float) -> None:
    given = np.asarray(values, dtype=np.float64)[:, None]
    task = Regression(["y"]).fitted(given)
    assert task.mean == pytest.approx([mean], rel=1e-15)
    assert task.scale == pytest.approx([scale], rel=1e-9)
    standard = task.tensor(given)
    assert standard.dtype == torch.float32
    np.testing.assert_allclose(standard.abs(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(task.predicted(task.in_units(standard.double())), given, rtol=1e-15)


def test_the_scale_is_that_of_scikit_learn() -> None:
    wanted = StandardScaler().fit(target())
    np.testing.assert_allclose(fitted().mean, wanted.mean_, rtol=1e-12)
    np.testing.assert_allclose(fitted().scale, wanted.scale_, rtol=1e-12)
    np.testing.assert_allclose(fitted().tensor(target()), wanted.transform(target()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([[1.0, 7.0], [2.0, 7.0]], "The target 'b' should vary in the training part; found 7 in all 2 rows."),
        ([[0.1, 1.0]] * 3, "The target 'a' should vary in the training part; found 0.1 in all 3 rows."),
        ([[1e200, 0.0], [-1e200, 1.0]], "The target 'a' … finite variance … found values from -1e+200 to 1e+200."),
        ([[1e-200, 0.0], [0.0, 1.0]], "The target 'a' … variance above 0; found values from 0 to 1e-200."),
        ([[1.7e308, 0.0], [-1.7e308, 1.0]], "The target 'a' … finite variance … found values from -1.7e+308 to"),
    ],
)
def test_targets_that_cannot_be_standardized(values: Any, sentence: str) -> None:
    with pytest.raises(FusionError, match=like(sentence)):
        Regression(["a", "b"]).fitted(np.asarray(values))


def test_the_description_keeps_every_bit() -> None:
    task = Regression(["a", "b"]).fitted(target() * [1e-12, 1] + [0, 1e9])
    again = from_description(json.loads(json.dumps(task.describe(), allow_nan=False)))
    assert isinstance(again, Regression)
    assert again == task
    assert [value.hex() for value in again.mean + again.scale] == [value.hex() for value in task.mean + task.scale]


# -- losses ------------------------------------------------------------------------------------------------------------


def by_hand(name: str, error: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    size = np.abs(error)
    return np.asarray({"mse": error**2, "mae": size, "huber": np.where(size < 1, error**2 / 2, size - 0.5)}[name])


@pytest.mark.parametrize("name", ["mse", "mae", "huber"])
def test_losses_of_standardized_targets(name: str) -> None:
    task = fitted()
    standard = task.tensor(target())
    losses = by_hand(name, output().numpy() - standard.double().numpy()).mean(1)
    criterion = task.criterion(settings(loss=name), target())
    torch.testing.assert_close(criterion(output(), standard, None), torch.tensor(losses.sum()))
    weight = np.arange(40) / 7
    found = criterion(output(), standard, torch.from_numpy(weight))
    torch.testing.assert_close(found, torch.tensor((weight * losses).sum()))


def test_the_default_is_mse_and_label_smoothing_does_not_act() -> None:
    task = fitted()
    standard = task.tensor(target())
    default = task.criterion(settings(label_smoothing=0.2), target())(output(), standard, None)
    torch.testing.assert_close(default, F.mse_loss(output(), standard.double(), reduction="sum") / 2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"loss": "focal"}, "train.loss … mse, mae, huber … regression; found 'focal'."),
        ({"class_weight": "balanced"}, "train.class_weight … regression; found 'balanced'."),
        ({"class_weight": {"a": 2}}, "train.class_weight … regression; found {'a': 2"),
    ],
)
def test_options_of_another_task(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=like(sentence)):
        fitted().criterion(settings(**options), target())


# -- predictions -------------------------------------------------------------------------------------------------------


def test_values_are_numbers_or_lists_of_them() -> None:
    assert Regression(["y"]).values(np.array([[1.5], [2.0]])) == [1.5, 2.0]
    assert Regression(["a", "b"]).values(np.array([[1.5, 2.0]])) == [[1.5, 2.0]]


def test_the_baseline_is_the_mean_of_the_training_part() -> None:
    baseline = fitted().baseline(target())
    np.testing.assert_allclose(baseline, target().mean(0, keepdims=True))
    found = fitted().measure(baseline.repeat(40, 0), target())
    assert found["r2"] == pytest.approx(0.0, abs=1e-12)
    assert found["rmse"] == pytest.approx(1.0)
