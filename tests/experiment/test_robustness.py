from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fusionkit.experiment.robustness import robustness
from tests.run_records import run_job

M = 400


@pytest.fixture
def views() -> dict[str, npt.NDArray[np.float32]]:
    """Return two views: the sign of ``a`` is the class, ``b`` is large and of no use."""
    sign = np.where(np.arange(M) % 2, 3.0, -3.0).astype(np.float32)
    return {"a": sign[:, None], "b": np.full((M, 2), 9.0, dtype=np.float32)}


def by_sign(views: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return (views[0][:, 0] > 0).astype(np.int64)


def test_missing_views_stand_at_zero(views: dict[str, npt.NDArray[np.float32]]) -> None:
    seen = []

    def predict(given: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        seen.append([float(np.abs(view).max()) for view in given])
        return by_sign(given)

    found = robustness(predict, views, np.arange(M) % 2, seed=0)
    assert found["missing"] == {"a": 0.5, "b": 1.0}
    assert found["only"] == {"a": 1.0, "b": 0.5}
    assert seen[:4] == [[0.0, 9.0], [3.0, 0.0], [3.0, 0.0], [0.0, 9.0]]
    assert float(np.abs(views["a"]).min()) == 3.0  # Nothing was changed in place.


def test_noise_has_its_deviation_and_hits_the_named_view(views: dict[str, npt.NDArray[np.float32]]) -> None:
    added = []

    def predict(given: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        added.append([float((after - before).std()) for after, before in zip(given, views.values(), strict=True)])
        return by_sign(given)

    found = robustness(predict, views, np.arange(M) % 2, seed=3)
    np.testing.assert_allclose(np.asarray(added[4:6]), np.eye(2), atol=0.1)
    np.testing.assert_allclose(np.asarray(added[6:]), np.outer([0.5, 1, 2], [1, 1]), rtol=0.1)
    # Three deviations away from the boundary: Phi(-3 / 2) = 0.067 of the rows are on the wrong side.
    assert found["noise"]["2"] == pytest.approx(1 - 0.0668, abs=0.04)
    assert found["noise"]["0.5"] == found["noisy"]["b"] == 1.0


def test_same_seed_same_noise(views: dict[str, npt.NDArray[np.float32]]) -> None:
    target = np.arange(M) % 2
    first, again, other = (robustness(by_sign, views, target, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["noise"]["2"] != other["noise"]["2"]


def test_a_run_records_it(config: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    result = run_job(config(), tmp_path / "run", quiet=True, record_only=True)
    assert set(result["robustness"]["missing"]) == set(result["robustness"]["only"]) == {"a", "b"}
    assert all(0 <= value <= 1 for part in result["robustness"].values() for value in part.values())
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["result.json"]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["robustness"] == result["robustness"]
