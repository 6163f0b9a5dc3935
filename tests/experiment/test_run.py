from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import fusionkit
from fusionkit import registry
from fusionkit.config.options import data_options, validate
from fusionkit.errors import ConfigError, DimsError, FusionError
from fusionkit.experiment import results, run
from fusionkit.experiment.data import load_data
from fusionkit.experiment.splits import split
from fusionkit.fusion import ElementwiseFusion, Fusion
from tests.exhaustive import exhaustive
from tests.experiment.torch_states import STATES
from tests.messages import like
from tests.run_records import run_job

Config = Callable[..., dict[str, Any]]


@pytest.mark.exhaustive
def test_the_default_run_imports_no_compiler_and_scikit_learn_only_behind_the_training(tmp_path: Path) -> None:
    program = (
        "import sys; from fusionkit.cli import main; from fusionkit.experiment.run import Run\n"
        "def shown(*names): print(*sorted({'torch._dynamo', 'lightning_fabric', *names} & sys.modules.keys()))\n"
        "record = Run.record\n"
        "def trained(run):\n"
        "    shown('sklearn', 'scipy', 'pandas', 'matplotlib')\n"
        "    return record(run)\n"
        "Run.record = trained; main(sys.argv[1:]); shown('matplotlib.pyplot')"
    )
    command = [sys.executable, "-c", program, "run", "train.epochs=1", f"hydra.run.dir={tmp_path}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert (lines[0], lines[-1]) == ("", "")


def test_the_state_of_torch_does_not_matter(tmp_path: Path, config: Config) -> None:
    wanted = run_job(config(train__epochs=1), tmp_path, quiet=True, record_only=True)
    for name, state in STATES.items():
        with state():
            found = run_job(config(train__epochs=1), tmp_path, quiet=True, record_only=True)
        same = "metrics", "history", "robustness"
        assert [found[key] for key in same] == [wanted[key] for key in same], name


def test_a_run_writes_its_files_and_returns_its_record(tmp_path: Path, config: Config) -> None:
    found = run_job(config(train__epochs=8), tmp_path, quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "views.npz") == [
        "curve.png",
        "model.safetensors",
        "result.json",
        "rows.npz",
        "views.png",
    ]
    assert json.loads((tmp_path / results.RESULT).read_text(encoding="utf-8")) == found
    assert (tmp_path / results.CURVE).read_bytes().startswith(b"\x89PNG")
    expected = {
        "schema_version": 1,
        "status": "completed",
        "error": None,
        "fusion": "parameterized_concatenation",
        "fabrication": "dense",
        "dims": [4, 3],
        "data_dims": [4, 3],
        "n": 5,
        "l": 35,
        "parameters": 35 + 3 * 5 + 3,
        "seed": 0,
        "classes": [0, 1, 2],
        "encoder": "none",
    }
    assert {key: found[key] for key in expected} == expected
    assert found["metrics"]["accuracy"] > 0.9
    assert 0 < found["seconds"] < 60
    assert re.fullmatch("[0-9a-f]{16}", found["config_hash"])
    assert found["provenance"]["versions"]["torch"] == version("torch")
    assert len(found["history"]["loss"]) == 8
    assert np.sum(found["confusion"]) == found["data"]["test_rows"] == 12


def test_accuracy_is_that_of_the_confusion_matrix(tmp_path: Path, config: Config) -> None:
    found = run_job(config(train__epochs=1, train__lr=1e-9), tmp_path, quiet=True)
    assert found["metrics"]["accuracy"] == pytest.approx(np.trace(found["confusion"]) / 12)
    assert found["metrics"]["accuracy"] == found["history"]["accuracy"][-1]


def test_the_embedded_data_train(tmp_path: Path, config: Config) -> None:
    cfg = config(train__epochs=2, data={"name": "mfeat"}, dims=None, fusion__dims=None, n=16, fusion__n=16)
    found = run_job(cfg, tmp_path, quiet=True)
    assert found["data_dims"] == [76, 216, 64, 240, 47, 6]
    assert found["l"] == 16 * 649
    assert found["metrics"]["accuracy"] > 0.85


def test_classes_without_a_test_row_are_no_reason_to_warn(
    tmp_path: Path, config: Config, npz: Callable[..., Path]
) -> None:
    npz(label=np.array(["rare"] * 2 + ["scarce"] * 2 + ["common"] * 56))
    found = run_job(config(train__epochs=2), tmp_path, quiet=True)
    assert min(sum(row) for row in found["confusion"]) == 0
    assert 0 <= found["metrics"]["f1_macro"] < 1


# -- what the fusion sees ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["linear", *exhaustive(["mlp"])])
@pytest.mark.parametrize(("width", "seen"), [(None, 5), (6, 6)])
def test_an_encoder_makes_widths_equal(tmp_path: Path, config: Config, encoder: str, width: Any, seen: int) -> None:
    cfg = config(model__encoder=encoder, model__encoder_width=width, fusion__name="average", fusion__n=None)
    del cfg["fusion"]["parameter_fabrication"]
    found = run_job(cfg, tmp_path, quiet=True)
    assert (found["dims"], found["data_dims"]) == ([seen, seen], [4, 3])
    assert (found["n"], found["l"], found["fabrication"]) == (seen, 0, None)
    assert cfg["fusion"]["dims"] == [4, 3]  # the caller's config is left alone


def test_an_alias_is_recorded_by_its_name(tmp_path: Path, config: Config) -> None:
    cfg = config(model__encoder="linear", fusion__name="mean", fusion__n=None)
    del cfg["fusion"]["parameter_fabrication"]
    assert run_job(cfg, tmp_path, quiet=True)["fusion"] == "average"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (None, "dense"),
        ({"name": "lowrank", "r": 2}, "lowrank"),
        *exhaustive([("lowrank", "lowrank"), ("identity", "dense")]),
    ],
)
def test_the_fabrication_is_recorded_by_its_name(tmp_path: Path, config: Config, given: Any, name: str) -> None:
    cfg = config(fusion__parameter_fabrication=given, train__epochs=1)
    assert run_job(cfg, tmp_path, quiet=True)["fabrication"] == name


