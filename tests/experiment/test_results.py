from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fusionkit._util.files import write_atomic, write_json
from fusionkit.errors import DimsError, FusionError
from fusionkit.experiment import results
from tests.fake_distributions import Site
from tests.messages import like

CFG: dict[str, Any] = {
    "n": 5,
    "dims": [4, 3],
    "seed": 7,
    "device": "cpu",
    "fusion": {
        "name": "parameterized_concatenation",
        "n": 5,
        "dims": [4, 3],
        "parameter_fabrication": {"name": "dense"},
    },
    "fabrication": {"name": "dense"},
    "model": {"encoder": "linear"},
    "data": {"name": "mfeat"},
    "train": {"epochs": 1},
    "hydra": {"secret": 1},
}

KEYS = {
    "schema_version",
    "status",
    "error",
    "fusion",
    "fabrication",
    "dims",
    "data_dims",
    "n",
    "l",
    "parameters",
    "seed",
    "metrics",
    "seconds",
    "config_hash",
    "provenance",
}


def test_record_has_every_key_of_the_schema() -> None:
    found = results.record(CFG, status="completed", l=35, metrics={"accuracy": 1.0})
    assert set(found) >= KEYS
    assert found["schema_version"] == 1
    assert (found["fusion"], found["fabrication"], found["seed"], found["l"]) == (
        "parameterized_concatenation",
        "dense",
        7,
        35,
    )
    assert "hydra" not in found["config"]


@pytest.mark.parametrize("cfg", [{}, {"fusion": None}, {"fusion": "x", "data": 3, "model": []}])
def test_record_of_an_incomplete_config(cfg: dict[str, Any]) -> None:
    assert set(results.record(cfg, status="failed")) >= KEYS


def test_a_record_of_a_wrong_config_can_be_read(tmp_path: Path) -> None:
    cfg = {
        "n": "many",
        "dims": "4,3",
        "seed": -1,
        "fusion": {"name": 3, "dims": [4, "a"]},
        "model": {"encoder": "none"},
    }
    found = results.write_failed(tmp_path, cfg, DimsError("x"))
    assert {name for name in ("n", "dims", "data_dims", "fusion") if found[name] is None} == {
        "n",
        "dims",
        "data_dims",
        "fusion",
    }
    assert (found["seed"], found["encoder"], found["config"]["n"]) == (-1, "none", "many")
    assert results.read_result(tmp_path / results.RESULT) == found


def test_the_schema_describes_every_key(run_dir: Path) -> None:
    schema = results.Result.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    record = json.loads((run_dir / results.RESULT).read_text())
    jsonschema.validate(record, schema)
    assert set(record) <= set(schema["properties"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**record, "status": "runs"}, schema)


def test_record_refuses_what_the_schema_lacks() -> None:
    with pytest.raises(TypeError, match="acuracy"):
        results.record(CFG, status="completed", acuracy=1.0)


# -- a failed run ------------------------------------------------------------------------------------------------------


