from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import fusionkit
from fusionkit.config.options import data_options
from fusionkit.errors import ConfigError, DimsError, FusionError, RegistryError
from fusionkit.experiment import results
from fusionkit.experiment.load import is_complete
from fusionkit.experiment.splits import split
from tests.exhaustive import exhaustive
from tests.experiment.torch_states import STATES
from tests.messages import like
from tests.run_records import run_job

Config = Callable[..., dict[str, Any]]


def rewrite(run_dir: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    """Change description and tensors of the saved model."""
    path = run_dir / results.MODEL
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["fusionkit"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(description, tensors)
    save_file(tensors, path, {"fusionkit": json.dumps(description)})


@pytest.mark.parametrize("encoder", ["mlp", *exhaustive(["none", "linear"])])
@pytest.mark.parametrize("name", ["lowrank", *exhaustive(["dense"])])
def test_loaded_model_gives_the_recorded_accuracy(
    tmp_path: Path, config: Config, arrays: dict[str, Any], encoder: str, name: str
) -> None:
    from fusionkit.experiment.data import load_data

    cfg = config(model__encoder=encoder, fusion__parameter_fabrication={"name": name}, fabrication={"name": name})
    result = run_job(cfg, tmp_path / "run", quiet=True)
    model = fusionkit.load(tmp_path / "run")
    assert not model.training
    rows = split(load_data(cfg["data"]), data_options(cfg["data"]), 0).test
    logits = model([torch.from_numpy(arrays["a"])[rows], torch.from_numpy(arrays["b"])[rows]])
    assert logits.shape == (12, 3)
    found = np.array(model.classes)[logits.argmax(-1).numpy()]
    assert (found == arrays["label"][rows]).mean() == pytest.approx(result["metrics"]["accuracy"])
    assert model.predict([arrays["a"][rows], arrays["b"][rows]]) == found.tolist()


def test_labels_come_back_as_they_were(tmp_path: Path, config: Config, npz: Callable[..., Path], arrays: Any) -> None:
    names = np.array(["low", "mid", "top"])[arrays["label"]]
    npz(label=names)
    run_job(config(train__epochs=8), tmp_path / "run", quiet=True)
    model = fusionkit.load(str(tmp_path / "run"))
    assert model.classes == ["low", "mid", "top"]
    assert np.mean(np.array(model.predict([arrays["a"], arrays["b"]])) == names) > 0.9


def test_frozen_buffers_come_from_the_file(run_dir: Path, arrays: dict[str, Any]) -> None:
    def double(description: Any, tensors: dict[str, torch.Tensor]) -> None:
        tensors["network.head.bias"] += 1

    before = fusionkit.load(run_dir)([arrays["a"], arrays["b"]])
    rewrite(run_dir, double)
    torch.testing.assert_close(fusionkit.load(run_dir)([arrays["a"], arrays["b"]]), before + 1)


def test_wrong_views_are_named(run_dir: Path) -> None:
    model = fusionkit.load(run_dir)
    with pytest.raises(DimsError, match=r"^View 1 \(b\) should .*found shape \(2, 4\)\.$"):
        model([torch.zeros(2, 4), torch.zeros(2, 4)])
    with pytest.raises(FusionError, match=r"^View 1 should .*found \(1,\)\.$"):
        model([torch.zeros(2, 4), torch.zeros(1, 3)])


def test_the_yaml_is_not_read(run_dir: Path) -> None:
    (run_dir / ".hydra").mkdir()
    (run_dir / ".hydra" / "config.yaml").write_text("!!python/object/apply:os.abort []")
    (run_dir / results.CURVE).unlink()
    fusionkit.load(run_dir)


@pytest.mark.parametrize("state", STATES)
def test_the_state_of_torch_does_not_matter(run_dir: Path, state: str) -> None:
    with STATES[state]():
        model = fusionkit.load(run_dir)
    assert model.scaler.get_buffer("mean_0").abs().sum() > 0
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert not any(tensor.is_inference() for tensor in model.state_dict().values())


def test_device(run_dir: Path) -> None:
    assert next(fusionkit.load(run_dir, device="cpu").parameters()).device.type == "cpu"
    with pytest.raises(FusionError, match=r"^device should .*found 'cuda:99'"):
        fusionkit.load(run_dir, device="cuda:99")


# -- not a completed run -----------------------------------------------------------------------------------------------


def refused(run_dir: Path, sentence: str, kind: type[Exception] = FusionError) -> None:
    with pytest.raises(kind, match=like(sentence.replace("{dir}", str(run_dir)))):
        fusionkit.load(run_dir)


def test_no_directory(tmp_path: Path) -> None:
    refused(tmp_path / "none", "A run directory … found no directory {dir}.")


def test_not_a_run(tmp_path: Path) -> None:
    refused(tmp_path, "{dir} … found no result.json in it.")


def test_failed_run(tmp_path: Path) -> None:
    results.write_failed(tmp_path, {}, FusionError("It broke."))
    refused(tmp_path, "{dir} … found a failed one: It broke.")


def test_model_is_missing(run_dir: Path) -> None:
    (run_dir / results.MODEL).unlink()
    refused(run_dir, "{dir} … found no such file.")


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_model_is_truncated(run_dir: Path, size: int) -> None:
    path = run_dir / results.MODEL
    path.write_bytes(path.read_bytes()[:size])
    refused(run_dir, "{dir}/model.safetensors … found it damaged (")


def test_model_has_no_description(run_dir: Path) -> None:
    save_file({"x": torch.zeros(1)}, run_dir / results.MODEL)
    refused(run_dir, "{dir}/model.safetensors … found no description.")


def test_description_of_another_version(run_dir: Path) -> None:
    rewrite(run_dir, lambda description, tensors: description.update(schema_version=9))
    refused(run_dir, "{dir}/model.safetensors … found 9.")


def test_tensors_of_another_model(run_dir: Path) -> None:
    rewrite(run_dir, lambda description, tensors: description["fusion"].update(n=6))
    refused(run_dir, "{dir}/model.safetensors should contain the tensors of its model; found: Error(s) in loading")


def test_operator_that_is_not_installed(run_dir: Path) -> None:
    rewrite(run_dir, lambda description, tensors: description["fusion"].update(name="gram"))
    refused(run_dir, "{dir}/model.safetensors should describe a model of installed operators; found: ", RegistryError)


@pytest.mark.parametrize("key", ["fusion", "dims", "classes", "encoder", "dtype", "views", "input_dropout"])
@pytest.mark.parametrize("value", [None, 3, "x", [], {}, [[]], -1])
def test_damaged_descriptions_are_refused_in_one_sentence(run_dir: Path, key: str, value: Any) -> None:
    def damage(description: dict[str, Any], tensors: Any) -> None:
        description[key] = value

    rewrite(run_dir, damage)
    with pytest.raises((FusionError, ConfigError), match=r"model\.safetensors should "):
        fusionkit.load(run_dir)


@pytest.mark.parametrize("key", ["task", "targets", "target_mean", "target_scale"])
@pytest.mark.parametrize("value", [None, 3, "x", [], {}, [[]], [-1], ["x"], [float("nan")], [float("inf")], [0.0]])
def test_a_damaged_description_of_a_regression(run_dir: Path, key: str, value: Any) -> None:
    regression = {"task": "regression", "targets": ["y"], "target_mean": [0.0], "target_scale": [1.0]}

    def damage(description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        del description["classes"]
        for name in ("network.head.weight", "network.head.bias"):
            tensors[name] = tensors[name][:1].clone()
        description.update({**regression, key: value})

    rewrite(run_dir, damage)
    if (key, value) in (("target_mean", [-1]), ("target_mean", [0.0]), ("targets", ["x"])):  # As good as any other.
        assert fusionkit.load(run_dir).describe()[key] == value
        return
    with pytest.raises(FusionError, match=r"model\.safetensors should describe a model; found "):
        fusionkit.load(run_dir)


HUGE = 10**12


@pytest.mark.parametrize(
    "changes",
    [
        {"dims": [HUGE, 3], "fusion": {"dims": [HUGE, 3]}},
        {"fusion": {"n": HUGE}},
        {"encoder": "mlp", "fusion": {"dims": [10**8, 10**8]}},
        {"encoder": "linear", "fusion": {"dims": [HUGE, 3]}},
        {"fusion": {"parameter_fabrication": {"name": "hashed", "K": 35}, "n": HUGE}},
        {"fusion": {"parameter_fabrication": {"name": "random_matrix_adaption"}, "n": HUGE}},
        {"fusion": {"preprocess": {"name": "linear", "in_features": HUGE, "device": "cpu"}}},
        {"fusion": {"name": "concatenation", "n": None, "parameter_fabrication": None, "dims": [HUGE, 3]}},
    ],
    ids=str,
)
def test_a_description_of_a_huge_model_allocates_nothing(run_dir: Path, changes: dict[str, Any]) -> None:
    def grow(description: dict[str, Any], tensors: Any) -> None:
        fusion = {**description["fusion"], **changes["fusion"]}
        description.update(changes, fusion={key: value for key, value in fusion.items() if value is not None})

    rewrite(run_dir, grow)
    refused(run_dir, "{dir}/model.safetensors should contain the tensors of its model; found: Error(s) in loading")


def test_a_description_without_own_parameters(run_dir: Path) -> None:
    rewrite(run_dir, lambda description, tensors: description["fusion"].update(require_parameters=False, n=HUGE))
    refused(run_dir, "{dir}/model.safetensors … found ValueError: a fusion with require_parameters=False.")


def test_model_is_a_pipe(run_dir: Path) -> None:
    (run_dir / results.MODEL).unlink()
    os.mkfifo(run_dir / results.MODEL)
    refused(run_dir, "{dir}/model.safetensors … found a folder, a pipe or a device.")
    assert not is_complete(run_dir / results.MODEL)


def test_model_is_a_sparse_file(run_dir: Path) -> None:
    os.truncate(run_dir / results.MODEL, 2**31)
    refused(run_dir, "{dir}/model.safetensors … found 2147483648 bytes in ")


# -- hostile metadata --------------------------------------------------------------------------------------------------

_calls: list[str] = []


def tripwire(*arguments: Any, **options: Any) -> None:
    """Must never be called."""
    _calls.append("called")


@pytest.mark.parametrize(
    "fusion",
    [
        {"name": "os:system"},
        {"name": "tests.experiment.test_load:tripwire"},
        {"name": "parameterized_concatenation", "_target_": "tests.experiment.test_load.tripwire"},
        {"name": "average", "preprocess": {"_target_": "tests.experiment.test_load.tripwire"}},
        {"name": "average", "postprocess": [{"_target_": "tests.experiment.test_load.tripwire", "_partial_": True}]},
        {
            "name": "parameterized_concatenation",
            "parameter_fabrication": {"_target_": "tests.experiment.test_load.tripwire"},
        },
        {
            "name": "parameterized_concatenation",
            "parameter_fabrication": {"name": "tests.experiment.test_load:tripwire"},
        },
        {"name": "average", "preprocess": {"_target_": "torch.nn.modules.linear.warnings.sys.exit"}},
        {"name": "average", "preprocess": "${oc.env:HOME}"},
        {"name": ["average"]},
        {"name": None},
    ],
)
def test_hostile_descriptions_run_nothing(run_dir: Path, fusion: dict[str, Any]) -> None:
    def attack(description: dict[str, Any], tensors: Any) -> None:
        description["fusion"] = {"dims": [4, 3], "n": 5, **fusion}

    rewrite(run_dir, attack)
    with pytest.raises((FusionError, ConfigError, RegistryError)):
        fusionkit.load(run_dir)
    assert _calls == []
