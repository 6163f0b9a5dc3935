"""The folder conf/: every built-in has a file with every option, and every option a comment."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

from fusionkit import registry
from fusionkit.config import build, compose, conf_dir
from fusionkit.config.nodes import node_text, own_options
from fusionkit.registry.catalogue import OPERATORS

BUILTIN = [
    (kind, record.name)
    for kind in OPERATORS
    for record in registry.records(kind)
    if record.distribution == "tensor-fusionkit"
]
FILES = sorted(file.relative_to(conf_dir()).as_posix() for file in conf_dir().rglob("*.yaml"))
STEERING = {"_target_", "_recursive_", "_convert_", "name"}


@pytest.mark.parametrize(("kind", "name"), BUILTIN)
def test_the_config_of_every_built_in_has_all_its_options(kind: registry.Operator, name: str) -> None:
    """The config may be a file or generated."""
    found = yaml.safe_load(node_text(kind, name) or "")
    options = {parameter.name for parameter in own_options(registry.load(kind, name))}
    shared = {"n", "dims", "device", "preprocess", "postprocess", "missing"} if kind == "fusion" else set()
    assert set(found) - STEERING == options | shared
    assert found["name"] == name
    if kind == "fusion":
        assert (found["_target_"], found["_recursive_"], found["_convert_"]) == ("fusionkit.create", False, "all")
        takes_fabrication = "parameter_fabrication" in options
        assert (found.get("parameter_fabrication") == "${fabrication}") is takes_fabrication
    else:
        assert "_target_" not in found


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith(("config", "experiment"))])
def test_every_option_has_a_comment(name: str) -> None:
    lines = (conf_dir() / name).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    for before, line in itertools.pairwise(lines):
        option = re.match(r" *(\w+):", line)
        if option and option[1] not in STEERING:
            assert before.strip().startswith("#"), f"{name}: {line}"


@pytest.mark.parametrize("name", FILES)
def test_lines_are_short_and_files_end_with_one_newline(name: str) -> None:
    text = (conf_dir() / name).read_text(encoding="utf-8")
    assert all(len(line) <= 120 for line in text.splitlines())
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_the_groups_of_the_design_are_there() -> None:
    assert {Path(name).parent.as_posix() for name in FILES} >= {
        "data",
        "experiment",
        "fabrication",
        "fusion",
        "fusion/preprocess",
        "model",
        "train",
    }


FIXED = sorted(file.stem for file in (conf_dir() / "experiment" / "fixed_l").glob("*.yaml"))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FIXED)
def test_the_fixed_l_is_as_the_file_says(name: str) -> None:
    cfg = compose(["+experiment=fabrications", f"+experiment/fixed_l={name}"])
    operator: Any = build(cfg["fusion"], "fusion")
    text = (conf_dir() / "experiment" / "fixed_l" / f"{name}.yaml").read_text(encoding="utf-8")
    stated = re.search(r"l = (\d+)", text)
    assert stated is not None
    assert operator.calculate_l() == int(stated[1])
    assert cfg["fabrication"]["name"] == name
    assert abs(int(stated[1]) - 1426) <= 0.06 * 1426 or "nearest" in text or "whatever" in text


@pytest.mark.parametrize("budget", [1038, 415, 207])
def test_the_budgets_are_kept(budget: int) -> None:
    cfg = compose([f"+experiment=budget/l{budget}"])
    operator: Any = build(cfg["fusion"], "fusion")
    text = (conf_dir() / "experiment" / "budget" / f"l{budget}.yaml").read_text(encoding="utf-8")
    assert f"# l = {operator.calculate_l()} on mfeat, " in text
    assert operator.calculate_l() <= budget
    page = (Path(__file__).parents[2] / "docs" / "study.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `\+experiment=budget/l{budget}` \|.*\| {operator.calculate_l()} \|", page, re.MULTILINE)


def test_the_sweeps_and_the_debug_run_are_there() -> None:
    assert {"default", "debug", "operators", "fabrications"} <= {
        file.stem for file in (conf_dir() / "experiment").glob("*.yaml")
    }
    assert compose(["+experiment=default"]) == compose([])
    assert compose(["+experiment=operators"])["model"]["encoder"] == "linear"


def test_every_fabrication_that_learns_is_in_the_sweep() -> None:
    classes: dict[str, Any] = {
        name: registry.load("fabrication", name) for kind, name in BUILTIN if kind == "fabrication"
    }
    assert set(FIXED) == {name for name, cls in classes.items() if not cls.traits.constant} - {"dense"}
