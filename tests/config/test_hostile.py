"""Hostile configs.  Each is first shown to work under plain ``hydra.utils.instantiate``, OmegaConf or Hydra."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import omegaconf
import pytest
from omegaconf import OmegaConf

import fusionkit.config
from fusionkit.cli import run as app
from fusionkit.config.safe import build
from fusionkit.errors import ConfigError, FusionError
from tests import tripwire

EXECUTION_WHITELIST = not __import__("hydra").__version__.startswith("1.3")


def instantiate(node: Any) -> Any:
    """Call Hydra's own function, which warns since 1.4 that it is not safe."""
    from hydra.utils import instantiate as plain

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return plain(node)


def arm_resolver() -> None:
    """Register a resolver that fires, as some plugin might."""
    old = omegaconf.__version__.startswith("2.3")
    register: Any = OmegaConf.register_new_resolver if old else OmegaConf.register_resolver
    register("tripwire", tripwire.fire)


def fired() -> bool:
    return bool(tripwire.fired) or Path(os.environ["TRIPWIRE"]).exists()


def disarm() -> None:
    tripwire.fired.clear()
    Path(os.environ["TRIPWIRE"]).unlink(missing_ok=True)


def refused(argv: list[str], key: str, found: str) -> None:
    """``fusionkit run`` refuses the config with its key and what was found, and runs and writes nothing."""
    disarm()
    with pytest.raises(ConfigError) as error:
        app.main(argv)
    message = str(error.value)
    assert key in message, message
    assert found in message, message
    assert "\n" not in message
    assert not fired()
    assert list(Path.cwd().iterdir()) == []


# -- nodes: plain instantiate runs them
# ----------------------------------------------------------------------------------


MARK = "${oc.env:TRIPWIRE}"
OPEN = {"_target_": "builtins.open", "file": MARK, "mode": "w"}
FIRE = {"_target_": "tests.tripwire.fire"}

