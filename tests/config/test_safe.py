from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fusionkit
from fusionkit import config
from fusionkit.config import safe
from fusionkit.core import allowed
from fusionkit.errors import ConfigError, RegistryError
from tests import tripwire


@pytest.fixture(autouse=True)
def _nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowed, "_extra", {})


def test_build_makes_what_a_node_describes() -> None:
    cfg = config.compose(["fabrication=lowrank", "fabrication.r=2", "n=5"])
    operator: Any = config.build(cfg["fusion"], "fusion")
    assert type(operator).__name__ == "ParameterizedConcatenation"
    assert operator.calculate_n() == 5
    assert operator.calculate_l() == 2 * (5 + 649)


def test_build_accepts_a_fabrication_a_module_and_nested_modules() -> None:
    fabrication = config.build({"_target_": "fusionkit.create_fabrication", "name": "lowrank", "r": 3})
    assert fabrication.calculate_l(4, 5) == 27
    linear = config.build({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3})
    assert isinstance(linear, torch.nn.Linear)
    operator: Any = config.build(
        {
            "_target_": "fusionkit.create",
            "name": "average",
            "dims": [4, 4],
            "preprocess": [{"_target_": "torch.nn.LayerNorm", "normalized_shape": 4}, None],
        }
    )
    assert any(isinstance(module, torch.nn.LayerNorm) for module in operator.modules())


def test_build_resolves_references_within_the_node() -> None:
    node = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": "${.in_features}"}
    assert config.build(node).out_features == 2


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "concatenation", "n": 3}, "fusion.n, the width of the output, should be 8 for concatenation"),
        ({"name": "weighted_summation", "weights": [1.0]}, "fusion.weights should hold one number per view, 2; found"),
        ({"name": "average", "dtype": "flot64"}, "fusion.dtype should be one of float32"),
        ({"name": "average", "preprocess": ["gelu", "gleu"]}, "fusion.preprocess[1].name should be one of identity"),
        (
            {"name": "parameterized_concatenation", "n": 3, "parameter_fabrication": {"name": "lowrank", "r": 0}},
            "fabrication.r, the rank of lowrank, should be an integer of at least 1; found 0.",
        ),
    ],
)
def test_what_an_operator_complains_about_has_its_full_key(node: dict[str, Any], message: str) -> None:
    node = {"_target_": "fusionkit.create", "dims": [4, 4], **node}
    with pytest.raises(ValueError, match="should") as error:
        safe.build(node, "fusion", {"fusion.parameter_fabrication": "fabrication"})
    assert str(error.value).startswith(message)