def test_own_files_need_no_dims(tmp_path: Path, config: Config) -> None:
    assert run_job(config(dims=None, fusion__dims=None, train__epochs=1), tmp_path, quiet=True)["dims"] == [4, 3]


# -- determinism -------------------------------------------------------------------------------------------------------


def test_same_seed_same_bits(tmp_path: Path, config: Config) -> None:
    found: list[Any] = []
    for name in ("one", "two"):
        torch.manual_seed(len(found))
        record = run_job(config(seed=3), tmp_path / name, quiet=True)
        found.append((record["metrics"], record["history"], (tmp_path / name / results.MODEL).read_bytes()))
    assert found[0] == found[1]
    other = run_job(config(seed=4), tmp_path / "three", quiet=True)
    assert other["history"] != found[0][1]


def test_the_callers_random_state_is_left_alone(tmp_path: Path, config: Config) -> None:
    state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1]  # type: ignore[index]
    run_job(config(), tmp_path, quiet=True)
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # type: ignore[index]


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_a_piped_run_shows_plain_text(
    tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = run_job(config(), tmp_path / "a run")
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert shown.err.splitlines()[-1].startswith("epoch 5/5  loss ")
    lines = dict(line.split(None, 1) for line in shown.out.splitlines() if line and not line.startswith(" "))
    assert lines["run"] == "parameterized_concatenation (dense) on views.npz, seed 0"
    assert lines["accuracy"] == f"{found['metrics']['accuracy']:.4f} on 12 test rows (largest class: 0.3333)"
    assert lines["l"] == "35 learnable parameters of the fusion, n = 5"
    assert lines["parameters"] == "53 of the whole model"
    assert lines["seconds"] == f"{found['seconds']:.1f}"
    assert lines["files"] == "a run"


def test_quiet_shows_nothing(tmp_path: Path, config: Config, capfd: pytest.CaptureFixture[str]) -> None:
    run_job(config(), tmp_path, quiet=True)
    assert capfd.readouterr() == ("", "")


# -- trackers ----------------------------------------------------------------------------------------------------------


def tracker(receive: Callable[[dict[str, Any]], None]) -> Any:
    def fusionkit_run_finished(result: dict[str, Any]) -> None:
        receive(result)

    return SimpleNamespace(__name__="tracker", fusionkit_run_finished=fusionkit.hookimpl(fusionkit_run_finished))


def test_trackers_get_the_finished_record(tmp_path: Path, config: Config) -> None:
    received = []

    def receive(result: dict[str, Any]) -> None:
        assert (tmp_path / results.RESULT).exists()
        received.append(result)

    with registry.isolated(tracker(receive)):
        found = run_job(config(train__epochs=1), tmp_path, quiet=True)
    assert received == [found]


def test_a_failing_tracker_changes_nothing(tmp_path: Path, config: Config) -> None:
    def fail(result: dict[str, Any]) -> None:
        result.clear()
        raise OSError("server down")

    with registry.isolated(tracker(fail)), pytest.warns(RuntimeWarning, match="server down"):
        found = run_job(config(train__epochs=1), tmp_path, quiet=True)
    assert results.read_result(tmp_path / results.RESULT) == found


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        ({"dims": [4, 4]}, DimsError, "dims … found [4, 4]."),
        ({"fusion__dims": [9, 9]}, DimsError, "fusion.dims … found [9, 9]."),
        ({"device": "cuda:99"}, FusionError, "device … found 'cuda:99'"),
        ({"device": "meta"}, ConfigError, "device … found 'meta'."),
        ({"fusion__require_parameters": False}, ConfigError, "fusion.require_parameters … found false."),
    ],
)
def test_a_run_that_cannot_be_leaves_nothing(
    tmp_path: Path, config: Config, changes: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=like(sentence)):
        run_job(config(**changes), tmp_path / "run", quiet=True)
    assert list((tmp_path / "run").iterdir()) == []


