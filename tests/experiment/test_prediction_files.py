"""Files of predictions hold the columns of every batch."""

from __future__ import annotations

from pathlib import Path

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
