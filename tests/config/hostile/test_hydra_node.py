"""Attacks by the ``hydra`` node: plain Hydra runs them, and they are refused here."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests import tripwire
from tests.config.hostile.attacks import fired, instantiate, refused
from tests.config.hostile.hydra_attacks import ATTACKS
from tests.config.hostile.test_nodes import NODES
from tests.config.hostile.test_resolvers import RESOLVERS
from tests.config.hostile.test_run_directory import DESCRIPTIONS
from tests.exhaustive import exhaustive, exhaustive_unless

EXECUTION_WHITELIST = not __import__("hydra").__version__.startswith("1.3")


# Each is one more instance of an attack that is among the others.
REPEATED = {
    "callback_entry_by_reference",
    "callback_group",
    "callback_of_a_sweep",
    "callback_open",
    "defaults_entry",
    "formatter_class",
    "formatter_reference",
    "group_by_the_sweeper",
    "handler_alias",
    "handler_of_hydra",
    "handler_zipfile",
    "launcher_line_break_in_a_key",
    "launcher_python",
    "launcher_setup_of_an_experiment",
    "logging_by_reference",
    "run_dir_by_preset_overrides",
    "run_dir_by_sweeper",
    "search_path_of_a_folder",
    "sweep_dir",
    "target_in_a_sweep",
    "target_of_a_group_of_ones_own",
    "target_of_a_sweep",
    "target_of_the_model",
    "target_of_train",
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


@pytest.fixture
def untrusted(name: str, folder: Callable[[dict[str, str]], Path]) -> Path:
    """Return the folder of the attack `name`."""
    return folder(
        {file: text.replace("@TRIPWIRE@", os.environ["TRIPWIRE"]) for file, text in ATTACKS[name].files.items()}
    )


@pytest.mark.usefixtures("_importable", "_tripwire_resolver", "_batch_launcher")
@pytest.mark.parametrize("name", exhaustive_unless(lambda name: name not in REPEATED, ATTACKS))
def test_it_is_refused(name: str, untrusted: Path) -> None:
    attack = ATTACKS[name]
    argv = ["--config-dir", str(untrusted), "--config-name", attack.config_name, *attack.overrides]
    refused([*argv, "-m"] if attack.multirun else argv, attack.key, attack.found)


@pytest.mark.usefixtures("_importable", "_tripwire_resolver", "_batch_launcher")
@pytest.mark.parametrize(
    "look", [["--cfg", "job"], *exhaustive([["--cfg", "hydra"], ["--info", "config"], ["--help"]])]
)
@pytest.mark.parametrize(
    "name", ["callback", *exhaustive(["handler_class", "run_dir", "runtime_output_dir", "defaults_list"])]
)
def test_it_is_refused_where_nothing_is_run(name: str, look: list[str], untrusted: Path) -> None:
    attack = ATTACKS[name]
    refused(["--config-dir", str(untrusted), *attack.overrides, *look], attack.key, attack.found)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("_importable", "_tripwire_resolver", "_batch_launcher")
@pytest.mark.filterwarnings("ignore")  # Plain Hydra complains about what it has just run.
@pytest.mark.parametrize("name", ATTACKS)
def test_plain_hydra_runs_it(
    name: str, untrusted: Path, plain_hydra: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attack = ATTACKS[name]
    if EXECUTION_WHITELIST and not attack.on_1_4:
        pytest.skip("this version of Hydra refuses it as well")
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
    leaked = [file for file in tmp_path.rglob("fired*") if "plain" not in file.parts]
    assert fired() or leaked or Path(os.environ["TRIPWIRE"]).is_dir()


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


def test_the_list_is_long_enough() -> None:
    assert len(NODES) + len(RESOLVERS) + len(ATTACKS) + len(DESCRIPTIONS) >= 100