#: id -> (a node that runs something under plain instantiate, the key in our message, the target in our message)
NODES: dict[str, tuple[dict[str, Any], str, str]] = {
    "open": (OPEN, "fusion._target_", "builtins.open"),
    "io_open": ({**OPEN, "_target_": "io.open"}, "fusion._target_", "io.open"),
    "codecs_open": (
        {"_target_": "codecs.open", "filename": MARK, "mode": "w"},
        "fusion._target_",
        "codecs.open",
    ),
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
    "copyfile": (
        {"_target_": "shutil.copyfile", "src": __file__, "dst": MARK},
        "fusion._target_",
        "shutil.copyfile",
    ),
    "urlretrieve": (
        {"_target_": "urllib.request.urlretrieve", "url": f"file://{__file__}", "filename": MARK},
        "fusion._target_",
        "urlretrieve",
    ),
    "alias_of_open": ({**OPEN, "_target_": "tokenize._builtin_open"}, "fusion._target_", "tokenize._builtin_open"),
    "alias_by_logging": (
        {"_target_": "logging.os.makedirs", "name": MARK},
        "fusion._target_",
        "logging.os.makedirs",
    ),
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
    "nested_in_mapping": (
        {"_target_": "builtins.dict", "a": {"b": FIRE}},
        "fusion._target_",
        "builtins.dict",
    ),
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
    "interpolated_target": (
        {"_target_": "${.which}", "which": "tests.tripwire.fire"},
        "fusion._target_",
        "${.which}",
    ),
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


@pytest.mark.parametrize("name", NODES)
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
    with pytest.raises(ConfigError, match=r"fusion\._partial_ should be absent or false; found True"):
        build({"_target_": "fusionkit.create", "name": "average", "_partial_": True}, "fusion")
    assert not fired()


def test_positional_arguments_and_other_control_keys_are_refused() -> None:
    for key in ("_args_", "_execution_whitelist_", "_anything_"):
        with pytest.raises(ConfigError, match=rf"fusion\.{key} should not be in a config"):
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


# -- resolvers ---------------------------------------------------------------------------------------------------------


RESOLVERS = {
    "env": ("${oc.env:SECRET}", "the resolver 'oc.env'"),
    "env_with_default": ("${oc.env:NOTHING,${oc.env:SECRET}}", "the resolver 'oc.env'"),
    "decode": ("${oc.decode:'${oc.env:SECRET}'}", "the resolver 'oc.decode'"),
    "create": ("${oc.create:{a:1}}", "the resolver 'oc.create'"),
    "inside_text": ("a-${oc.env:SECRET}-b", "the resolver 'oc.env'"),
    "keys": ("${oc.dict.keys:train}", "the resolver 'oc.dict.keys'"),
    "deprecated": ("${oc.deprecated:seed}", "the resolver 'oc.deprecated'"),
    "someones": ("${tripwire:1}", "the resolver 'tripwire'"),
    "computed_name": ("${${.kind}:SECRET}", "the computed resolver name"),
    "computed_name_part": ("${oc.${.kind}:SECRET}", "the computed resolver name"),
    "computed_reference": ("${train.${.kind}}", "the computed reference"),
    "computed_argument": ("${oc.select:train.${.kind}}", "the computed argument"),
    "in_a_default": ("${oc.select:nothing,${oc.env:SECRET}}", "the resolver 'oc.env'"),
    "escaped_once": (r"\${oc.env:SECRET}", "should contain no '${'"),
}


@pytest.fixture
def _tripwire_resolver(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SECRET", "swordfish")
    arm_resolver()
    yield
    OmegaConf.clear_resolver("tripwire")


@pytest.mark.usefixtures("_tripwire_resolver")
@pytest.mark.parametrize("name", RESOLVERS)
def test_resolver_is_refused_before_it_runs(name: str, folder: Callable[[dict[str, str]], Path]) -> None:
    text, found = RESOLVERS[name]
    if name in ("someones", "env", "env_with_default", "inside_text", "in_a_default"):
        plain = OmegaConf.to_container(OmegaConf.create({"kind": "oc.env", "x": text}), resolve=True)
        assert fired() or "swordfish" in str(plain)
    if name == "computed_name":
        assert OmegaConf.create({"kind": "oc.env", "x": text}).x == "swordfish"
    if name == "escaped_once":
        once = OmegaConf.to_container(OmegaConf.create({"x": text}), resolve=True)
        assert OmegaConf.create(once).x == "swordfish"  # type: ignore[arg-type, union-attr, unused-ignore]
    untrusted = folder(
        {"data/evil.yaml": OmegaConf.to_yaml({"name": "npz", "path": text, "dims": None, "kind": "oc.env"})}
    )
    refused(["--config-dir", str(untrusted), "data=evil"], "data.path", found)


@pytest.mark.usefixtures("_tripwire_resolver")
def test_resolvers_on_the_command_line_are_refused() -> None:
    refused(["n=${oc.env:SECRET}"], "n", "the resolver 'oc.env'")
    refused(["+fusion.extra={a: '${tripwire:1}'}"], "fusion.extra.a", "the resolver 'tripwire'")
    refused(["fusion='${tripwire:1}'"], "fusion", "the resolver 'tripwire'")


# -- the hydra node: plain Hydra runs them -----------------------------------------------------------------------------


class Attack(NamedTuple):
    """An untrusted folder that makes plain Hydra run something, and what our message names."""

    files: dict[str, str]
    overrides: list[str]
    key: str
    found: str
    multirun: bool = False
    config_name: str = "config"
    #: Hydra 1.4 would refuse it as well: then nothing is to be shown.
    on_1_4: bool = True
    #: The application instantiates its groups, as applications do.
    builds: bool = False


def experiment(text: str) -> dict[str, str]:
    return {"experiment/evil.yaml": "# @package _global_\n" + text}


def logger(handler: str, section: str = "job_logging", extra: str = "") -> dict[str, str]:
    return {
        f"hydra/{section}/evil.yaml": (
            f"version: 1\nhandlers:\n  evil:\n{handler}\nroot:\n  level: INFO\n  handlers: [evil]\n"
            f"disable_existing_loggers: false\n{extra}"
        )
    }


EVIL = ["+experiment=evil"]
TRIPWIRE = "'@TRIPWIRE@'"
CALL = "{_target_: tests.tripwire.Fire}"
BATCH = "_target_: hydra_plugins.batch.BatchLauncher\n"

ATTACKS: dict[str, Attack] = {
    "callback": Attack(
        experiment(f"hydra:\n  callbacks:\n    x: {CALL}\n"), EVIL, "hydra.callbacks.x._target_", "tests.tripwire.Fire"
    ),
    "callback_group": Attack(
        {"hydra/callbacks/evil.yaml": f"x: {CALL}\n"},
        ["hydra/callbacks=evil"],
        "hydra.callbacks.x._target_",
        "tests.tripwire.Fire",
    ),
    "callback_open": Attack(
        experiment(f"hydra:\n  callbacks:\n    x: {{_target_: builtins.open, file: {TRIPWIRE}, mode: w}}\n"),
        EVIL,
        "hydra.callbacks.x._target_",
        "builtins.open",
    ),
    "callback_nested": Attack(
        experiment(f"hydra:\n  callbacks:\n    x: {{_target_: builtins.dict, y: [{{z: {CALL}}}]}}\n"),
        EVIL,
        "hydra.callbacks.x._target_",
        "builtins.dict",
    ),
    "callback_by_reference": Attack(
        experiment(f"evil: {{x: {CALL}}}\nhydra:\n  callbacks: ${{evil}}\n"), EVIL, "hydra.callbacks", "${evil}"
    ),
    "callback_entry_by_reference": Attack(
        experiment(f"evil: {CALL}\nhydra:\n  callbacks: {{x: '${{evil}}'}}\n"), EVIL, "hydra.callbacks.x", "${evil}"
    ),
    "logging_of_one_job": Attack(
        {
            **experiment(
                "hydra:\n  job_logging:\n    root: {handlers: [x]}\n"
                "    handlers: {x: {class: tests.tripwire.FireHandler}}\n"
            ),
            "experiment/harmless.yaml": "# @package _global_\nseed: 1\n",
        },
        ["+experiment=harmless,evil"],
        "hydra.job_logging.handlers.x.class",
        "tests.tripwire.FireHandler",
        multirun=True,
    ),
    "callback_of_a_sweep": Attack(
        experiment(f"hydra:\n  callbacks:\n    x: {CALL}\n"),
        [*EVIL, "seed=0,1"],
        "hydra.callbacks.x._target_",
        "tests.tripwire.Fire",
        multirun=True,
    ),
    "handler_factory": Attack(
        logger("    (): tests.tripwire.FireHandler"),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.handlers.evil.()",
        "tests.tripwire.FireHandler",
    ),
    "handler_class": Attack(
        logger("    class: tests.tripwire.FireHandler"),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.handlers.evil.class",
        "tests.tripwire.FireHandler",
    ),
    "handler_zipfile": Attack(
        logger(f"    class: zipfile.ZipFile\n    file: {TRIPWIRE}\n    mode: w"),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.handlers.evil.class",
        "zipfile.ZipFile",
    ),
    "handler_alias": Attack(
        logger(f"    (): logging.os.makedirs\n    name: {TRIPWIRE}"),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.handlers.evil.()",
        "logging.os.makedirs",
    ),
    "handler_file": Attack(
        logger(f"    class: logging.FileHandler\n    filename: {TRIPWIRE}"),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.handlers.evil.filename",
        "fired",
    ),
    "handler_stream": Attack(
        logger("    class: logging.StreamHandler\n    stream: ext://tripwire_import.x"),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.handlers.evil.stream",
        "ext://tripwire_import.x",
    ),
    "handler_of_hydra": Attack(
        logger("    class: tests.tripwire.FireHandler", "hydra_logging"),
        ["hydra/hydra_logging=evil"],
        "hydra.hydra_logging.handlers.evil.class",
        "tests.tripwire.FireHandler",
    ),
    "handler_by_reference": Attack(
        {
            **logger("    class: ${evil}"),
            "experiment/evil.yaml": "# @package _global_\nevil: tests.tripwire.FireHandler\n",
        },
        ["hydra/job_logging=evil", *EVIL],
        "hydra.job_logging.handlers.evil.class",
        "${evil}",
    ),
    "logging_by_reference": Attack(
        experiment(
            "evil: {version: 1, root: {handlers: [x]}, handlers: {x: {class: tests.tripwire.FireHandler}}}\n"
            "hydra:\n  job_logging: ${evil}\n"
        ),
        EVIL,
        "hydra.job_logging",
        "${evil}",
    ),
    "formatter_factory": Attack(
        logger(
            "    class: logging.StreamHandler\n    formatter: evil",
            extra="formatters:\n  evil: {(): tests.tripwire.Fire}\n",
        ),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.formatters.evil.()",
        "tests.tripwire.Fire",
    ),
    "formatter_class": Attack(
        logger(
            "    class: logging.StreamHandler\n    formatter: evil",
            extra="formatters:\n  evil: {class: tests.tripwire.FireFormatter}\n",
        ),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.formatters.evil.class",
        "tests.tripwire.FireFormatter",
    ),
    "formatter_reference": Attack(
        logger(
            "    class: logging.StreamHandler\n    formatter: evil",
            extra="formatters:\n  evil: {format: 'ext://tripwire_import.x'}\n",
        ),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.formatters.evil.format",
        "ext://tripwire_import.x",
    ),
    "filter_factory": Attack(
        logger(
            "    class: logging.StreamHandler\n    filters: [evil]",
            extra="filters:\n  evil: {(): tests.tripwire.Fire}\n",
        ),
        ["hydra/job_logging=evil"],
        "hydra.job_logging.filters.evil.()",
        "tests.tripwire.Fire",
    ),
    "launcher_argument": Attack(
        {
            "hydra/launcher/evil.yaml": (
                f"_target_: hydra._internal.core_plugins.basic_launcher.BasicLauncher\nx: {CALL}\n"
            )
        },
        ["hydra/launcher=evil", "seed=0,1"],
        "hydra.launcher.x._target_",
        "tests.tripwire.Fire",
        multirun=True,
        on_1_4=False,
    ),
    "sweeper_argument": Attack(
        {
            "hydra/sweeper/evil.yaml": (
                "_target_: hydra._internal.core_plugins.basic_sweeper.BasicSweeper\n"
                f"max_batch_size: {CALL}\nparams: null\n"
            )
        },
        ["hydra/sweeper=evil", "seed=0,1"],
        "hydra.sweeper.max_batch_size._target_",
        "tests.tripwire.Fire",
        multirun=True,
        on_1_4=False,
    ),
    "run_dir": Attack(experiment("hydra:\n  run:\n    dir: '@TRIPWIRE@'\n"), EVIL, "hydra.run.dir", "fired"),
    "run_dir_by_preset_overrides": Attack(
        experiment("hydra:\n  overrides:\n    hydra: ['hydra.sweep.dir=@TRIPWIRE@']\n"),
        [*EVIL, "seed=0,1"],
        "hydra.overrides",
        "fired",
        multirun=True,
    ),
    "run_dir_by_sweeper": Attack(
        experiment("hydra:\n  sweeper:\n    params: {hydra.sweep.dir: '@TRIPWIRE@'}\n"),
        [*EVIL, "seed=0,1"],
        "hydra",
        "hydra.sweep.dir=",
        multirun=True,
    ),
    "sweep_dir": Attack(
        experiment("hydra:\n  sweep:\n    dir: '@TRIPWIRE@'\n"),
        [*EVIL, "seed=0,1"],
        "hydra.sweep.dir",
        "fired",
        multirun=True,
    ),
    "sweep_subdir": Attack(
        experiment("hydra:\n  sweep:\n    subdir: '@TRIPWIRE@'\n"),
        [*EVIL, "seed=0,1"],
        "hydra.sweep.subdir",
        "fired",
        multirun=True,
    ),
    "output_subdir": Attack(
        experiment("hydra:\n  output_subdir: '@TRIPWIRE@'\n"), EVIL, "hydra.output_subdir", "fired"
    ),
    "job_name": Attack(
        experiment("hydra:\n  job:\n    name: '../../../../fired'\n"),
        [*EVIL, "hydra/job_logging=default"],
        "hydra.job.name",
        "../fired",
    ),
    "search_path": Attack(
        {"evil.yaml": "defaults: [config, _self_]\nhydra:\n  searchpath: ['pkg://tripwire_import']\n"},
        [],
        "hydra.searchpath[0]",
        "pkg://tripwire_import",
        config_name="evil",
    ),
    "defaults_list": Attack(experiment("defaults: ${tripwire:1}\n"), EVIL, "defaults", "the resolver 'tripwire'"),
    "defaults_entry": Attack(
        experiment("defaults:\n  - /experiment: ${tripwire:1}\n"),
        EVIL,
        "defaults",
        "the resolver 'tripwire'",
        on_1_4=False,
    ),
    "merged_onto": Attack(
        {
            "train/evil.yaml": "${tripwire:1}\n",
            "experiment/evil.yaml": "# @package _global_\nmodel: ${tripwire:1}\n",
            "experiment/more.yaml": ("# @package _global_\ndefaults: [evil, _self_]\nmodel: {head: linear}\n"),
        },
        ["+experiment=more"],
        "model",
        "the resolver 'tripwire'",
    ),
    "search_path_of_a_folder": Attack(
        {
            "evil.yaml": "defaults: [config, _self_]\nhydra:\n  searchpath: [../untrusted/more]\n",
            "more/hydra/callbacks/evil.yaml": f"x: {CALL}\n",
        },
        ["hydra/callbacks=evil"],
        "hydra.callbacks.x._target_",
        "tests.tripwire.Fire",
        config_name="evil",
    ),
    "launcher_setup": Attack(
        {"hydra/launcher/evil.yaml": f"{BATCH}setup: [touch @TRIPWIRE@]\n"},
        ["hydra/launcher=evil", "seed=0,1"],
        "hydra.launcher.setup[0]",
        "touch",
        multirun=True,
    ),
    "launcher_setup_of_an_experiment": Attack(
        experiment("hydra: {mode: MULTIRUN, launcher: {setup: [touch @TRIPWIRE@]}}\n"),
        ["hydra/launcher=batch", *EVIL, "seed=0,1"],
        "hydra.launcher.setup[0]",
        "touch",
        multirun=True,
    ),
    "launcher_python": Attack(
        {"hydra/launcher/evil.yaml": f"{BATCH}python: touch @TRIPWIRE@; false\n"},
        ["hydra/launcher=evil", "seed=0,1"],
        "hydra.launcher.python",
        "touch",
        multirun=True,
    ),
    "launcher_line_break": Attack(
        {"hydra/launcher/evil.yaml": f'{BATCH}comment: "x\\ntouch @TRIPWIRE@\\n#"\n'},
        ["hydra/launcher=evil", "seed=0,1"],
        "hydra.launcher.comment",
        "touch",
        multirun=True,
    ),
    "launcher_line_break_in_a_key": Attack(
        {"hydra/launcher/evil.yaml": f'{BATCH}additional_parameters: {{"x\\ntouch @TRIPWIRE@\\n#": 1}}\n'},
        ["hydra/launcher=evil", "seed=0,1"],
        "hydra.launcher.additional_parameters",
        "touch",
        multirun=True,
    ),
    "launcher_evaluates": Attack(
        {"hydra/launcher/evil.yaml": f"{BATCH}pre_dispatch: __import__('tests.tripwire').tripwire.fire()\n"},
        ["hydra/launcher=evil", "seed=0,1"],
        "hydra.launcher.pre_dispatch",
        "__import__",
        multirun=True,
    ),
    "target_in_train": Attack(
        experiment("train: {optimizer: {_target_: tests.tripwire.fire}}\n"),
        EVIL,
        "train.optimizer._target_",
        "tests.tripwire.fire",
        builds=True,
    ),
    "target_of_train": Attack(
        {"train/evil.yaml": "defaults: [default]\n_target_: tests.tripwire.fire\n"},
        ["train=evil"],
        "train._target_",
        "tests.tripwire.fire",
        builds=True,
    ),
    "target_of_the_model": Attack(
        {"model/evil.yaml": "_target_: tests.tripwire.fire\nhead: linear\nencoder: none\nencoder_width: null\n"},
        ["model=evil"],
        "model._target_",
        "tests.tripwire.fire",
        builds=True,
    ),
    "target_of_a_group_of_ones_own": Attack(
        experiment("tracker: {_target_: tests.tripwire.fire}\n"),
        EVIL,
        "tracker._target_",
        "tests.tripwire.fire",
        builds=True,
    ),
    "target_on_the_command_line": Attack(
        {}, ["+train.hook={_target_:tests.tripwire.fire}"], "train.hook._target_", "tests.tripwire.fire", builds=True
    ),
    "target_of_a_sweep": Attack(
        {},
        ["fusion._target_=fusionkit.create,tests.tripwire.fire"],
        "fusion._target_",
        "tests.tripwire.fire",
        multirun=True,
        builds=True,
    ),
    "target_in_a_sweep": Attack(
        {},
        ["+train.hook=choice({_target_:tests.tripwire.fire},{a:1})"],
        "train.hook._target_",
        "tests.tripwire.fire",
        multirun=True,
        builds=True,
    ),
    "target_by_the_sweeper": Attack(
        experiment(
            "hydra: {mode: MULTIRUN, sweeper: {params: {fusion._target_: 'fusionkit.create,tests.tripwire.fire'}}}\n"
        ),
        EVIL,
        "fusion._target_",
        "tests.tripwire.fire",
        multirun=True,
        builds=True,
    ),
    "group_by_the_sweeper": Attack(
        {
            **experiment("hydra: {mode: MULTIRUN, sweeper: {params: {data: 'mfeat,evil'}}}\n"),
            "data/evil.yaml": "defaults: [mfeat]\n_target_: tests.tripwire.fire\n",
        },
        EVIL,
        "data._target_",
        "tests.tripwire.fire",
        multirun=True,
        builds=True,
    ),
}


def build_all(cfg: Any) -> None:
    """Instantiate every group, as many an application does."""
    for name in cfg:
        if OmegaConf.is_dict(cfg[name]):
            with contextlib.suppress(Exception):
                instantiate(cfg[name])


@pytest.fixture
def _batch_launcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make Hydra discover a launcher that works by a shell script, as those for clusters do."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from hydra.plugins.launcher import Launcher

    from tests import batch_launcher

    plugins, store = Plugins.instance(), ConfigStore.instance()
    package = sys.modules.get("hydra_plugins") or types.ModuleType("hydra_plugins")
    monkeypatch.setitem(sys.modules, "hydra_plugins", package)
    monkeypatch.setitem(sys.modules, "hydra_plugins.batch", batch_launcher)
    monkeypatch.setattr(package, "batch", batch_launcher, raising=False)
    plugins.register(batch_launcher.BatchLauncher)
    monkeypatch.setattr(store, "repo", copy.deepcopy(store.repo))
    store.store("batch", batch_launcher.DEFAULT, "hydra/launcher")
    yield
    plugins.plugin_type_to_subclass_list[Launcher].remove(batch_launcher.BatchLauncher)
    plugins.class_name_to_class.pop("hydra_plugins.batch.BatchLauncher")


@pytest.fixture
def _importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a package on the path whose import is the harm."""
    package = tmp_path / "site" / "tripwire_import"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import sys\nfrom tests import tripwire\ntripwire.mark('import')\nx = sys.stdout\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "tripwire_import", raising=False)
    yield
    sys.modules.pop("tripwire_import", None)


@pytest.mark.usefixtures("_importable", "_tripwire_resolver", "_batch_launcher")
@pytest.mark.filterwarnings("ignore")  # Plain Hydra complains about what it has just run.
@pytest.mark.parametrize("name", ATTACKS)
def test_hydra_node_runs_under_plain_hydra_and_is_refused_here(
    name: str,
    folder: Callable[[dict[str, str]], Path],
    plain_hydra: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    attack = ATTACKS[name]
    untrusted = folder(
        {file: text.replace("@TRIPWIRE@", os.environ["TRIPWIRE"]) for file, text in attack.files.items()}
    )
    if attack.on_1_4 or not EXECUTION_WHITELIST:
        (tmp_path / "plain").mkdir()
        monkeypatch.chdir(tmp_path / "plain")
        with contextlib.suppress(BaseException):
            # The name of a job's directory, by fusionkit's own resolver, would refuse what the job is to build.
            elsewhere = ["hydra.sweep.subdir=${hydra.job.num}"] if attack.builds else []
            plain_hydra(
                untrusted,
                [*attack.overrides, *elsewhere],
                multirun=attack.multirun,
                config_name=attack.config_name,
                task=build_all if attack.builds else lambda cfg: None,
            )
        mark = Path(os.environ["TRIPWIRE"])
        leaked = [file for file in tmp_path.rglob("fired*") if "plain" not in file.parts]
        assert fired() or leaked or mark.is_dir()
        for file in leaked:
            if file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)
        sys.modules.pop("tripwire_import", None)
        monkeypatch.chdir(tmp_path / "cwd")
        logging.getLogger().handlers.clear()
    argv = ["--config-dir", str(untrusted), "--config-name", attack.config_name, *attack.overrides]
    refused([*argv, "-m"] if attack.multirun else argv, attack.key, attack.found)
    if name in ("callback", "handler_class", "run_dir", "defaults_list"):
        for also in (["--cfg", "job"], ["--cfg", "hydra"], ["--info", "config"], ["--help"]):
            refused([*argv, *also], attack.key, attack.found)


@pytest.mark.filterwarnings("ignore")
def test_environment_is_neither_set_nor_copied(
    folder: Callable[[dict[str, str]], Path], plain_hydra: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    untrusted = folder(
        {
            "experiment/set.yaml": "# @package _global_\nhydra:\n  job:\n    env_set: {LD_PRELOAD: /tmp/evil.so}\n",
            "experiment/copy.yaml": "# @package _global_\nhydra:\n  job:\n    env_copy: [SECRET]\n",
            "hydra/callbacks/look.yaml": "x: {_target_: tests.tripwire.Fire}\n",
        }
    )
    monkeypatch.setattr(
        tripwire.Fire, "on_job_start", lambda self, **_: seen.append(os.environ.get("LD_PRELOAD")), raising=False
    )
    monkeypatch.setenv("SECRET", "swordfish")
    plain_hydra(untrusted, ["+experiment=set", "hydra/callbacks=look", "hydra.run.dir=a"])
    assert seen == ["/tmp/evil.so"]
    plain_hydra(untrusted, ["+experiment=copy", "hydra.run.dir=b"])
    assert "swordfish" in Path("b/.hydra/hydra.yaml").read_text()
    shutil.rmtree("a")
    shutil.rmtree("b")
    refused(["--config-dir", str(untrusted), "+experiment=set"], "hydra.job.env_set", "LD_PRELOAD")
    refused(["--config-dir", str(untrusted), "+experiment=copy"], "hydra.job.env_copy", "SECRET")
    refused(["+hydra.job.env_set.LD_PRELOAD=x"], "hydra.job.env_set", "LD_PRELOAD")


def test_yaml_tags_are_refused(folder: Callable[[dict[str, str]], Path]) -> None:
    import yaml  # type: ignore[import-untyped, unused-ignore]

    text = "name: !!python/object/apply:tests.tripwire.fire []\n"
    yaml.load(text, Loader=yaml.UnsafeLoader)
    assert fired()
    untrusted = folder({"data/evil.yaml": text, "data/name.yaml": "name: !!python/name:tests.tripwire.fire\n"})
    refused(["--config-dir", str(untrusted), "data=evil"], "data/evil", "python/object/apply:tests.tripwire.fire")
    refused(["--config-dir", str(untrusted), "data=name"], "data/name", "python/name:tests.tripwire.fire")


def test_aliases_that_multiply_are_refused(folder: Callable[[dict[str, str]], Path]) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    untrusted = folder(
        {
            "data/evil.yaml": "\n".join(lines),
            "data/long.yaml": "name: " + "x" * 2_000_000,
            "data/few.yaml": "name: npz\npath: &p x.npz\ndims: null\ntest_size: 0.2\nother: *p\n",
        }
    )
    argv = ["--config-dir", str(untrusted)]
    refused([*argv, "data=evil"], "data/evil", "found aliases that multiply to more")
    refused([*argv, "data=long"], "data/long", "found 2000006")
    refused([*argv, "data=few"], "data.other", "There is no key")


def test_a_help_text_with_foreign_placeholders_is_refused(folder: Callable[[dict[str, str]], Path]) -> None:
    untrusted = folder(experiment("hydra: {help: {template: $NOTHING}}\n"))
    refused(["--config-dir", str(untrusted), *EVIL, "--help"], "hydra.help.template", "NOTHING")


class Evil:
    """Its pickle fires when it is read."""

    def __reduce__(self) -> Any:
        return tripwire.fire, ()


def test_a_pickle_is_not_rerun(tmp_path: Path) -> None:
    file = tmp_path / "config.pickle"
    file.write_bytes(pickle.dumps(Evil()))
    pickle.loads(file.read_bytes())
    assert fired()
    refused(["--experimental-rerun", str(file)], "--experimental-rerun", "trusts")


def test_an_untrusted_primary_config_is_checked(folder: Callable[[dict[str, str]], Path]) -> None:
    primary = f"defaults: [data: mfeat, _self_]\nhydra:\n  callbacks:\n    x: {CALL}\n"
    untrusted = folder({"config.yaml": primary})
    refused(["--config-path", str(untrusted)], "hydra.callbacks.x._target_", "tests.tripwire.Fire")


def test_completion_resolves_nothing(
    folder: Callable[[dict[str, str]], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arm_resolver()
    untrusted = folder({"data/evil.yaml": "name: ${tripwire:1}\n"})
    try:
        monkeypatch.setenv("COMP_LINE", f"fusionkit run --config-dir {untrusted} data=evil data.na")
        with contextlib.suppress(ConfigError):
            app.main(["--config-dir", str(untrusted), "-sc", "query=bash"])
    finally:
        OmegaConf.clear_resolver("tripwire")
    assert not fired()


# -- a run directory: everything in it is untrusted ------------------------------------------------------------------


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
    from fusionkit.experiment import results
    from fusionkit.experiment.load import save
    from fusionkit.experiment.model import FusionModel, Network, Scaler

    folder = tmp_path / "run"
    folder.mkdir()
    network = Network(fusionkit.create("average", dims=[4, 4]), [4, 4], 2)
    save(FusionModel(Scaler(["a", "b"], [4, 4]), network, [0, 1]), folder / results.MODEL)
    results.write_json(folder / results.RESULT, {"schema_version": results.SCHEMA_VERSION, "status": "completed"})
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


def test_the_list_is_long_enough() -> None:
    assert len(NODES) + len(RESOLVERS) + len(ATTACKS) + len(DESCRIPTIONS) >= 100
