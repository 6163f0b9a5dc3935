"""Which view matters: the permutations by hand, and the properties that the numbers should have."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.inspection import permutation_importance
from sklearn.metrics import log_loss

import fusionkit
from fusionkit.config.options import data_options
from fusionkit.experiment import results
from fusionkit.experiment.data import load_data
from fusionkit.experiment.importance import DRAWS, importance, ranked, worse
from fusionkit.experiment.metrics import rank_value
from fusionkit.experiment.robustness import Mask, Views
from fusionkit.experiment.splits import Parts, split
from tests.exhaustive import exhaustive_unless
from tests.run_records import run_job

Config = Callable[..., dict[str, Any]]
Array = npt.NDArray[Any]

M = 40
NOTHING = {"loss": None, "low": None, "high": None}


@pytest.fixture
def views() -> dict[str, Array]:
    """Return three views: ``a`` says the class by its sign, ``b`` is not used, ``c`` says it of every fourth row."""
    sign = np.where(np.arange(M) % 2, 3.0, -3.0)
    return {
        "a": sign[:, None],
        "b": np.arange(2.0 * M).reshape(M, 2),
        "c": np.where(np.arange(M) % 4, 0, sign)[:, None],
    }


def accuracy(given: Views, mask: Mask | None) -> float:
    """Return the accuracy of predicting by the sign of ``a + 2 c``, with zeros for what is absent."""
    shown = np.ones((len(given[0]), 3), dtype=bool) if mask is None else mask
    total = shown[:, 0] * given[0][:, 0] + 2 * shown[:, 2] * given[2][:, 0]
    return float(np.mean((total > 0) == np.arange(len(total)) % 2))


def of(views: dict[str, Array], score: Any = accuracy, metric: str = "accuracy", **options: Any) -> dict[str, Any]:
    """Return the importance of the views for a score."""
    mask = options.get("mask")
    return importance(metric, score, views, score([*views.values()], mask), **{"seed": 0, **options})


def by_hand(metric: str, measure: Callable[[list[Array]], float], views: list[Array], i: int, seed: int) -> list[float]:
    """Return the losses of view ``i``, row by row; a row of NaN lacks it."""
    rows, generator = len(views[i]), np.random.default_rng(seed)
    found = []
    for _ in range(10):
        order = generator.permutation(rows).tolist()
        changed = views[i].copy()
        donors = [row for row in order if not np.isnan(views[i][row]).any()]
        for row in range(rows):
            if not np.isnan(views[i][row]).any():
                changed[row] = views[i][donors.pop(0)]
        gain = measure([*views[:i], changed, *views[i + 1 :]]) - measure(views)
        found.append(gain if metric in ("rmse", "mae", "log_loss") else -gain)
    return found


def interval(losses: list[float]) -> dict[str, Any]:
    """Return what the record has of these losses."""
    low, high = stats.t.interval(0.95, 9, np.mean(losses), stats.sem(losses))
    return {key: pytest.approx(x, abs=1e-9) for key, x in (("loss", np.mean(losses)), ("low", low), ("high", high))}


# -- the numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 7])
def test_the_losses_are_those_by_hand(views: dict[str, Array], seed: int) -> None:
    found = of(views, seed=seed)
    for i, name in ((0, "a"), (2, "c")):
        losses = by_hand("accuracy", lambda given: accuracy(given, None), list(views.values()), i, seed)
        assert {key: found[name][key] for key in NOTHING} == interval(losses)


def test_a_view_that_is_not_used_loses_nothing(views: dict[str, Array]) -> None:
    assert of(views)["b"] == {"loss": 0.0, "low": 0.0, "high": 0.0, "without": 1.0}


def test_the_view_that_says_the_class_loses_most(views: dict[str, Array]) -> None:
    found = of(views)
    assert list(ranked(found)) == ["a", "c", "b"]
    assert found["a"]["loss"] > found["c"]["loss"] > 0.02
    assert found["a"]["low"] < found["a"]["loss"] < found["a"]["high"]


def test_without_is_the_metric_with_the_view_absent_from_every_row(views: dict[str, Array]) -> None:
    # Without `a` the rows that `c` is 0 for count as even.
    assert {name: view["without"] for name, view in of(views).items()} == {"a": 0.5, "b": 1.0, "c": 1.0}


def test_equal_losses_have_no_interval(views: dict[str, Array]) -> None:
    def score(given: Views, mask: Mask | None) -> float:
        return 0.7 if given[0] is views["a"] else 0.4

    assert of(views, score)["a"] == {**dict.fromkeys(NOTHING, 0.7 - 0.4), "without": 0.7}


@pytest.mark.parametrize("metric", ["rmse", "mae_cost", "log_loss", "calibration_error"])
def test_of_an_error_a_rise_is_a_loss(views: dict[str, Array], metric: str) -> None:
    errors = of(views, lambda given, mask: 1 - accuracy(given, mask), metric)
    shares = of(views)
    for name in views:
        assert [errors[name][key] for key in NOTHING] == pytest.approx([shares[name][key] for key in NOTHING])
        assert errors[name]["without"] == 1 - shares[name]["without"]
    assert (worse(metric), worse("accuracy")) == ("rises", "falls")


def test_the_seed_decides(views: dict[str, Array]) -> None:
    assert of(views, seed=3) == of(views, seed=3) != of(views, seed=4)


def test_the_other_views_do_not(views: dict[str, Array]) -> None:
    def alone(given: Views, mask: Mask | None) -> float:
        return float(np.mean((given[0][:, 0] > 0) == np.arange(M) % 2))

    single = importance("accuracy", alone, {"a": views["a"]}, 1.0, seed=0)
    both = importance("accuracy", alone, {"a": views["a"], "b": views["b"]}, 1.0, seed=0)
    assert single["a"] == both["a"]
    assert (single["a"]["loss"] or 0) > 0.3


# -- what is permuted --------------------------------------------------------------------------------------------------


def test_only_the_rows_of_one_view_change(views: dict[str, Array]) -> None:
    calls: list[Views] = []

    def score(given: Views, mask: Mask | None) -> float:
        if mask is None:
            calls.append(given)
        return 0.5

    of(views, score)
    clean = list(views.values())
    assert len(calls) == 1 + 3 * DRAWS
    for call, given in enumerate(calls[1:]):
        changed = call // DRAWS
        for i, (view, before) in enumerate(zip(given, clean, strict=True)):
            assert (view is before) == (i != changed)
            assert sorted(view.tolist()) == sorted(before.tolist())
    assert len({given[1].tobytes() for given in calls[1 + DRAWS : 1 + 2 * DRAWS]}) == DRAWS


def test_each_row_keeps_its_mask(views: dict[str, Array]) -> None:
    known = np.random.default_rng(0).random((M, 3)) < 0.6
    seen: list[tuple[Views, Mask]] = []

    def score(given: Views, mask: Mask | None) -> float:
        assert mask is not None
        seen.append((given, mask.copy()))
        return accuracy(given, mask)

    found = of(views, score, mask=known)
    clean, mine = list(views.values()), [pair for pair in seen if (pair[1] == known).all()]
    assert len(mine) == 1 + 3 * DRAWS
    for call, (given, _) in enumerate(mine[1:]):
        i = call // DRAWS
        there = known[:, i]
        assert (given[i][~there] == clean[i][~there]).all()
        assert sorted(given[i][there].tolist()) == sorted(clean[i][there].tolist())
    absent = [known & (np.arange(3) != i) for i in range(3)]
    assert [view["without"] for view in found.values()] == [accuracy(clean, mask) for mask in absent]
    gaps = [np.where(known[:, [i]], view, np.nan) for i, view in enumerate(clean)]
    wanted = by_hand("accuracy", lambda given: accuracy([np.nan_to_num(view) for view in given], None), gaps, 0, 0)
    assert {key: found["a"][key] for key in NOTHING} == interval(wanted)


def test_every_permutation_of_the_rows_that_have_the_view_is_drawn() -> None:
    view, known = np.arange(6.0)[:, None], np.array([[True], [False], [True], [False], [False], [True]])
    drawn: list[tuple[float, ...]] = []

    def score(given: Views, mask: Mask | None) -> float:
        drawn.append(tuple(given[0][[0, 2, 5], 0]))
        return 0.0

    for seed in range(60):
        importance("accuracy", score, {"a": view}, 0.0, seed=seed, mask=known, refuses=True)
    counts = {order: drawn.count(order) for order in permutations((0.0, 2.0, 5.0))}
    assert sum(counts.values()) == 60 * DRAWS
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


# -- what has no number ------------------------------------------------------------------------------------------------


def test_a_model_that_refuses_masks_gets_none(views: dict[str, Array]) -> None:
    def score(given: Views, mask: Mask | None) -> float:
        assert mask is None
        return accuracy(given, mask)

    found = of(views, score, refuses=True)
    assert {view["without"] for view in found.values()} == {None}
    assert found["a"]["loss"] == of(views)["a"]["loss"]


def test_an_undefined_metric_is_null(views: dict[str, Array]) -> None:
    nothing = {**NOTHING, "without": None}
    assert of(views, lambda given, mask: None) == dict.fromkeys(views, nothing)


def test_a_metric_that_some_permutations_leave_undefined_is_null(views: dict[str, Array]) -> None:
    scores = iter([0.5] * 5 + [None] + [0.5] * 100)
    found = importance("accuracy", lambda given, mask: next(scores), views, 0.75, seed=0)
    assert found["a"] == {**NOTHING, "without": 0.5}
    assert found["b"] == {**dict.fromkeys(NOTHING, 0.25), "without": 0.5}


@pytest.mark.parametrize("rows", [1, M])
def test_one_row_cannot_be_permuted(rows: int, views: dict[str, Array]) -> None:
    given = {name: view[:rows] for name, view in views.items()}
    known = np.ones((rows, 3), dtype=bool)
    known[1:, 0] = False
    found = of(given, mask=known)
    assert {key: found["a"][key] for key in NOTHING} == NOTHING
    assert found["a"]["without"] is not None
    assert (found["c"]["loss"] is None) == (rows == 1)


def test_views_without_a_number_are_last() -> None:
    views: dict[str, dict[str, float | None]] = {
        name: {"loss": loss} for name, loss in (("a", None), ("b", -0.1), ("c", 0.2), ("d", None), ("e", 0.2))
    }
    assert list(ranked(views)) == ["c", "e", "b", "a", "d"]


# -- of a run ----------------------------------------------------------------------------------------------------------


def parts_of(cfg: dict[str, Any]) -> Parts:
    data = load_data(cfg["data"], None, "auto")
    return split(data, data_options(cfg["data"]), cfg["seed"])


@pytest.mark.parametrize("gaps", [False, True], ids=["all present", "gaps"])
@pytest.mark.parametrize("metric", exhaustive_unless(lambda metric: metric == "log_loss", ["log_loss", "f1_macro"]))
def test_the_record_has_the_losses_by_hand(
    metric: str, gaps: bool, config: Config, npz: Callable[..., Path], arrays: dict[str, Any], tmp_path: Path
) -> None:
    views = [arrays["a"].copy(), arrays["b"].astype(float)]
    if gaps:
        views[0][::5], views[1][2::7] = np.nan, np.nan
    npz(a=views[0], b=views[1])
    cfg = config(seed=5, metric=metric)
    found = run_job(cfg, tmp_path / "run", quiet=True)
    model, rows = fusionkit.load(tmp_path / "run"), parts_of(cfg).test
    views, label = [view[rows] for view in views], arrays["label"][rows]

    def measure(given: list[Array]) -> float:
        mask = None if not gaps else np.stack([~np.isnan(view).any(1) for view in given], 1)
        value = model.task.score(metric, model.task.predicted(model.evaluate(given, mask)), label)
        assert value is not None
        return value

    assert found["metrics"][metric] == pytest.approx(measure(views))
    assert list(found["views"]) == ["a", "b"]
    for i, name in enumerate("ab"):
        wanted = interval(by_hand(metric, measure, views, i, 5))
        absent = [*views[:i], np.full_like(views[i], np.nan), *views[i + 1 :]]
        probability = model.predict_proba(absent)
        without = model.task.score(metric, np.asarray(probability), label)
        assert {**found["views"][name], "without": 0} == pytest.approx({**wanted, "without": 0}, abs=1e-6)
        assert found["views"][name]["without"] == pytest.approx(without, abs=1e-6)
    assert results.read_result(tmp_path / "run" / results.RESULT) == found
    assert (tmp_path / "run" / results.VIEWS).read_bytes().startswith(b"\x89PNG")


def test_the_mean_is_that_of_scikit_learn(config: Config, arrays: dict[str, Any], tmp_path: Path) -> None:
    class OfOneColumn(BaseEstimator):  # type: ignore[misc]
        """Takes the number of the row whose values a view has: scikit-learn permutes single columns."""

        def fit(self, X: Array, y: Array) -> OfOneColumn:
            return self

        def score(self, X: Array, y: Array) -> float:
            views = [arrays["a"][X[:, 0]], arrays["b"][X[:, 1]]]
            return -float(log_loss(y, model.predict_proba(views)))

    cfg = config(metric="log_loss")
    found = run_job(cfg, tmp_path / "run", quiet=True)
    model, rows = fusionkit.load(tmp_path / "run"), parts_of(cfg).test
    wanted = permutation_importance(
        OfOneColumn(), np.stack([rows, rows], 1), arrays["label"][rows], n_repeats=200, random_state=0
    )
    for i, name in enumerate("ab"):
        error = float(wanted.importances_std[i] * np.sqrt(1 / DRAWS + 1 / 200))
        assert abs(found["views"][name]["loss"] - wanted.importances_mean[i]) < 4 * error
        assert found["views"][name]["loss"] > 0.1


def test_it_can_be_turned_off(config: Config, tmp_path: Path) -> None:
    whole = run_job(config(), tmp_path / "run", quiet=True)
    found = run_job(config(train__importance=False), tmp_path / "run", quiet=True)
    assert found["views"] is None
    assert not (tmp_path / "run" / results.VIEWS).exists()
    same = ("metrics", "history", "robustness", "confusion")
    assert [found[key] for key in same] == [whole[key] for key in same]


def test_without_a_test_part_the_validation_part_is_measured(config: Config, tmp_path: Path) -> None:
    options = {"data__test_size": 0, "metric": "log_loss"}
    cfg = config(**options)
    cfg["data"]["validation_size"] = 0.3
    found = run_job(cfg, tmp_path / "run", quiet=True)
    assert found["metrics"] == {}
    for view in found["views"].values():
        assert rank_value("log_loss", view["without"]) < rank_value("log_loss", found["validation"]["log_loss"])
        assert view["loss"] > 0
    cfg["train"]["refit"] = True  # It is trained on the validation part then.
    assert run_job(cfg, tmp_path / "refit", quiet=True)["views"] is None
    assert run_job(config(**options), tmp_path / "all", quiet=True)["views"] is None
    assert sorted(path.name for path in tmp_path.glob("*/views.png")) == ["views.png"]


def test_a_single_view(config: Config, npz: Callable[..., Path], tmp_path: Path) -> None:
    npz(b=None)
    cfg = config(dims=[4], data__dims=[4], fusion__dims=[4])
    found = run_job(cfg, tmp_path / "run", quiet=True)
    assert found["views"]["a"]["loss"] > 0.2
    assert found["views"]["a"]["without"] < 0.6
    assert (tmp_path / "run" / results.VIEWS).exists()


def test_a_constant_target_has_no_r2(config: Config, npz: Callable[..., Path], tmp_path: Path) -> None:
    label, part = np.linspace(0.5, 9.25, 60), np.array(["train"] * 40 + ["test"] * 20)
    label[40:] = 2.5
    npz(label=label, split=part)
    found = run_job(config(task="regression"), tmp_path / "run", quiet=True)
    assert found["metrics"]["r2"] is None
    assert found["views"] == {name: {**NOTHING, "without": None} for name in "ab"}


def test_one_test_row(config: Config, npz: Callable[..., Path], tmp_path: Path) -> None:
    npz(split=np.array(["train"] * 59 + ["test"]))
    found = run_job(config(), tmp_path / "run", quiet=True)
    assert [{key: view[key] for key in NOTHING} for view in found["views"].values()] == [NOTHING] * 2
    assert all(view["without"] in (0, 1) for view in found["views"].values())
