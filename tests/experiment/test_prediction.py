"""Predictions and metrics of trained runs on new data, against the rows of the runs and against each other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fusionkit.config import compose
from fusionkit.config.options import validate
from fusionkit.errors import FusionError
from fusionkit.experiment.prediction import Predictor, columns
from fusionkit.experiment.results import RESULT, read_result
from fusionkit.experiment.run import run_job
from fusionkit.experiment.source import Batch
from fusionkit.experiment.tasks.classification import Classification
from tests.exhaustive import exhaustive_unless

LABELS = ["outcome", "grade", "cost", "stay", "fever", "pain", "signs"]
#: task -> the label columns and other options of the run
TASKS = {
    "classes": ("outcome",),
    "numbers": ("grade",),
    "regression": ("cost",),
    "targets": ("[cost,stay]",),
    "labels": ("[fever,pain]",),
    "tags": ("signs", 'data.label_separator=";"'),
}
#: By default one of each kind.
QUICK = exhaustive_unless(lambda task: task in ("classes", "targets", "tags"), TASKS)
#: The columns of predictions behind the id.
COLUMNS = {
    "classes": ["prediction", "probability_ill", "probability_well"],
    "numbers": ["prediction", "probability_0", "probability_1", "probability_2"],
    "regression": ["prediction"],
    "targets": ["prediction_cost", "prediction_stay"],
    "labels": ["prediction_fever", "prediction_pain", "probability_fever", "probability_pain"],
    "tags": ["prediction_cough", "prediction_fever", "probability_cough", "probability_fever"],
}


def patients(rows: int, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "patient": [f"{i:03d}" for i in range(rows)],
            "clinical__age": generator.integers(20, 80, rows),
            "clinical__sex": generator.choice(["f", "m"], rows),
            "scan__0": generator.standard_normal(rows).round(3),
            "scan__1": generator.standard_normal(rows).round(3),
        }
    )
    first, second = frame["scan__0"], frame["scan__1"]
    return frame.assign(
        outcome=np.where(first > 0, "ill", "well"),
        grade=np.arange(rows) % 3,
        cost=1000 + 100 * first,
        stay=5 + second,
        fever=(first > 0).astype(int),
        pain=(second > 0).astype(int),
        signs=np.where(first > 0, "cough;fever", np.where(second > 0, "cough", "fever")),
    )


def train(folder: Path, *overrides: str) -> Path:
    run_job(validate(compose([*overrides, "train.epochs=1"])), folder, quiet=True)
    return folder


def table_run(folder: Path, path: Any, label: str, *overrides: str) -> Path:
    dropped = [name for name in LABELS if name not in label.strip("[]").split(",")]
    options = [f"data.path={path}", f"data.label={label}", f"data.drop=[{','.join(dropped)}]"]
    return train(folder, "data=table", *options, "data.id=patient", *overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that trains a run for a task, once, on ``train.csv`` beside it."""
    folder = tmp_path_factory.mktemp("tasks")
    patients(60, 0).to_csv(folder / "train.csv", index=False)

    def get(task: str) -> Path:
        label, *overrides = TASKS[task]
        made = folder / task
        return made if made.exists() else table_run(made, folder / "train.csv", label, *overrides)

    return get


def predicted(run: Path, path: Any, rows: int = 10_000) -> pd.DataFrame:
    predictor = Predictor(run, str(path) if isinstance(path, Path) else path)
    batches = [pd.DataFrame(columns(predictor, *found)) for found in predictor.batches(rows)]
    frame = pd.concat(batches, ignore_index=True)
    assert predictor.rows == len(frame)
    return frame


def written(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path, index=False)
    return path


