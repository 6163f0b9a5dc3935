"""Files of predictions hold the columns of every batch."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fusionkit.experiment.prediction_files import WRITERS

#: ``file`` is an argument of numpy.savez too.
BATCHES = [
    {"file": np.array(["007", "NA"]), "prediction": ["größer", "b,c"], "probability_a": np.array([0.1, 1 / 3])},
    {"file": np.array(["x"]), "prediction": ['"'], "probability_a": np.array([1e-300])},
]


@pytest.mark.parametrize("ending", WRITERS)
def test_what_is_written_is_read(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"predictions{ending}"
    WRITERS[ending](iter(BATCHES), path)
    if ending == ".npz":
        with np.load(path) as archive:
            found = pd.DataFrame(dict(archive))
    elif ending == ".csv":
        found = pd.read_csv(path, dtype={"file": str}, keep_default_na=False)
    else:
        found = pd.read_parquet(path)
    assert found.to_dict("list") == {
        "file": ["007", "NA", "x"],
        "prediction": ["größer", "b,c", '"'],
        "probability_a": [0.1, 1 / 3, 1e-300],
    }


def test_an_npz_file_has_the_type_that_holds_all_batches(tmp_path: Path) -> None:
    batches = [
        {"id": np.array(["a"]), "n": np.array([1], dtype=np.int32), "strided": np.arange(4)[::2][:1]},
        {"id": np.array(["größer", "b"]), "n": np.array([2**40, 3]), "strided": np.arange(4)[::2]},
        {"id": np.array([], dtype="U9"), "n": np.array([], dtype=np.int8), "strided": np.array([], dtype=np.int64)},
    ]
    WRITERS[".npz"](iter(batches), tmp_path / "a.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    found = np.load(tmp_path / "a.npz")
    for name in found.files:
        expected = np.concatenate([batch[name] for batch in batches])
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


def test_an_npz_file_is_written_in_constant_memory(tmp_path: Path) -> None:
    def batches(count: int) -> Iterator[dict[str, Any]]:
        yield from ({"row": np.arange(10_000), "probability": np.full(10_000, i / count)} for i in range(count))

    peaks = []
    for count in (5, 50):
        tracemalloc.start()
        WRITERS[".npz"](batches(count), tmp_path / "a.npz")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000  # Of 8 MB.
