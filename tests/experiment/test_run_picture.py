from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import roc_curve

from fusionkit.experiment.run_picture import draw_run, draw_views, draw_weights
from tests.exhaustive import exhaustive

Array = npt.NDArray[Any]
Tested = tuple[Array, Array]


def record(classes: list[Any] | None = None, epochs: int = 5, **changes: Any) -> dict[str, Any]:
    k = len(classes or ())
    return {
        "fusion": "parameterized_concatenation",
        "fabrication": "dense",
        "data": {"label": "mfeat"},
        "task": "classification",
        "metric": "accuracy",
        "metrics": {"accuracy": 0.9},
        "n": 5,
        "l": 35,
        "seed": 0,
        "classes": classes,
        "targets": None,
        "best_epoch": epochs,
        "confusion": (np.eye(k, dtype=int) * 9 + 1).tolist(),
        "history": {
            "loss": np.linspace(2, 1, epochs).tolist(),
            "accuracy": np.linspace(0.5, 0.9, epochs).tolist(),
            "lr": [0.1] * epochs,
        },
        **changes,
    }


def of_classes(classes: int, rows: int = 60) -> Tested:
    """Return probabilities (rows, classes), and classes."""
    random = np.random.default_rng(0)
    return random.dirichlet(np.ones(classes), rows), np.arange(rows) % classes


def of_labels(rows: int = 60) -> Tested:
    random = np.random.default_rng(0)
    return random.random((rows, 3)), random.random((rows, 3)) < 0.5


def of_targets(targets: int, rows: int = 60) -> Tested:
    random = np.random.default_rng(0)
    target = random.standard_normal((rows, targets)) + 1e6
    return target + random.standard_normal(target.shape), target


def regression(targets: int, **changes: Any) -> dict[str, Any]:
    history = {"loss": [2.0, 1.0], "r2": [None, 0.5], "lr": [0.1, 0.1]}
    names = [f"target $ {i}" for i in range(targets)]
    return record(
        **{
            "task": "regression",
            "metric": "r2",
            "metrics": {"r2": 0.5},
            "targets": names,
            "history": history,
            **changes,
        }
    )


def colours(path: Path) -> int:
    """Return how many colours a picture has; a blank one has one."""
    with Image.open(path) as image:
        assert image.width > 400
        found = image.convert("RGB").getcolors(image.width * image.height)
    return len(found or ())


def titles(monkeypatch: pytest.MonkeyPatch, result: dict[str, Any], tested: Tested, path: Path) -> list[str]:
    """Return the titles of the panels, in their order."""
    found: list[str] = []
    save = Figure.savefig

    def saved(figure: Figure, *args: Any, **options: Any) -> None:
        found.extend(axes.get_title(loc="left") for axes in figure.axes if axes.axison)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", saved)
    draw_run(result, path, tested)
    assert colours(path) > 50
    return found


@pytest.mark.parametrize("epochs", [300, *exhaustive([1, 2])])
@pytest.mark.parametrize(
    "classes",
    [
        ["$x_1$", "日本", "a_b^{", "\n"],
        *exhaustive([[0, 1], list(range(10)), [f"a rather long name {i}" for i in range(25)]]),
    ],
    ids=["odd names", "two", "ten", "twenty-five"],
)
def test_run_picture(tmp_path: Path, classes: list[Any], epochs: int) -> None:
    draw_run(record(classes, epochs), tmp_path / "curve.png", of_classes(len(classes)))
    assert colours(tmp_path / "curve.png") > 50