class TestColumns:
    @pytest.mark.parametrize("task", QUICK)
    def test_rows_in_order(self, task: str, finished: Callable[[str], Path], tmp_path: Path) -> None:
        new = patients(25, 1)
        found = predicted(finished(task), written(tmp_path / "new.csv", new.drop(columns=LABELS)))
        assert list(found) == ["patient", *COLUMNS[task]]
        assert found["patient"].tolist() == new["patient"].tolist()

    @pytest.mark.parametrize("task", QUICK)
    def test_each_row_as_it_is_alone(self, task: str, finished: Callable[[str], Path], tmp_path: Path) -> None:
        path = written(tmp_path / "new.csv", patients(25, 1))
        whole, alone = (predicted(finished(task), path, rows) for rows in (10_000, 1))
        pd.testing.assert_frame_equal(whole, alone, rtol=1e-5, atol=1e-6)

    def test_probabilities(self, finished: Callable[[str], Path], tmp_path: Path) -> None:
        found = predicted(finished("numbers"), written(tmp_path / "new.csv", patients(25, 1)))
        probabilities = found[["probability_0", "probability_1", "probability_2"]].to_numpy()
        assert np.allclose(probabilities.sum(1), 1)
        assert found["prediction"].tolist() == probabilities.argmax(1).tolist()

    @pytest.mark.parametrize("task", ["labels", "tags"])
    def test_a_label_is_predicted_at_one_half(self, task: str, finished: Callable[[str], Path], tmp_path: Path) -> None:
        found = predicted(finished(task), written(tmp_path / "new.csv", patients(25, 1)))
        values, probabilities = (found.filter(like=one).to_numpy() for one in ("prediction_", "probability_"))
        assert np.array_equal(values, probabilities >= 0.5)

    def test_columns_are_found_by_name(self, finished: Callable[[str], Path], tmp_path: Path) -> None:
        new = patients(25, 1)
        shuffled = new[["scan__1", "clinical__sex", "patient", "scan__0", "clinical__age"]].assign(other="x")
        paths = written(tmp_path / "new.csv", new), written(tmp_path / "shuffled.csv", shuffled)
        pd.testing.assert_frame_equal(*(predicted(finished("classes"), path) for path in paths))


def test_rows_without_any_view(finished: Callable[[str], Path], tmp_path: Path) -> None:
    new = patients(4, 1)
    new.loc[2, ["clinical__age", "clinical__sex", "scan__0", "scan__1"]] = None
    predictor = Predictor(finished("classes"), str(written(tmp_path / "new.csv", new)))
    assert len(list(predictor.batches(1))) == 4
    assert predictor.absent == 1


def test_unseen_categories_are_counted(finished: Callable[[str], Path], tmp_path: Path) -> None:
    new = patients(4, 1).assign(clinical__sex=["x", "f", "", "x"])
    predictor = Predictor(finished("classes"), str(written(tmp_path / "new.csv", new)))
    list(predictor.batches(3))
    assert predictor.unseen == {"clinical__sex": 2}


class TestEvaluate:
    @pytest.mark.parametrize("task", QUICK)
    def test_the_test_part_of_the_run(self, task: str, finished: Callable[[str], Path], tmp_path: Path) -> None:
        run = finished(task)
        rows = np.load(run / "rows.npz")["test"]
        predictor = Predictor(run, str(written(tmp_path / "test.csv", patients(60, 0).iloc[rows])))
        metrics, recorded = predictor.evaluate(), read_result(run / RESULT)["metrics"]
        assert metrics == pytest.approx(recorded, abs=1e-6)
        assert predictor.rows == len(rows) == 12

    def test_a_class_that_the_run_does_not_know(self, finished: Callable[[str], Path], tmp_path: Path) -> None:
        path = written(tmp_path / "new.csv", patients(4, 1).assign(outcome=["ill", "sick", "well", "ill"]))
        with pytest.raises(FusionError, match=r"ill, well; found 'sick'"):
            Predictor(finished("classes"), str(path)).evaluate()

    def test_notes(self, finished: Callable[[str], Path], tmp_path: Path) -> None:
        predictor = Predictor(
            finished("classes"), str(written(tmp_path / "new.csv", patients(4, 1).assign(clinical__sex="x")))
        )
        predictor.evaluate()
        assert ["4 in 'clinical__sex'" in note for note in predictor.notes] == [True]


def test_a_file_per_view(tmp_path: Path) -> None:
    frame = patients(60, 0)
    for name, file in (("labels", frame[["patient", *LABELS]]), ("scan", frame.filter(regex="patient|scan"))):
        written(tmp_path / f"{name}.csv", file)
    written(tmp_path / "clinical.csv", frame.filter(regex="patient|clinical").sample(40, random_state=0))
    files = {name: str(tmp_path / f"{name}.csv") for name in ("labels", "clinical", "scan")}
    run = table_run(tmp_path / "run", f"{{{','.join(f'{key}: {path}' for key, path in files.items())}}}", "outcome")
    views = {name: files[name] for name in ("scan", "clinical")}
    found = predicted(run, views, 7)
    # The ids in the order of the views of the run, each once.
    first = pd.read_csv(files["clinical"], dtype=str)["patient"].tolist()
    assert found["patient"].tolist() == [*first, *(one for one in frame["patient"] if one not in first)]
    pd.testing.assert_frame_equal(found, predicted(run, files), rtol=1e-6)
    with pytest.raises(FusionError, match="a file for the view 'scan'"):
        predicted(run, {"clinical": files["clinical"]})
    with pytest.raises(FusionError, match="a file for each of"):
        predicted(run, files["scan"])


