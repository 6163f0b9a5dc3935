"""What ``FusionClassifier`` and ``FusionRegressor`` share: views by name, rows held out, weights, names in errors."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, train_test_split

from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment import FusionClassifier, FusionRegressor
from tests.experiment.estimators import data, linear
from tests.messages import like

OPTIONS: dict[str, Any] = {"n": 5, "epochs": 8, "batch_size": 16, "random_state": 0}


def frame(X: Any) -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(X, columns=[*"abcdefg"[: X.shape[1]]])


# -- views by name -----------------------------------------------------------------------------------------------------

VIEWS = {"second": slice(4, None), "first": [0, 1, 2, -4]}


@pytest.mark.parametrize(
    "views",
    [
        VIEWS,
        {"second": np.array([4, 5, 6]), "first": slice(0, 4)},
        {"second": [*"efg"], "first": [*"abcd"]},
        {"second": ["e", 5, "g"], "first": slice(-7, -3, 1)},
    ],
    ids=["integers", "array", "names", "mixed"],
)
def test_views_by_name_are_their_columns_in_the_order_of_the_mapping(views: dict[str, Any]) -> None:
    X, y = data()
    wanted = FusionClassifier(**OPTIONS).fit([X[:, 4:], X[:, :4]], y)
    found = FusionClassifier(views, **OPTIONS).fit(frame(X), y)
    assert found.views_ == [3, 4]
    assert found.model_.scaler.names == ("second", "first")
    np.testing.assert_array_equal(found.predict_proba(frame(X)), wanted.predict_proba([X[:, 4:], X[:, :4]]))


def test_views_of_an_array_and_a_target_of_numbers() -> None:
    X, y = linear()
    found = FusionRegressor({"a": [3, 1], "b": slice(0, 5, 2)}, **OPTIONS).fit(X, y)
    wanted = FusionRegressor(**OPTIONS).fit([X[:, [3, 1]], X[:, [0, 2, 4]]], y)
    np.testing.assert_array_equal(found.predict(X), wanted.predict([X[:, [3, 1]], X[:, [0, 2, 4]]]))


def test_columns_are_matched_by_name_when_fitting_and_predicting() -> None:
    X, y = data()
    views = {"first": [*"abcd"], "second": [*"efg"]}
    straight, shuffled = frame(X), frame(X)[[*"gfbdace"]]
    first, second = (FusionClassifier(views, **OPTIONS).fit(table, y) for table in (straight, shuffled))
    wanted = first.predict_proba(straight)
    for fitted in (first, second):
        for table in (straight, shuffled):
            np.testing.assert_array_equal(fitted.predict_proba(table), wanted)
    with pytest.raises(ValueError, match=r"(?s)The feature names should match.*missing.*- a"):
        first.predict(straight.rename(columns={"a": "z"}))
    with pytest.raises(ValueError, match=r"(?s)The feature names should match.*unseen at fit time.*- z"):
        first.predict(straight.assign(z=0.0))


def test_absent_views_have_the_place_of_the_mapping() -> None:
    X, y = data()
    X[:10, 4:] = np.nan
    mask = np.ones((90, 2), dtype=bool)
    mask[:10, 0] = False
    first, second = FusionClassifier(VIEWS, **OPTIONS).fit(X, y), FusionClassifier(VIEWS, **OPTIONS)
    second.fit(np.nan_to_num(X, nan=7.0), y, mask)
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X, mask))


@pytest.mark.parametrize(
    ("views", "sentence"),
    [
        ({}, "views should contain a view; found an empty mapping."),
        ({"a": [*"abcd"], "b": [*"ef"]}, "Column 'g' of X … found it in none."),
        ({"a": [*"abcd"], "b": [*"defg"]}, "Column 'd' of X … found it in 'a' and in 'b'."),
        ({"a": [*"abcz"], "b": [*"efg"]}, "views['a'] should name columns of X; found 'z'."),
        ({"a": slice(0, 9)}, "views['a'] should be a slice of the 7 columns of X; found slice(0, 9, None)."),
        ({"a": slice("a", "g")}, "views['a'] should be a slice of the 7 columns of X; found slice('a', 'g', None)."),
        ({"a": slice(0, 7), "b": []}, "views['b'] should have a column; found []."),
        ({"a": [0, 7]}, "views['a'] … integers below 7, the number of columns of X; found 7."),
        ({"a": [0.5]}, "views['a'] … integers below 7, the number of columns of X; found 0.5."),
        ({"a": "a", "b": slice(2, 7)}, "Column 'b' of X … found it in none."),
    ],
)
def test_views_that_do_not_fit(views: dict[str, Any], sentence: str) -> None:
    X, y = data()
    with pytest.raises(FusionError, match=like(sentence)):
        FusionClassifier(views, **OPTIONS).fit(frame(X), y)


def test_names_need_columns_with_names_and_a_mapping_one_array() -> None:
    X, y = data()
    with pytest.raises(FusionError, match=like("views['a'] … the columns of X have no names; found 'age'.")):
        FusionClassifier({"a": ["age"]}, **OPTIONS).fit(X, y)
    with pytest.raises(FusionError, match=like("Column 6 of X … found it in none.")):
        FusionClassifier({"a": slice(0, 6)}, **OPTIONS).fit(X, y)
    with pytest.raises(FusionError, match=like("X should be one array … found a list of views.")):
        FusionClassifier(VIEWS, **OPTIONS).fit([X[:, 4:], X[:, :4]], y)


def test_an_estimator_with_views_by_name_is_cloned_pickled_and_searched() -> None:
    X, y = data()
    fitted = FusionClassifier(VIEWS, class_weight={"a": 2}, **OPTIONS).fit(X, y)
    again, copy = pickle.loads(pickle.dumps(fitted)), clone(fitted)
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert copy.get_params() == fitted.get_params()
    np.testing.assert_array_equal(copy.fit(X, y).predict_proba(X), fitted.predict_proba(X))
    search = GridSearchCV(copy, {"views": [VIEWS, 2]}, cv=2, error_score="raise").fit(X, y)
    assert search.n_features_in_ == 7


# -- rows held out -----------------------------------------------------------------------------------------------------


def noisy() -> tuple[Any, Any]:
    X, y = data()
    y[np.random.default_rng(3).random(90) < 0.3] = "a"
    return X + np.random.default_rng(2).standard_normal(X.shape), y


def held_out(rows: int, fraction: float, strata: Any = None, random_state: int = 0) -> Any:
    """Return the rows that are trained on and those held out, as scikit-learn draws them."""
    seed = int(np.random.RandomState(random_state).randint(2**31 - 1))
    return train_test_split(np.arange(rows), test_size=fraction, stratify=strata, random_state=seed)


def test_the_epoch_with_the_best_accuracy_is_kept() -> None:
    X, y = noisy()
    fitted = FusionClassifier(**{**OPTIONS, "epochs": 30}, validation_fraction=0.2).fit(X, y)
    _, rows = held_out(90, 0.2, y)
    scores = fitted.history_.score
    assert fitted.best_epoch_ == int(np.argmax(scores)) + 1 < fitted.n_iter_ == len(scores) == 30
    assert accuracy_score(y[rows], fitted.predict(X[rows])) == scores[fitted.best_epoch_ - 1]
    assert FusionClassifier(**OPTIONS).fit(X, y).best_epoch_ == OPTIONS["epochs"]


def test_the_epoch_with_the_best_r2_is_kept() -> None:
    X, y = linear()
    fitted = FusionRegressor(**OPTIONS, lr=0.3, scheduler="constant", validation_fraction=0.25).fit(X, y)
    _, rows = held_out(120, 0.25)
    scores = fitted.history_.score
    assert fitted.best_epoch_ == int(np.argmax(scores)) + 1
    assert r2_score(y[rows], fitted.predict(X[rows])) == pytest.approx(scores[fitted.best_epoch_ - 1], rel=1e-4)


def test_training_stops_after_some_epochs_without_a_better_one() -> None:
    X, y = noisy()
    options = {**OPTIONS, "epochs": 200, "validation_fraction": 0.3}
    fitted, whole = FusionClassifier(**options, patience=4).fit(X, y), FusionClassifier(**options).fit(X, y)
    assert fitted.n_iter_ == fitted.best_epoch_ + 4 < 200 == whole.n_iter_
    assert fitted.history_.score == whole.history_.score[: fitted.n_iter_]
    assert fitted.history_.lr == whole.history_.lr[: fitted.n_iter_]


@pytest.mark.parametrize("kind", [FusionClassifier, FusionRegressor])
def test_nothing_is_learnt_from_the_rows_held_out(kind: Any) -> None:
    X, label = data()
    y = label if kind is FusionClassifier else np.arange(90) % 7 * 2.0
    rows, others = held_out(90, 0.2, y if kind is FusionClassifier else None)
    fitted = kind(**{**OPTIONS, "epochs": 1}, validation_fraction=0.2)
    wanted = fitted.fit(X, y).predict(X[rows])
    X = X.copy()
    X[others] *= 1000
    np.testing.assert_array_equal(fitted.fit(X, y).predict(X[rows]), wanted)


def test_the_rows_held_out_are_drawn_by_the_random_state() -> None:
    X, y = noisy()
    scores = [
        FusionClassifier(**{**OPTIONS, "random_state": seed}, validation_fraction=0.2).fit(X, y).history_.score
        for seed in (1, 1, 2)
    ]
    assert scores[0] == scores[1] != scores[2]


def test_rows_that_cannot_be_held_out() -> None:
    X, y = data()
    with pytest.raises(ConfigError, match=like("patience should be None where no rows are held out; found 3.")):
        FusionClassifier(patience=3, **OPTIONS).fit(X, y)
    with pytest.raises(ConfigError, match=like("validation_fraction … found 1.0.")):
        FusionClassifier(validation_fraction=1.0, **OPTIONS).fit(X, y)
    y[:1], y[1:] = "z", "a"
    y[1:45] = "b"
    with pytest.raises(FusionError, match=like("validation_fraction … found none of class 'z' at 0.9 of 90 rows.")):
        FusionClassifier(validation_fraction=0.9, **OPTIONS).fit(X, y)
    with pytest.raises(FusionError, match=like("validation_fraction … found none at 0.9 of 2 rows.")):
        FusionRegressor(validation_fraction=0.9, **OPTIONS).fit(X[:2], [1.0, 2.0])


# -- weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FusionClassifier, FusionRegressor])
def test_rows_of_weight_zero_are_left_out(kind: Any) -> None:
    X, label = data()
    y = label if kind is FusionClassifier else np.arange(90.0) % 7
    weight = np.random.default_rng(0).integers(0, 3, 90)
    kept = weight > 0
    X[np.flatnonzero(~kept)[0], :4] = np.nan
    found = kind([4, 3], **OPTIONS).fit(X, y, sample_weight=weight)
    wanted = kind([4, 3], **OPTIONS).fit(X[kept], y[kept], sample_weight=weight[kept])
    np.testing.assert_array_equal(found.predict(X[kept]), wanted.predict(X[kept]))
    assert found.history_ == wanted.history_ != kind([4, 3], **OPTIONS).fit(X[kept], y[kept]).history_


def test_a_weight_multiplies_the_loss() -> None:
    X, y = linear()
    options = {**OPTIONS, "optimizer": "sgd", "scheduler": "constant", "weight_decay": 0.0}
    found = FusionRegressor(**options, lr=0.01).fit(X, y, sample_weight=[2] * 120)
    wanted = FusionRegressor(**options, lr=0.02).fit(X, y)
    np.testing.assert_allclose(found.predict(X), wanted.predict(X), rtol=1e-6)
    np.testing.assert_allclose(found.history_.loss, np.multiply(2, wanted.history_.loss), rtol=1e-5)


@pytest.mark.parametrize(
    ("weight", "sentence"),
    [
        (np.ones(89), "sample_weight … (90,), a value per row; found (89,)."),
        (np.ones((90, 1)), "sample_weight … (90,), a value per row; found (90, 1)."),
        (np.zeros(90), "sample_weight should have a weight above zero; found zero in all 90 rows."),
        (np.arange(90) - 3.0, "sample_weight … at least 0, finite in float32; found -3.0 in row 0."),
        (np.where(np.arange(90) == 5, np.nan, 1.0), "sample_weight … found nan in row 5."),
        (["one"] * 90, "sample_weight … found 'one' in row 0."),
        (np.ma.masked_array(np.ones(90), np.arange(90) < 2), "sample_weight … found 2."),
    ],
)
def test_weights_that_are_refused(weight: Any, sentence: str) -> None:
    with pytest.raises(FusionError, match=like(sentence)):
        FusionClassifier(**OPTIONS).fit(*data(), sample_weight=weight)


# -- names in errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"epochs": 0}, "epochs should be an integer of at least 1; found 0."),
        ({"encoder": "cnn"}, "encoder should be one of none, linear, mlp; found 'cnn'."),
        ({"loss": "hinge"}, "loss should be … huber … found 'hinge'."),
        ({"patience": 0}, "patience should be … or None; found 0."),
        ({"precision": "16-mixed"}, "precision should be bf16-mixed or a true precision on the cpu; found '16-mixed'."),
        ({"devices": 10_000}, "devices should be at most"),
        ({"class_weight": {"d": 2}}, "class_weight should name classes among a, b, c; found 'd'."),
        ({"class_weight": "even"}, "class_weight should be balanced, … or None; found 'even'."),
        ({"focal_gamma": -1}, "focal_gamma should be a number of at least 0; found -1."),
        (
            {"loss": "mse"},
            "loss should be None or one of cross_entropy, focal for a task of classification; found 'mse'.",
        ),
    ],
)
def test_errors_name_the_parameter(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=like(sentence)):
        FusionClassifier(**{**OPTIONS, **options}).fit(*data())


# -- late fusion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["average", "parameterized_concatenation"])
@pytest.mark.parametrize("kind", [FusionClassifier, FusionRegressor])
def test_without_a_head_n_is_the_number_of_outputs(kind: Any, fusion: str) -> None:
    X, y = data() if kind is FusionClassifier else linear()
    options = {**OPTIONS, "epochs": 30, "lr": 0.05}
    made = kind(views=[3, X.shape[1] - 3], fusion=fusion, encoder="linear", head="none", **options).fit(X, y)
    outputs = 3 if kind is FusionClassifier else 1
    assert made.model_.fusion.n == outputs
    assert made.model_.fusion.dims == (outputs, outputs)
    assert made.model_.network.head(None) is None  # The identity.
    assert made.score(X, y) > 0.9
    assert made.score(X, y) == pytest.approx(pickle.loads(pickle.dumps(made)).score(X, y))


def test_an_operator_without_a_head_gives_the_outputs() -> None:
    X, y = data()
    sentence = "The output of 'concatenation' should have the width 3, … because head is none; found 7.  head=linear"
    with pytest.raises(FusionError, match=like(sentence)):
        FusionClassifier(views=[4, 3], fusion="concatenation", head="none", **OPTIONS).fit(X, y)
