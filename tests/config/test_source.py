"""Generated nodes, the source that serves them, and the configs of plugins."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]
from hydra.core.object_type import ObjectType

from fusionkit import config, registry
from fusionkit.config import nodes
from fusionkit.config.options import DataOptions
from fusionkit.config.source import RegistryConfigSource
from tests.fake_distributions import Site

OPERATORS = '''
import fusionkit

class Free(fusionkit.Fusion):
    """Free width: `x`.

    Args:
        rank: of the factors,
            at least 1.
        scale (float): a factor.
    """

    traits = fusionkit.Traits(free_n=True)

    def __init__(
        self, n=None, dims=None, name=None, require_parameters=True, *, rank: int = 3, scale=1e-5, text="${b}",
        word="on", function=print, path, parameter_fabrication=None, preprocess=None, postprocess=None,
        device=None, dtype=None,
    ):
        super().__init__(n, dims, name, require_parameters, preprocess=preprocess, postprocess=postprocess,
                         device=device, dtype=dtype)
        self.rank = rank

    def calculate_n(self, dims=None):
        return self.n
    def calculate_l(self):
        return 0
    def _fuse(self, x):
        return x[0][..., : self.n]

class Bound(fusionkit.Fusion):
    """Bound width."""
    def calculate_n(self, dims=None):
        return self.resolve_dims(dims)[0]
    def calculate_l(self):
        return 0
    def _fuse(self, x):
        return x[0]

class Fabric(fusionkit.Fabrication):
    """A fabrication."""
    def __init__(self, factor: float = 2.0):
        super().__init__()
'''
PLUGIN = """
import fusionkit

@fusionkit.hookimpl
def fusionkit_fusions():
    return {"free": fusionkit.Spec("ops:Free", aliases=("liberal",)), "bound": "ops:Bound", "summation": "ops:Bound"}

@fusionkit.hookimpl
def fusionkit_fabrications():
    return {"fabric": "ops:Fabric"}
"""
CONF = """
@fusionkit.hookimpl
def fusionkit_conf():
    return ["pkg://my_ext.conf"]
