"""``fusionkit run --from RUN_DIR``."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionkit import cli
from fusionkit.config import config_hash
from fusionkit.errors import FusionError
from fusionkit.experiment import repeat, results
from fusionkit.experiment.repeat import differences


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")


@pytest.fixture(scope="module")
def _run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run once, as a user does."""
    folder = tmp_path_factory.mktemp("first")
    generator = np.random.default_rng(0)
    label = np.arange(60) % 3
    views = {"a": np.eye(3)[label] + 0.1 * generator.standard_normal((60, 3)), "b": np.eye(3)[label]}
    np.savez(folder / "views.npz", label=label, **views)  # type: ignore[arg-type]
    options = ["train.epochs=5", "train.batch_size=16", "n=4", f"hydra.run.dir={folder / 'run'}"]
    assert cli.main(["run", "data=npz", f"data.path={folder / 'views.npz'}", *options]) == 0
    return folder / "run"


@pytest.fixture
def run_dir(_run: Path, tmp_path: Path) -> Path:
    """Return the directory of a completed run, to be damaged at will."""
    return Path(shutil.copytree(_run, tmp_path / "run"))


@pytest.fixture
def again(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(source: Path | str, *argv: str) -> tuple[int, str, str]:
        status = cli.main(["run", "--from", str(source), *argv])
        return (status, *capsys.readouterr())

    return call


Again = Callable[..., tuple[int, str, str]]


def change(run_dir: Path, **values: Any) -> dict[str, Any]:
    record = {**json.loads((run_dir / results.RESULT).read_text()), **values}
    (run_dir / results.RESULT).write_text(json.dumps(record))
    return record


def test_a_run_is_repeated_bit_for_bit(run_dir: Path, again: Again) -> None:
    status, out, err = again(run_dir, "hydra.run.dir=again")
    assert status == 0, err
    assert re.search(r"^the same as .*run, bit for bit: accuracy [\d.]+, curves, confusion", out, re.MULTILINE)
    first, second = (results.read_result(folder / results.RESULT) for folder in (run_dir, Path("again")))
    for record in (first, second):
        del record["seconds"]
    assert first == second
    assert (Path("again") / results.MODEL).read_bytes() == (run_dir / results.MODEL).read_bytes()
    assert Path("again/.hydra/config.yaml").is_file()


def test_what_the_first_release_did_not_measure_is_no_difference(run_dir: Path, again: Again) -> None:
    robustness = json.loads((run_dir / results.RESULT).read_text())["robustness"]
    del robustness["missing_rate"]
    robustness["only"] = dict.fromkeys(robustness["only"], 0.125)  # Training means stood for the other views.
    change(run_dir, robustness=robustness)
    status, _, err = again(run_dir, "hydra.run.dir=again")
    assert status == 0, err
    del robustness["noise"]["2"]
    change(run_dir, robustness=robustness)
    status, _, err = again(run_dir, "hydra.run.dir=again")
    assert status == 1
    assert "found another robustness.noise.2." in err


def test_a_record_of_before_is_compared_by_what_it_has(run_dir: Path, again: Again) -> None:
    record = json.loads((run_dir / results.RESULT).read_text())
    for key in ("task", "metric", "validation", "baseline", "best_epoch", "targets"):
        record.pop(key, None)
    record["metrics"].pop("f1_macro")
    config = record["config"]
    for node, keys in ((config, ("task", "metric")), (config["train"], ("loss", "patience", "refit", "focal_gamma"))):
        for key in keys:
            del node[key]
    record["config_hash"] = config_hash(config)
    (run_dir / results.RESULT).write_text(json.dumps(record))
    status, out, err = again(run_dir, "hydra.run.dir=again")
    assert status == 0, err
    assert "bit for bit: accuracy " in out
    assert results.read_result(Path("again") / results.RESULT)["task"] == "classification"


def test_the_new_results_are_compared_too(
    run_dir: Path, again: Again, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    new: dict[str, Any] = {"task": "regression", "metric": "rmse", "metrics": {}, "confusion": None, "best_epoch": 3}
    new["validation"], new["baseline"] = {"rmse": 1.25}, {"rmse": 2.0}
    record = change(run_dir, **new)
    given = {**record, "best_epoch": 4, "validation": {"rmse": 1.5}, "baseline": {"rmse": 2.5}}
    monkeypatch.setattr(repeat, "_run", lambda config, run_dir: given)
    monkeypatch.setattr(repeat, "_tensors", lambda first, second: {})
    status, out, err = again(run_dir, "hydra.run.dir=again")
    assert status == 1
    assert "found another validation.rmse, baseline.rmse, best_epoch." in err
    assert re.search(r"^best_epoch +3 +4$", out, re.MULTILINE)
    given = record
    status, out, err = again(run_dir, "hydra.run.dir=again")
    assert status == 0, err
    assert out.endswith("run, bit for bit: validation rmse 1.25, curves and every weight.\n")


@pytest.mark.parametrize("key", ["weights", "views"])
def test_weights_and_views_are_compared_where_the_first_release_knew_them(
    key: str, run_dir: Path, again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = change(run_dir, **{key: {"0": {"a": 0.25}}})
    monkeypatch.setattr(repeat, "_run", lambda config, run_dir: {**record, key: {"0": {"a": 0.5}}})
    monkeypatch.setattr(repeat, "_tensors", lambda first, second: {})
    status, _, err = again(run_dir, "hydra.run.dir=again")
    assert status == 1
    assert f"found another {key}.0.a." in err
    del record[key]
    (run_dir / results.RESULT).write_text(json.dumps(record))
    status, _, err = again(run_dir, "hydra.run.dir=again")
    assert status == 0, err


@pytest.mark.exhaustive
def test_a_run_that_kept_no_model_is_compared_by_its_record(run_dir: Path, again: Again) -> None:
    (run_dir / results.MODEL).unlink()
    status, out, err = again(run_dir, "hydra.run.dir=again")
    assert status == 0, err
    assert "curves and confusion; it has kept no weights.\n" in out


def test_without_a_directory_it_goes_where_every_run_goes(run_dir: Path, again: Again) -> None:
    assert again(run_dir)[0] == 0
    assert len(list(Path("outputs").glob("*/*/result.json"))) == 1


def test_another_result_is_listed_with_what_has_changed_since(run_dir: Path, again: Again) -> None:
    record = json.loads((run_dir / results.RESULT).read_text())
    record["metrics"]["accuracy"] = 0.123
    record["history"]["loss"][2] = 9.0
    record["provenance"]["versions"]["torch"] = "1.0"
    change(run_dir, **record)
    status, out, err = again(run_dir, "hydra.run.dir=again")
    assert status == 1
    assert "should give the same; found another metrics.accuracy, history.loss. Since then torch changed." in err
    assert err.splitlines()[-1].startswith("error: ")
    assert re.search(r"^metrics\.accuracy +0\.123 +\d", out, re.MULTILINE)
    assert re.search(r"^history\.loss +\[2\] 9\.0 +\[2\] \d", out, re.MULTILINE)
    assert re.search(r"^torch +1\.0 +\d", out, re.MULTILINE)


def test_other_data_are_the_one_thing_that_is_told(run_dir: Path, again: Again, tmp_path: Path) -> None:
    record = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    with np.load(record["config"]["data"]["path"]) as file:
        np.savez(tmp_path / "other.npz", **{name: file[name][::-1] for name in file.files})
    change(
        run_dir, config={**record["config"], "data": {**record["config"]["data"], "path": str(tmp_path / "other.npz")}}
    )
    status, _, err = again(run_dir)
    assert status == 1
    assert "should have the same data; found another content of other.npz." in err


@pytest.mark.exhaustive
def test_other_weights_are_a_difference(run_dir: Path, again: Again) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    file = run_dir / results.MODEL
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    tensors["network.head.bias"][0] += 0.5
    save_file(tensors, file, metadata)
    status, out, err = again(run_dir, "hydra.run.dir=again")
    assert status == 1
    assert "found another model.safetensors." in err
    assert re.search(r"1 tensors differ, by up to 0\.5", out)


def test_a_failed_run_fails_again(run_dir: Path, again: Again, tmp_path: Path) -> None:
    from fusionkit.errors import DimsError

    cfg = results.read_result(run_dir / results.RESULT)["config"]
    sentence = "dims should be [3, 3], the widths of the views in views.npz; found [4, 4]."
    results.write_failed(tmp_path / "failed", {**cfg, "dims": [4, 4]}, DimsError(sentence))
    status, _, err = again(tmp_path / "failed", "hydra.run.dir=again")
    assert status == 1
    assert f"failed as the run did: {sentence}" in err
    assert results.read_result(Path("again") / results.RESULT)["status"] == "failed"


def test_a_run_that_fails_in_another_way_says_so(run_dir: Path, again: Again, tmp_path: Path) -> None:
    cfg = results.read_result(run_dir / results.RESULT)["config"]
    results.write_failed(
        tmp_path / "failed", {**cfg, "dims": [4, 4]}, FusionError("There should be light; found none.")
    )
    status, _, err = again(tmp_path / "failed")
    assert status == 1
    assert "failed too, in another way: dims should be [3, 3], the widths of the views in views.npz; found" in err


@pytest.mark.exhaustive
def test_an_interrupted_run_is_run_again_and_compared_with_nothing(run_dir: Path, again: Again, tmp_path: Path) -> None:
    first = results.read_result(run_dir / results.RESULT)
    sentence = "The run should come to its end; found an interruption."
    results.write_failed(tmp_path / "stopped", first["config"], FusionError(sentence))
    status, out, err = again(tmp_path / "stopped", "hydra.run.dir=again")
    assert status == 0
    note = f"note: {tmp_path / 'stopped'} did not complete ({sentence}), so there is nothing to compare with"
    assert err.splitlines()[0] == note
    accuracy = first["metrics"]["accuracy"]
    assert out.endswith(f"\ncompleted, which {tmp_path / 'stopped'} had not: accuracy {accuracy}.\n")
    assert "provenance" not in out
    assert results.read_result(Path("again") / results.RESULT)["metrics"] == first["metrics"]


def test_the_recorded_config_has_the_recorded_hash(run_dir: Path) -> None:
    record = results.read_result(run_dir / results.RESULT)
    assert config_hash(record["config"]) == record["config_hash"]


def test_differences_go_into_mappings() -> None:
    first = {"metrics": {"accuracy": 0.5, "f1": 1.0}, "seconds": 1, "l": 3, "history": {"loss": [1.0]}}
    second = {"metrics": {"accuracy": 0.5, "f1": 0.9}, "seconds": 2, "l": 3, "history": None}
    assert differences(first, first) == {}
    assert differences(first, second) == {"metrics.f1": (1.0, 0.9), "history.loss": ([1.0], None)}


def test_the_prefix_of_a_distribution_is_no_difference() -> None:
    then = {"provenance": {"versions": {"fusionkit": "0.1.0", "fusionkit-gram": "0.1.0"}}}
    now = {"provenance": {"versions": {"tensor-fusionkit": "0.1.0", "tensor-fusionkit-gram": "0.2.0"}}}
    assert differences(then, now, ("provenance",)) == {"provenance.versions.fusionkit-gram": ("0.1.0", "0.2.0")}


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_no_such_directory(again: Again) -> None:
    assert again("nowhere")[::2] == (2, "error: --from should be the directory of a run; found no directory nowhere.\n")


def test_a_directory_without_a_record(again: Again, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    sentence = f"error: --from should be the directory of a run; found no result.json in {tmp_path / 'empty'}"
    assert again(tmp_path / "empty")[::2] == (2, f"{sentence}.\n")
    (tmp_path / "empty" / ".hydra").mkdir()
    assert again(tmp_path / "empty")[::2] == (2, f"{sentence}; that run was killed or is still running.\n")
    assert not Path("outputs").exists()


def test_the_runs_in_the_directory_of_a_sweep_are_named(run_dir: Path, again: Again) -> None:
    for i in range(14):
        Path("multirun", f"{i:02}").mkdir(parents=True)
        shutil.copy(run_dir / results.RESULT, Path("multirun", f"{i:02}"))
    status, _, err = again("multirun")
    named = ", ".join(f"multirun/{i:02}" for i in range(12))
    sentence = f"--from should be the directory of one run; found multirun with the runs {named} and 2 more."
    assert (status, err) == (2, f"error: {sentence}\n")


@pytest.mark.parametrize("argv", [["seed=3"], ["-m"], ["--cfg", "job"]])
def test_it_repeats_a_run_as_it_was(argv: list[str], run_dir: Path, again: Again) -> None:
    status, _, err = again(run_dir, *argv)
    assert status == 2
    assert err.startswith("error: ")
    assert "--from" in err
    assert list(Path.cwd().iterdir()) == []


def test_a_config_of_too_many_values_is_refused(run_dir: Path, again: Again) -> None:
    change(run_dir, config={"n": 4, **{f"k{i}": i for i in range(100_000)}})
    status, _, err = again(run_dir)
    assert status == 2
    assert "should have at most 100000 values; found more." in err


def test_a_model_that_is_a_pipe_is_refused(run_dir: Path, again: Again) -> None:
    (run_dir / results.MODEL).unlink()
    os.mkfifo(run_dir / results.MODEL)
    status, _, err = again(run_dir)
    assert status == 1
    assert "found a folder, a pipe or a device." in err


def test_the_same_directory_is_refused(run_dir: Path, again: Again) -> None:
    before = (run_dir / results.RESULT).read_bytes()
    status, _, err = again(run_dir, f"hydra.run.dir={run_dir}")
    assert status == 2
    assert "The repetition should be written elsewhere" in err
    assert (run_dir / results.RESULT).read_bytes() == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "config should be a mapping; found None."),
        ({}, "should contain the config of its run; found {}."),
        ({"fusion": {"_target_": "os.system", "command": "true"}}, "fusion._target_"),
        ({"seed": 0}, "should be in the configuration; found nothing"),
    ],
)
def test_a_hostile_record_runs_nothing(config: Any, message: str, run_dir: Path, again: Again) -> None:
    change(run_dir, config=config)
    status, _, err = again(run_dir, "hydra.run.dir=again")
    assert status in (1, 2)
    assert message in err
    assert err.count("\n") == 1
    assert not Path("again").exists()