def test_same_record_same_picture(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_run(record([0, 1]), tmp_path / name, of_classes(2))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_matplotlibs_settings_are_left_alone_and_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_run(record([0, 1]), tmp_path / "a.png", of_classes(2))
    monkeypatch.setitem(rcParams, "axes.facecolor", "red")
    draw_run(record([0, 1]), tmp_path / "b.png", of_classes(2))
    assert rcParams["axes.facecolor"] == "red"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


_CURVES = ["training loss", "test accuracy"]
_REGRESSION = ["training loss", "test r2"]


@pytest.mark.parametrize(
    ("result", "tested", "panels"),
    [
        (
            lambda: record(["no", "yes"]),
            of_classes(2),
            [*_CURVES, "test part: 2 errors in 22 rows", "ROC, positive: yes", "reliability of predicted classes"],
        ),
        (
            lambda: record([0, 1, 2]),
            of_classes(3),
            [*_CURVES, "test part: 6 errors in 36 rows", "reliability of predicted classes"],
        ),
        (  # More than 30 classes have no confusion matrix.
            lambda: record(list(range(31))),
            of_classes(31),
            [*_CURVES, "reliability of predicted classes"],
        ),
        (  # Without a row of one class there is no ROC curve.
            lambda: record([0, 1], confusion=[[6, 0], [0, 0]]),
            (of_classes(2, 6)[0], np.zeros(6, dtype=int)),
            [*_CURVES, "test part: 0 errors in 6 rows", "reliability of predicted classes"],
        ),
        (
            lambda: record([0, 1], confusion=[[0, 0], [1, 0]]),
            (np.array([[1.0, 0.0]]), np.array([1])),
            [*_CURVES, "test part: 1 errors in 1 rows", "reliability of predicted classes"],
        ),
        (
            lambda: record(["a", "b", "c"], task="multilabel", confusion=None),
            of_labels(),
            [*_CURVES, "reliability of labels"],
        ),
        (lambda: regression(1), of_targets(1), [*_REGRESSION, "predicted against true", "residuals"]),
        (lambda: regression(1), of_targets(1, 1), [*_REGRESSION, "predicted against true", "residuals"]),
        (lambda: regression(1), of_targets(1, 20_000), [*_REGRESSION, "predicted against true", "residuals"]),
        (
            lambda: regression(4),
            of_targets(4),
            [*_REGRESSION, "predicted against true (in standard deviations)", "residuals (in standard deviations)"],
        ),
        (
            lambda: regression(9),
            of_targets(9, 1),
            [
                *_REGRESSION,
                "predicted against true (in standard deviations, 4 of 9 targets)",
                "residuals (in standard deviations, 4 of 9 targets)",
            ],
        ),
        (  # All rows train.
            lambda: record([0, 1], metrics={}, confusion=None, history={"loss": [1.0], "lr": [0.1]}, best_epoch=1),
            of_classes(2, 0),
            ["training loss"],
        ),
        (
            lambda: record(
                [0, 1, 2],
                history={"loss": [3, 2, 1], "validation_accuracy": [0.1, None, 0.3], "lr": [1, 1, 1]},
                best_epoch=2,
            ),
            of_classes(3),
            [
                "training loss",
                "validation accuracy",
                "test part: 6 errors in 36 rows",
                "reliability of predicted classes",
            ],
        ),
        (
            lambda: regression(
                1, metrics={"r2": None}, history={"loss": [1.0], "r2": [None], "lr": [1.0]}, best_epoch=1
            ),
            of_targets(1, 1),
            [*_REGRESSION, "predicted against true", "residuals"],
        ),
    ],
    ids=[
        *("two classes", "three", "31", "one absent", "one row", "labels", "number", "one number", "many rows"),
        *("targets", "many targets", "no test part", "validation", "undefined"),
    ],
)
def test_the_panels_of_a_task(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    result: Callable[[], dict[str, Any]],
    tested: Tested,
    panels: list[str],
) -> None:
    assert titles(monkeypatch, result(), tested, tmp_path / "x.png") == panels


def test_the_curves_are_those_of_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Array] = {}

    def saved(figure: Figure, *_: Any, **__: Any) -> None:
        drawn.update(
            {axes.get_title(loc="left"): np.asarray(axes.lines[0].get_xydata()) for axes in figure.axes if axes.lines}
        )

    monkeypatch.setattr(Figure, "savefig", saved)
    predicted, target = of_classes(2)
    predicted = predicted.round(1)  # With ties.
    draw_run(record(["no", "yes"]), tmp_path / "x.png", (predicted, target))
    false, true, _ = roc_curve(target, predicted[:, 1])
    np.testing.assert_allclose(drawn["ROC, positive: yes"], np.stack([false, true], 1))


def test_reliability_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Array] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure.axes[-1].lines[1].get_xydata()))
    predicted = np.array([[0.65, 0.35, 0.0], [0.61, 0.39, 0.0], [0.0, 0.1, 0.9]])
    draw_run(record([0, 1, 2]), tmp_path / "x.png", (predicted, np.array([0, 1, 2])))
    np.testing.assert_allclose(drawn[0], [[0.63, 0.5], [0.9, 1.0]])


