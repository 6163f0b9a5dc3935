"""``FusionClassifier`` as scikit-learn uses it."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

import fusionkit
from fusionkit import registry
from fusionkit.errors import ConfigError, DimsError, FusionError, RegistryError
from fusionkit.experiment import FusionClassifier
from fusionkit.experiment import estimator as estimator_module
from fusionkit.experiment.state import exclusive
from fusionkit.fusion import ElementwiseFusion
from tests.experiment.estimators import data, expected_failures
from tests.experiment.torch_states import STATES
from tests.messages import like


def small(**options: Any) -> Any:
    return FusionClassifier(**{"views": [4, 3], "n": 5, "epochs": 40, "batch_size": 16, "random_state": 0, **options})


@parametrize_with_checks([FusionClassifier(2, epochs=15)], expected_failed_checks=expected_failures)  # type: ignore[untyped-decorator]
def test_it_keeps_the_contract_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("options", [{"views": 2, "fusion": "average", "encoder": "linear"}, {"loss": "focal"}])
def test_other_options_keep_it_too(options: dict[str, Any]) -> None:
    estimator = FusionClassifier(epochs=15, **options)
    assert len(check_estimator(estimator, expected_failed_checks=expected_failures(estimator))) > 40


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
    assert classifier.history_.score == []


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


# -- losses ------------------------------------------------------------------------------------------------------------

UNEVEN = np.repeat([*"abc"], [60, 20, 10])


def shares(sample_weight: Any = None, **options: Any) -> Any:
    """Return the probabilities that a classifier without inputs gives the classes of ``UNEVEN``."""
    defaults = {"fusion": "concatenation", "activation": "none", "label_smoothing": 0.0, "epochs": 300, "lr": 0.05}
    classifier = FusionClassifier(**{**defaults, "random_state": 0, **options})
    return classifier.fit(np.zeros((90, 2)), UNEVEN, sample_weight=sample_weight).predict_proba(np.zeros((1, 2)))[0]


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({}, [60, 20, 10]),
        ({"class_weight": "balanced"}, [1, 1, 1]),
        ({"class_weight": {"c": 6, "a": 0.5}}, [30, 20, 60]),
        ({"sample_weight": np.where(np.arange(90) % 2, 3, 1) * np.where(UNEVEN == "b", 2, 1)}, [120, 80, 20]),
        ({"sample_weight": np.where(UNEVEN == "b", 2, 1), "class_weight": {"b": 3}}, [60, 120, 10]),
        ({"focal_gamma": 0.0, "loss": "focal"}, [60, 20, 10]),
    ],
    ids=["none", "balanced", "mapping", "rows", "both", "focal"],
)
def test_without_inputs_the_weighted_shares_of_the_classes_are_learnt(options: Any, counts: list[int]) -> None:
    np.testing.assert_allclose(shares(**options), np.divide(counts, sum(counts)), atol=2e-3)


def test_focal_loss_turns_to_the_rare_classes() -> None:
    found = shares(loss="focal")
    assert shares()[0] > found[0] > found[1] > found[2] > shares()[2]
    assert shares(loss="focal", focal_gamma=4)[2] > found[2]


@pytest.mark.parametrize("classes", [[0, 1, 2], [0.0, 1.0, 2.0], ["0", "1", "2"]])
def test_class_weights_may_name_classes_as_numbers_or_text(classes: list[Any]) -> None:
    X, y = data()
    y = np.array(classes)[np.searchsorted([*"abc"], y)]
    first, second = (small(class_weight=weight).fit(X, y) for weight in ({classes[1]: 5}, {np.int64(1): 5}))
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    assert first.history_ != small().fit(X, y).history_


# -- state -------------------------------------------------------------------------------------------------------------


def test_a_failed_fit_leaves_no_model_and_a_failed_refit_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data()
    failing = {"lr": 1e38, "optimizer": "sgd", "scheduler": "constant"}
    classifier = small(epochs=2, **failing)
    with pytest.raises(FusionError):
        classifier.fit(X, y)
    with pytest.raises(NotFittedError):
        classifier.predict(X)
    classifier = small(epochs=2).fit(X, y)
    before, wanted = dict(vars(classifier)), classifier.predict_proba(X)
    with pytest.raises(FusionError):
        classifier.set_params(**failing, views=[2, 2]).fit(X[:, :4], np.where(y == "a", "p", "q"))

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    classifier.set_params(**small(epochs=2).get_params())
    monkeypatch.setattr(estimator_module, "train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(X[:, :7], np.where(y == "a", "p", "q"))
    assert vars(classifier) == before
    assert (classifier.predict_proba(X) == wanted).all()


def test_a_refit_forgets_the_first() -> None:
    X, y = data()
    classifier = small(views=None, epochs=1).fit([X[:, :4], X[:, 4:]], y)
    assert classifier.set_params(views=2).fit(X[:, :6], y).views_ == [3, 3]


def test_fits_in_threads_are_those_in_series() -> None:
    X, y = data()

    def fit(seed: int) -> Any:
        return small(random_state=seed, epochs=4).fit(X, y).predict_proba(X)

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fit, [0, 1, 0, 1]))
    for seed, found in zip([0, 1, 0, 1], together, strict=True):
        np.testing.assert_array_equal(found, fit(seed))


def test_a_forked_process_does_not_wait_for_the_threads_of_its_parent() -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with exclusive():
            held.set()
            release.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    child = multiprocessing.get_context("fork").Process(target=exclusive().__enter__, daemon=True)
    child.start()
    child.join(20)
    release.set()
    thread.join()
    assert child.exitcode == 0


def test_the_state_of_torch_does_not_matter() -> None:
    X, y = data()
    wanted = small(epochs=2).fit(X, y).predict_proba(X)
    for name, state in STATES.items():
        with state():
            classifier = small(epochs=2).fit(X, y)
            found = classifier.predict_proba(X)
        np.testing.assert_array_equal(found, wanted, err_msg=name)
        assert not any(parameter.is_inference() for parameter in classifier.model_.parameters())


def test_predictions_are_those_of_the_evaluation_mode() -> None:
    X, y = data()
    classifier = small(epochs=2).fit(X, y)
    wanted = classifier.predict_proba(X)
    classifier.model_.network.train()
    assert (classifier.predict_proba(X) == wanted).all()
    assert not classifier.model_.training
    assert classifier.model_.network.dropout.training


def test_a_model_in_another_precision_still_predicts() -> None:
    X, y = data()
    X[:, 0] += 1e4
    classifier = small().fit(X, y)
    classifier.model_.to(torch.bfloat16)
    assert classifier.score(X, y) == 1.0
    assert classifier.predict_proba(X).dtype == np.float64


# -- kinds of values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda X: X[::-1][::-1],
        lambda X: X[::-1].copy()[::-1],
        lambda X: X.astype(">f8"),
        lambda X: X.astype(np.longdouble),
        lambda X: np.asfortranarray(X),
        lambda X: np.lib.stride_tricks.as_strided(X, writeable=False),
    ],
    ids=["view", "reversed", "big-endian", "longdouble", "fortran", "read-only"],
)
def test_the_layout_of_arrays_does_not_matter(change: Any, as_list: bool) -> None:
    X, y = data()
    wanted = small(epochs=2).fit(X, y).predict_proba(X)
    changed = [change(X[:, :4]), change(X[:, 4:])] if as_list else change(X)
    classifier = small(epochs=2).fit(changed, y)
    np.testing.assert_array_equal(classifier.predict_proba(changed), wanted)
    parts = [change(X[:, :4]), change(X[:, 4:])]
    np.testing.assert_array_equal(classifier.model_.evaluate(parts).softmax(-1), wanted)


def numpy_scalar(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: numpy_scalar(one) for key, one in value.items()}
    return value if value is None else np.asarray(value)[()]


def test_options_may_be_scalars_of_numpy() -> None:
    X, y = data()
    fabrication = {"name": "masked", "density": 0.5, "seed": 1}
    wanted = small(encoder="linear", encoder_width=3, fabrication=fabrication, epochs=2)
    options = {key: numpy_scalar(value) for key, value in wanted.get_params().items()}
    found = FusionClassifier(**options).fit(X, y)
    np.testing.assert_array_equal(found.predict_proba(X), wanted.fit(X, y).predict_proba(X))
    assert found.model_.describe() == wanted.model_.describe()
    json.dumps(found.model_.describe())


def test_masked_entries_are_refused() -> None:
    X, y = data()
    classifier, masked = small(epochs=1).fit(X, y), np.ma.masked_array(X, X > 1)
    hidden = int((X[:, :4] > 1).sum())
    with pytest.raises(FusionError, match=like(f"X … found {(X > 1).sum()}.")):
        small().fit(masked, y)
    with pytest.raises(FusionError, match=like(f"View 0 of X … found {hidden}.")):
        small().fit([masked[:, :4], X[:, 4:]], y)
    with pytest.raises(FusionError, match=like("y … found 30.")):
        small().fit(X, np.ma.masked_array(y, y == "a"))
    with pytest.raises(FusionError, match=like("X … found")):
        classifier.predict(masked)
    with pytest.raises(FusionError, match=like(f"View 0 (0) … found {hidden}.")):
        classifier.model_([masked[:, :4], X[:, 4:]])
    assert small(epochs=1).fit(np.ma.masked_array(X, False), y).views_ == [4, 3]


@pytest.mark.parametrize(
    ("kind", "found"), [("datetime64[s]", "dates"), ("timedelta64[s]", "durations"), ("U9", "texts"), ("S9", "texts")]
)
@pytest.mark.parametrize("objects", [False, True])
def test_dates_and_texts_are_refused(kind: str, found: str, objects: bool) -> None:
    X, y = data()
    values: Any = X.astype(int).astype(kind)
    values = np.array([[*row] for row in values], dtype=object) if objects else values
    with pytest.raises(FusionError, match=like(f"X … found {found}.")):
        small().fit(values, y)
    with pytest.raises(FusionError, match=like(f"View 1 of X … found {found}.")):
        small(views=None).fit([X[:, :4], values[:, 4:]], y)
    with pytest.raises(FusionError, match=like(f"View 1 of X … found {found}.")):
        small(epochs=1).fit(X, y).predict([X[:, :4], values[:, 4:]])


def test_a_target_of_another_task_is_a_warning() -> None:
    X, _ = data()
    with pytest.warns(UserWarning, match=like("y … found 45 different numbers in 90 rows")):
        small(epochs=1).fit(X, np.arange(90) // 2 / 4.0 * 4)
    small(epochs=1).fit(X, np.arange(90) // 2 % 20)
    small(epochs=1).fit(X, (np.arange(90) // 2).astype(str))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_by_both_ways_to_predict(value: float) -> None:
    X, y = data()
    classifier = small(epochs=1).fit(X, y)
    X[3, 5] = value
    for predict in (classifier.predict, lambda X: classifier.model_.predict([X[:, :4], X[:, 4:]])):
        with pytest.raises(ValueError, match=r"View 1 \(1\) .*found 1 (with NaN|infinite)"):
            predict(X)


# -- data frames -------------------------------------------------------------------------------------------------------


def frames() -> tuple[Any, Any]:
    pandas = pytest.importorskip("pandas")
    X, y = data()
    return [pandas.DataFrame(X[:, :4], columns=[*"abcd"]), pandas.DataFrame(X[:, 4:], columns=[*"efg"])], y


@pytest.mark.parametrize(
    "change",
    [
        lambda first, second: [first[[*"bacd"]], second],
        lambda first, second: [first.rename(columns={"a": "z"}), second],
        lambda first, second: [first, second[[*"fge"]]],
    ],
    ids=["order", "name", "second"],
)
def test_columns_of_other_names_or_order_are_refused(change: Any) -> None:
    views, y = frames()
    classifier = small(views=None, epochs=1).fit(views, y)
    assert classifier.feature_names_in_.tolist() == [*"abcdefg"]
    classifier.predict(views)
    with pytest.raises(FusionError, match=r"^View \d of X: The feature names should match"):
        classifier.predict(change(*views))
    whole = views[0].join(views[1])
    with pytest.raises(FusionError, match=r"^View \d of X: The feature names should match"):
        small(epochs=1).fit(whole, y).predict(change(*views))
    classifier.predict(whole)
    with pytest.raises(ValueError, match="The feature names should match"):
        classifier.predict(whole[[*"bacdefg"]])


def test_exchanged_views_are_refused_and_one_without_names_hides_no_other() -> None:
    views, y = frames()
    square = [views[0][[*"abc"]], views[1]]
    with pytest.raises(FusionError, match=r"^View 0 of X: The feature names should match"):
        small(views=None, epochs=1).fit(square, y).predict(square[::-1])
    mixed = [views[0].to_numpy(), views[1]]
    with pytest.raises(FusionError, match=r"^View 1 of X: The feature names should match"):
        small(views=None, epochs=1).fit(mixed, y).predict([mixed[0], mixed[1][[*"gfe"]]])


def test_rows_in_another_order_are_refused() -> None:
    views, y = frames()
    shuffled = [views[0], views[1].sample(frac=1, random_state=0)]
    with pytest.raises(FusionError, match=like("View 0 of X and View 1 of X … differ only in order.")):
        small(views=None).fit(shuffled, y)
    classifier = small(views=None, epochs=1).fit(views, y)
    with pytest.raises(FusionError, match=like("View 0 of X and View 1 of X")):
        classifier.predict(shuffled)
    classifier.predict([views[0], views[1].set_index(views[1].index + 1000)])


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
        ({"epochs": 0}, ConfigError, "epochs … found 0."),
        ({"encoder": "conv"}, ConfigError, "encoder … found 'conv'."),
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
    with pytest.raises(DimsError, match=like("X … found 2.")):
        small(views=3).fit([X[:, :4], X[:, 4:]], y)
    with pytest.raises(FusionError, match=r"^The views should .*found \[90, 89\]\.$"):
        small(views=None).fit([X[:, :4], X[1:, 4:]], y)
    with pytest.raises(FusionError, match=r"^y should .*found one class, 'a'\.$"):
        small().fit(X, ["a"] * 90)
    with pytest.raises(NotFittedError):
        small().predict(X)


# -- missing views -----------------------------------------------------------------------------------------------------


def missing(rows: int = 90) -> tuple[Any, Any, Any, Any]:
    """Return X with NaN where a view is absent, X with junk there, y and the mask; rows 0 and 1 lack both views."""
    X, y = data(rows)
    mask = np.random.default_rng(1).random((rows, 2)) < 0.7
    mask[:2] = False
    columns = np.repeat(mask, [4, 3], axis=1)
    return np.where(columns, X, np.nan), np.where(columns, X, 1e30), y, mask


def test_nan_rows_and_a_mask_are_the_same() -> None:
    X, junk, y, mask = missing()
    first, second = small().fit(X, y), small().fit(junk, y, mask=mask)
    assert (first.predict_proba(X) == second.predict_proba(junk, mask=mask)).all()
    assert (first.predict(X) == first.predict(junk, mask)).all()
    assert first.score(X, y) == first.score(junk, y, mask=mask) > 0.9
    assert first.score(X, y, np.arange(90)) != first.score(X, y)
    parts = small(views=None).fit([junk[:, :4], junk[:, 4:]], y, mask.tolist())
    assert (parts.predict_proba([X[:, :4], X[:, 4:]]) == first.predict_proba(X)).all()
    assert first.model_.predict([X[:, :4], X[:, 4:]]) == first.predict(X).tolist()


def test_rows_of_a_complete_fit_may_lack_views() -> None:
    X, y = data()
    classifier = small(view_dropout=0.5).fit(X, y)
    assert classifier.predict(np.where(np.arange(7) < 4, X, np.nan)).tolist() == y.tolist()
    found = classifier.predict_proba(np.vstack([X[:1], np.full((2, 7), np.nan)]))
    assert (found[1] == found[2]).all()
    np.testing.assert_allclose(found[:1], classifier.predict_proba(X[:1]), rtol=1e-9)


def test_view_dropout_changes_the_model_and_is_an_option_like_the_others() -> None:
    X, y = data()
    assert (small(view_dropout=0.5).fit(X, y).predict_proba(X) != small().fit(X, y).predict_proba(X)).any()
    with pytest.raises(ConfigError, match=like("view_dropout … found 1.0.")):
        small(view_dropout=1.0).fit(X, y)


def test_encoders_see_zeros() -> None:
    X, junk, y, mask = missing()
    first = small(encoder="mlp", fusion="average").fit(X, y)
    second = small(encoder="mlp", fusion="average").fit(junk, y, mask)
    assert (first.predict_proba(X) == second.predict_proba(junk, mask)).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda X, mask: (X, np.ones_like(mask)), "View 0 of X … the mask calls present; found"),
        (lambda X, mask: (X, mask[:, :1]), "mask … (90, 2), a column per view; found (90, 1)."),
        (lambda X, mask: (X, mask[1:]), "mask … (90, 2), a column per view; found (89, 2)."),
        (lambda X, mask: (X, mask.astype(int)), "mask … found int64."),
        (lambda X, mask: (X, np.ma.masked_array(mask, ~mask)), "mask should have no masked entries; found"),
        (lambda X, mask: (np.where(np.arange(7) == 2, np.nan, X), None), "View 0 of X … found"),
        (lambda X, mask: (np.where(np.arange(7) < 4, np.nan, X), None), "View 0 (0) … found it in none."),
        (lambda X, mask: (X * np.nan, None), "View 0 (0) … found it in none."),
    ],
    ids=["NaN", "columns", "rows", "dtype", "masked", "some", "absent", "all"],
)
def test_what_fit_refuses(change: Any, sentence: str) -> None:
    X, _, y, mask = missing()
    X, mask = change(X, mask)
    with pytest.raises(FusionError, match=like(sentence)):
        small(epochs=1).fit(X, y, mask)


def test_rows_to_predict_need_one_with_a_view() -> None:
    X, y = data()
    classifier = small(epochs=1).fit(X, y)
    for predict in (classifier.predict, lambda X: classifier.model_.predict([X[:, :4], X[:, 4:]])):
        with pytest.raises(ValueError, match=like("At least one row … found none in 90 rows.")):
            predict(X * np.nan)


def test_a_fusion_that_refuses_masks_is_named_with_what_helps() -> None:
    class First(ElementwiseFusion):
        """``A_1``."""

        def _fuse(self, x: Any) -> Any:
            return x[0].clone()

    plugin = SimpleNamespace(__name__="plugin")
    plugin.fusionkit_fusions = fusionkit.hookimpl(lambda: {"first": First})
    plugin.fusionkit_fusions.__name__ = "fusionkit_fusions"
    X, _, y, _ = missing()
    with registry.isolated(plugin):
        with pytest.raises(FusionError, match=r"first .*missing='placeholder'"):
            small(fusion="first", encoder="linear").fit(X, y)
        with pytest.raises(FusionError, match=r"first .*missing='placeholder'"):
            small(fusion="first", encoder="linear", view_dropout=0.5).fit(*data())
        small(fusion={"name": "first", "missing": "placeholder"}, encoder="linear").fit(X, y)


def test_a_data_frame_of_a_mask_keeps_the_order_of_the_rows() -> None:
    pandas = pytest.importorskip("pandas")
    _, junk, y, mask = missing()
    X, frame = pandas.DataFrame(junk, columns=[*"abcdefg"]), pandas.DataFrame(mask)
    assert small(epochs=1).fit(X, y, frame).predict(X, frame).shape == (90,)
    with pytest.raises(FusionError, match=like("X and mask should have their rows in the same order")):
        small(epochs=1).fit(X, y, frame[::-1])


def test_metadata_routing_passes_masks_on() -> None:
    X, junk, y, mask = missing()
    with config_context(enable_metadata_routing=True):
        classifier = small().set_fit_request(mask=True).set_score_request(mask=True)
        pipeline = make_pipeline(MinMaxScaler(), classifier)
        routed = cross_validate(classifier, junk, y, cv=3, params={"mask": mask})["test_score"]
        assert cross_validate(pipeline, junk, y, cv=3, params={"mask": mask})["test_score"].shape == (3,)
        fitted = classifier.set_predict_request(mask=True).fit(junk, y, mask=mask)
        assert (make_pipeline(fitted).predict(junk, mask=mask) == fitted.predict(X)).all()
    assert (routed == cross_validate(small(), X, y, cv=3)["test_score"]).all()


@pytest.mark.parametrize("labels", [["1", 1, 2], (1, "1", "2"), [True, "True", "x"]])
def test_labels_that_numpy_would_make_equal(labels: list[Any]) -> None:
    X = np.random.default_rng(0).normal(size=(30, 4))
    with pytest.raises(FusionError, match=r"^y should contain either texts or numbers; found both"):
        FusionClassifier(epochs=1).fit(X, labels * 10)


def test_classes_of_the_model_are_those_of_python() -> None:
    X, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30, dtype=np.longdouble) % 3
    assert [type(label) for label in FusionClassifier(epochs=1).fit(X, y).model_.classes] == [float] * 3