class TestArrays:
    @pytest.fixture
    def run(self, tmp_path: Path, arrays: dict[str, Any]) -> Path:
        mask = np.ones((60, 2), dtype=bool)
        mask[3], mask[4, 0] = False, False
        np.savez(tmp_path / "views.npz", **arrays, mask=mask, id=[f"i{i}" for i in range(60)])
        return train(tmp_path / "run", "data=npz", f"data.path={tmp_path / 'views.npz'}", "data.missing=mask")

    def test_other_arrays_and_orders(self, run: Path, tmp_path: Path) -> None:
        arrays = dict(np.load(tmp_path / "views.npz"))
        mask = np.column_stack([arrays["mask"][:, 1], np.zeros(60, dtype=bool), arrays["mask"][:, 0]])
        other = {"b": arrays["b"], "new": np.zeros((60, 1)), "a": arrays["a"], "mask": mask}
        np.savez(tmp_path / "other.npz", **other, id=arrays["id"], label=arrays["label"])
        paths = [tmp_path / "views.npz", tmp_path / "other.npz"]
        first, second = (predicted(run, path) for path in paths)
        pd.testing.assert_frame_equal(first, second)
        assert first["id"].tolist() == arrays["id"].tolist()
        assert Predictor(run, str(paths[0])).evaluate() == Predictor(run, str(paths[1])).evaluate()

    def test_each_row_as_it_is_alone(self, run: Path, tmp_path: Path) -> None:
        whole, alone = (predicted(run, tmp_path / "views.npz", rows) for rows in (60, 1))
        pd.testing.assert_frame_equal(whole, alone, rtol=1e-5)

    def test_a_view_that_is_not_there(self, run: Path, tmp_path: Path) -> None:
        arrays = dict(np.load(tmp_path / "views.npz"))
        del arrays["a"]
        np.savez(tmp_path / "other.npz", **arrays)
        for use in (lambda one: list(one.batches(60)), Predictor.evaluate):
            with pytest.raises(FusionError, match="contain the view 'a'"):
                use(Predictor(run, str(tmp_path / "other.npz")))

    def test_a_number_that_is_missing_in_a_later_batch(self, tmp_path: Path, arrays: dict[str, Any]) -> None:
        np.savez(tmp_path / "views.npz", **arrays)
        run = train(tmp_path / "run", "data=npz", f"data.path={tmp_path / 'views.npz'}")
        arrays["a"][50, 1] = np.nan
        np.savez(tmp_path / "views.npz", **arrays)
        with pytest.raises(FusionError, match=r"View 'a'.*the first is row 50"):
            next(Predictor(run, str(tmp_path / "views.npz")).batches(10))


