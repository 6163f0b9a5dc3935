"""Random config trees around a tripwire that must never be touched, whatever else happens to the tree."""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import omegaconf
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import fusionkit
from fusionkit import config
from fusionkit.config import interpolations, safe
from fusionkit.core import allowed
from fusionkit.errors import ConfigError, FusionError, RegistryError
from tests import tripwire
from tests.config import application as app

TRIPWIRES = ["tests.tripwire.fire", "tests.tripwire.Fire", "tests.tripwire.Fire.make"]
TARGETS = [
    *TRIPWIRES,
    "tests.tripwire:fire",
    "builtins.open",
    "os.system",
    "logging.os.makedirs",
    "torch.nn.modules.module.torch.os.makedirs",
    "torch.nn.Linear",
    "torch.nn.modules.linear.Linear",
    "torch.nn.LayerNorm",
    "fusionkit.create",
    "fusionkit.create_fabrication",
    "fusionkit.config.allow",
    "hydra.utils.instantiate",
    "functools.partial",
]
TEXTS = [
    *TARGETS,
    "average",
    "lowrank",
    "???",
    "${tripwire:1}",
    "${oc.create:{_target_:tests.tripwire.fire}}",
    "${oc.decode:'{_target_:tests.tripwire.fire}'}",
    r"\${tripwire:1}",
    "${${kind}:1}",
    "${.name}",
    "${..name}",
    "${fusion}",
    "${hydra}",
    "${oc.select:fusion}",
    "ext://tests.tripwire.fire",
    "cfg://handlers",
    "!!python/name:tests.tripwire.fire",
    "{view}",
]
KEYS = [
    "_target_",
    "_target_",
    "_args_",
    "_partial_",
    "_recursive_",
    "_convert_",
    "_execution_whitelist_",
    "name",
    "dims",
    "n",
    "preprocess",
    "postprocess",
    "parameter_fabrication",
    "normalized_shape",
    "in_features",
    "()",
    "class",
    "handlers",
    "x",
]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2, 9), st.floats(-1, 1), st.sampled_from(TEXTS))


