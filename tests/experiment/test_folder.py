"""A folder of ``.npy`` files, against the same arrays in a ``.npz`` file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fusionkit.config.hashing import file_digest
from fusionkit.config.options import FolderOptions, validate
from fusionkit.errors import FusionError
from fusionkit.experiment.data import load_data
from fusionkit.experiment.folder import read_folder
from fusionkit.experiment.run import run_job
from fusionkit.experiment.source import Source
from fusionkit.experiment.stored import StoredView
from tests.messages import like

Write = Callable[..., Path]
#: Of the small data: 60 rows of 4 float64 and 3 int64.
VIEWS_GB = 60 * 7 * 8 / 1e9


@pytest.fixture
def folder(tmp_path: Path, arrays: dict[str, Any]) -> Write:
    """Return a function that writes the small data, some arrays replaced (None: left out), and returns the folder."""

    def write(name: str = "data", **replaced: Any) -> Path:
        (tmp_path / name).mkdir()
        for key, array in {**arrays, **replaced}.items():
            if array is not None:
                np.save(tmp_path / name / f"{key}.npy", array)
        return tmp_path / name

    return write


def read(path: Path, **options: Any) -> Source:
    return read_folder(FolderOptions(name="folder", path=str(path), **options))


def loaded(path: Path, **options: Any) -> Any:
    return load_data({"name": "folder", "path": str(path), **options})


def refused(path: Path, sentence: str, **options: Any) -> None:
    """Assert that reading the folder fails with a sentence like this one, in which {path} stands for the folder."""
    with pytest.raises(FusionError, match=like(sentence.replace("{path}", str(path)))):
        read(path, **options)


# -- what is read ------------------------------------------------------------------------------------------------------


def test_a_run_equals_that_of_the_same_arrays_in_a_file(
    folder: Write, npz: Write, config: Callable[..., Any], arrays: dict[str, Any], tmp_path: Path
) -> None:
    mask = np.ones((60, 2), dtype=bool)
    mask[7, 0] = mask[20:30, 1] = False
    more = {"id": [f"r{i}" for i in range(60)], "weight": np.linspace(0.5, 2, 60), "group": np.arange(60) // 2}
    more["mask"] = mask
    written = {"npz": npz(**more), "folder": folder(**more)}
    records = {}
    for name, path in written.items():
        node = {"name": name, "path": str(path), "missing": "mask"}
        records[name] = run_job(validate(config(data=node)), tmp_path / f"run_{name}", quiet=True)
    first, second = records.values()
    for key in ("config_hash", "provenance", "seconds", "config", "time"):
        first.pop(key, None), second.pop(key, None)
    for record in records.values():
        for key in ("name", "label", "digest"):
            record["data"].pop(key)
    assert first == second
    tensors = [load_file(tmp_path / f"run_{name}" / "model.safetensors") for name in written]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(np.array_equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    rows = [np.load(tmp_path / f"run_{name}" / "rows.npz") for name in written]
    assert all(np.array_equal(rows[0][name], rows[1][name]) for name in rows[0].files)


def test_views_in_the_order_of_their_names(folder: Write) -> None:
    view = np.zeros((60, 1))
    path = folder(**{"a-b": view, "B": view, "a": view})
    assert list(read(path).views) == ["B", "a", "a-b", "b"]


@pytest.mark.parametrize(("memory_gb", "stored"), [(1.0, False), (VIEWS_GB, False), (VIEWS_GB * 0.99, True), (0, True)])
def test_views_of_more_bytes_stay_in_their_files(
    folder: Write, arrays: dict[str, Any], memory_gb: float, stored: bool
) -> None:
    weight = np.ones(60)
    data = loaded(folder(weight=weight), memory_gb=memory_gb)
    assert data.stored is stored
    assert [isinstance(view, StoredView) for view in data.views.values()] == [stored] * 2
    assert ["data.memory_gb" in note for note in data.notes] == [True] * stored
    assert data.dims == [4, 3]
    assert data.mask is None
    for name, view in data.views.items():
        assert view.dtype == arrays[name].dtype
        np.testing.assert_array_equal(view[:], arrays[name])
    np.testing.assert_array_equal(data.target, arrays["label"])
    np.testing.assert_array_equal(data.roles["weight"], weight)


def test_what_a_stored_view_contains_is_not_looked_at(folder: Write, arrays: dict[str, Any]) -> None:
    view = arrays["a"].copy()
    view[3, 1] = np.nan
    path = folder(a=view)
    assert loaded(path, memory_gb=0).mask is None
    with pytest.raises(FusionError, match=r"View 'a' of .* 1 with NaN, the first is row 3"):
        loaded(path)


@pytest.mark.parametrize("memory_gb", [1.0, 0])
def test_the_mask(folder: Write, memory_gb: float) -> None:
    mask = np.ones((60, 2), dtype=bool)
    options: dict[str, Any] = {"missing": "mask", "memory_gb": memory_gb}
    assert loaded(folder("all", mask=mask), **options).mask is None
    mask[5, 1] = False
    np.testing.assert_array_equal(loaded(folder("some", mask=mask), **options).mask, mask)
    for name, wrong, sentence in (
        ("none", None, "…an array 'mask' (rows, views), which data.missing=mask asks for; found the arrays 'a', 'b',"),
        ("shape", mask[:9], "The array 'mask' of … should have the shape (60, 2), a column per view; found (9, 2)."),
        ("dtype", mask.astype(int), "The array 'mask' of … should be of bool"),
    ):
        with pytest.raises(FusionError, match=like(sentence)):
            loaded(folder(name, mask=wrong), **options)


def test_a_link_to_a_file(folder: Write, arrays: dict[str, Any], tmp_path: Path) -> None:
    path = folder(a=None)
    np.save(tmp_path / "elsewhere.npy", arrays["a"])
    (path / "a.npy").symlink_to(tmp_path / "elsewhere.npy")
    np.testing.assert_array_equal(read(path).views["a"], arrays["a"])


def test_other_files_are_ignored_and_told(folder: Write) -> None:
    path = folder()
    for name in (".hidden", "._a.npy", "README", "README.rst", "meta.json", "names.txt", "notes.md"):
        (path / name).write_text("no array")
    assert read(path).notes == []
    (path / "c.NPY").write_text("no array")
    (path / "raw").mkdir()
    assert read(path).notes == [f"Ignored in {path}, because they do not end in .npy: c.NPY, raw."]


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_name_that_is_no_text(folder: Write) -> None:
    path = folder()
    try:
        os.rename(path / "a.npy", os.fsencode(path) + b"/\xff.npy")
    except OSError:
        pytest.skip("the file system takes no such name")
    with pytest.raises(FusionError, match=like(f"The files of {path} should have names in UTF-8; found '\\udcff'.")):
        read_folder(FolderOptions(name="folder", path=str(path)))


def test_no_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none", "The data should be a folder of .npy files; found {path}: No such file or directory.")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "The data should be a folder of .npy files; found {path}: Not a directory.")


@pytest.mark.parametrize("key", ["a", "label"])
def test_objects_are_not_unpickled(folder: Write, key: str, tmp_path: Path) -> None:
    witness = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (witness,))

    objects = np.empty((60, 1) if key == "a" else 60, dtype=object)
    objects[:] = Hostile()
    sentence = f"The array {key!r} of {{path}} … found Python objects, which are not read because that could run code."
    refused(folder(**{key: objects}), sentence)
    assert not witness.exists()


def test_headers_are_checked_before_anything_is_read(folder: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last view is wrong, and none before it is read."""
    monkeypatch.setattr("fusionkit.experiment.stored.StoredArray.whole", None)
    wrong = {
        "rows": (np.zeros((59, 1)), "View 'c' of {path} should have 60 rows, as the first view; found 59."),
        "rank": (
            np.zeros(60),
            "View 'c' of {path} should have the shape (rows, width), neither of them 0; found (60,).",
        ),
        "empty": (np.zeros((60, 0)), "View 'c' of {path} … found (60, 0)."),
        "text": (np.full((60, 1), "x"), "View 'c' of {path} should contain real numbers; found dtype <U1."),
        "order": (np.asfortranarray(np.zeros((60, 2))), "{path}/c.npy should be in C order… found Fortran order."),
    }
    for name, (array, sentence) in wrong.items():
        refused(folder(name, c=array), sentence)