def test_build_of_a_dictconfig_leaves_it_alone() -> None:
    from omegaconf import OmegaConf

    node = OmegaConf.create({"_target_": "fusionkit.create", "name": "average", "dims": "${.widths}", "widths": [3, 3]})
    del node["widths"]
    with pytest.raises(
        ConfigError, match=r"dims should lead to a value; found: Interpolation key '\.?widths' not found"
    ):
        config.build(node)
    assert node._target_ == "fusionkit.create"


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"name": "average"}, "fusion._target_ should name what to build; found nothing."),
        ({"_target_": 3}, "fusion._target_ should be fusionkit.create, "),
        ({"_target_": "fusionkit.create"}, "fusion.name should be the name of an operator; found None."),
        ({"_target_": "fusionkit.create", 1: 2}, "fusion.1 should have a string as its name"),
        ({"_target_": "fusionkit.create", "name": "average", "dims": {3}}, "fusion.dims should be text, a number, "),
        ({"_target_": "torch.nn.Linear", "x": b"a"}, "fusion.x should be text, a number, a list or a mapping; found "),
        ({"_target_": "torch.nn.Linear", "_recursive_": 1}, "fusion._recursive_ should be true or false; found 1."),
        ({"_target_": "torch.nn.Linear", "_convert_": 1}, "fusion._convert_ should be none, partial, object or all; "),
        ("torch.nn.Linear", "fusion should be a mapping with _target_; found str."),
    ],
)
def test_build_refuses_what_is_no_node(node: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.build(node, "fusion")
    assert str(error.value).startswith(message)


def test_all_mistakes_are_reported_together() -> None:
    node = {"_target_": "os.system", "a": [{"_target_": "builtins.open"}], "_args_": [1], "b": "${c}"}
    with pytest.raises(ConfigError) as error:
        safe.check_tree(node, "fusion")
    for found in ("fusion._target_ ", "fusion.a[0]._target_ ", "fusion._args_ ", "fusion.b "):
        assert f"{found}should " in str(error.value)


def test_a_tree_may_be_deep_but_not_endless() -> None:
    node: dict[str, Any] = {}
    inner = node
    for _ in range(70):
        inner["a"] = {}
        inner = inner["a"]
    with pytest.raises(ConfigError, match="should be nested at most 64 levels deep; found more"):
        safe.check_tree(node)
    circle: dict[str, Any] = {}
    circle["a"] = circle
    with pytest.raises(ConfigError, match="should be nested at most 64 levels deep; found more"):
        config.build({"_target_": "torch.nn.Linear", "x": circle})


def test_every_listed_class_is_torchs_own() -> None:
    table = allowed._torch_table()
    for name in allowed.TORCH_NN:
        assert table[f"torch.nn.{name}"] is getattr(torch.nn, name)
    for name in allowed.TORCH_OPTIM:
        assert table[f"torch.optim.{name}"] is getattr(torch.optim, name)


def test_a_class_is_found_by_its_public_and_its_canonical_name_only() -> None:
    for name in ("torch.nn.Linear", "torch.nn.modules.linear.Linear"):
        assert allowed.resolve_target(name, "k") is torch.nn.Linear
    for name in (
        "torch.nn.modules.Linear",
        "torch.nn.functional.torch.nn.Linear",
        "torch.nn.Module",
        "torch.nn.Sequential",
        "torch.nn.modules.module.Module",
        "torch.nn.utils.parametrize.torch.nn.Linear",
        "nn.Linear",
        "torch.nn.Linear.forward",
        "torch.nn",
        "",
    ):
        with pytest.raises(ConfigError, match=r"^k\[0\]\._target_ should be fusionkit\.create, "):
            allowed.resolve_target(name, "k[0]._target_")


def test_a_class_put_in_the_place_of_torchs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn, "Linear", tripwire.Fire)
    with pytest.raises(ConfigError, match=r"should name a class of the installed torch; found 'torch\.nn\.Linear'"):
        allowed.resolve_target("torch.nn.Linear", "k")
    with pytest.raises(ConfigError, match=r"k should be fusionkit\.create, "):
        allowed.resolve_target("torch.nn.modules.linear.Linear", "k")
    assert not tripwire.fired


@pytest.mark.parametrize("target", ["tests.tripwire.Fire", tripwire.Fire])
def test_allow_extends_the_list_in_this_process(target: Any) -> None:
    with pytest.raises(ConfigError):
        config.build({"_target_": "tests.tripwire.Fire"})
    config.allow(target)
    assert isinstance(config.build({"_target_": "tests.tripwire.Fire"}), tripwire.Fire)
    assert allowed.extra_names() == ["tests.tripwire.Fire"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("tests.tripwire.nothing", "An allowed target should be importable; found 'tests.tripwire.nothing'."),
        ("nothing_at_all.x", "An allowed target should be importable; found 'nothing_at_all.x'."),
        (
            "tests.tripwire.fired",
            "An allowed target should be a class or a function; found 'tests.tripwire.fired', a list.",
        ),
    ],
)
def test_allow_refuses_what_cannot_be_called(target: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.allow(target)
    assert str(error.value) == message
    assert allowed.extra_names() == []


def test_what_is_allowed_does_not_reach_other_processes(tmp_path: Path) -> None:
    config.allow("tests.tripwire.Fire")
    script = "import fusionkit.config as c\nc.build({'_target_': 'tests.tripwire.Fire'}, 'k')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert "k._target_ should be fusionkit.create" in done.stderr


def test_refusing_a_target_imports_nothing(tmp_path: Path) -> None:
    script = (
        "import sys, json\nfrom fusionkit.core import allowed\n"
        "before = set(sys.modules)\n"
        "names = ('os.system', 'antigravity.x', 'torch.nn.Linear', 'torch.nnx.Linear')\n"
        "found = [allowed.allowed_name(name) for name in names]\n"
        "print(json.dumps([found, sorted(set(sys.modules) - before), 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[False, False, True, False], [], False]


def test_importing_the_package_imports_neither_torch_nor_hydra() -> None:
    script = (
        "import sys, fusionkit.config as c\nc.conf_dir()\n"
        "print({'torch', 'hydra', 'omegaconf', 'yaml'} & set(sys.modules) or '{}')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{}"


def test_create_looks_up_names_only() -> None:
    with pytest.raises(RegistryError):
        fusionkit.create("tests.tripwire:Fire", dims=[2])
    assert not tripwire.fired
