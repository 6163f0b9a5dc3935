"""The commands ``fusionkit predict`` and ``fusionkit evaluate``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import fusionkit
from fusionkit import cli
from fusionkit.config import compose
from fusionkit.config.options import validate
from fusionkit.errors import ConfigError
from fusionkit.experiment.run import run_job

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    """Return a table, and a directory with the run ``first`` on it."""
    generator, folder = np.random.default_rng(0), tmp_path_factory.mktemp("finished")
    columns = {f"{view}__{i}": generator.standard_normal(60).round(3) for view in "ab" for i in range(2)}
    frame = pd.DataFrame({"id": [f"{i:03d}" for i in range(60)], **columns, "label": np.arange(60) % 3})
    frame.to_csv(folder / "train.csv", index=False)
    path = f"data.path={folder / 'train.csv'}"
    config = validate(compose(["data=table", path, "data.label=label", "data.id=id", "train.epochs=1"]))
    run_job(config, folder / "first", quiet=True)
    return frame, folder


@pytest.fixture
def frame(_finished: tuple[pd.DataFrame, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Return the table of the run ``first``, which is in the working directory."""
    frame, folder = _finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return frame.copy()


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*argv: str) -> tuple[int, str, str]:
        status = cli.main(list(argv))
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.mark.parametrize("ending", [".csv", ".npz", ".parquet", ".CSV"])
def test_predict(ending: str, frame: pd.DataFrame, call: Run) -> None:
    frame.drop(columns="label").to_csv("new.csv", index=False)
    out = f"predictions{ending}"
    status, said, err = call("predict", "first", "data.path=new.csv", "--out", out, "--batch-size", "7")
    assert (status, said, err) == (0, f"60 rows predicted, in {out}\n", "")
    if ending == ".npz":
        found = pd.DataFrame(dict(np.load(out)))
    else:
        found = pd.read_parquet(out) if ending == ".parquet" else pd.read_csv(out, dtype={"id": str})
    assert list(found) == ["id", "prediction", "probability_0", "probability_1", "probability_2"]
    assert found["id"].tolist() == frame["id"].tolist()


def test_nothing_is_written_for_a_missing_column(frame: pd.DataFrame, call: Run) -> None:
    frame.drop(columns=["a__1", "b__0"]).to_csv("new.csv", index=False)
    status, _, err = call("predict", "first", "data.path=new.csv", "--out", "predictions.csv")
    assert status == 1
    assert "2 missing: a__1, b__0" in err
    assert not [*Path().glob("*predictions*")]


def test_nothing_is_written_for_a_word_in_a_later_batch(frame: pd.DataFrame, call: Run) -> None:
    frame.astype({"a__1": object}).replace({"a__1": {frame["a__1"][50]: "high"}}).to_csv("new.csv", index=False)
    status, _, err = call("predict", "first", "data.path=new.csv", "--out", "predictions.csv", "--batch-size", "10")
    assert status == 1
    assert "'a__1'" in err
    assert "'high' in row 50" in err
    assert sorted(one.name for one in Path().iterdir()) == ["first", "new.csv", "train.csv"]


def test_warnings(frame: pd.DataFrame, call: Run) -> None:
    frame.loc[3, [*frame.columns[1:-1]]] = np.nan
    frame.to_csv("new.csv", index=False)
    for command in (["predict", "--out", "predictions.csv", "--batch-size", "1"], ["evaluate"]):
        status, _, err = call(command[0], "first", "data.path=new.csv", *command[1:])
        assert (status, err) == (0, "warning: 1 row without any view.\n")


