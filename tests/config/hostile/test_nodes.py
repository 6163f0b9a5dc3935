"""Nodes that plain ``hydra.utils.instantiate`` runs, and that are refused here."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import fusionkit.config
from fusionkit.config.safe import build
from fusionkit.errors import ConfigError
from tests.config import application as app
from tests.config.hostile.attacks import FIRE, MARK, OPEN, disarm, fired, instantiate, refused
from tests.exhaustive import exhaustive_unless

#: id -> (a node that runs something under plain instantiate, the key in our message, the target in our message)
NODES: dict[str, tuple[dict[str, Any], str, str]] = {
    "open": (OPEN, "fusion._target_", "builtins.open"),
    "io_open": ({**OPEN, "_target_": "io.open"}, "fusion._target_", "io.open"),
    "codecs_open": ({"_target_": "codecs.open", "filename": MARK, "mode": "w"}, "fusion._target_", "codecs.open"),
    "zipfile": ({"_target_": "zipfile.ZipFile", "file": MARK, "mode": "w"}, "fusion._target_", "zipfile.ZipFile"),
    "tarfile": ({"_target_": "tarfile.open", "name": MARK, "mode": "w"}, "fusion._target_", "tarfile.open"),
    "gzip": ({"_target_": "gzip.open", "filename": MARK, "mode": "w"}, "fusion._target_", "gzip.open"),
    "sqlite": (
        {"_target_": "sqlite3.connect", "database": MARK, "_convert_": "all"},
        "fusion._target_",
        "sqlite3.connect",
    ),
    "makedirs": ({"_target_": "os.makedirs", "name": MARK}, "fusion._target_", "os.makedirs"),
    "symlink": ({"_target_": "os.symlink", "src": "/", "dst": MARK}, "fusion._target_", "os.symlink"),
    "copyfile": ({"_target_": "shutil.copyfile", "src": __file__, "dst": MARK}, "fusion._target_", "shutil.copyfile"),
    "urlretrieve": (
        {"_target_": "urllib.request.urlretrieve", "url": f"file://{__file__}", "filename": MARK},
        "fusion._target_",
        "urlretrieve",
    ),
    "alias_of_open": ({**OPEN, "_target_": "tokenize._builtin_open"}, "fusion._target_", "tokenize._builtin_open"),
    "alias_by_logging": ({"_target_": "logging.os.makedirs", "name": MARK}, "fusion._target_", "logging.os.makedirs"),
    "alias_by_torch": (
        {"_target_": "torch.nn.modules.module.torch.os.makedirs", "name": MARK},
        "fusion._target_",
        "torch.nn.modules.module.torch.os.makedirs",
    ),
    "torch_save": ({"_target_": "torch.save", "obj": 1, "f": MARK}, "fusion._target_", "torch.save"),
    "numpy": (
        {"_target_": "numpy.memmap", "filename": MARK, "mode": "w+", "shape": [1]},
        "fusion._target_",
        "numpy.memmap",
    ),
    "function": (FIRE, "fusion._target_", "tests.tripwire.fire"),
    "class": ({"_target_": "tests.tripwire.Fire"}, "fusion._target_", "tests.tripwire.Fire"),
    "method": ({"_target_": "tests.tripwire.Fire.make"}, "fusion._target_", "tests.tripwire.Fire.make"),
    "positional": ({"_target_": "tests.tripwire.fire", "_args_": [1, 2]}, "fusion._target_", "tests.tripwire.fire"),
    "nested_in_mapping": ({"_target_": "builtins.dict", "a": {"b": FIRE}}, "fusion._target_", "builtins.dict"),
    "below_a_factory": (
        {"_target_": "fusionkit.create", "name": "average", "preprocess": FIRE},
        "fusion.preprocess._target_",
        "tests.tripwire.fire",
    ),
    "in_a_list": (
        {"_target_": "fusionkit.create", "name": "average", "preprocess": [None, FIRE]},
        "fusion.preprocess[1]._target_",
        "tests.tripwire.fire",
    ),
    "in_a_list_of_lists": (
        {"_target_": "fusionkit.create", "name": "average", "postprocess": [[FIRE]]},
        "fusion.postprocess[0][0]._target_",
        "tests.tripwire.fire",
    ),
    "below_torch": (
        {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1, "bias": FIRE},
        "fusion.bias._target_",
        "tests.tripwire.fire",
    ),
    "fabrication": (
        {"_target_": "fusionkit.create", "name": "parameterized_concatenation", "parameter_fabrication": FIRE},
        "fusion.parameter_fabrication._target_",
        "tests.tripwire.fire",
    ),
    "interpolated_target": ({"_target_": "${.which}", "which": "tests.tripwire.fire"}, "fusion._target_", "${.which}"),
    "interpolated_node": (
        {"_target_": "fusionkit.create", "name": "average", "preprocess": "${.other}", "other": FIRE},
        "_target_",
        "tests.tripwire.fire",
    ),
    "created_node": (
        {"_target_": "builtins.dict", "a": "${oc.create:{_target_:tests.tripwire.fire}}"},
        "fusion.a",
        "the resolver 'oc.create'",
    ),
    "decoded_node": (
        {
            "_target_": "builtins.dict",
            "text": "{_target_:tests.tripwire.fire}",
            "a": "${oc.create:${oc.decode:${.text}}}",
        },
        "fusion.a",
        "oc.create",
    ),
}


@pytest.mark.parametrize("name", NODES)
def test_node_runs_under_plain_instantiate_and_is_refused_here(name: str) -> None:
    node, key, found = NODES[name]
    with contextlib.suppress(Exception):  # What fires may then fail.
        result = instantiate(OmegaConf.create(node))
        getattr(result, "close", int)()
    assert fired() or Path(os.environ["TRIPWIRE"]).is_symlink()
    path = Path(os.environ["TRIPWIRE"])
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    disarm()
    # The text of the environment is beside the point here, and refused for itself.
    literal = {option: str(path) if value == MARK else value for option, value in node.items()}
    with pytest.raises(ConfigError) as error:
        build(literal, "fusion")
    assert key in str(error.value)
    assert found in str(error.value)
    assert not fired()


@pytest.mark.parametrize(
    "name", exhaustive_unless({"open", "below_a_factory", "nested_in_mapping"}.__contains__, NODES)
)
def test_node_in_a_group_is_refused_by_the_application(name: str, folder: Callable[[dict[str, str]], Path]) -> None:
    node, _, _ = NODES[name]
    untrusted = folder({"fusion/evil.yaml": OmegaConf.to_yaml(OmegaConf.create(node))})
    disarm()
    with pytest.raises(ConfigError, match=r"fusion[.\[]"):
        app.main(["--config-dir", str(untrusted), "fusion=evil"])
    assert not fired()
    assert list(Path.cwd().iterdir()) == []


def test_partial_runs_under_plain_instantiate_and_is_refused_here() -> None:
    node = {"_target_": "tests.tripwire.fire", "_partial_": True}
    instantiate(OmegaConf.create(node))()
    assert fired()
    disarm()
    with pytest.raises(ConfigError, match=r"fusion\._target_ .*'tests\.tripwire\.fire'"):
        build(node, "fusion")
    with pytest.raises(ConfigError, match=r"fusion\._partial_ should .*found True"):
        build({"_target_": "fusionkit.create", "name": "average", "_partial_": True}, "fusion")
    assert not fired()


def test_positional_arguments_and_other_control_keys_are_refused() -> None:
    for key in ("_args_", "_execution_whitelist_", "_anything_"):
        with pytest.raises(ConfigError, match=rf"fusion\.{key} should be absent"):
            build({"_target_": "fusionkit.create", "name": "average", key: ["tests.tripwire.*"]}, "fusion")


@pytest.mark.parametrize(
    "name", ["tests.tripwire:fire", "tests.tripwire.fire", "os:system", "torch.nn:Linear", "../../tripwire"]
)
def test_a_name_that_looks_like_an_import_path_is_looked_up_only(name: str) -> None:
    import pkgutil

    if name == "tests.tripwire:fire":
        pkgutil.resolve_name(name)()
        assert fired()
        disarm()
    with pytest.raises(LookupError, match="the name of a fusion should be"):
        build({"_target_": "fusionkit.create", "name": name}, "fusion")
    refused([f"fusion.name='{name}'"], "fusion.name", name)


def test_create_builds_no_nested_target_either() -> None:
    import fusionkit

    instantiate(OmegaConf.create(FIRE))
    assert fired()
    disarm()
    with pytest.raises(ConfigError, match=r"preprocess\._target_ .*'tests\.tripwire\.fire'"):
        fusionkit.create("average", dims=[4, 4], preprocess=FIRE)
    with pytest.raises((ConfigError, LookupError, ValueError, TypeError)):
        fusionkit.create("parameterized_concatenation", dims=[4, 4], n=2, parameter_fabrication=FIRE)
    assert not fired()


def test_plain_instantiate_of_our_own_node_executes_nothing_nested() -> None:
    """The node says ``_recursive_: false``, so the nested target reaches ``create``, which refuses it."""
    cfg = fusionkit.config.compose(["fusion=average", "model.encoder=linear"])
    node = {**cfg["fusion"], "dims": [4, 4], "preprocess": FIRE}
    with pytest.raises(Exception, match=r"preprocess\._target_ .*'tests\.tripwire\.fire'"):
        instantiate(OmegaConf.create(node))
    assert not fired()


def test_nothing_can_be_allowed_from_outside_python(monkeypatch: pytest.MonkeyPatch) -> None:
    # Hydra 1.3's own way around its block-list.
    monkeypatch.setenv("HYDRA_INSTANTIATE_ALLOWLIST_OVERRIDE", "tests.tripwire.fire:builtins.open")
    with pytest.raises(ConfigError, match=r"tests\.tripwire\.fire"):
        build(FIRE, "fusion")
    script = "import fusionkit.config as c\nc.build({'_target_': 'tests.tripwire.fire'}, 'fusion')\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 1
    assert "fusion._target_ should be" in done.stderr
    assert not fired()
