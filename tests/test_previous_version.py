"""What version 0.1.0 wrote before the package was laid out anew still works: runs, sweeps, reports, plugin packages."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

import fusionkit
from fusionkit import registry
from fusionkit.cli import main
from fusionkit.config import compose, config_hash
from fusionkit.contract import report

PREVIOUS = Path(__file__).parent / "data" / "previous"
DATA = Path(fusionkit.__file__).parent / "data" / "mfeat.npz"
#: The keys that came later, by group.
LATER = {
    "fusion": {"missing"},
    "data": {"missing", "impute", "validation_size", "test_path"},
    "train": {"view_dropout", "loss", "focal_gamma", "class_weight", "patience", "refit", "importance"},
}
WIDTHS = (76, 216, 64, 240, 47, 6)


@pytest.fixture(autouse=True)
def _version_of_the_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version of an operator's distribution belongs to the hash of a config."""
    resolve = registry.resolve
    monkeypatch.setattr(registry, "resolve", lambda kind, name: replace(resolve(kind, name), version="0.1.0"))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a copy that a test may write to."""
    return Path(shutil.copytree(PREVIOUS, tmp_path / "runs"))


def test_run_directory_loads() -> None:
    model = fusionkit.load(PREVIOUS / "run").eval()
    with torch.no_grad():
        logits = model([torch.linspace(-1, 1, 2 * width).reshape(2, width) for width in WIDTHS])
    expected = torch.tensor(
        [
            [2.5479, -2.6919, -0.1392, -3.7584, 2.8561, -6.2567, -7.0768, -0.8774, 0.5924, 5.6953],
            [1.1100, 2.6889, -3.7175, -0.8428, 3.9697, 0.9147, -1.8049, 2.6925, -1.1139, 5.0628],
        ]
    )
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """Return a file of the first twenty rows of the embedded data."""
    with np.load(DATA) as found:
        np.savez(tmp_path / "new.npz", **{name: array[:20] for name, array in found.items()})
    return tmp_path / "new.npz"


@pytest.mark.usefixtures("empty_directory")
def test_run_directory_predicts(arrays: Path) -> None:
    assert main(["predict", str(PREVIOUS / "run"), f"data.path={arrays}", "--out", "predictions.csv"]) == 0
    header, *rows = Path("predictions.csv").read_text().splitlines()
    assert header.startswith("row,prediction,probability_0,")
    assert [row.split(",")[0] for row in rows] == [str(i) for i in range(20)]


def test_run_directory_is_evaluated(arrays: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(PREVIOUS / "run"), f"data.path={arrays}", "--json"]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["metrics"]["accuracy"] <= 1


def test_completed_run_is_not_resumed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its record has no metric."""
    assert main(["run", "--resume", str(runs / "run")]) == 0
    assert "is completed: accuracy 0.18; nothing is left to do." in capsys.readouterr().out


def test_leaderboard_reads_old_records(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", str(runs)]) == 0
    printed = capsys.readouterr().out
    for accuracy in ("0.1800", "0.2050", "0.3150"):
        assert accuracy in printed


def test_sweep_that_was_begun_starts_anew_beside_its_records(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The config has new keys since."""
    before = {path: path.read_bytes() for path in runs.glob("multirun/*/result.json")}
    assert main(["run", "-m", "n=2,3", "train.epochs=1", f"hydra.sweep.dir={runs / 'multirun'}"]) == 0
    assert "earlier" not in capsys.readouterr().out
    after = {path: path.read_bytes() for path in runs.glob("multirun/*/result.json")}
    assert after.items() > before.items()
    assert len(after) == len(before) + 2


def test_repetition_names_the_version_that_changed_not_the_name(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "--from", str(runs / "run"), f"hydra.run.dir={runs / 'again'}"])  # Another processor rounds otherwise.
    changed = {line.split()[0] for line in capsys.readouterr().out.partition("what ")[2].splitlines()[1:]}
    assert {key for key in changed if "fusionkit" in key or key == "config_hash"} == {"fusionkit"}
    then, now = (json.loads((runs / name / "result.json").read_text()) for name in ("run", "again"))
    assert (then["provenance"]["versions"]["fusionkit"], then["config_hash"]) == ("0.1.0", now["config_hash"])
    assert "tensor-fusionkit" in now["provenance"]["versions"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "85ccfdd76c60a146"),
        (["train.epochs=1", "n=3", "fusion=lowrank_parameterized_concatenation"], "62dea2b7178d1a14"),
        (["train.epochs=1", "n=2"], "9baddab9cbf5dac6"),
        (["fusion=average", "model.encoder=linear"], "d215f565319ffbeb"),
        (["fabrication=monarch", "seed=5"], "3d6be0d5f6263f83"),
        (["fusion=median", "model.encoder=mlp", "n=16"], "a9fbdb2c52663aa4"),
        (["data=digits", "train.optimizer=sgd"], "f413495f2fe57179"),
        (["+experiment=debug"], "b12fdb6a43280917"),
        (["fusion.preprocess=[layer_norm]"], "42d5e24c4aee1b20"),
        (["fusion=hm_parameterized_concatenation"], "c0150cc13926f230"),
    ],
)
def test_hash_of_a_config_of_before_is_as_before(overrides: list[str], expected: str) -> None:
    config = compose(overrides)
    for key in ("task", "metric"):
        del config[key]
    for group, keys in LATER.items():
        config[group] = {key: value for key, value in config[group].items() if key not in keys}
    assert config_hash(config) == expected


def test_report_of_the_kit_fits_the_schema() -> None:
    schema = json.loads(report.SCHEMA.read_text(encoding="utf-8"))
    jsonschema.validate(json.loads((PREVIOUS / "report.json").read_text(encoding="utf-8")), schema)


def test_plugin_package_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PREVIOUS / "plugin"))
    plugin = importlib.import_module("fusionkit_gram.plugin")
    with registry.isolated(plugin):
        op = fusionkit.create("gram", dims=[3, 3])
        x = [torch.randn(2, 3), torch.randn(2, 3)]
        expected = sum(view[:, :, None] * view[:, None, :] for view in x)
        assert isinstance(expected, torch.Tensor)
        torch.testing.assert_close(op(x), expected.flatten(-2))
        assert compose(["fusion=gram", "model.encoder=linear", "n=4"])["fusion"]["name"] == "gram"
        assert fusionkit.check("gram", tier=1).ok