@pytest.mark.parametrize("memory_gb", [1.0, 0])
def test_what_is_missing_or_does_not_fit(folder: Write, arrays: dict[str, Any], memory_gb: float) -> None:
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "label": (
            {"label": None},
            "{path} should contain an array 'label' with a label per row; found the arrays 'a',",
        ),
        "views": ({"a": None, "b": None}, "{path} should contain at least one view besides 'label'; found none."),
        "rows": ({"label": arrays["label"][1:]}, "The array 'label' of {path} … found (59,)."),
        "group": ({"group": np.arange(59)}, "The array 'group' of {path} should have the shape (60,)"),
        "weight": ({"weight": -np.ones(60)}, "The array 'weight' of {path} should contain numbers of at least 0"),
        "nan": ({"label": np.full(60, np.nan)}, "The array 'label' of {path} should be finite"),
    }
    for name, (changed, sentence) in wrong.items():
        refused(folder(name, **changed), sentence, memory_gb=memory_gb)


def test_a_truncated_file(folder: Write) -> None:
    path = folder()
    content = (path / "b.npy").read_bytes()
    (path / "b.npy").write_bytes(content[:-1])
    refused(path, "{path}/b.npy should have 1440 bytes of values, for its shape (60, 3); found 1439.")


# -- a test part in a folder of its own --------------------------------------------------------------------------------


