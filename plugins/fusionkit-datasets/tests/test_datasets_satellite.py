"""Satellite.rda: views by band, and what is refused."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rdata
from fusionkit import FusionError
from tiny_sets import real, write_satellite

from fusionkit_datasets import satellite as module
from fusionkit_datasets.satellite import satellite


def test_a_view_has_one_band_of_all_pixels(tmp_path: Path) -> None:
    write_satellite(tmp_path, rows=5)
    found = satellite(str(tmp_path))
    assert list(found) == ["label", "green", "red", "infrared_1", "infrared_2"]
    assert found["label"].tolist() == ["grey soil", "red soil", "grey soil", "red soil", "grey soil"]
    for band, name in enumerate(module.BANDS):
        # The pixel p of band b is the column x.(4 p + b + 1).
        expected = [[100.0 * row + 4 * pixel + band + 1 for pixel in range(9)] for row in range(5)]
        assert found[name].tolist() == expected


def test_the_file_itself_may_be_given(tmp_path: Path) -> None:
    file = write_satellite(tmp_path)
    moved = file.rename(tmp_path / "other.rda")
    assert len(satellite(str(moved))["label"]) == 8


def test_it_is_found_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_satellite(tmp_path, rows=3)
    monkeypatch.setattr(module, "PLACES", (tmp_path / "none", tmp_path))
    assert len(satellite(None)["label"]) == 3


def test_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACES", (tmp_path,))
    with pytest.raises(FusionError) as caught:
        satellite(None)
    assert str(caught.value) == (
        "The data set satellite should be installed by `apt install r-cran-mlbench`, or data.path be Satellite.rda or "
        f"the folder that has it; found none in {tmp_path}."
    )
    for path in (tmp_path, tmp_path / "x.rda"):
        found = tmp_path / "Satellite.rda" if path == tmp_path else path
        with pytest.raises(FusionError) as caught:
            satellite(str(path))
        assert str(caught.value) == (
            f"data.path should be Satellite.rda, or the folder that has it; found no file {found}."
        )


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"Satellite": pd.DataFrame({"x.1": [1.0], "classes": pd.Categorical(["a"])})}, "the columns x.1, classes"),
        ({"Satellite": [1, 2]}, "no such data frame"),
    ],
    ids=["columns", "list"],
)
def test_another_object(tmp_path: Path, changes: dict[str, Any], found: str) -> None:
    file = write_satellite(tmp_path, **changes)
    with pytest.raises(FusionError) as caught:
        satellite(str(file))
    should = "the data frame Satellite with the columns x.1 to x.36 and classes"
    assert str(caught.value) == f"{file} should contain {should}; found {found}."


def test_another_file_of_r(tmp_path: Path) -> None:
    file = tmp_path / "Satellite.rda"
    rdata.write_rds(file, [1, 2])
    with pytest.raises(FusionError, match=r"should contain the data frame Satellite .*; found no such data frame\.$"):
        satellite(str(file))


def test_columns_of_text(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {f"x.{j}": pd.Categorical(["a", "b"]) for j in range(1, 37)} | {"classes": pd.Categorical(["c", "d"])}
    )
    file = write_satellite(tmp_path, Satellite=frame)
    with pytest.raises(FusionError, match=r"should be a data frame of numbers with a column of classes; found .*\.$"):
        satellite(str(file))


def test_a_damaged_file_is_one_sentence(tmp_path: Path) -> None:
    file = write_satellite(tmp_path)
    plain = gzip.decompress(file.read_bytes())
    rng = np.random.default_rng(0)
    refused = 0
    for damaged in (
        b"",
        b"text",
        file.read_bytes()[:-300],
        *(plain[:size] for size in rng.integers(len(plain), size=20)),
    ):
        file.write_bytes(damaged)
        with pytest.raises(FusionError) as caught:
            satellite(str(file))
        assert re.fullmatch(rf"{re.escape(str(file))} should .*; found .*\.", str(caught.value))
        refused += 1
    for place in rng.integers(300, size=40):
        file.write_bytes(plain[:place] + bytes([plain[place] ^ 0xFF]) + plain[place + 1 :])
        try:
            satellite(str(file))
        except FusionError:
            refused += 1
    assert refused > 30


def test_the_real_set() -> None:
    _, found = real("satellite")
    assert {name: array.shape for name, array in found.items() if name != "label"} == dict.fromkeys(
        module.BANDS, (6435, 9)
    )
    assert dict(zip(*np.unique(found["label"], return_counts=True), strict=True)) == {
        "cotton crop": 703,
        "damp grey soil": 626,
        "grey soil": 1358,
        "red soil": 1533,
        "vegetation stubble": 707,
        "very damp grey soil": 1508,
    }
    # The first row of the file: pixels of 92, 115, 120 and 94, then of 84, 102, 106 and 79.
    assert [found[band][0, :2].tolist() for band in module.BANDS] == [[92, 84], [115, 102], [120, 106], [94, 79]]
