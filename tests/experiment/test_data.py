from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionkit.config.options import data_options
from fusionkit.errors import ConfigError, DimsError, FusionError
from fusionkit.experiment.data import Dataset, arrays_digest, load_data
from fusionkit.experiment.datasets import mfeat
from fusionkit.experiment.source import Labels, Source
from fusionkit.experiment.splits import split
from fusionkit.experiment.tasks.classification import Classification
from tests.fake_distributions import Site
from tests.messages import like

Write = Callable[..., Path]


def read(path: Path, **options: Any) -> Dataset:
    return load_data({"name": "npz", "path": str(path), **options}, None, "auto")


def refused(path: Path, sentence: str) -> None:
    """Assert that reading the file fails with a sentence like this one, in which {path} stands for the file."""
    with pytest.raises(FusionError, match=like(sentence.replace("{path}", str(path)))):
        read(path)


def test_embedded_data_are_there_with_their_attribution() -> None:
    data = load_data({"name": "mfeat"}, [76, 216, 64, 240, 47, 6])
    assert data.rows == 2000
    assert list(data.views) == ["fou", "fac", "kar", "pix", "zer", "mor"]
    assert data.dims == [76, 216, 64, 240, 47, 6]
    assert data.classes == list(range(10))
    assert np.bincount(data.target).tolist() == [200] * 10
    readme = (mfeat().parent / "README.md").read_text(encoding="utf-8")
    assert "Creative Commons Attribution 4.0" in readme
    assert "doi:10.24432/C5HC70" in readme


# -- data sets of plugins ----------------------------------------------------------------------------------------------


def test_a_registered_data_set_with_its_roles(site: Site) -> None:
    site.dataset()
    data = load_data({"name": "toy"}, task="auto")
    assert (data.name, data.label, data.rows, list(data.views)) == ("toy", "toy", 12, ["left", "right"])
    assert data.roles["split"].tolist() == ["train"] * 8 + ["test"] * 4
    assert data.digest == arrays_digest(importlib.import_module("fk_read").read(None))


@pytest.mark.parametrize(
    ("task", "asked", "reason"),
    [
        ("classification", "auto", "as the data set says"),
        ("regression", "auto", "as the data set says"),
        ("regression", "classification", "whole numbers, 12 different ones: classes; amounts? task=regression"),
    ],
)
def test_the_task_is_that_of_the_spec_unless_another_is_asked_for(
    task: str, asked: str, reason: str, site: Site
) -> None:
    site.dataset(task=task)
    data = load_data({"name": "toy"}, task=asked)
    assert (data.task.name, data.reason) == (task if asked == "auto" else asked, reason)