@pytest.mark.parametrize(("memory_gb", "stored"), [(1.0, False), (1.2 * VIEWS_GB, False), (1.05 * VIEWS_GB, True)])
def test_the_rows_of_test_path_are_the_last(
    folder: Write, arrays: dict[str, Any], memory_gb: float, stored: bool
) -> None:
    first, second = folder(), folder("test", **{key: array[:6] for key, array in arrays.items()})
    data = loaded(first, test_path=str(second), memory_gb=memory_gb)
    assert data.test_rows.tolist() == list(range(60, 66))
    assert data.stored is stored
    assert len(data.notes) == stored
    for name, view in data.views.items():
        np.testing.assert_array_equal(view[:], np.concatenate([arrays[name], arrays[name][:6]]))
    np.testing.assert_array_equal(data.target, np.concatenate([arrays["label"], arrays["label"][:6]]))
    assert data.digest == hashlib.sha256(f"{read(first).digest} {read(second).digest}".encode()).hexdigest()


def test_a_test_part_that_is_not_there(folder: Write, tmp_path: Path) -> None:
    with pytest.raises(FusionError, match=r"found .*nowhere: No such file"):
        loaded(folder(), test_path=str(tmp_path / "nowhere"))


# -- digests -----------------------------------------------------------------------------------------------------------


def test_the_digest_is_that_of_names_and_contents(folder: Write) -> None:
    first, second = folder("first"), folder("second")
    assert read(first).digest == read(second).digest == file_digest(str(first))
    (second / "notes.txt").write_text("new")
    assert read(first).digest == file_digest(str(second))
    (second / "b.npy").rename(second / "c.npy")
    assert file_digest(str(second)) not in (None, read(first).digest)
    np.save(first / "a.npy", np.zeros((60, 4)))
    assert read(first).digest == file_digest(str(first)) != read(second).digest


def test_folders_that_have_no_digest(tmp_path: Path) -> None:
    assert file_digest(str(tmp_path)) is None
    os.mkfifo(tmp_path / "a.npy")
    assert file_digest(str(tmp_path)) is None
