"""The whole sentences that users read, in ``messages.json``: ``python -m tests.test_messages`` writes them anew.

Other tests assert the name and the value in a message.  So a message may be reworded here alone, and the difference of
the file shows how each reads.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import fusionkit
from fusionkit import registry
from fusionkit.cli import main
from fusionkit.config.fits import check_takes_masks
from fusionkit.config.options import FolderOptions, TableOptions, TrainOptions, data_options, validate_group
from fusionkit.experiment import FusionClassifier, FusionRegressor, ViewDropout, train
from fusionkit.experiment.data import Dataset
from fusionkit.experiment.folder import read_folder
from fusionkit.experiment.npz import arrays_source
from fusionkit.experiment.source import Labels
from fusionkit.experiment.splits import split
from fusionkit.experiment.stored import stored_array
from fusionkit.experiment.tables.reading import read_table
from fusionkit.experiment.tasks.choice import choose

FILE = Path(__file__).with_name("messages.json")


def views(*widths: int, rows: int = 2) -> list[torch.Tensor]:
    return [torch.zeros(rows, width) for width in widths]


def average(x: Any, **options: Any) -> Any:
    return fusionkit.create("average", dims=[3, 3], **options)(x)


def dense(**options: Any) -> Any:
    return fusionkit.create("parameterized_concatenation", **{"dims": [3, 2], "n": 4, **options})


def classified(first: float = 1.0, second: float = 1.0, mask: Any = None, predict: Any = None, **options: Any) -> Any:
    """Fit a classifier on two views of widths 2 and 1; two numbers of the first row are given."""
    X = np.arange(24.0).reshape(8, 3) % 5
    X[0, 0], X[:, 2] = first, second * X[:, 2]
    fitted = FusionClassifier([2, 1], epochs=1, n=2, **options).fit(X, np.arange(8) % 2, mask)
    return fitted.predict(X * predict)


def divided(roles: dict[str, Any], label: Any = None, **given: Any) -> Any:
    """Divide twelve rows, of two classes unless labels are given."""
    arrays = {"label": np.arange(12) % 2 if label is None else label, "a": np.zeros((12, 1))}
    source = arrays_source(Path("x.npz"), "", {**arrays, **roles})
    chosen = choose(source.labels, "classification")
    data = Dataset(**vars(source), name="npz", task=chosen.task, target=chosen.values)
    return split(data, data_options({"name": "npz", "path": "x.npz", **given}), 0)


def regressed(y: Any = None, sample_weight: Any = None, **options: Any) -> Any:
    """Fit a regressor on a data frame with the columns age, sex and dose."""
    frame = pd.DataFrame(np.arange(24.0).reshape(8, 3) % 5, columns=["age", "sex", "dose"])
    regressor = FusionRegressor(**{"epochs": 1, "n": 2, **options})
    return regressor.fit(frame, np.arange(8.0) if y is None else y, sample_weight=sample_weight)


def table(text: str, encoding: str = "utf-8", **options: Any) -> Any:
    """Read a table, patients.csv."""
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("patients.csv").write_text(text, encoding=encoding)
        node = {"name": "table", "path": "patients.csv", "label": "outcome", **options}
        return read_table(validate_group(TableOptions, node, "data"))


def chosen(values: Any, task: str = "auto", separator: str | None = None) -> Any:
    values = np.asarray(values)
    names = ["y"] if values.ndim == 1 else [f"y{i}" for i in range(values.shape[1])]
    return choose(Labels(values, names, "The label"), task, separator)


def losses(values: Any, **options: Any) -> Any:
    target = chosen(values)
    settings = TrainOptions(epochs=1, batch_size=1, lr=0.1, **options)
    return target.task.fitted(target.values).criterion(settings, target.values)


def array_source(**arrays: Any) -> Any:
    return arrays_source(Path("data.npz"), "", {"a": np.zeros((3, 2)), **arrays})


def folder(changed: Callable[[Path], Any] | None = None, **arrays: Any) -> Any:
    """Read a folder, data, with a view a, more arrays, and something changed."""
    with TemporaryDirectory() as place, contextlib.chdir(place):
        Path("data").mkdir()
        for name, array in {"a": np.zeros((3, 2)), "label": np.arange(3), **arrays}.items():
            np.save(f"data/{name}.npy", array)
        if changed is not None:
            changed(Path("data"))
        return read_folder(FolderOptions(name="folder", path="data"))


def changing() -> Any:
    """Read a view whose file has become longer."""
    with TemporaryDirectory() as place, contextlib.chdir(place):
        np.save("a.npy", np.zeros((3, 2)))
        view = stored_array(Path("a.npy"))
        np.save("a.npy", np.zeros((4, 2)))
        return view.read(0, 1)


#: key -> what raises an error
CALLS: dict[str, Callable[[], Any]] = {
    "views: none": lambda: average([]),
    "views: too few": lambda: average(views(3)),
    "views: wrong width": lambda: average(views(3, 2)),
    "views: other rows": lambda: average([torch.zeros(2, 3), torch.zeros(4, 3)]),
    "views: no tensor": lambda: average([torch.zeros(2, 3), [1.0, 2.0, 3.0]]),
    "views: another dtype": lambda: average([torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.float64)]),
    "dims: unequal": lambda: fusionkit.create("average", dims=[3, 2]),
    "dims: zero": lambda: fusionkit.create("average", dims=[3, 0]),
    "dims: unknown": lambda: fusionkit.create("average").calculate_n(),
    "n: contradicts dims": lambda: fusionkit.create("average", n=4, dims=[3, 3]),
    "n: missing": lambda: fusionkit.create("parameterized_concatenation", dims=[3, 2]).calculate_n(),
    "w: missing": lambda: dense(require_parameters=False)(views(3, 2)),
    "w: wrong length": lambda: dense()(views(3, 2), w=torch.zeros(7)),
    "rank: too large": lambda: dense(parameter_fabrication={"name": "lowrank", "r": 9}),
    "option: unknown": lambda: fusionkit.create_fabrication("lowrank", rank=3),
    "option: misspelt": lambda: fusionkit.create("average", dim=[3, 3]),
    "option: wrong type": lambda: fusionkit.create_fabrication("lowrank", r="three"),
    "name: unknown": lambda: fusionkit.create("sumation"),
    "name: of a fabrication": lambda: fusionkit.create("lowrank"),
    "name: no text": lambda: fusionkit.create(3),  # type: ignore[arg-type]
    "kind: unknown": lambda: registry.resolve("fussion", "average"),  # type: ignore[arg-type]
    "target: forbidden": lambda: fusionkit.config.build({"_target_": "os.system", "command": "true"}, "fusion"),
    "config: a bare callable": lambda: fusionkit.create("average", dims=[3, 3], preprocess=abs).to_config(),
    "mask: no bool": lambda: classified(mask=np.ones((8, 2))),
    "mask: another shape": lambda: classified(mask=np.ones((8, 3), dtype=bool)),
    "missing: some NaN in a row": lambda: classified(first=np.nan),
    "missing: NaN in what a mask calls present": lambda: classified(first=np.nan, mask=np.ones((8, 2), dtype=bool)),
    "missing: absent in the training part": lambda: classified(second=np.nan),
    "missing: no row to predict": lambda: classified(predict=np.nan),
    "missing: a fusion that refuses": lambda: check_takes_masks(
        fusionkit.create("metric", dims=[3, 3], metric=torch.sum), "train.view_dropout is 0.5"
    ),
    "task: text as amounts": lambda: chosen(["high", "low"], "regression"),
    "task: three values as labels": lambda: chosen([0, 1, 2], "multilabel"),
    "task: text as labels": lambda: chosen(["red;round", "red"], "multilabel"),
    "task: several columns with text": lambda: chosen([["a", "1"], ["b", "2"]]),
    "task: several columns as classes": lambda: chosen([[0, 1], [1, 1]], "classification"),
    "task: one class": lambda: chosen([7, 7]),
    "task: tags of numbers": lambda: chosen([1, 2], separator=";"),
    "task: a metric of another one": lambda: chosen([0, 1]).task.metric("rmse"),
    "task: a metric that is misspelt": lambda: chosen([0, 1]).task.metric("acuracy"),
    "task: a loss of another one": lambda: losses([0, 1], loss="huber"),
    "task: a weight of no class": lambda: losses(["no", "yes"], class_weight={"yess": 5}),
    "task: weights of no classes": lambda: losses([0.5, 1], class_weight="balanced"),
    "task: a constant target": lambda: losses([[0.5, 7], [1, 7]]),
    "task: a target of any size": lambda: losses([0.5, 1e200]),
    "label: missing": lambda: array_source(label=np.array([0.5, np.nan, np.nan])),
    "label: empty": lambda: array_source(label=np.array(["a", "", "b"])),
    "label: another shape": lambda: array_source(label=np.zeros(2)),
    "split: two given": lambda: divided({"split": np.repeat(["train", "test"], 6)}, fold=0),
    "split: an unknown word": lambda: divided({"split": np.repeat(["train", "tset"], 6)}),
    "split: no test": lambda: divided({"split": np.repeat("train", 12)}),
    "split: validation twice": lambda: divided({"split": np.repeat(["train", "val", "test"], 4)}, validation_size=0.2),
    "split: no fold": lambda: divided({"folds": np.repeat([1, 2, 3], 4)}),
    "split: a rare class": lambda: divided({}, np.repeat(["a", "b"], [11, 1])),
    "split: a class in one group": lambda: divided({"group": np.repeat([1, 2, 3], 4)}, np.repeat(["a", "b"], [8, 4])),
    "split: few groups": lambda: divided({"group": np.repeat(["x", "y", "z"], 4)}, fold=1),
    "split: no validation part": lambda: divided({"group": np.repeat([1, 2], 6)}, validation_size=0.2),
    "split: no class in training": lambda: divided({"folds": np.repeat([0, 1], 6)}, np.repeat([0, 1], 6), fold=0),
    "role: another length": lambda: divided({"group": np.arange(11)}),
    "role: no name": lambda: divided({"folds": np.append(np.zeros(11), np.nan)}),
    "role: a negative weight": lambda: divided({"weight": np.arange(12) - 1}),
    "view dropout: no probability": lambda: ViewDropout(1.5),
    "estimator: columns in no view": lambda: regressed(views={"clinical": ["age"]}),
    "estimator: a column in two views": lambda: regressed(views={"clinical": ["age", "sex"], "scan": slice(1, 3)}),
    "estimator: a view of an unknown column": lambda: regressed(views={"clinical": ["agee"]}),
    "estimator: a slice that is too long": lambda: regressed(views={"scan": slice(0, 80)}),
    "estimator: a parameter that is wrong": lambda: regressed(epochs=0),
    "estimator: a loss of another task": lambda: regressed(loss="focal"),
    "estimator: patience without rows held out": lambda: regressed(patience=3),
    "estimator: rows held out lack a class": lambda: classified(validation_fraction=0.9),
    "estimator: a weight of no class": lambda: classified(class_weight={2: 5}),
    "estimator: no weight above zero": lambda: regressed(sample_weight=[0] * 8),
    "estimator: a constant target": lambda: regressed(y=np.ones(8)),
    "train: an unknown option": lambda: train({"a": np.eye(8)}, np.arange(8), epoch=3),
    "train: an option that is wrong": lambda: train({"a": np.eye(8)}, np.arange(8), test_size=1),
    "train: views without names": lambda: train([np.eye(8)], np.arange(8)),
    "train: a view with the name of a role": lambda: train({"weight": np.eye(8)}, np.arange(8)),
    "train: a label that is missing": lambda: train({"a": np.eye(8)}, [*"abcdefg", None]),
    "folder: none": lambda: folder(lambda path: shutil.rmtree(path)),
    "folder: no label": lambda: folder(lambda path: (path / "label.npy").rename(path / "labels.npy")),
    "folder: Python objects": lambda: folder(b=np.array([["x"], [1], [None]], dtype=object)),
    "folder: Fortran order": lambda: folder(b=np.zeros((2, 3)).T),
    "folder: a truncated file": lambda: folder(lambda path: os.truncate(path / "a.npy", 140)),
    "folder: a damaged header": lambda: folder(lambda path: (path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00 ")),
    "folder: no array": lambda: folder(lambda path: (path / "b.npy").write_text("1,2")),
    "folder: a folder in it": lambda: folder(lambda path: (path / "b.npy").mkdir()),
    "folder: another length": lambda: folder(b=np.zeros((4, 1))),
    "folder: a file that changes": changing,
    "load: no run": lambda: fusionkit.load("nowhere"),
    "check: unknown check": lambda: fusionkit.check("average", select=["gradchek"]),
    "check: no operator": lambda: fusionkit.check(3),
    "table: no such column": lambda: table("age,sex,outcome\n50,f,1\n", label="outcom"),
    "table: a column of mixed types": lambda: table("age,outcome\n50,1\n61,0\nunknown,1\n"),
    "table: a decimal comma": lambda: table("age;outcome\n50,5;1\n61;0\n"),
    "table: too many categories": lambda: table("name,outcome\nAnn,1\nBob,0\nCy,1\n", max_categories=2),
    "table: a missing number": lambda: table("age,dose,outcome\n50,1,1\n,2,0\n"),
    "table: a missing label": lambda: table("age,outcome\n50,1\n51,\n"),
    "table: a column without a value": lambda: table("age,dose,outcome\n50,,1\n51,NA,0\n"),
    "table: a column in no view": lambda: table("a__age,a__sex,dose,outcome\n50,f,1,1\n"),
    "table: a doubled id": lambda: table("patient,age,outcome\n007,50,1\n007,51,1\n", id="patient"),
    "table: another number of cells": lambda: table("age,outcome\n50,5,1\n"),
    "table: no UTF-8": lambda: table("größe,outcome\n50,1\n", encoding="latin-1"),
}

#: key -> a command line that is refused
COMMANDS: dict[str, list[str]] = {
    "fusionkit: unknown command": ["lsit"],
    "list: unknown option": ["list", "--jsno"],
    "show: unknown name": ["show", "sumation"],
    "plugins: unknown option": ["plugins", "--strct"],
    "check: unknown name": ["check", "sumation"],
    "check: unknown tier": ["check", "average", "--tier", "7"],
    "run: unknown key": ["run", "train.epoch=3"],
    "run: wrong value": ["run", "train.epochs=0"],
    "run: several mistakes": ["run", "train.epochs=0", "train.lr=-1"],
    "run: unknown operator": ["run", "fusion=sumation"],
    "run: unequal widths": ["run", "fusion=summation"],
    "leaderboard: no directory": ["leaderboard", "nowhere"],
    "bench: unknown name": ["bench", "sumation"],
    "study: too few folds": ["study", "--folds", "1"],
    "conf: unknown command": ["conf", "chekc"],
    "new: no name": ["new"],
}


def raised(call: Callable[[], Any]) -> str:
    """Return the class and the message of the error that a call raises."""
    try:
        call()
    except (ValueError, LookupError, TypeError) as error:
        message = error.args[0] if isinstance(error, LookupError) else str(error)
        return f"{type(error).__name__}: {message}"
    raise AssertionError("no error")


def refused(argv: list[str]) -> str:
    """Return the status and the standard error of a command in an empty directory."""
    err, before = io.StringIO(), Path.cwd()
    with TemporaryDirectory() as folder, contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        os.chdir(folder)
        try:
            status = main(argv)
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            os.chdir(before)
        text = err.getvalue().replace(os.path.realpath(folder), "{folder}").replace(folder, "{folder}")
    return f"{status}: {text.strip()}"


@pytest.mark.parametrize("key", CALLS)
def test_error(key: str) -> None:
    assert raised(CALLS[key]) == json.loads(FILE.read_text(encoding="utf-8"))[key]


@pytest.mark.parametrize("key", COMMANDS)
def test_refused_command(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert refused(COMMANDS[key]) == json.loads(FILE.read_text(encoding="utf-8"))[key]


def test_no_other_sentence_is_kept() -> None:
    assert json.loads(FILE.read_text(encoding="utf-8")).keys() == CALLS.keys() | COMMANDS.keys()


if __name__ == "__main__":
    os.environ["COLUMNS"] = "120"
    sentences = {key: raised(call) for key, call in CALLS.items()}
    sentences |= {key: refused(argv) for key, argv in COMMANDS.items()}
    FILE.write_text(json.dumps(sentences, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