def test_the_best_epoch_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure.axes[1]))
    history = {"loss": [3, 2, 1], "validation_rmse": [0.9, 0.2, 0.4], "lr": [1, 1, 1]}
    draw_run(regression(1, metric="rmse", metrics={}, history=history, best_epoch=2), tmp_path / "x.png", of_targets(1))
    assert drawn[0].lines[1].get_xydata().tolist() == [[2.0, 0.2]]
    assert drawn[0].get_title(loc="right") == "0.2000"


# -- the weights of the views ------------------------------------------------------------------------------------------


def weighed(groups: list[str], views: list[str], **changes: Any) -> dict[str, Any]:
    """Return a record with weights, the first of them unknown."""
    random = 0.5 + 0.4 * np.random.default_rng(0).random((len(groups), len(views)))
    weights: dict[str, Any] = {
        name: dict(zip(views, row, strict=True)) for name, row in zip(groups, random, strict=True)
    }
    weights[groups[0]][views[0]] = None
    return record(**{"weights": weights, "fabrication": None, **changes})


def figure_of(monkeypatch: pytest.MonkeyPatch, result: dict[str, Any], path: Path) -> Figure:
    """Return the figure of the weights of a record, which is saved."""
    found: list[Figure] = []
    save = Figure.savefig

    def saved(figure: Figure, *args: Any, **options: Any) -> None:
        found.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", saved)
    draw_weights(result, path)
    assert colours(path) > 20
    return found[0]


@pytest.mark.parametrize(
    ("task", "of"), [("classification", "true class"), ("multilabel", "label")], ids=lambda value: value
)
def test_weights_are_a_table_with_their_values(
    task: str, of: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, views = ["$x_1$", "日本", "a rather long name, longer than 30"], ["a", "b_^{"]
    result = weighed(groups, views, task=task)
    (axes,) = figure_of(monkeypatch, result, tmp_path / "x.png").axes
    assert (axes.get_ylabel(), axes.get_xlabel()) == (of, "view")
    assert [label.get_text() for label in axes.get_xticklabels()] == views
    assert [label.get_text() for label in axes.get_yticklabels()] == [*groups[:2], f"{groups[2][:30]}..."]
    wanted = [f"{value:.2f}" for row in result["weights"].values() for value in row.values() if value is not None]
    assert [text.get_text() for text in axes.texts] == ["-", *wanted]


def test_the_weights_of_a_regression_are_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = weighed(["all"], ["a", "b", "c"], task="regression")
    (axes,) = figure_of(monkeypatch, result, tmp_path / "x.png").axes
    weights = result["weights"]["all"]
    assert axes.get_title(loc="left") == "mean weight on the test rows that have the view"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert [bar.get_width() for bar in axes.patches] == [0.0, weights["b"], weights["c"]]  # type: ignore[attr-defined]
    assert [text.get_text() for text in axes.texts] == ["-", f"{weights['b']:.2f}", f"{weights['c']:.2f}"]


@pytest.mark.parametrize(
    ("groups", "views"), [(300, 6), *exhaustive([(10, 90), (300, 90)])], ids=["classes", "views", "both"]
)
def test_many_weights_have_a_scale_and_some_names(
    groups: int, views: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = weighed([f"class {i}" for i in range(groups)], [f"view {i}" for i in range(views)])
    figure = figure_of(monkeypatch, result, tmp_path / "x.png")
    assert len(figure.axes) == 2
    assert not figure.axes[0].texts
    assert 6 <= len(figure.axes[0].get_xticklabels()) <= 40
    assert 10 <= len(figure.axes[0].get_yticklabels()) <= 80
    assert max(figure.get_size_inches()) < 30


@pytest.mark.exhaustive
def test_many_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = weighed(["all"], [f"view {i}" for i in range(200)], task="regression")
    (axes,) = figure_of(monkeypatch, result, tmp_path / "x.png").axes
    assert len(axes.get_yticklabels()) <= 80


@pytest.mark.parametrize("weights", [{"x": {"a": None}}, {"x": {"a": 0.0, "b": 0.0}}, {"x": {"a": -1.0, "b": 1e-9}}])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_odd_weights(task: str, weights: dict[str, Any], tmp_path: Path) -> None:
    draw_weights(record(weights=weights, task=task), tmp_path / "x.png")
    assert colours(tmp_path / "x.png") > 1


def test_small_weights_have_more_decimals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = record(weights={"x": {"a": 0.1234, "b": 0.0123}})
    (axes,) = figure_of(monkeypatch, result, tmp_path / "x.png").axes
    assert [text.get_text() for text in axes.texts] == ["0.123", "0.012"]


# -- which view matters ------------------------------------------------------------------------------------------------


def mattering(names: list[str], **changes: Any) -> dict[str, Any]:
    """Return a record in which each view matters a little more than the one before it."""
    views = {
        name: {"loss": i / 100, "low": i / 100 - 0.01, "high": i / 100 + 0.02, "without": 0.9 - i / 50}
        for i, name in enumerate(names)
    }
    return record(**{"views": views, "fabrication": None, **changes})


def views_of(monkeypatch: pytest.MonkeyPatch, result: dict[str, Any], whole: float | None, path: Path) -> Figure:
    """Return the figure of the views of a record, which is saved."""
    found: list[Figure] = []
    save = Figure.savefig

    def saved(figure: Figure, *args: Any, **options: Any) -> None:
        found.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", saved)
    draw_views(result, whole, path)
    assert colours(path) > 20
    return found[0]


def ends(axes: Any) -> list[list[float]]:
    """Return the ends of the intervals, from the top."""
    (lines,) = axes.collections
    return [segment[:, 0].tolist() for segment in lines.get_segments()]


def test_the_view_that_matters_most_is_on_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = mattering(["a", "$x_1$", "日本 with a rather long name, longer than 30"], metric="accuracy")
    result["views"]["a"]["loss"] = result["views"]["a"]["low"] = result["views"]["a"]["high"] = None
    (axes,) = views_of(monkeypatch, result, 0.95, tmp_path / "x.png").axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["日本 with a rather long name, lo...   0.0200", "$x_1$   0.0100", "a   -"]
    assert axes.yaxis_inverted()
    assert [bar.get_width() for bar in axes.patches] == [0.02, 0.01, 0.0]  # type: ignore[attr-defined]
    np.testing.assert_allclose(ends(axes), [[0.01, 0.04], [0.0, 0.03], [0.0, 0.0]], atol=1e-12)
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.09, 0.07, 0.05])  # type: ignore[arg-type]
    assert axes.get_title(loc="right") == "by how much the accuracy falls when a view is permuted"
    assert axes.get_xlabel() == "mean of 10 draws, 95 % interval;  ◆ when it is absent from every row"


