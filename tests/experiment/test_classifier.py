"""``FusionClassifier`` as scikit-learn uses it."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

from fusionkit.errors import ConfigError, DimsError, FusionError, RegistryError
from fusionkit.experiment import FusionClassifier
from tests.exhaustive import exhaustive
from tests.messages import like


def data(rows: int = 90) -> tuple[Any, Any]:
    """Return three separable classes in two views, widths 4 and 3, side by side."""
    generator = np.random.default_rng(0)
    label = np.arange(rows) % 3
    first = np.hstack([np.eye(3)[label], np.ones((rows, 1))]) + 0.2 * generator.standard_normal((rows, 4))
    return np.hstack([first, 10 * np.eye(3)[label] + generator.standard_normal((rows, 3))]), np.array([*"abc"])[label]


def small(**options: Any) -> Any:
    return FusionClassifier(**{"views": [4, 3], "n": 5, "epochs": 40, "batch_size": 16, "random_state": 0, **options})


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(
    "options", [{"views": 2}, *exhaustive([{"views": 2, "fusion": "average", "encoder": "linear"}, {}])]
)
def test_it_keeps_the_contract_of_scikit_learn(options: dict[str, Any]) -> None:
    passed = check_estimator(FusionClassifier(epochs=15, **options))
    assert len(passed) > 40


def test_predictions_and_probabilities_are_right() -> None:
    X, y = data()
    classifier = small().fit(X[:60], y[:60])
    assert classifier.score(X[60:], y[60:]) == 1.0
    assert classifier.classes_.tolist() == ["a", "b", "c"]
    assert classifier.views_ == [4, 3]
    proba = classifier.predict_proba(X[60:])
    assert proba.shape == (30, 3)
    np.testing.assert_allclose(proba.sum(1), 1)
    assert (classifier.classes_[proba.argmax(1)] == classifier.predict(X[60:])).all()
    assert len(classifier.history_.loss) == 40
    assert classifier.history_.accuracy == []


def test_a_list_of_views_is_the_same_as_their_columns() -> None:
    X, y = data()
    whole = small().fit(X, y)
    parts = small(views=None).fit([X[:, :4], X[:, 4:]], y)
    assert parts.views_ == [4, 3]
    assert (parts.predict_proba([X[:, :4], X[:, 4:]]) == whole.predict_proba(X)).all()
    assert parts.score([X[:, :4], X[:, 4:]], y) == 1.0


@pytest.mark.exhaustive
def test_same_seed_same_model_and_the_global_state_counts_for_none() -> None:
    X, y = data()
    first, second, third = (small(random_state=seed).fit(X, y).predict_proba(X) for seed in (1, 1, 2))
    assert (first == second).all()
    assert (first != third).any()
    state = torch.random.get_rng_state()
    found = []
    for seed in (5, 5, 6):
        np.random.seed(seed)
        found.append(small(random_state=None).fit(X, y).predict_proba(X))
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_clone_and_pickle() -> None:
    X, y = data()
    classifier = small(fabrication={"name": "lowrank", "r": 2}).fit(X, y)
    assert clone(classifier).get_params() == classifier.get_params()
    again = pickle.loads(pickle.dumps(classifier))
    assert (again.predict_proba(X) == classifier.predict_proba(X)).all()


def test_fusion_and_fabrication_take_options() -> None:
    X, y = data()
    classifier = small(fabrication={"name": "lowrank", "r": 2}).fit(X, y)
    assert classifier.model_.fusion.calculate_l() == 2 * (5 + 7)
    assert small(fusion="concatenation").fit(X, y).model_.fusion.n == 7
    seen = small(fusion={"name": "average"}, encoder="mlp", encoder_width=6).fit(X, y).model_.fusion
    assert seen.dims == (6, 6)


@pytest.mark.exhaustive
def test_grid_search_over_fusion_and_fabrication_in_a_pipeline() -> None:
    X, y = data()
    pipeline = make_pipeline(MinMaxScaler(), small())
    grid = [
        {"fusionclassifier__fabrication": ["dense", {"name": "lowrank", "r": 1}]},
        {"fusionclassifier__fusion": ["concatenation", "average"], "fusionclassifier__encoder": ["linear"]},
    ]
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    assert search.score(X, y) > 0.9


def test_cross_validation() -> None:
    X, y = data()
    assert cross_val_score(small(), X, y, cv=3).mean() > 0.9


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"views": [4, 4]}, DimsError, "views … found [4, 4], which are 8, and n_features = 7."),
        ({"views": 8}, DimsError, "views … found views = 8, n_features = 7."),
        ({"fusion": "averag"}, RegistryError, ""),
        ({"fusion": None}, ConfigError, "fusion … found None."),
        ({"fusion": "concatenation", "fabrication": "lowrank"}, ConfigError, "fabrication … found 'lowrank'."),
        ({"fusion": "average"}, DimsError, ""),
        ({"epochs": 0}, ConfigError, "train.epochs … found 0."),
        ({"encoder": "conv"}, ConfigError, "model.encoder … found 'conv'."),
        ({"device": "cuda:99"}, FusionError, "device should be one of this machine"),
        ({"lr": 1e38, "optimizer": "sgd", "scheduler": "constant"}, FusionError, "The training loss should be finite"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options: dict[str, Any], kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=like(sentence)):
        small(**options).fit(*data())


def test_views_that_do_not_fit() -> None:
    X, y = data()
    with pytest.raises(DimsError, match=r"^X should .*found \[3, 4\]\.$"):
        small().fit([X[:, :3], X[:, 3:]], y)
    with pytest.raises(FusionError, match=r"^The views should .*found \[90, 89\]\.$"):
        small(views=None).fit([X[:, :4], X[1:, 4:]], y)
    with pytest.raises(FusionError, match=r"^y should .*found one class, 'a'\.$"):
        small().fit(X, ["a"] * 90)
    with pytest.raises(NotFittedError):
        small().predict(X)