def test_a_registered_data_set_may_be_an_npz_file(site: Site, npz: Write) -> None:
    site.dataset()
    path = npz()
    data = load_data({"name": "toy", "path": str(path)}, task="auto")
    assert data.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert data.label == "toy"


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("absent", "toy should be installed: pip install toy; found none."),
        ("broken", "the data set 'toy' of fk-data 1.0 should be readable; found OSError: the disk is gone."),
        ("list", "should return a dict of arrays, or the path of an .npz file; found [1, 2]."),
        ("text", "should return a dict of arrays, or the path of an .npz file; found 'text'."),
        ("array", "should return a dict of arrays, or the path of an .npz file; found array([ 0., 1.,"),
        ("none", "should return a dict of arrays, or the path of an .npz file; found None."),
        ("number", "should return a dict of arrays, or the path of an .npz file; found 1."),
        ("views", "toy should contain an array 'label' with a label per row; found the arrays 'left'."),
    ],
)
def test_a_data_set_that_is_not_there_is_one_sentence(
    path: str, sentence: str, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.dataset()
    with pytest.raises(FusionError) as caught:
        load_data({"name": "toy", "path": path})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not capsys.readouterr().out


def test_every_array_but_label_is_a_view(npz: Write, arrays: dict[str, Any]) -> None:
    data = load_data({"name": "npz", "path": str(npz())})
    assert list(data.views) == ["a", "b"]
    assert data.dims == [4, 3]
    np.testing.assert_array_equal(data.views["b"], arrays["b"])
    np.testing.assert_array_equal(data.target, arrays["label"])


def test_digest_is_that_of_the_content(npz: Write, arrays: dict[str, Any]) -> None:
    first = read(npz()).digest
    assert read(npz()).digest == first
    assert read(npz(a=arrays["a"] + 1)).digest != first


def test_description_is_plain_json(npz: Write) -> None:
    described = read(npz()).describe()
    assert json.loads(json.dumps(described)) == described
    assert (described["rows"], described["label"]) == (60, "views.npz")


def test_other_widths_than_the_files(npz: Write) -> None:
    sentence = "dims … found [4, 5]."
    with pytest.raises(DimsError, match=like(sentence)):
        load_data({"name": "npz", "path": str(npz())}, [4, 5])


def test_nan_and_infinity(npz: Write, arrays: dict[str, Any]) -> None:
    view = arrays["a"].copy()
    view[9, 0] = -np.inf
    refused(npz(a=view), "View 'a' of {path} … found 1 infinite, the first in row 9.")
    view[3, 1] = view[7, 2] = np.nan
    refused(npz(a=view), "View 'a' of {path} … found 2 with NaN, the first is row 3.  A run with data.impute=mean …")


def absent(arrays: dict[str, Any], filler: float = np.nan) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Return the views with ``filler`` in absent rows, and the mask: row 0 lacks both, 1 and 2 view a, 3 view b."""
    mask = np.ones((60, 2), dtype=bool)
    mask[0], mask[1:3, 0], mask[3, 1] = False, False, False
    views = {"a": arrays["a"].copy(), "b": arrays["b"].astype(np.float64)}
    for i, view in enumerate(views.values()):
        view[~mask[:, i]] = filler
    return views, mask


def test_rows_that_are_all_nan_are_absent(npz: Write, arrays: dict[str, Any]) -> None:
    assert read(npz()).mask is None
    views, mask = absent(arrays)
    data = read(npz(**views))
    assert data.mask is not None
    np.testing.assert_array_equal(data.mask, mask)
    described = data.describe()
    assert (described["missing"], described["rows_without_views"]) == ({"a": 3, "b": 2}, 1)
    assert not {"missing", "rows_without_views"} & read(npz()).describe().keys()


@pytest.mark.parametrize("filler", [np.nan, np.inf, 1e300, -7.0])
def test_what_a_mask_calls_absent_may_hold_anything(npz: Write, arrays: dict[str, Any], filler: float) -> None:
    views, mask = absent(arrays, filler)
    data = load_data({"name": "npz", "path": str(npz(**views, mask=mask)), "missing": "mask", "impute": None})
    assert data.dims == [4, 3]
    assert data.mask is not None
    np.testing.assert_array_equal(data.mask, mask)
    assert read(npz(mask=np.ones((60, 2), dtype=bool)), missing="mask").mask is None


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (None, "{path} … 'mask' (rows, views), which data.missing=mask asks for; found the arrays 'a', 'b', 'label'."),
        (np.ones((60, 2)), "The array 'mask' of {path} … found float64."),
        (np.ones((60, 2), dtype=np.uint8), "The array 'mask' of {path} … found uint8."),
        (np.ones((60, 3), dtype=bool), "The array 'mask' of {path} … (60, 2), a column per view; found (60, 3)."),
        (np.ones(60, dtype=bool), "The array 'mask' of {path} … found (60,)."),
    ],
)
def test_the_mask_of_a_file(npz: Write, mask: Any, sentence: str) -> None:
    path = npz(mask=mask)
    with pytest.raises(FusionError, match=like(sentence.replace("{path}", str(path)))):
        read(path, missing="mask")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_mask_that_calls_present_what_is_not_finite(npz: Write, arrays: dict[str, Any], value: float) -> None:
    views, mask = absent(arrays, value)
    mask[1, 0] = mask[2, 0] = True
    path = npz(**views, mask=mask)
    found = "2 with NaN, the first is row 1." if np.isnan(value) else "8 infinite, the first in row 1."
    with pytest.raises(FusionError, match=like(f"View 'a' of {path} … found {found}")):
        read(path, missing="mask")
    if np.isnan(value):
        with pytest.raises(FusionError, match=like(f"View 'a' of {path} … found {found}")):
            read(path, missing="mask", impute="mean")


def test_some_nan_in_a_row_is_refused_unless_it_is_imputed(npz: Write, arrays: dict[str, Any]) -> None:
    views, mask = absent(arrays)
    views["a"][10:12, 2] = np.nan
    path = npz(**views)
    refused(path, "View 'a' of {path} … found 2 with NaN, the first is row 10.  A run with data.impute=mean …")
    data = read(path, impute="mean")
    assert data.impute == "mean"
    assert data.mask is not None
    np.testing.assert_array_equal(data.mask, mask)


def test_a_long_double_that_float64_cannot_hold(npz: Write, arrays: dict[str, Any]) -> None:
    view = arrays["a"].astype(np.longdouble)
    view[0, 0] = np.longdouble("1e400")
    refused(npz(a=view), "View 'a' of {path} … found 1 infinite, the first in row 0.")


def test_dataset_counts() -> None:
    target = np.array([0, 1])
    source = Source(Path("x"), "", {"a": np.zeros((2, 3))}, Labels(target, ["label"], "The label"))
    data = Dataset(**vars(source), name="x", task=Classification([0, 1]), target=target)
    assert (data.rows, data.dims) == (2, [3])


# -- a test part in a file of its own ----------------------------------------------------------------------------------


@pytest.fixture
def two(npz: Write, arrays: dict[str, Any]) -> Callable[..., Dataset]:
    """Return a function that reads the small data twice, the second file changed."""

    def read_two(task: str = "auto", **changed: Any) -> Dataset:
        first = npz(**changed.pop("first", {}))
        first.rename(first.with_name("first.npz"))
        path = str(first.with_name("first.npz"))
        return load_data({"name": "npz", "path": path, "test_path": str(npz(**changed))}, None, task)

    return read_two


def test_the_rows_of_test_path_are_the_last(two: Callable[..., Dataset], arrays: dict[str, Any]) -> None:
    data = two(**{key: arrays[key][:6] for key in arrays})
    assert data.test_rows is not None
    assert data.test_rows.tolist() == list(range(60, 66))
    np.testing.assert_array_equal(data.views["a"], np.concatenate([arrays["a"], arrays["a"][:6]]))
    np.testing.assert_array_equal(data.target, np.concatenate([arrays["label"], arrays["label"][:6]]))
    assert data.label == "first.npz"
    assert data.digest not in (two().digest, two(**{key: arrays[key][:7] for key in arrays}).digest)


def test_views_that_only_the_test_part_lacks(two: Callable[..., Dataset], arrays: dict[str, Any]) -> None:
    view = arrays["a"].copy()
    view[3] = np.nan
    mask = two(a=view).mask
    assert mask is not None
    assert np.argwhere(~mask).tolist() == [[63, 0]]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"a": np.ones((60, 5))}, "…views.npz …first.npz, {'a': 4, 'b': 3}; found {'a': 5, 'b': 3}."),
        ({"b": None}, "…views.npz …first.npz, {'a': 4, 'b': 3}; found {'a': 4}."),
        (
            {"label": np.array(["x", "y"] * 30)},
            "The array 'label' of … numbers …first.npz; found text of shape (rows).",
        ),
        (
            {"label": np.zeros((60, 2))},
            "The array 'label' of … (rows), as …first.npz; found numbers of shape (rows, 2).",
        ),
        ({"label": np.zeros(60) + np.nan}, "The array 'label' of …views.npz … in 60 rows, the first is row 0."),
        ({"first": {"id": np.arange(60)}}, "…views.npz … 'id' for each row, as …first.npz has; found none."),
    ],
)
def test_a_test_part_of_another_form(two: Callable[..., Dataset], changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FusionError, match=like(sentence)):
        two(**changed)


@pytest.mark.parametrize(
    ("path", "test_path", "found"),
    [
        ("a.csv", {"a": "b.csv"}, "data.test_path should be a file, as data.path is; found {'a': 'b.csv'}."),
        ({"a": "a.csv", "b": "b.csv"}, "b.csv", "a mapping of a, b to files, as data.path is; found 'b.csv'."),
        ({"a": "a.csv", "b": "b.csv"}, {"a": "a.csv"}, "data.test_path should have a file for the view 'b'; found"),
        (
            {"a": "a.csv", "b": "b.csv"},
            {"a": "b.csv", "b": "b.csv"},
            "one of the files b.csv, b.csv; found 'y' in none.",
        ),
    ],
)
def test_a_file_per_view_is_tested_by_one_per_view(path: Any, test_path: Any, found: str, tmp_path: Path) -> None:
    columns = {"a": "id,x,y\n1,2,no\n2,3,yes\n", "b": "id,z\n1,5\n2,7\n"}
    for name, text in columns.items():
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")

    def place(given: Any) -> Any:
        return {key: place(one) for key, one in given.items()} if isinstance(given, dict) else str(tmp_path / given)

    node = {"name": "table", "id": "id", "label": "y", "path": place(path), "test_path": place(test_path)}
    with pytest.raises((ConfigError, FusionError)) as caught:
        load_data(node, None, "auto")
    assert found in str(caught.value).replace(f"{tmp_path}/", "")


def test_weights_of_the_training_file_need_none_in_the_test_file(two: Callable[..., Dataset]) -> None:
    weight = np.linspace(0.5, 2, 60)
    np.testing.assert_array_equal(two(first={"weight": weight}).roles["weight"][:60], weight)
    assert "weight" not in two(weight=weight).roles


def test_a_split_beside_a_test_path_is_left_for_the_split_to_refuse(two: Callable[..., Dataset]) -> None:
    data = two(first={"split": np.array(["train", "test"] * 30)})
    with pytest.raises(ConfigError, match=r"found data\.test_path and the array 'split'"):
        split(data, data_options({"name": "npz", "path": "first.npz", "test_path": "views.npz"}), 0)


# -- tasks -------------------------------------------------------------------------------------------------------------


def test_the_label_says_what_the_task_is(npz: Write, arrays: dict[str, Any]) -> None:
    assert read(npz()).task.name == "classification"
    found = read(npz(label=arrays["a"][:, 0]))
    assert (found.task.name, found.strata, found.target.shape, found.classes) == ("regression", None, (60, 1), [])
    found = read(npz(label=arrays["b"] > 50))
    assert (found.task.name, found.strata, found.target.shape) == ("multilabel", None, (60, 3))
    assert found.classes == ["0", "1", "2"]


def test_embedded_sets_are_classification_unless_another_task_is_asked_for() -> None:
    assert load_data({"name": "digits"}, None, "auto").task.name == "classification"
    found = load_data({"name": "digits"}, None, "regression")
    assert (found.task.name, found.target.shape) == ("regression", (1797, 1))
    with pytest.raises(ConfigError, match=like("The array 'label' of digits … task=multilabel; found 2 in row 2.")):
        load_data({"name": "digits"}, None, "multilabel")