class TestFolders:
    @pytest.fixture
    def written(self, tmp_path: Path, arrays: dict[str, Any]) -> Callable[..., tuple[Path, Path]]:
        """Return a function that writes arrays, changed, as a file and as a folder."""

        def write(name: str, **changed: Any) -> tuple[Path, Path]:
            found = {key: array for key, array in {**arrays, **changed}.items() if array is not None}
            np.savez(tmp_path / f"{name}.npz", **found)
            (tmp_path / name).mkdir()
            for key, array in found.items():
                np.save(tmp_path / name / f"{key}.npy", array)
            return tmp_path / f"{name}.npz", tmp_path / name

        return write

    def test_a_run_on_either_predicts_both(self, written: Any, tmp_path: Path, arrays: dict[str, Any]) -> None:
        view = arrays["a"].copy()
        view[3] = view[55] = np.nan
        train_file, train_folder = written("train", a=view, id=np.array([f"i{i}" for i in range(60)]))
        runs = [
            train(tmp_path / "run_npz", "data=npz", f"data.path={train_file}"),
            train(tmp_path / "run_folder", "data=folder", f"data.path={train_folder}"),
        ]
        frames = [predicted(run, path, 7) for run in runs for path in (train_file, train_folder)]
        for frame in frames[1:]:
            pd.testing.assert_frame_equal(frames[0], frame)
        assert frames[0]["id"].tolist() == [f"i{i}" for i in range(60)]
        metrics = [Predictor(run, str(path)).evaluate() for run in runs for path in (train_file, train_folder)]
        assert metrics[1:] == [pytest.approx(metrics[0], rel=1e-6)] * 3

    def test_a_mask(self, written: Any, tmp_path: Path, arrays: dict[str, Any]) -> None:
        mask = np.ones((60, 2), dtype=bool)
        mask[3], mask[50, 0] = False, False
        view = arrays["a"].copy()
        view[50] = np.inf  # What the mask calls absent may hold anything.
        file, folder = written("train", mask=mask, a=view, group=np.arange(60), c=None)
        run = train(tmp_path / "run", "data=npz", f"data.path={file}", "data.missing=mask")
        pd.testing.assert_frame_equal(predicted(run, file, 20), predicted(run, folder, 20))
        predictor = Predictor(run, str(folder))
        list(predictor.batches(8))
        assert predictor.absent == 1
        (folder / "mask.npy").unlink()
        with pytest.raises(FusionError, match=r"contain an array 'mask' .* found the arrays"):
            predicted(run, folder)

    def test_batches_are_read_one_by_one(self, written: Any, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from fusionkit.experiment.stored import StoredArray

        _, folder = written("new", label=None, id=np.arange(60), unused=np.zeros((60, 9)))
        read, seen = StoredArray.read, []

        def noted(self: StoredArray, start: int, stop: int) -> Any:
            seen.append((self.path.stem, start, stop))
            return read(self, start, stop)

        monkeypatch.setattr(StoredArray, "read", noted)
        monkeypatch.setattr(StoredArray, "whole", None)
        batches = Predictor(run_dir, str(folder)).batches(25)
        for start, stop in ((0, 25), (25, 50), (50, 60)):
            batch, found = next(batches)
            assert (batch.start, len(found), batch.fraction) == (start, stop - start, min(1, (start + 25) / 60))
            assert sorted(seen) == [(name, start, stop) for name in ("a", "b", "id")]
            seen.clear()

    def test_rows_are_numbered_from_the_start_of_the_file(
        self, written: Any, run_dir: Path, arrays: dict[str, Any]
    ) -> None:
        arrays["a"][50, 1] = arrays["a"][57, 1] = np.nan
        _, folder = written("new", a=arrays["a"])
        batches = Predictor(run_dir, str(folder)).batches(20)
        assert [len(next(batches)[1]) for _ in range(2)] == [20, 20]
        with pytest.raises(FusionError, match=r"View 'a' of .*new should .* 2 with NaN, the first is row 50"):
            next(batches)

    def test_what_does_not_fit(self, written: Any, run_dir: Path, arrays: dict[str, Any], tmp_path: Path) -> None:
        wrong = {
            "lacks": ({"a": None}, "contain the view 'a', which the run was trained on; found the arrays 'b'"),
            "rows": ({"b": arrays["b"][:9]}, "should have the same number of rows; found {'a': 60, 'b': 9}"),
            "order": ({"a": np.asfortranarray(arrays["a"])}, "should be in C order"),
            "width": ({"a": np.zeros((60, 9))}, r"View 0 \(a\) should have width 4"),
        }
        for name, (changed, sentence) in wrong.items():
            for use in (lambda one: list(one.batches(60)), Predictor.evaluate):
                with pytest.raises(FusionError, match=sentence):
                    use(Predictor(run_dir, str(written(f"{name}{use.__name__}", **changed)[1])))
        with pytest.raises(FusionError, match="an array 'label' with a label per row"):
            Predictor(run_dir, str(written("unlabelled", label=None)[1])).evaluate()


def test_arrays_need_no_pandas(run_dir: Path, tmp_path: Path, npz: Callable[..., Path]) -> None:
    code = (
        "import sys; from fusionkit import cli; status = cli.main(sys.argv[1:]);"
        "print(status, [name for name in ('pandas', 'sklearn', 'pyarrow') if name in sys.modules])"
    )
    command = ["predict", str(run_dir), f"data.path={npz()}", "--out", str(tmp_path / "predictions.npz")]
    found = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize(("name", "kept"), [("visit", "visit"), ("prediction", "id"), ("probability_a", "id")])
def test_ids_whose_column_is_called_as_a_prediction_are_kept(name: str, kept: str) -> None:
    predictor = SimpleNamespace(id=name, model=SimpleNamespace(task=Classification(["a", "b"])))
    batch = Batch(0, [np.zeros((2, 1))], ids=np.array(["x", "y"]))
    found = columns(predictor, batch, np.array([[0.8, 0.2], [0.1, 0.9]]))  # type: ignore[arg-type]
    assert list(found) == [kept, "prediction", "probability_a", "probability_b"]
    assert (found[kept].tolist(), found["prediction"].tolist()) == (["x", "y"], ["a", "b"])
