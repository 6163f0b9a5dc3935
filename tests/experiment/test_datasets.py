from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_linnerud

from fusionkit.builtin import DATASETS
from fusionkit.config import compose
from fusionkit.config.options import data_options
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment.data import Dataset, load_data
from fusionkit.experiment.source import Rows
from fusionkit.experiment.splits import split
from tests.messages import like


def test_digits_are_the_quadrants_of_the_images() -> None:
    data = load_data({"name": "digits"}, [16, 16, 16, 16])
    views = [view.reshape(-1, 4, 4) for view in data.views.values()]
    whole = np.concatenate([np.concatenate(views[:2], axis=2), np.concatenate(views[2:], axis=2)], axis=1)
    np.testing.assert_array_equal(whole, load_digits().images)
    np.testing.assert_array_equal(np.asarray(data.classes)[data.target], load_digits().target)
    assert (data.rows, data.label) == (1797, "digits")


def test_breast_cancer_is_mean_error_and_worst() -> None:
    data = load_data({"name": "breast_cancer"}, [10, 10, 10])
    found = load_breast_cancer()
    columns = {
        "mean": [i for i, name in enumerate(found.feature_names) if name.startswith("mean ")],
        "error": [i for i, name in enumerate(found.feature_names) if name.endswith(" error")],
        "worst": [i for i, name in enumerate(found.feature_names) if name.startswith("worst ")],
    }
    for name, view in data.views.items():
        np.testing.assert_array_equal(view, found.data[:, columns[name]])
    assert data.classes == ["benign", "malignant"]
    np.testing.assert_array_equal(data.target == 1, found.target == 0)


def test_diabetes_is_body_and_serum_in_their_units() -> None:
    data = load_data({"name": "diabetes"}, [4, 6], "auto")
    found = load_diabetes(scaled=False)
    assert found.feature_names == ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
    np.testing.assert_array_equal(np.concatenate([data.views["body"], data.views["serum"]], axis=1), found.data)
    np.testing.assert_array_equal(data.target, found.target[:, None])
    assert (data.rows, data.task.name, data.reason) == (442, "regression", "as the data set says")


def test_linnerud_has_three_targets() -> None:
    data = load_data({"name": "linnerud"}, [2, 1], "auto")
    found = load_linnerud()
    assert found.feature_names == ["Chins", "Situps", "Jumps"]
    np.testing.assert_array_equal(np.concatenate([data.views["strength"], data.views["jumps"]], axis=1), found.data)
    np.testing.assert_array_equal(data.target, found.target)
    assert (data.rows, data.task.name) == (20, "regression")


@pytest.mark.parametrize("name", DATASETS)
def test_the_config_fits_the_data(name: str) -> None:
    cfg = compose([f"data={name}"])
    assert cfg["dims"] == load_data(cfg["data"], cfg["dims"], "auto").dims == cfg["fusion"]["dims"]


#: Records of runs hold them, and are compared by them.
DIGESTS = {
    "mfeat": "ecb7bdb2509236442fc94f3ff628f36b1adf51575954c6899db5aa4a53b3799e",
    "digits": "34d5670318ecca6696406562b580fcb7f7b075239637a4d78e647fb3047631ef",
    "breast_cancer": "8b4c9781a5042d00c1825aa1b7e8c1098b3f05fb0cd1e5fa510c73dfe75a296d",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_the_digests_stay(name: str) -> None:
    assert load_data({"name": name}).digest == DIGESTS[name]


@pytest.mark.parametrize("name", DATASETS)
def test_what_is_installed_takes_no_path(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.path should be null for data={name}, .*; found 'x'\.$"):
        load_data({"name": name, "path": "x"}, task="auto")


# -- folds -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data({"name": "breast_cancer"})


def fold_of(data: Dataset, seed: int, fold: int, test_size: float = 0.2) -> tuple[Rows, Rows]:
    parts = split(data, data_options({"name": "breast_cancer", "test_size": test_size, "fold": fold}), seed)
    return parts.training, parts.test


def test_the_folds_of_a_seed_are_disjoint_and_stratified(data: Dataset) -> None:
    parts = [fold_of(data, 3, fold) for fold in range(5)]
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in parts])), np.arange(data.rows))
    for train, test in parts:
        assert not set(train) & set(test)
        assert len(train) + len(test) == data.rows
        assert np.bincount(data.target[test]).tolist() in ([71, 42], [72, 42], [71, 43], [72, 43])


def test_other_seeds_make_other_folds(data: Dataset) -> None:
    assert set(fold_of(data, 0, 0)[1]) != set(fold_of(data, 1, 0)[1])
    assert len(fold_of(data, 0, 9, 0.1)[1]) == 56


def test_folds_need_rows_of_every_class(data: Dataset) -> None:
    sentence = "Every class of breast_cancer … found 212 of class 'malignant'."
    with pytest.raises(FusionError, match=like(sentence)):
        fold_of(data, 0, 0, 1 / 284)


def test_a_config_with_a_wrong_fold_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^data\.fold should .*found -1\."):
        compose(["data=digits", "data.fold=-1"])
