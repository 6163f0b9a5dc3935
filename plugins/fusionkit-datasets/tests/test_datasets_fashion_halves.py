"""The four idx files: halves, the given test part, and what is refused."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from fusionkit import FusionError
from tiny_sets import pictures, real, write_fashion, write_idx

from fusionkit_datasets import fashion_halves as module
from fusionkit_datasets.fashion_halves import fashion_halves

FIRST = "train-images-idx3-ubyte.gz"


def test_halves_and_the_given_test_part(tmp_path: Path) -> None:
    found = fashion_halves(str(write_fashion(tmp_path, {"train": 3, "t10k": 2})))
    assert list(found) == ["label", "upper", "lower", "split"]
    assert found["label"].tolist() == [0, 1, 0, 0, 1]
    assert found["split"].tolist() == ["train", "train", "train", "test", "test"]
    for row, i in enumerate([0, 1, 2, 0, 1]):
        whole = [(3 * i + 5 * y + x) % 251 for y in range(28) for x in range(28)]
        assert found["upper"][row].tolist() == whole[:392]
        assert found["lower"][row].tolist() == whole[392:]


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACES", (tmp_path,))
    with pytest.raises(FusionError) as caught:
        fashion_halves(None)
    assert str(caught.value) == (
        "The data set fashion_halves should be installed by `apt install dataset-fashion-mnist`, or data.path be "
        f"{FIRST} or the folder that has it; found none in {tmp_path}."
    )
    write_fashion(tmp_path)
    assert len(fashion_halves(None)["label"]) == len(fashion_halves(str(tmp_path / FIRST))["label"]) == 12


@pytest.mark.parametrize(
    "name", [f"{begin}-{what}-ubyte.gz" for begin in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
)
@pytest.mark.parametrize("kept", [0, 2, 25, -4])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, name: str, kept: int) -> None:
    file = write_fashion(tmp_path) / name
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(FusionError) as caught:
        fashion_halves(str(tmp_path))
    assert re.fullmatch(
        rf"{re.escape(str(file))} should be a gzipped idx file of bytes .*; found .*\.", str(caught.value)
    )


def test_a_file_that_is_missing_or_not_gzipped(tmp_path: Path) -> None:
    file = write_fashion(tmp_path) / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(gzip.decompress(file.read_bytes()))
    with pytest.raises(FusionError, match=r"should be a gzipped idx file of bytes \(rows\); found one .*BadGzipFile"):
        fashion_halves(str(tmp_path))
    file.unlink()
    with pytest.raises(FusionError, match=r"found one that cannot be read \(FileNotFoundError: "):
        fashion_halves(str(tmp_path))


def test_another_type_shape_or_length(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    file = tmp_path / FIRST
    kind = f"{file} should be a gzipped idx file of bytes (rows, 28, 28); found another type or shape in its header."
    sizes = f"{file} should have the 6272 bytes that its header says; found"
    for write, message in (
        (lambda: write_idx(file, np.zeros((8, 28, 27))), kind),
        (lambda: write_idx(file, np.zeros(8)), kind),
        (lambda: write_idx(file, pictures(8), head=bytes((0, 0, 13, 3))), kind),
        (lambda: write_idx(file, pictures(8), more=b"1"), f"{sizes} more."),
        (lambda: file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:100])), f"{sizes} 84."),
    ):
        write()
        with pytest.raises(FusionError) as caught:
            fashion_halves(str(tmp_path))
        assert str(caught.value) == message


def test_another_number_of_labels(tmp_path: Path) -> None:
    file = write_fashion(tmp_path) / "t10k-labels-idx1-ubyte.gz"
    write_idx(file, np.zeros(3))
    with pytest.raises(FusionError) as caught:
        fashion_halves(str(tmp_path))
    assert str(caught.value) == f"{file} should have a label for each of 4 images; found 3."


def test_the_real_set() -> None:
    _, found = real("fashion_halves")
    assert found["upper"].shape == found["lower"].shape == (70000, 392)
    assert np.bincount(found["label"]).tolist() == [7000] * 10
    assert np.bincount(found["label"][found["split"] == "test"]).tolist() == [1000] * 10
    assert found["label"][:3].tolist() == [9, 0, 0]