def test_evaluate(frame: pd.DataFrame, call: Run) -> None:
    rows = np.load("first/rows.npz")["test"]
    frame.iloc[rows].to_parquet("test.parquet")
    status, out, err = call("evaluate", "first", "data.path=test.parquet", "--json")
    assert (status, err) == (0, "note: test.parquet: the column without a name, an index, is left out.\n")
    found, recorded = json.loads(out), json.loads(Path("first/result.json").read_text())
    assert (found["task"], found["rows"]) == ("classification", 12)
    assert found["metrics"] == pytest.approx(recorded["metrics"], abs=1e-6)
    shown = call("evaluate", "first", "data.path=test.parquet")[1].splitlines()
    assert shown[0].split() == ["metric", "on", "12", "rows"]
    assert [line.split()[0] for line in shown[1:]] == list(found["metrics"])


def test_a_metric_that_is_undefined(frame: pd.DataFrame, call: Run) -> None:
    frame[frame["label"] == 1].to_csv("new.csv", index=False)
    assert "roc_auc            undefined\n" in call("evaluate", "first", "data.path=new.csv")[1]
    assert json.loads(call("evaluate", "first", "data.path=new.csv", "--json")[1])["metrics"]["roc_auc"] is None


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (["seed=1", "data.path=train.csv"], "found 'seed=1'"),
        (["data.path=train.csv", "data.label=a__0"], "found 'data.label=a__0'"),
        (["train.csv"], "found 'train.csv'"),
        (["data.pth=train.csv"], "Did you mean 'data.path'?"),
        ([], "found nothing"),
    ],
)
def test_only_the_path_may_be_given(
    command: str, overrides: list[str], found: str, frame: pd.DataFrame, call: Run
) -> None:
    out = ["--out", "predictions.csv"] if command == "predict" else []
    status, _, err = call(command, "first", *overrides, *out)
    assert status == 2
    assert found in err
    assert not Path("predictions.csv").exists()


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--out", "predictions.txt"], "'predictions.txt'"),
        (["--out", "nowhere/predictions.csv"], "nowhere"),
        ([], "--out"),
        (["--out", "predictions.csv", "--batch-size", "0"], "--batch-size"),
        (["--out", "predictions.csv", "--batchsize", "3"], "--batch-size"),
    ],
)
def test_options_that_are_wrong(options: list[str], found: str, frame: pd.DataFrame, call: Run) -> None:
    status, _, err = call("predict", "first", "data.path=train.csv", *options)
    assert status == 2
    assert found in err


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("data.path=new.csv", "new.csv"),
        ("data.path=my file (1).csv", "my file (1).csv"),
        ("data.path='my file.csv'", "my file.csv"),
        ("data.path={a: a.csv, b: b.csv}", {"a": "a.csv", "b": "b.csv"}),
    ],
)
def test_the_path(text: str, path: Any) -> None:
    from fusionkit.cli.predict_run import data_path

    assert data_path([text]) == path
    with pytest.raises(ConfigError, match="found nothing"):
        data_path([])


def test_late_fusion(frame: pd.DataFrame, call: Run) -> None:
    options = ["data=table", "data.path=train.csv", "data.label=label", "data.id=id", "train.epochs=2"]
    late = ["fusion=average", "model.encoder=linear", "model.head=none"]
    status, said, err = call("run", *options, *late, "hydra.run.dir=late")
    assert (status, "n = 3" in said) == (0, True), err
    assert call("predict", "late", "data.path=train.csv", "--out", "predictions.csv")[0] == 0
    written = pd.read_csv("predictions.csv")
    model = fusionkit.load("late")
    views = [frame[[f"{view}__{i}" for i in range(2)]].to_numpy() for view in "ab"]
    encoders = zip(model.network.encoders, model.scaler(views), strict=True)
    wanted = torch.stack([encode(view) for encode, view in encoders]).mean(0)
    columns = [f"probability_{i}" for i in range(3)]
    np.testing.assert_allclose(written[columns], wanted.softmax(-1).detach(), rtol=1e-5)
    status, said, err = call("evaluate", "late", "data.path=train.csv")
    assert status == 0, err
    assert f"{(written['prediction'] == frame['label']).mean():.4f}" in said
    assert call("run", "--from", "late", "hydra.run.dir=again")[0] == 0