"""


@pytest.fixture
def plugin(site: Site) -> Site:
    site.install("my-plugin", PLUGIN)
    (site.folder / "ops.py").write_text(OPERATORS)
    return site


def test_the_generated_node_says_what_the_signature_says(plugin: Site) -> None:
    text = config.node("fusion", "free")
    assert text is not None
    assert yaml.safe_load(text) == {
        "_target_": "fusionkit.create",
        "_recursive_": False,
        "_convert_": "all",
        "name": "free",
        "n": "${n}",
        "dims": "${dims}",
        "device": "${device}",
        "preprocess": None,
        "postprocess": None,
        "missing": None,
        "rank": 3,
        "scale": 1e-5,
        "word": "on",
        "path": "???",
        "parameter_fabrication": "${fabrication}",
    }
    assert "# of the factors, at least 1. -- int\nrank: 3\n" in text
    assert "# a factor.\nscale: 1.0e-05\n" in text
    assert text.startswith("# Free width: `x`.\n")


def test_n_is_null_where_it_follows_from_the_widths(plugin: Site) -> None:
    assert yaml.safe_load(config.node("fusion", "bound") or "")["n"] is None


def test_a_fabrications_node_has_no_target(plugin: Site) -> None:
    assert yaml.safe_load(config.node("fabrication", "fabric") or "") == {"name": "fabric", "factor": 2.0}


def test_a_file_wins_for_its_operator_and_its_aliases() -> None:
    own = (config.conf_dir() / "fusion" / "summation.yaml").read_text()
    assert config.node("fusion", "summation") == config.node("fusion", "sum") == own
    assert config.node("fusion", "lowrank_parameterized_concatenation") is not None


def test_a_shadowed_operator_keeps_its_own_node(plugin: Site) -> None:
    text = config.node("fusion", "my-plugin/summation")
    assert text is not None
    assert yaml.safe_load(text)["name"] == "my-plugin/summation"
    assert config.compose(["fusion=my-plugin/summation"])["fusion"]["name"] == "my-plugin/summation"


@pytest.mark.parametrize("name", ["nothing", "my-plugin/nothing", "ops:Free", "../config", ""])
def test_no_node_for_what_is_not_registered(plugin: Site, name: str) -> None:
    assert config.node("fusion", name) is None


def test_the_node_composes_builds_and_is_written_back(plugin: Site) -> None:
    cfg = config.compose(["fusion=liberal", "fusion.path=x", "fusion.rank=5", "n=4", "dims=[6,6]"])
    operator: Any = config.build(cfg["fusion"])
    assert operator.rank == 5
    assert operator.calculate_n() == 4
    assert operator.name == "free"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("word", "word"),
        ("on", '"on"'),
        ("null", '"null"'),
        ("n", '"n"'),
        ("two words", '"two words"'),
        ("1", '"1"'),
        ("", '""'),
        ("é", '"é"'),
        (1e-5, "1.0e-05"),
        (1e22, "1.0e+22"),
        (1.5, "1.5"),
        (None, "null"),
        (True, "true"),
        ((1, 2), "[1, 2]"),
        ({"a": [None]}, '{"a": [null]}'),
        (print, None),
        (float("nan"), None),
        ("${x}", None),
    ],
)
def test_defaults_as_yaml(value: Any, text: str | None) -> None:
    assert nodes._yaml(value) == text
    if text is not None:
        from omegaconf import OmegaConf

        loaded = OmegaConf.to_container(OmegaConf.create(f"x: {text}"))
        expected = list(value) if isinstance(value, tuple) else value
        assert loaded == {"x": expected}


def test_the_node_of_a_data_set_without_a_file(site: Site) -> None:
    site.dataset(summary="twelve rows", aliases=("plaything",))
    text = config.node("dataset", "toy")
    assert text is not None
    assert text.startswith("# twelve rows\nname: toy\n")
    fields = DataOptions.model_fields
    found = yaml.safe_load(text)
    assert found.pop("name") == "toy"
    assert found == {name: field.default for name, field in fields.items() if name != "name"}
    for name in found:
        assert f"# {fields[name].description}\n{name}: " in text
    for option in ("toy", "plaything", "fk-data/toy"):
        assert config.compose([f"data={option}", "data.fold=1"])["data"] == {"name": "toy", **found, "fold": 1}
    assert "fk_read" not in sys.modules


def test_the_node_of_a_data_set_with_a_file(site: Site) -> None:
    site.dataset("mfeat")
    assert config.compose(["data=mfeat"])["data"]["dims"] == [76, 216, 64, 240, 47, 6]
    assert config.compose(["data=fk-data/mfeat"])["data"]["name"] == "fk-data/mfeat"


def test_listing_imports_no_operator(plugin: Site) -> None:
    source = RegistryConfigSource("registry", "fusionkit://")
    listed = source.list("fusion", ObjectType.CONFIG)
    assert {"free", "bound", "my-plugin/summation", "average"} <= set(listed)
    assert "fabric" in source.list("fabrication", None)
    assert source.list("fusion", ObjectType.GROUP) == []
    assert {"mfeat", "diabetes"} <= set(source.list("data", ObjectType.CONFIG))
    assert source.list("", ObjectType.GROUP) == ["data", "fabrication", "fusion"]
    assert source.list("model", ObjectType.CONFIG) == []
    assert source.is_config("fusion/free")
    assert not source.is_config("fusion/fre")
    assert source.is_config("data/mfeat")
    assert not source.is_config("data/npz")
    assert source.is_group("fusion")
    assert not source.is_group("fusion/free")
    assert source.available()
    assert "ops" not in sys.modules


def test_loading_what_is_not_there_is_hydras_error() -> None:
    from hydra.plugins.config_source import ConfigLoadError

    with pytest.raises(ConfigLoadError, match="Config not found : fusion/nothing"):
        RegistryConfigSource("registry", "fusionkit://").load_config("fusion/nothing")


# -- the configs of plugins --------------------------------------------------------------------------------------------


@pytest.fixture
def with_conf(site: Site) -> Path:
    """Install a plugin that offers a folder of configs, and return the folder."""
    site.install("my-plugin", PLUGIN + CONF)
    (site.folder / "ops.py").write_text(OPERATORS)
    folder = site.folder / "my_ext" / "conf"
    (folder / "fusion").mkdir(parents=True)
    (site.folder / "my_ext" / "__init__.py").write_text("raise RuntimeError('imported to read a config')\n")
    (folder / "__init__.py").write_text("")
    return folder


BOUND = """\
# @package fusion
_target_: fusionkit.create
_recursive_: false
_convert_: all
name: bound
n: null
dims: ${dims}
device: ${device}
"""


def test_a_plugins_folder_is_searched_without_importing_it(with_conf: Path) -> None:
    (with_conf / "fusion" / "bound.yaml").write_text(BOUND)
    (with_conf / "experiment").mkdir()
    (with_conf / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [override /fusion: bound]\nseed: 7\n"
    )
    cfg = config.compose(["+experiment=mine"])
    assert cfg["fusion"]["name"] == "bound"
    assert "preprocess" not in cfg["fusion"]
    assert cfg["seed"] == 7
    assert config.node("fusion", "bound") == BOUND
    assert "my_ext" not in sys.modules


def test_a_plugins_file_does_not_replace_the_cores(with_conf: Path) -> None:
    (with_conf / "fusion" / "average.yaml").write_text(BOUND)
    assert config.compose(["fusion=average"])["fusion"]["name"] == "average"


def test_a_plugins_config_is_as_untrusted_as_any(with_conf: Path) -> None:
    from fusionkit.errors import ConfigError

    (with_conf / "fusion" / "bound.yaml").write_text(BOUND.replace("fusionkit.create", "tests.tripwire.fire"))
    with pytest.raises(ConfigError, match=r"fusion\._target_ should be .*'tests\.tripwire\.fire'"):
        config.compose(["fusion=bound"])


def test_a_group_may_be_swept_over_with_all_that_is_installed(plugin: Site) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from fusionkit.config.composition import CheckingLoader, prepare, search_path

    prepare()
    parser = OverridesParser.create(config_loader=CheckingLoader(search_path()))
    (override,) = parser.parse_overrides(["fusion=glob(*)"])
    names = list(override.sweep_string_iterator())
    assert {"free", "bound", "average", "lowrank_parameterized_concatenation"} <= set(names)
    assert registry.names("fusion")