def test_write_failed_is_complete_and_removes_the_rest(tmp_path: Path) -> None:
    for name in (results.RESULT, results.MODEL, results.CURVE, results.WEIGHTS, ".partial-x.png"):
        (tmp_path / name).write_text("earlier")
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    found = results.write_failed(tmp_path, CFG, DimsError("View 1 should have width 3; found 4."), 1.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hydra", "notes.txt", "result.json"]
    assert json.loads((tmp_path / results.RESULT).read_text()) == found
    assert set(found) >= KEYS
    assert found["status"] == "failed"
    assert found["error"] == "View 1 should have width 3; found 4."
    assert found["error_type"] == "DimsError"
    assert found["seconds"] == 1.5
    assert re.fullmatch("[0-9a-f]{16}", found["config_hash"])
    assert results.read_result(tmp_path / results.RESULT)["metrics"] == {}


@pytest.mark.parametrize("error", [SystemExit(3), KeyError(), MemoryError(), RuntimeError("x\ud800")])
@pytest.mark.parametrize("cfg", [{}, CFG, {"fusion": {"name": object()}, "n": float("nan")}])
def test_write_failed_copes_with_any_error_and_config(
    tmp_path: Path, error: BaseException, cfg: dict[str, Any]
) -> None:
    results.write_failed(tmp_path / "new" / "run", cfg, error)
    found = results.read_result(tmp_path / "new" / "run" / results.RESULT)
    assert found["status"] == "failed"
    assert found["error"]


# -- files -------------------------------------------------------------------------------------------------------------


def test_start_removes_the_record_before_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    unlink = Path.unlink

    def spy(self: Path, missing_ok: bool = False) -> None:
        removed.append(self.name)
        unlink(self, missing_ok)

    for name in (results.RESULT, results.MODEL):
        (tmp_path / name).touch()
    monkeypatch.setattr(Path, "unlink", spy)
    results.start(tmp_path)
    assert removed[0] == results.RESULT
    assert list(tmp_path.iterdir()) == []


def test_start_refuses_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sentence = f"The run directory … found {tmp_path / 'file' / 'run'}: Not a directory."
    with pytest.raises(FusionError, match=like(sentence)):
        results.start(tmp_path / "file" / "run")


def test_a_failing_write_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    (tmp_path / "x.json").write_text("before")
    with pytest.raises(OSError, match="disk full"):
        write_atomic(tmp_path / "x.json", fail)
    assert (tmp_path / "x.json").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_the_temporary_file_has_the_suffix_and_ordinary_permissions(tmp_path: Path) -> None:
    seen: list[Path] = []

    def write(path: Path) -> None:
        seen.append(path)
        path.write_text("x")

    write_atomic(tmp_path / "x.png", write)
    (tmp_path / "plain").touch()
    assert seen[0].suffix == ".png"
    assert seen[0].parent == tmp_path
    assert stat.S_IMODE((tmp_path / "x.png").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_json_is_strict(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": [1.0, float("nan"), float("inf")], 3: (True, None), "p": tmp_path, "s": "ü"})
    assert json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail) == {
        "a": [1.0, None, None],
        "3": [True, None],
        "p": str(tmp_path),
        "s": "ü",
    }


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "{path} … found Expecting value: line 1 column 1 (char 0)."),
        (b'{"schema_version": 1, "sta', "{path} … found Unterminated string"),
        (b"\xff\xfe\x00", "{path} … found "),
        (b"[" * 100_000, "{path} … found "),
        (b"[1]", "{path} … found none."),
        (b"{}", "{path} … found none."),
        (b'{"schema_version": 99}', "{path} … found 99, written by another release of fusionkit."),
        (b'{"schema_version": 1, "status": "runs"}', "{path} … found 'runs'."),
        (
            b'{"schema_version": 1, "status": "completed", "l": -1, "metrics": {"accuracy": "high"}}',
            "{path} … found -1. metrics ",
        ),
    ],
    ids=["empty", "truncated", "binary", "deep", "list", "no version", "other version", "other status", "other types"],
)
def test_read_result_refuses(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(FusionError, match=like(sentence.format(path=path))):
        results.read_result(path)


def test_read_result_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(FusionError, match=r"none\.json should .*found no such file\.$"):
        results.read_result(tmp_path / "none.json")
    with pytest.raises(FusionError, match=r"should be a file of at most 64000000 bytes; found another\.$"):
        results.read_result(tmp_path)


# -- provenance --------------------------------------------------------------------------------------------------------


def test_provenance_names_every_distribution_involved() -> None:

    found = results.provenance(CFG)
    assert found["versions"]["torch"] == version("torch")
    assert {"tensor-fusionkit", "numpy", "scikit-learn", "lightning-fabric", "safetensors", "hydra-core"} <= set(
        found["versions"]
    )
    assert found["python"].startswith("3.")


def test_provenance_names_the_distribution_of_the_data_set(site: Site) -> None:
    site.dataset()
    assert results.provenance({"data": {"name": "toy"}})["versions"]["fk-data"] == "1.0"


def test_provenance_names_the_plugins_distribution() -> None:
    from types import SimpleNamespace

    import fusionkit
    from fusionkit import registry

    class Mine(fusionkit.Fusion):
        """Mine."""

    plugin = SimpleNamespace(__name__="my_plugin.hooks", fusionkit_fusions=fusionkit.hookimpl(lambda: {"mine": Mine}))
    plugin.fusionkit_fusions.__name__ = "fusionkit_fusions"
    with registry.isolated(plugin):
        versions = results.provenance({"fusion": {"name": "mine"}})["versions"]
    assert "my_plugin" in versions
    assert "my_plugin" not in results.provenance({"fusion": {"name": "mine"}})["versions"]


def test_git_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith("GIT_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    results.git_commit.cache_clear()
    assert results.git_commit() is None
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *command], check=True)
    results.git_commit.cache_clear()
    found = results.git_commit()
    assert found is not None
    assert re.fullmatch("[0-9a-f]{40}", found["commit"])
    assert found["dirty"] is False
    results.git_commit.cache_clear()
