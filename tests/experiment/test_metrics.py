from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as reference

from fusionkit.experiment import metrics
from fusionkit.experiment.metrics import confusion_matrix, numeral, rank_value
from fusionkit.experiment.tasks.classification import Classification
from fusionkit.experiment.tasks.multilabel import Multilabel
from fusionkit.experiment.tasks.regression import Regression

Array = npt.NDArray[Any]


def drawn(seed: int, classes: int, m: int = 150) -> tuple[Array, Array]:
    """Return probabilities with ties, and the classes."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(classes, 0.3), m).round(2) + 1e-3
    return probabilities / probabilities.sum(1, keepdims=True), random.permutation(np.arange(m) % classes)


@pytest.mark.parametrize("seed", range(8))
def test_the_numbers_are_those_of_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    classes, m = int(random.integers(2, 12)), 150
    target = random.integers(0, classes, m)
    probabilities = random.dirichlet(np.full(classes, 0.05), m)
    if not seed:  # One class alone is found.
        probabilities = np.eye(classes)[np.zeros(m, dtype=np.int64)]
    found, labels = probabilities.argmax(1), list(range(classes))
    confusion = confusion_matrix(target, found, classes)
    assert np.array_equal(confusion, reference.confusion_matrix(target, found, labels=labels))
    wanted = {
        "accuracy": float(reference.accuracy_score(target, found)),
        "f1_macro": float(reference.f1_score(target, found, labels=labels, average="macro", zero_division=0.0)),
        "log_loss": float(reference.log_loss(target, probabilities, labels=labels)),
    }
    measured = Classification(labels).measure(probabilities, target)
    assert {name: measured[name] for name in wanted} == wanted


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_ranking_metrics_of_classes(classes: int) -> None:
    probabilities, target = drawn(classes, classes)
    found = Classification(list(range(classes))).measure(probabilities, target)
    one_hot = np.eye(classes, dtype=int)[target]
    chosen = slice(1, None) if classes == 2 else slice(None)  # Of two classes the last one is the positive one.
    given = (one_hot[:, chosen], probabilities[:, chosen])
    assert found["roc_auc"] == pytest.approx(reference.roc_auc_score(*given, average="macro"), rel=1e-12)
    assert found["average_precision"] == pytest.approx(
        reference.average_precision_score(*given, average="macro"), rel=1e-12
    )
    predicted = probabilities.argmax(1)
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(target, predicted), rel=1e-12)
    if classes == 2:
        assert found["roc_auc"] == pytest.approx(reference.roc_auc_score(target, probabilities[:, 1]), rel=1e-12)
    else:
        wanted = reference.roc_auc_score(target, probabilities, multi_class="ovr", average="macro")
        assert found["roc_auc"] == pytest.approx(wanted, rel=1e-12)


def test_the_default_is_the_first() -> None:
    names = {
        "classification": "accuracy balanced_accuracy f1_macro roc_auc average_precision log_loss calibration_error",
        "multilabel": "average_precision roc_auc f1_macro f1_micro subset_accuracy log_loss",
        "regression": "r2 rmse mae",
    }
    for task in (Classification([0, 1]), Multilabel(["a", "b"]), Regression(["y"])):
        assert list(task.functions) == names[task.name].split()
        assert task.metric(None) == names[task.name].split()[0]


def test_a_class_that_the_part_lacks_is_none_and_never_nan() -> None:
    probabilities, target = drawn(0, 3)
    rows = target != 2
    found = Classification([0, 1, 2]).measure(probabilities[rows], target[rows])
    undefined = {"balanced_accuracy", "roc_auc", "average_precision"}
    assert {name for name, value in found.items() if value is None} == undefined
    assert all(math.isfinite(found[name] or 0.0) for name in found)
    alone = Classification([0, 1]).measure(np.array([[0.3, 0.7]]), np.array([1]))
    assert (alone["average_precision"], alone["roc_auc"], alone["balanced_accuracy"]) == (1.0, None, None)
    negative = Classification([0, 1]).measure(np.array([[0.3, 0.7]]), np.array([0]))
    assert (negative["average_precision"], negative["accuracy"]) == (None, 0.0)


def test_no_rows_have_no_metrics() -> None:
    assert Classification([0, 1]).measure(np.empty((0, 2)), np.empty(0, dtype=int)) == {}
    assert Regression(["y"]).measure(np.empty((0, 1)), np.empty((0, 1))) == {}


def test_calibration_error_by_hand() -> None:
    # Bins (0.6, 0.667], (0.8, 0.867] and (0.933, 1]: 2, 1 and 1 of 4 rows.
    probabilities = np.array([[0.65, 0.35], [0.39, 0.61], [0.85, 0.15], [0.0, 1.0]])
    target = np.array([0, 0, 1, 1])
    wanted = (2 * abs((0.65 + 0.61) / 2 - 0.5) + abs(0.85 - 0) + abs(1.0 - 1)) / 4
    assert metrics.calibration_error(probabilities, target) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("edge", [1 / 15, 10 / 15, 1.0])
def test_the_edge_of_a_bin_belongs_to_the_lower_one(edge: float) -> None:
    above = np.nextafter(edge, 2) if edge < 1 else edge
    # A right and a wrong row: in one bin the gaps cancel in part.
    apart = abs(edge - 1) + abs(above - 0)
    together = abs(edge + above - 1)
    found = metrics.calibration_error(np.array([[edge], [above]]), np.array([0, 1]))
    assert found == pytest.approx((apart if edge < 1 else together) / 2, rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_metrics_of_labels(seed: int) -> None:
    random = np.random.default_rng(seed)
    target = random.random((90, 4)) < [0.5, 0.1, 0.9, 0.4]
    predicted = (0.4 * target + 0.6 * random.random((90, 4))).round(2)
    found = Multilabel(list("abcd")).measure(predicted, target)
    chosen = predicted >= 0.5
    wanted = {
        "average_precision": reference.average_precision_score(target, predicted, average="macro"),
        "roc_auc": reference.roc_auc_score(target, predicted, average="macro"),
        "f1_macro": reference.f1_score(target, chosen, average="macro", zero_division=0.0),
        "f1_micro": reference.f1_score(target, chosen, average="micro", zero_division=0.0),
        "subset_accuracy": reference.accuracy_score(target, chosen),
        "log_loss": np.mean([reference.log_loss(target[:, i], predicted[:, i]) for i in range(4)]),
    }
    assert found == pytest.approx(wanted, rel=1e-12)


def test_labels_that_none_or_all_rows_have() -> None:
    target = np.array([[True, False], [True, True]])
    predicted = np.array([[0.9, 0.5], [0.5, 0.9]])
    found = Multilabel(["all", "one"]).measure(predicted, target)
    assert (found["roc_auc"], found["average_precision"]) == (None, 1.0)
    assert Multilabel(["none", "one"]).measure(predicted, target & [False, True])["average_precision"] is None
    assert found["subset_accuracy"] == 0.5
    assert found["f1_macro"] == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_metrics_of_one_target(offset: float) -> None:
    random = np.random.default_rng(0)
    target = offset + random.standard_normal((80, 1))
    predicted = target + 0.3 * random.standard_normal((80, 1))
    found = Regression(["y"], [offset], [2.0]).measure(predicted, target)
    assert found == pytest.approx(
        {
            "r2": reference.r2_score(target, predicted),
            "rmse": reference.root_mean_squared_error(target, predicted),
            "mae": reference.mean_absolute_error(target, predicted),
        },
        rel=1e-6 if offset else 1e-12,
    )


def test_metrics_of_several_targets() -> None:
    random = np.random.default_rng(1)
    target = random.standard_normal((80, 2)) * [1, 100] + [5, -3]
    predicted = target + random.standard_normal((80, 2)) * [0.1, 40]
    mean, scale = target.mean(0), target.std(0)
    found = Regression(["a", "b"], mean.tolist(), scale.tolist()).measure(predicted, target)
    wanted = {"r2": reference.r2_score(target, predicted)}  # The mean over the targets.
    for name, score in (("rmse", reference.root_mean_squared_error), ("mae", reference.mean_absolute_error)):
        wanted[name] = score((target - mean) / scale, (predicted - mean) / scale)
    for i, name in enumerate("ab"):
        wanted[f"r2_{name}"] = reference.r2_score(target[:, i], predicted[:, i])
        wanted[f"rmse_{name}"] = reference.root_mean_squared_error(target[:, i], predicted[:, i])
        wanted[f"mae_{name}"] = reference.mean_absolute_error(target[:, i], predicted[:, i])
    assert found == pytest.approx(wanted, rel=1e-10)
    assert list(found)[:3] == ["r2", "rmse", "mae"]


def test_r2_of_constant_targets_is_none() -> None:
    found = Regression(["a", "b"], [0.0, 0.0], [1.0, 1.0]).measure(
        np.ones((3, 2)), np.array([[1, 2], [1, 3], [1, 4.0]])
    )
    assert (found["r2"], found["r2_a"], found["r2_b"]) == (None, None, -6.0)
    assert found["rmse_a"] == 0.0
    assert metrics.r2(np.full(3, 0.2), np.full(3, 0.1)) is None  # Whose mean is rounded.
    assert Regression(["y"]).measure(np.ones((1, 1)), np.zeros((1, 1))) == {"r2": None, "rmse": 1.0, "mae": 1.0}


def test_an_error_whose_square_overflows_is_none() -> None:
    assert Regression(["y"]).measure(np.zeros((2, 1)), np.array([[1e200], [-1e200]])) == {
        "r2": None,
        "rmse": None,
        "mae": 1e200,
    }


@pytest.mark.parametrize("metric", ["rmse", "mae", "log_loss", "calibration_error", "rmse_price", "mae_0"])
def test_less_is_better(metric: str) -> None:
    assert rank_value(metric, 0.5) == -0.5


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "r2", "r2_rmse", "roc_auc", "f1_micro"])
def test_more_is_better(metric: str) -> None:
    assert rank_value(metric, 0.5) == 0.5


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (
            Classification([0, 1]),
            r"^metric should .*accuracy, .* classification; found 'acuracy'\. Did you mean 'accuracy'",
        ),
        (Regression(["a", "b"]), r"^metric should .*r2, rmse, mae, r2_a, .* regression; found 'acuracy'\."),
    ],
)
def test_a_metric_that_the_task_lacks(task: Any, sentence: str) -> None:
    from fusionkit.errors import ConfigError

    with pytest.raises(ConfigError, match=sentence):
        task.metric("acuracy")


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("accuracy", 0.975, "0.9750"),
        ("r2", -12.25, "-12.2500"),
        ("log_loss", 0.00012, "0.0001"),
        ("rmse", 1.23456, "1.235"),
        ("rmse", 0.0, "0.0000"),
        ("rmse", 123456.7, "123457"),
        ("mae_weight", 0.0123456, "0.01235"),
        ("r2", None, "undefined"),
        ("mae", 1e-30, "0.000000000000"),
    ],
)
def test_four_decimals_or_four_digits_of_what_has_a_unit(metric: str, value: float | None, text: str) -> None:
    assert numeral(metric, value) == text
