from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fusionkit.experiment.robustness import DRAWS, RATES, Mask, Views, robustness
from tests.run_records import run_job

M = 400


@pytest.fixture
def views() -> dict[str, npt.NDArray[np.float32]]:
    """Return two views: the sign of ``a`` is the class, ``b`` is large and of no use."""
    sign = np.where(np.arange(M) % 2, 3.0, -3.0).astype(np.float32)
    return {"a": sign[:, None], "b": np.full((M, 2), 9.0, dtype=np.float32)}


def by_sign(views: Views, mask: Mask | None) -> float:
    """Return the accuracy of predicting by sign; 0 where ``a`` is absent."""
    found = (views[0][:, 0] > 0).astype(np.int64)
    found = found if mask is None else np.where(mask[:, 0], found, 0)
    return float(np.mean(found == np.arange(M) % 2))


def test_missing_views_are_masked(views: dict[str, npt.NDArray[np.float32]]) -> None:
    seen = []

    def score(given: Views, mask: Mask | None) -> float:
        if mask is not None:
            assert all(view is clean for view, clean in zip(given, views.values(), strict=True))
            seen.append(mask.all(0).tolist() if (mask == mask[0]).all() else None)
        return by_sign(given, mask)

    found = robustness(score, views, seed=0)
    assert found["missing"] == {"a": 0.5, "b": 1.0}
    assert found["only"] == {"a": 1.0, "b": 0.5}
    assert seen == [[False, True], [True, False], [True, False], [False, True], *[None] * len(RATES) * DRAWS]


def test_views_are_missing_at_the_rate_and_one_is_kept(views: dict[str, npt.NDArray[np.float32]]) -> None:
    seen = []

    def score(given: Views, mask: Mask | None) -> float:
        if mask is not None:
            seen.append(mask)
        return by_sign(given, mask)

    found = robustness(score, views, seed=0)["missing_rate"]
    drawn = np.stack(seen[4:]).reshape(len(RATES), DRAWS, M, 2)
    assert drawn.any(-1).all()
    # Both are dropped with probability rate ** 2; then one of the two stays.
    expected = [1 - rate + rate**2 / 2 for rate in RATES]
    np.testing.assert_allclose(drawn.mean((1, 2)), np.stack([expected, expected], -1), atol=0.03)
    assert not np.array_equal(drawn[:, 0], drawn[:, 1])
    # Half of the rows are of class 1, and wrong where `a` is absent.
    wrong = ~drawn[..., 0] & (np.arange(M) % 2 == 1)
    assert found == {f"{rate:g}": pytest.approx(1 - wrong[i].mean()) for i, rate in enumerate(RATES)}


def test_a_view_that_the_data_lack_stays_absent(views: dict[str, npt.NDArray[np.float32]]) -> None:
    known = np.ones((M, 2), dtype=bool)
    known[::2, 1] = False

    def score(given: Views, mask: Mask | None) -> float:
        assert mask is not None
        assert not mask[::2, 1].any()
        return by_sign(given, mask)

    found = robustness(score, views, seed=0, mask=known)
    assert found["missing"] == {"a": 0.5, "b": 1.0}
    assert known[1::2].all()  # Nothing was changed in place.


def test_a_model_that_refuses_masks_gets_none(views: dict[str, npt.NDArray[np.float32]]) -> None:
    def score(given: Views, mask: Mask | None) -> float:
        assert mask is None
        return by_sign(given, mask)

    found = robustness(score, views, seed=0, refuses=True)
    assert found["missing"] == found["only"] == {"a": None, "b": None}
    assert found["missing_rate"] == {"0.1": None, "0.3": None, "0.5": None, "0.7": None}
    assert found["noisy"]["b"] == 1.0


def test_noise_has_its_deviation_and_hits_the_named_view(views: dict[str, npt.NDArray[np.float32]]) -> None:
    added = []

    def score(given: Views, mask: Mask | None) -> float:
        if mask is None:
            added.append([float((after - before).std()) for after, before in zip(given, views.values(), strict=True)])
        return by_sign(given, mask)

    found = robustness(score, views, seed=3)
    np.testing.assert_allclose(np.asarray(added[:2]), np.eye(2), atol=0.1)
    np.testing.assert_allclose(np.asarray(added[2:]), np.outer([0.5, 1, 2], [1, 1]), rtol=0.1)
    # Three deviations away from the boundary: Phi(-3 / 2) = 0.067 of the rows are on the wrong side.
    assert found["noise"]["2"] == pytest.approx(1 - 0.0668, abs=0.04)
    assert found["noise"]["0.5"] == found["noisy"]["b"] == 1.0


def test_same_seed_same_noise_and_absence(views: dict[str, npt.NDArray[np.float32]]) -> None:
    first, again, other = (robustness(by_sign, views, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["noise"]["2"] != other["noise"]["2"]
    assert first["missing_rate"] != other["missing_rate"]


def test_scores_that_are_undefined_are_left_out_of_the_mean(views: dict[str, npt.NDArray[np.float32]]) -> None:
    given: list[float | None] = []

    def score(_: Views, mask: Mask | None) -> float | None:
        given.append(None if mask is None or len(given) % 2 else len(given) / 100)
        return given[-1]

    found = robustness(score, views, seed=0)
    assert found["missing"] == {"a": 0.0, "b": None}
    assert found["missing_rate"]["0.1"] == pytest.approx((0.04 + 0.06 + 0.08) / 3)
    assert set(found["noise"].values()) == {None}


def test_a_run_records_it(config: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    result = run_job(config(), tmp_path / "run", quiet=True, record_only=True)
    assert set(result["robustness"]["missing"]) == set(result["robustness"]["only"]) == {"a", "b"}
    assert set(result["robustness"]["missing_rate"]) == {"0.1", "0.3", "0.5", "0.7"}
    assert all(0 <= value <= 1 for part in result["robustness"].values() for value in part.values())
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["result.json"]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["robustness"] == result["robustness"]