def test_of_an_error_a_rise_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = mattering(["a", "b"], metric="rmse", metrics={"rmse": 0.5})
    (axes,) = views_of(monkeypatch, result, 0.5, tmp_path / "x.png").axes
    assert axes.get_title(loc="right") == "by how much the rmse rises when a view is permuted"
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.38, 0.4])  # type: ignore[arg-type]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b   0.01000", "a   0.00000"]


def test_a_fusion_that_refuses_masks_has_no_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = mattering(["a", "b"])
    for view in result["views"].values():
        view["without"] = None
    (axes,) = views_of(monkeypatch, result, 0.5, tmp_path / "x.png").axes
    assert axes.get_xlabel() == "mean of 10 draws, 95 % interval"


@pytest.mark.parametrize("count", [40, *exhaustive([200])])
def test_many_views_with_long_names(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = mattering([f"{i} {'W' * 40}" for i in range(count)])
    figure = views_of(monkeypatch, result, 0.9, tmp_path / "x.png")
    (axes,) = figure.axes
    labels = [label for label in axes.get_yticklabels() if label.get_text()]
    assert len(labels) == (40 if count == 40 else 67)
    boxes = [label.get_window_extent() for label in labels]
    assert all(above.y0 >= below.y1 - 1 for above, below in pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0
    assert axes.get_window_extent().width > 0.4 * figure.bbox.width
    assert max(figure.get_size_inches()) < 30


def test_the_text_about_views_with_long_names_stays_in_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = mattering(["W" * 40, "b"], metric="average_precision")
    figure = views_of(monkeypatch, result, 0.9, tmp_path / "x.png")
    (axes,) = figure.axes
    for text in (axes.title, axes._left_title, axes._right_title, axes.xaxis.label):  # type: ignore[attr-defined]
        box = text.get_window_extent()
        assert 0 <= box.x0 <= box.x1 <= figure.bbox.width


def test_views_of_a_metric_that_is_undefined(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("loss", "low", "high", "without"))
    draw_views(record(views={"a": nothing, "b": nothing}), None, tmp_path / "x.png")
    assert colours(tmp_path / "x.png") > 1