# -- missing views -----------------------------------------------------------------------------------------------------


def absent(arrays: dict[str, Any]) -> dict[str, Any]:
    """Return the views with rows of NaN: two rows without any view, 20 without view a, 10 without b."""
    views = {"a": arrays["a"].copy(), "b": arrays["b"].astype(float)}
    views["a"][:22] = np.nan
    views["b"][20:32] = np.nan
    return views


@pytest.mark.parametrize("encoder", ["none", "mlp"])
def test_a_run_on_views_that_are_absent_from_rows(
    tmp_path: Path, config: Config, npz: Any, arrays: Any, encoder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    views = absent(arrays)
    npz(**views)
    found = run_job(config(train__epochs=20, train__view_dropout=0.3, model__encoder=encoder), tmp_path / "run")
    assert found["data"]["missing"] == {"a": 22, "b": 12}
    assert found["data"]["rows_without_views"] == 2
    assert found["metrics"]["accuracy"] > 0.8
    assert found["metrics"]["accuracy"] == found["history"]["accuracy"][-1]
    line = "missing     34 of 120 views (a in 22, b in 12 of 60 rows); 2 rows without any view"
    assert line in capsys.readouterr().out.splitlines()
    model = fusionkit.load(tmp_path / "run")
    mask = np.stack([~np.isnan(view).any(1) for view in views.values()], axis=1)
    junk = [np.where(np.isnan(view), 1e30, view) for view in views.values()]
    labels = model.predict([*views.values()])
    assert labels == model.predict(junk, mask)
    assert np.mean(np.array(labels) == arrays["label"]) > 0.8
    npz(**dict(zip(views, junk, strict=True)), mask=mask)
    again = run_job(
        config(train__epochs=20, train__view_dropout=0.3, model__encoder=encoder, data__missing="mask"),
        tmp_path / "again",
        quiet=True,
    )
    same = "metrics", "history", "confusion"
    assert [again[key] for key in same] == [found[key] for key in same]


def test_complete_data_are_recorded_as_before(tmp_path: Path, config: Config) -> None:
    found = run_job(config(train__epochs=1), tmp_path, quiet=True)
    later = run_job(
        config(train__epochs=1, train__view_dropout=0.0, data__missing="nan", data__impute=None), tmp_path, quiet=True
    )
    assert not {"missing", "rows_without_views"} & found["data"].keys()
    same = "metrics", "history", "robustness", "data"
    assert [later[key] for key in same] == [found[key] for key in same]


def test_some_nan_is_filled_with_the_means_of_the_training_part(
    tmp_path: Path, config: Config, npz: Any, arrays: Any
) -> None:
    views = absent(arrays)
    views["b"][40:45, 1] = np.nan
    npz(**views)
    cfg = config(train__epochs=8, data__impute="mean")
    found = run_job(cfg, tmp_path / "run", quiet=True)
    assert found["data"]["missing"] == {"a": 22, "b": 12}
    model, data = fusionkit.load(tmp_path / "run"), load_data(cfg["data"])
    training = split(data, data_options(cfg["data"]), 0).training
    known = views["b"][training]
    np.testing.assert_allclose(model.scaler.get_buffer("mean_1"), np.nanmean(known, axis=0))
    filled = views["b"].copy()
    filled[40:45, 1] = model.scaler.get_buffer("mean_1")[1]
    np.testing.assert_allclose(model.evaluate([*views.values()]), model.evaluate([views["a"], filled]), atol=1e-5)


def test_a_view_that_is_absent_in_the_training_part(tmp_path: Path, config: Config, npz: Any, arrays: Any) -> None:
    view = arrays["a"].copy()
    node = config()["data"]
    view[split(load_data(node), data_options(node), 0).training] = np.nan
    npz(a=view)
    with pytest.raises(FusionError, match=like("View 0 (a) … the training part at least; found it in none.")):
        run_job(config(), tmp_path / "run", quiet=True)


@pytest.mark.parametrize("reason", ["train.view_dropout is 0.5", "rows of views.npz lack a view"])
def test_an_operator_that_refuses_masks(tmp_path: Path, config: Config, npz: Any, arrays: Any, reason: str) -> None:
    plugin = SimpleNamespace(__name__="broken")
    plugin.fusionkit_fusions = fusionkit.hookimpl(lambda: {"first": First})
    plugin.fusionkit_fusions.__name__ = "fusionkit_fusions"
    changes = {"train__view_dropout": 0.5} if "dropout" in reason else {}
    if not changes:
        npz(**absent(arrays))
    cfg = config(fusion__name="first", model__encoder="linear", **changes)
    cfg["fusion"] = {key: cfg["fusion"][key] for key in ("_target_", "_recursive_", "_convert_", "name", "dims")}
    with registry.isolated(plugin):
        sentence = f"The fusion 'first' … because {reason}; found … fusion.missing=placeholder"
        with pytest.raises(FusionError, match=like(sentence)):
            run_job(cfg, tmp_path / "run", quiet=True)
        cfg["fusion"]["missing"] = "placeholder"
        assert run_job(cfg, tmp_path / "run", quiet=True)["l"] == 10


class First(ElementwiseFusion):
    """``A_1``."""

    def _fuse(self, x: Sequence[torch.Tensor]) -> torch.Tensor:
        return x[0].clone()


class Broken(Fusion):
    """``A_1 ⊔ ... ⊔ A_k`` that says it learns one parameter."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return sum(self.resolve_dims(dims))

    def calculate_l(self) -> int:
        return 1

    def _fuse(self, x: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat(tuple(x), -1)


def test_an_operator_that_breaks_its_contract_is_refused_at_its_first_call(tmp_path: Path, config: Config) -> None:
    plugin = SimpleNamespace(__name__="broken")
    plugin.fusionkit_fusions = fusionkit.hookimpl(lambda: {"broken": Broken})
    plugin.fusionkit_fusions.__name__ = "fusionkit_fusions"
    cfg = config(fusion__name="broken")
    cfg["fusion"] = {key: cfg["fusion"][key] for key in ("_target_", "_recursive_", "_convert_", "name", "dims")}
    sentence = r"^broken should have calculate_l\(\) = 0, the elements of its own parameters; found 1\.$"
    with registry.isolated(plugin), pytest.raises(FusionError, match=sentence):
        run_job(cfg, tmp_path / "run", quiet=True)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_loss_that_diverges_names_its_epoch(tmp_path: Path, config: Config) -> None:
    cfg = config(train__lr=1e38, train__scheduler="constant", train__optimizer="sgd")
    with pytest.raises(FusionError, match=r"^The training loss should .*found (nan|inf) in epoch [12] of 5\."):
        run_job(cfg, tmp_path / "run", quiet=True)
    assert list((tmp_path / "run").iterdir()) == []


def test_weights_that_break_in_the_last_step_are_found(tmp_path: Path, config: Config) -> None:
    cfg = config(train__lr=1e38, train__scheduler="constant", train__optimizer="sgd", train__epochs=1)
    cfg["train"]["batch_size"] = 48
    with pytest.raises(FusionError, match=r"^The trained model should .*found others after epoch 1,"):
        run_job(cfg, tmp_path / "run", quiet=True)


def test_a_run_that_breaks_while_writing_does_not_look_finished(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config(train__epochs=1)
    run_job(cfg, tmp_path / "run", quiet=True)

    def full(result: Any, path: Path, tested: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("fusionkit.experiment.run_picture.draw_run", full)
    with pytest.raises(OSError, match="disk full"):
        run_job(cfg, tmp_path / "run", quiet=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [results.MODEL, results.ROWS]
    with pytest.raises(FusionError, match=r"found no result\.json in it\.$"):
        fusionkit.load(tmp_path / "run")


@pytest.mark.exhaustive
def test_a_killed_run_leaves_nothing_that_looks_finished(tmp_path: Path, run_dir: Path, config: Config) -> None:
    cfg = config(train__epochs=10**6)
    program = (
        "import json, sys, pathlib\n"
        "from fusionkit.config.options import validate\n"
        "from fusionkit.experiment import run\n"
        "run.run_job(validate(json.loads(sys.argv[1])), pathlib.Path(sys.argv[2]), quiet=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, json.dumps(cfg), str(run_dir)])
    try:
        deadline = time.monotonic() + 60
        while (run_dir / results.RESULT).exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not os.listdir(run_dir)
    with pytest.raises(FusionError, match=r"should be the directory of a completed run"):
        fusionkit.load(run_dir)


def test_build_model_draws_from_the_global_state(config: Config) -> None:
    from fusionkit.experiment.data import load_data

    cfg = validate(config())
    data = load_data(cfg.tree["data"])
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(run.build_model(cfg, data).fusion.flat_w())
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])
