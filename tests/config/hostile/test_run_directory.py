"""A run directory: everything in it is untrusted."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import fusionkit.config
from fusionkit.config.options import ModelOptions
from fusionkit.errors import ConfigError, FusionError
from tests.config.hostile.attacks import FIRE, Evil, disarm, fired, instantiate

#: id -> (what the description of the model says of its operator, the key and what was found in our message)
DESCRIPTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "target": ({"_target_": "tests.tripwire.fire"}, "fusion._target_", "tests.tripwire.fire"),
    "nested": ({"preprocess": FIRE}, "fusion.preprocess._target_", "tests.tripwire.fire"),
    "in_a_list": ({"postprocess": [None, [FIRE]]}, "fusion.postprocess[1][0]._target_", "tests.tripwire.fire"),
    "fabrication": ({"parameter_fabrication": FIRE}, "fusion.parameter_fabrication._target_", "tests.tripwire.fire"),
    "partial": ({"preprocess": {**FIRE, "_partial_": True}}, "fusion.preprocess._target_", "tests.tripwire.fire"),
    "alias": (
        {"preprocess": {"_target_": "logging.os.makedirs", "name": "@TRIPWIRE@"}},
        "fusion.preprocess._target_",
        "logging.os.makedirs",
    ),
    "resolver": ({"preprocess": "${tripwire:1}"}, "fusion.preprocess", "${tripwire:1}"),
}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Return the directory of a run, as `fusionkit run` leaves it."""
    from fusionkit._util.files import write_json
    from fusionkit.experiment import results
    from fusionkit.experiment.load import save
    from fusionkit.experiment.model import FusionModel, Network, Scaler
    from fusionkit.experiment.tasks.classification import Classification

    folder = tmp_path / "run"
    folder.mkdir()
    network = Network(fusionkit.create("average", dims=[4, 4]), [4, 4], 2, ModelOptions())
    save(FusionModel(Scaler(["a", "b"], [4, 4]), network, Classification([0, 1])), folder / results.MODEL)
    write_json(folder / results.RESULT, {"schema_version": results.SCHEMA_VERSION, "status": "completed"})
    assert fusionkit.load(folder).fusion.name == "average"
    return folder


@pytest.mark.usefixtures("_tripwire_resolver")
@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_description_that_would_run_is_refused(name: str, run_dir: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    changes, key, found = DESCRIPTIONS[name]
    file = run_dir / "model.safetensors"
    with safe_open(file, framework="pt") as opened:
        description = json.loads(opened.metadata()["fusionkit"])
        tensors = {tensor: opened.get_tensor(tensor) for tensor in opened.keys()}  # noqa: SIM118
    text = json.dumps({**description["fusion"], **changes}).replace("@TRIPWIRE@", os.environ["TRIPWIRE"])
    description["fusion"] = json.loads(text)
    for node in (description["fusion"], *changes.values()):
        with contextlib.suppress(Exception):
            plain = OmegaConf.create(
                {"node": json.loads(json.dumps(node).replace("@TRIPWIRE@", os.environ["TRIPWIRE"]))}
            )
            result = instantiate(plain.node)
            result()
    mark = Path(os.environ["TRIPWIRE"])
    assert fired()
    if mark.is_dir():
        mark.rmdir()
    disarm()
    save_file(tensors, file, {"fusionkit": json.dumps(description)})
    with pytest.raises(ConfigError) as error:
        fusionkit.load(run_dir)
    assert key in str(error.value)
    assert found in str(error.value)
    assert not fired()


def test_nothing_else_of_a_run_directory_is_believed(run_dir: Path) -> None:
    import torch

    model, pickled = run_dir / "model.safetensors", pickle.dumps(Evil())
    saved = run_dir / "model.pt"
    hydra = run_dir / ".hydra"
    hydra.mkdir()
    (hydra / "config.yaml").write_text("fusion: {_target_: tests.tripwire.fire}\n")
    (hydra / "config.pickle").write_bytes(pickled)
    instantiate(OmegaConf.load(hydra / "config.yaml").fusion)
    assert fired()
    disarm()
    assert fusionkit.load(run_dir).fusion.name == "average"
    torch.save(Evil(), saved)
    torch.load(saved, weights_only=False)
    assert fired()
    disarm()
    for content in (saved.read_bytes(), pickled):
        model.write_bytes(content)
        with pytest.raises(FusionError, match=r"model\.safetensors should be a complete safetensors file"):
            fusionkit.load(run_dir)
    assert not fired()