def node(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping; every other one names a target, most of them the tripwire."""
    options = st.dictionaries(st.sampled_from(KEYS), inner, min_size=1, max_size=5)
    target = st.one_of(st.sampled_from(TRIPWIRES), st.sampled_from(TARGETS))
    return st.one_of(options, st.builds(lambda found, name: {**found, "_target_": name}, options, target))


TREES = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), node(inner)), max_leaves=20)
NODES = node(TREES)
ERRORS = (ConfigError, RegistryError, FusionError, TypeError, ValueError, RuntimeError, KeyError, IndexError)


@pytest.fixture(autouse=True)
def _resolver() -> Any:
    old = omegaconf.__version__.startswith("2.3")
    register: Any = OmegaConf.register_new_resolver if old else OmegaConf.register_resolver
    register("tripwire", tripwire.fire)
    yield
    OmegaConf.clear_resolver("tripwire")


def untouched() -> bool:
    return not tripwire.fired and not Path(os.environ["TRIPWIRE"]).exists()


def targets(tree: Any) -> list[Any]:
    below = list(tree.values()) if isinstance(tree, Mapping) else tree if isinstance(tree, list) else []
    own = [tree["_target_"]] if isinstance(tree, Mapping) and "_target_" in tree else []
    return [*own, *(target for inner in below for target in targets(inner))]


QUIET = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def test_the_trees_would_fire_elsewhere() -> None:
    """Plain Hydra runs into the tripwire with many of the trees: the tests below have something to miss."""
    hits = 0

    @seed(0)
    @settings(QUIET, max_examples=5 * QUIET.max_examples)
    @given(node=NODES)
    def instantiate_all(node: dict[str, Any]) -> None:
        nonlocal hits
        # Nothing else may run, here or ever.
        if not all(isinstance(target, str) and target in TRIPWIRES for target in targets(node)):
            return
        tripwire.fired.clear()
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hydra.utils.instantiate(OmegaConf.create(node))
        hits += bool(tripwire.fired)

    instantiate_all()
    tripwire.fired.clear()
    Path(os.environ["TRIPWIRE"]).unlink()
    assert hits >= QUIET.max_examples // 3


@settings(QUIET, max_examples=5 * QUIET.max_examples)
@given(node=NODES)
def test_build_touches_nothing(node: dict[str, Any]) -> None:
    with contextlib.suppress(*ERRORS):
        config.build(node, "fusion")
    assert untouched()


@settings(QUIET, max_examples=5 * QUIET.max_examples)
@given(node=NODES)
def test_a_tree_passes_only_if_every_target_is_allowed(node: dict[str, Any]) -> None:
    message, plain = "", {}
    try:
        plain = interpolations.resolve(node, "fusion")
        safe.check_tree(plain, "fusion")
    except ConfigError as error:
        message = str(error)
    assert message.startswith("fusion") or (not message and all(map(allowed.allowed_name, targets(plain))))
    assert untouched()


@settings(QUIET, max_examples=5 * QUIET.max_examples)
@given(
    role=st.sampled_from(["preprocess", "postprocess", "parameter_fabrication"]),
    tree=TREES,
    name=st.sampled_from(["average", "parameterized_concatenation"]),
)
def test_create_touches_nothing(role: str, tree: Any, name: str) -> None:
    with contextlib.suppress(*ERRORS):
        fusionkit.create(name, dims=[4, 4], **{role: tree})
    assert untouched()


PLACES = [
    "fusion",
    "fusion.preprocess",
    "fabrication",
    "train.optimizer",
    "data.path",
    "hydra",
    "hydra.callbacks",
    "hydra.callbacks.x",
    "hydra.job_logging",
    "hydra.job_logging.handlers.x",
    "hydra.hydra_logging.formatters.x",
    "hydra.launcher",
    "hydra.sweeper.params",
    "hydra.job.env_set",
    "hydra.searchpath",
    "hydra.run.dir",
    "hydra.overrides",
    "anything",
]


def override(tree: Any) -> str:
    """Return a tree as Hydra's command line has it; keys that cannot stand there are left out."""
    if isinstance(tree, dict):
        kept = {key: value for key, value in tree.items() if key.isidentifier()}
        return "{" + ",".join(f"{key}:{override(value)}" for key, value in kept.items()) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(map(override, tree)) + "]"
    if isinstance(tree, str):
        return "'" + tree.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return "null" if tree is None else str(tree).lower()


@seed(0)
@settings(QUIET)
@given(place=st.sampled_from(PLACES), tree=TREES, sweep=st.booleans(), multirun=st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_the_command_line_touches_nothing(
    place: str, tree: Any, sweep: bool, multirun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fusionkit.experiment.run

    monkeypatch.setattr(fusionkit.experiment.run, "run_job", lambda cfg, run_dir: {"status": "completed"})
    # The user may name a directory on the command line.
    if place in ("hydra", "hydra.run.dir", "hydra.searchpath"):
        place = "hydra.job"
    text = f"++{place}={override(tree)}"
    with contextlib.suppress(ConfigError, FusionError, RegistryError):
        app.main([f"{text},null" if sweep else text, *(["-m"] if sweep or multirun else [])])
    assert untouched()
    for found in Path.cwd().iterdir():
        assert found.name in ("outputs", "multirun")
        shutil.rmtree(found)


@pytest.mark.exhaustive
@seed(0)
@settings(QUIET)
@given(place=st.sampled_from(PLACES), tree=TREES, sweep=st.booleans(), inspect=st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_the_application_touches_nothing(
    place: str, tree: Any, sweep: bool, inspect: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fusionkit.experiment.run

    monkeypatch.setattr(fusionkit.experiment.run, "run_job", lambda cfg, run_dir: {"status": "completed"})
    folder = tmp_path / "untrusted"
    (folder / "experiment").mkdir(parents=True, exist_ok=True)
    content: Any = tree
    for name in reversed(place.split(".")):
        content = {name: content}
    text = "# @package _global_\n" + OmegaConf.to_yaml(OmegaConf.create(content))
    (folder / "experiment" / "evil.yaml").write_text(text, encoding="utf-8")
    argv = ["--config-dir", str(folder), "+experiment=evil", *(["-m", "seed=0,1"] if sweep else [])]
    with contextlib.suppress(ConfigError, FusionError, RegistryError):
        app.main([*argv, "--cfg", "all"] if inspect and not sweep else argv)
    assert untouched()
    for found in Path.cwd().iterdir():
        assert found.name in ("outputs", "multirun")
        shutil.rmtree(found)
    assert {found.name for found in tmp_path.iterdir()} <= {"cwd", "untrusted"}
