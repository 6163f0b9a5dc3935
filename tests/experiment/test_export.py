"""Exported files: each is run without fusionkit's code and compared with the model of the run on real rows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pandas as pd
import pytest
import torch

import fusionkit
from fusionkit import registry
from fusionkit.config import compose
from fusionkit.config.options import ModelOptions, validate
from fusionkit.contract.lookup import subjects_of
from fusionkit.errors import FusionError
from fusionkit.experiment import export as exporting
from fusionkit.experiment.data import load_data
from fusionkit.experiment.export import export, export_model, input_names
from fusionkit.experiment.model import FusionModel, Network, Scaler
from fusionkit.experiment.run import run_job
from fusionkit.experiment.tasks.classification import Classification
from tests.contract.mutants.resources import UnknownToOnnx
from tests.exhaustive import exhaustive_unless

Array = npt.NDArray[Any]
Views = dict[str, Array]
ROWS = 1200


@pytest.fixture(scope="module")
def real() -> Views:
    """Return three views of real rows in random order, and labels of every task."""
    data = load_data({"name": "mfeat", "test_size": 0.2})
    rows = np.random.default_rng(0).permutation(len(data.views["mor"]))[:ROWS]
    views = {name: data.views[name][rows] for name in ("fou", "kar", "mor")}
    digit = data.target[rows]
    return {
        **views,
        "digit": digit,
        "marks": np.stack([digit > 4, digit % 2 == 0], 1),
        "numbers": np.stack([1e6 + 50 * digit, views["mor"][:, 4] * 1e-3], 1),
    }


def trained(folder: Path, views: Views, label: Array, options: Sequence[str]) -> FusionModel:
    """Train a run in the folder ``run`` and return its model."""
    arrays: dict[str, Any] = {"label": label, **views}
    np.savez(folder / "data.npz", **arrays)
    overrides = ["data=npz", f"data.path={folder / 'data.npz'}", "train.epochs=1", *options]
    run_job(validate(compose(overrides)), folder / "run", quiet=True)
    return fusionkit.load(folder / "run")


def by_onnxruntime(path: Path, inputs: Views) -> Array:
    return np.asarray(onnxruntime.InferenceSession(path).run(None, inputs)[0])


def by_torch(path: Path, inputs: Views) -> Array:
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    output: Array = torch.export.load(path).module()(**tensors).numpy()
    return output


RUNNERS = {".onnx": by_onnxruntime, ".pt2": by_torch}


def expect_same(path: Path, model: FusionModel, views: Views, mask: Array | None = None, rtol: float = 1e-4) -> None:
    """Compare file and model at 1 and at 1000 rows, in probabilities or in deviations of the targets."""
    inputs = {name: view.astype(np.float32) for name, view in views.items()}
    scale = np.array(getattr(model.task, "scale", 1.0))
    for rows in (slice(0, 1), slice(1, 1001)):
        some = {name: value[rows] for name, value in inputs.items()}
        present = None if mask is None else mask[rows]
        wanted = model.task.predicted(model.evaluate(list(some.values()), present, empty=True))
        found = RUNNERS[path.suffix](path, some if present is None else {**some, "mask": present})
        assert found.dtype == np.float32
        assert found.shape == wanted.shape
        values = np.abs(wanted) if model.task.name == "regression" else 0.0
        assert (np.abs(found - wanted) <= rtol * scale + 4 * np.finfo(np.float32).eps * values).all()


#: name -> the label, and the options of the run
RUNS: dict[str, tuple[str, list[str]]] = {
    "default": ("digit", []),
    "mlp": ("digit", ["fusion=average", "model.encoder=mlp"]),
    "lowrank": ("digit", ["fabrication=lowrank", "fabrication.r=4"]),
    "kronecker": ("digit", ["fabrication=kronecker"]),
    "fourier": ("digit", ["fabrication=fourier", "model.encoder=linear"]),
    "targets": ("numbers", ["fusion=product", "model.encoder=linear"]),
    "multilabel": ("marks", []),
    "late": ("digit", ["fusion=average", "model.encoder=linear", "model.head=none"]),
    "double": ("digit", ["train.precision=64-true"]),
    "mixed": ("digit", ["train.precision=bf16-mixed"]),
    "mlb": ("digit", ["fusion=mlb", "n=16"]),
    "log_pool": ("digit", ["fusion=log_pool", "model.encoder=linear", "model.head=none"]),
    "attention_pool": ("numbers", ["fusion=attention_pool", "model.encoder=linear"]),
}


@pytest.mark.parametrize("name", exhaustive_unless(lambda name: name in ("targets", "multilabel"), RUNS))
def test_a_run(name: str, real: Views, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    label, options = RUNS[name]
    fusion = next((one.partition("=")[2] for one in options if one.startswith("fusion=")), "average")
    if fusion not in registry.names("fusion"):
        pytest.skip(f"{fusion} is not installed")
    views = {view: real[view] for view in ("fou", "kar", "mor")}
    model = trained(tmp_path, views, real[label], options)
    capfd.readouterr()
    for ending in RUNNERS:
        found = export(tmp_path / "run", tmp_path / f"model{ending}")
        expect_same(tmp_path / f"model{ending}", model, views)
        noted = ["the run computed in float64; the file computes the same in float32."]
        assert found.notes == (noted if (name, ending) == ("double", ".onnx") else [])
        assert found.description["mask"] is None
    assert capfd.readouterr() == ("", "")


#: options of a run with absent views -> whether it gets NaN in its data
MASKED = {
    "": True,
    "fusion=average model.encoder=mlp train.view_dropout=0.3": False,
    "fusion=parameterized_concatenation +fusion.missing=placeholder": True,
    "fusion=log_pool model.encoder=linear model.head=none": True,
    "fusion=attention_pool model.encoder=linear": True,
    "fusion=lowrank_tensor_fusion n=8": True,
}


@pytest.mark.parametrize("options", exhaustive_unless(lambda options: options in ("", [*MASKED][1]), MASKED))
def test_absent_views(options: str, real: Views, tmp_path: Path) -> None:
    fusion = options.partition("fusion=")[2].split(" ")[0] or "average"
    if fusion not in registry.names("fusion"):
        pytest.skip(f"{fusion} is not installed")
    generator = np.random.default_rng(1)
    views = {view: real[view].astype(np.float64) for view in ("fou", "kar", "mor")}
    mask = generator.random((ROWS, 3)) < 0.6
    mask[:2] = [[True, False, True], [False, False, False]]
    gaps = {view: np.where(mask[:, [i]], array, np.nan) for i, (view, array) in enumerate(views.items())}
    model = trained(tmp_path, gaps if MASKED[options] else views, real["digit"], options.split())
    assert model.fusion.takes_masks
    for ending in RUNNERS:
        path = tmp_path / f"model{ending}"
        assert export(tmp_path / "run", path).description["mask"] == "mask"
        expect_same(path, model, gaps, mask)
        expect_same(path, model, views, mask)
        expect_same(path, model, views, np.ones_like(mask))


@pytest.mark.parametrize("precision", exhaustive_unless(lambda one: one == "bf16-true", ["bf16-true", "16-true"]))
def test_half_precision(precision: str, real: Views, tmp_path: Path) -> None:
    views = {view: real[view] for view in ("fou", "kar")}
    model = trained(tmp_path, views, real["digit"], [f"train.precision={precision}", "model.encoder=linear"])
    dtype = str(model.network.dtype).removeprefix("torch.")
    program, onnx = (export(tmp_path / "run", tmp_path / f"model{ending}") for ending in (".pt2", ".onnx"))
    expect_same(tmp_path / "model.pt2", model, views, rtol=4 * torch.finfo(model.network.dtype).eps)
    assert (program.description["dtype"], program.notes) == (dtype, [])
    # ONNX has the same parameters in float32.
    expect_same(tmp_path / "model.onnx", model, views, rtol=0.1)
    model.network.float()
    expect_same(tmp_path / "model.onnx", model, views)
    assert onnx.description["dtype"] == "float32"
    assert onnx.notes == [f"the run computed in {dtype}; the file computes the same in float32."]
    assert onnx.difference > 1e-4


def test_single_missing_numbers_are_filled(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.standard_normal((80, 5)) * 9 + 4, columns=["a__0", "a__1", "a__2", "b__0", "b__1"])
    frame["a__sex"], frame["label"] = generator.choice(["f", "m"], 80), np.arange(80) % 2
    frame.loc[::3, "a__1"] = frame.loc[1::3, "b__1"] = np.nan
    frame.to_csv(tmp_path / "table.csv", index=False)
    given = [f"data.path={tmp_path / 'table.csv'}", "data.label=label", "data.impute=mean", "train.epochs=1"]
    run_job(validate(compose(["data=table", *given])), tmp_path / "run", quiet=True)
    model = fusionkit.load(tmp_path / "run")
    views = dict(zip(model.scaler.names, model.encode(frame), strict=True))
    for ending in RUNNERS:
        about = export(tmp_path / "run", tmp_path / f"model{ending}").description
        expect_same(tmp_path / f"model{ending}", model, views)
    columns = ["a__0", "a__1", "a__2", "a__sex=f", "a__sex=m"]
    assert about["inputs"][0] == {"name": "a", "view": "a", "width": 5, "columns": columns}
    assert about["table"] == model.table.to_json()  # type: ignore[union-attr]
    assert about["impute"] == "mean"
    assert onnx_metadata(tmp_path / "model.onnx") == about
    extra = {"fusionkit": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert json.loads(extra["fusionkit"]) == about


def onnx_metadata(path: Path) -> Any:
    return json.loads(onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["fusionkit"])


# ------------------------------------------------------------------ single models


def small(op: fusionkit.Fusion, names: Sequence[str] = (), offset: float = 3.0) -> FusionModel:
    """Return a model of an operator and a head, with random parameters and scales."""
    assert op.dims is not None
    scaler = Scaler(names or [f"v{i}" for i in range(len(op.dims))], op.dims)
    scaler.fit([offset + np.random.default_rng(0).standard_normal((9, width)) for width in op.dims])
    return FusionModel(scaler, Network(op, op.dims, 3, ModelOptions()), Classification(["x", "y", "z"])).eval()


def average(k: int = 2) -> fusionkit.Fusion:
    return fusionkit.create("average", dims=[3] * k)


def differences(model: FusionModel, folder: Path) -> list[float]:
    """Return those of a program, and of ONNX with a mask where the operator takes one."""
    masked = model.fusion.takes_masks
    program, onnx = export_model(model, folder / "m.pt2"), export_model(model, folder / "m.onnx", masked=masked)
    return [program.difference, onnx.difference]


#: One of each plugin.
QUICK = ("mcb", "dempster", "transformer")


@pytest.mark.parametrize("name", exhaustive_unless(lambda name: name in QUICK, registry.names("fusion")))
def test_every_fusion(name: str, tmp_path: Path) -> None:
    (subject,) = subjects_of(name, "fusion")
    assert max(differences(small(subject.operator(dtype=torch.float32)), tmp_path)) < 1e-5


@pytest.mark.parametrize("name", exhaustive_unless(lambda name: name == "hypernet", registry.names("fabrication")))
def test_every_fabrication(name: str, tmp_path: Path) -> None:
    op = fusionkit.create("parameterized_concatenation", dims=[8, 4, 4], n=8, parameter_fabrication={"name": name})
    assert max(differences(small(op), tmp_path)) < 1e-5


def test_names_of_inputs() -> None:
    views = ["a", "a b", "a-b", "mask", "class", "1st", "größe", "probabilities", "self", "a_b_2", ""]
    names = ["a", "a_b", "a_b_2", "mask_2", "view_class", "view_1st", "gr__e", "probabilities_2", "self_2", "a_b_2_2"]
    assert input_names(views) == [*names, "view_"]


@pytest.mark.parametrize("ending", RUNNERS)
def test_views_with_the_names_of_values(ending: str, tmp_path: Path) -> None:
    views = [
        "linear",
        "softmax",
        "p_model_network_head_bias",
        "val_4",
        "div",
        "größe",
        "mask",
        "convert_element_type_default",
        "torch",
        "inf",
        "device",
        "getattr",
        "slice",
        "float",
    ]
    model = small(average(len(views)), views)
    about = export_model(model, tmp_path / f"m{ending}", masked=True).description
    assert [one["view"] for one in about["inputs"]] == views
    inputs = {one["name"]: np.random.default_rng(i).random((1001, 3)) for i, one in enumerate(about["inputs"])}
    expect_same(tmp_path / f"m{ending}", model, inputs, np.random.default_rng(9).random((1001, len(views))) < 0.5)


def test_the_same_bytes_and_nothing_of_this_machine(tmp_path: Path) -> None:
    model = small(average())
    for name in ("one.onnx", "two.onnx", "m.pt2"):
        export_model(model, tmp_path / name, masked=True)
    onnx, again, program = (
        path.read_bytes() for path in (tmp_path / "one.onnx", tmp_path / "two.onnx", tmp_path / "m.pt2")
    )
    assert onnx == again
    folder = str(Path(fusionkit.__file__).parent).encode()
    for written in (onnx, program):
        assert folder not in written
        assert b"experiment/model.py" not in written
    session = onnxruntime.InferenceSession(onnx)
    shapes = {one.name: (one.type, one.shape) for one in [*session.get_inputs(), *session.get_outputs()]}
    view = ("tensor(float)", ["rows", 3])
    assert shapes == {"v0": view, "v1": view, "mask": ("tensor(bool)", ["rows", 2]), "probabilities": view}


# ------------------------------------------------------------------ what is refused


def test_an_operation_that_onnx_lacks(tmp_path: Path) -> None:
    model = small(UnknownToOnnx(n=3, dims=[3, 3]))
    with pytest.raises(FusionError, match=r"ONNX has; found \w+\.lgamma.*\.pt2") as caught:
        export_model(model, tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
    assert not [*tmp_path.iterdir()]
    assert export_model(model, tmp_path / "m.pt2").difference < 1e-6


class Breaks(UnknownToOnnx):
    """Decides by values."""

    def _fuse(self, x: Sequence[torch.Tensor]) -> torch.Tensor:
        out = super()._fuse(x)
        return out if x[0].sum() > 0 else -out


@pytest.mark.parametrize("ending", RUNNERS)
def test_a_decision_by_values(ending: str, tmp_path: Path) -> None:
    with pytest.raises(FusionError, match=r"torch\.export has; found a decision by the values of the views\.$"):
        export_model(small(Breaks(n=3, dims=[3, 3])), tmp_path / f"m{ending}")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("ending", RUNNERS)
def test_a_file_that_is_off_is_not_left(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"m{ending}"
    path.write_text("before")
    monkeypatch.setattr(exporting, "_predicted", shifted(exporting._predicted))
    with pytest.raises(FusionError, match=r"probabilities up to 0\.01; found them off by 0\.02"):
        export_model(small(average()), path)
    assert [one.read_text() for one in tmp_path.iterdir()] == ["before"]


def shifted(predicted: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda *given: predicted(*given) + 2.5e-2


@pytest.mark.parametrize("name", ["onnx", "onnxscript"])
def test_without_the_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        export_model(small(average()), tmp_path / "m.onnx")
    assert caught.value.name == name
    assert export_model(small(average()), tmp_path / "m.pt2").checked == f"torch {torch.__version__}"


def test_without_onnxruntime_it_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export_model(small(average()), tmp_path / "m.onnx").checked is None
    assert (tmp_path / "m.onnx").stat().st_size > 0


def test_offsets_that_float32_cannot_keep(tmp_path: Path) -> None:
    (note,) = export_model(small(average(), ["far", "near"], offset=3e7), tmp_path / "m.pt2").notes[:1]
    assert note.startswith("view 'far': 3 columns, the first is 0, with a mean so large")


def test_values_that_float32_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(FusionError, match=r"^View 0 \(v0\) should .* float32.*; found a mean of 1e\+40\.$"):
        export_model(small(average(), offset=1e40), tmp_path / "m.pt2")


@pytest.mark.parametrize("name", exhaustive_unless(lambda name: name == "average", ["average", "mlb", "log_pool"]))
def test_a_program_needs_no_fusionkit(name: str, tmp_path: Path) -> None:
    if name not in registry.names("fusion"):
        pytest.skip(f"{name} is not installed")
    model = small(fusionkit.create(name, dims=[3, 3], n=4 if name == "mlb" else 3))
    export_model(model, tmp_path / "m.pt2")
    code = """
import sys
sys.modules["fusionkit"] = None
import torch
program = torch.export.load(sys.argv[1]).module()
print(program(v0=torch.ones(5, 3), v1=torch.zeros(5, 3))[0].tolist())
assert not [name for name in sys.modules if name.startswith("fusionkit") and sys.modules[name]]
"""
    path = tmp_path / "m.pt2"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    wanted = model.predict_proba([np.ones((5, 3)), np.zeros((5, 3))])[0]
    assert json.loads(done.stdout) == pytest.approx(wanted, abs=1e-6)
