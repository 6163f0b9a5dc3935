"""The page about published modules is made from the results that are kept, and its parts fit each other."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fusionkit.contract.checks import CHECKS
from fusionkit.contract.rules import rule_of
from tests.page_scripts import page_script

DOCS = Path(__file__).parents[1] / "docs"
FOLDER = DOCS / "published"
NAMES = sorted(path.stem for path in FOLDER.glob("*.toml"))


@pytest.fixture(scope="module")
def make() -> ModuleType:
    return page_script("published/make")


def result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"results/{name}.json").read_text(encoding="utf-8"))
    return found


def test_the_page_is_that_of_the_results(make: ModuleType) -> None:
    introduction = (FOLDER / "introduction.md").read_text(encoding="utf-8")
    expected = make.page(introduction, make.packages(), {name: result(name) for name in NAMES})
    found = (DOCS / "published.md").read_text(encoding="utf-8")
    assert found == expected, "run: python docs/published/make.py --page"


def test_the_files_belong_together(make: ModuleType) -> None:
    assert list(make.packages()) == NAMES
    assert sorted(path.name for path in FOLDER.glob("*_adapter.py")) == [f"{name}_adapter.py" for name in NAMES]
    assert sorted(path.stem for path in (FOLDER / "results").glob("*.json")) == NAMES
    assert len(NAMES) >= 5


def test_the_rules_are_rules_of_the_kit(make: ModuleType) -> None:
    rules = [rule for group in make.RULES.values() for rule in group]
    assert len(set(rules)) == len(rules)
    assert set(rules) <= {rule_of(check).name for check in CHECKS}


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_has_the_classes_that_are_checked(name: str, make: ModuleType) -> None:
    tree = ast.parse((FOLDER / f"{name}_adapter.py").read_text(encoding="utf-8"))
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}
    assert classes == {module["class"] for module in make.packages()[name]["modules"]}


@pytest.mark.parametrize("name", NAMES)
def test_snippets_and_notes_are_about_rules_that_fail(name: str, make: ModuleType) -> None:
    found = result(name)
    if "problem" in found:
        return
    rules = {rule for group in make.RULES.values() for rule in group}
    for given, kept in zip(make.packages()[name]["modules"], found["modules"], strict=True):
        assert given["class"] == kept["class"]
        assert set(kept["rules"]) == rules
        failing = {rule for rule, verdict in kept["rules"].items() if verdict["verdict"] == "fails"}
        shown = {rule for snippet in given.get("snippets", []) for rule in snippet["rules"]}
        assert shown | set(given.get("notes", {})) <= failing
        assert len(given.get("snippets", [])) == len(kept["snippets"])
        for snippet in given.get("snippets", []):
            ast.parse(snippet["code"])


def test_no_path_of_a_machine() -> None:
    for name in NAMES:
        text = json.dumps(result(name))
        assert not re.search(r"/(?:home|root|tmp|usr|opt|Users)/", text)


GIVEN = {
    "title": "stranger",
    "about": "A package.",
    "modules": [
        {
            "class": "Sum",
            "name": "SumFusion",
            "about": "A sum.",
            "notes": {"nonfinite": "By design."},
            "snippets": [{"rules": ["export"], "says": "It stops.", "code": "print(1)"}],
        }
    ],
}
ERROR = "torch.export should work; found TypeError: a | b"
FOUND = {
    "python": "3.11.0",
    "versions": {"torch": "2.0", "stranger": "1.2"},
    "stand_ins": ["heavy"],
    "modules": [
        {
            "class": "Sum",
            "snippets": ["TypeError: a | b"],
            "rules": {
                "forward_shape": {"verdict": "holds"},
                "export": {"verdict": "fails", "case": "dims=[1]", "reason": ERROR, "cases": 1, "of": 1},
                "compile_dynamic": {"verdict": "fails", "case": "dims=[1]", "reason": ERROR, "cases": 1, "of": 1},
                "nonfinite": {"verdict": "fails", "case": "", "reason": "NaN; found 0", "cases": 1, "of": 2},
                "no_leak": {"verdict": "no verdict", "case": "", "reason": "too slow", "cases": 1, "of": 1},
                "linear": {"verdict": None},
            },
        }
    ],
}


def test_a_section(make: ModuleType) -> None:
    page = make.page("# Title\n\n{rules}\n\n{table}\n", {"stranger": GIVEN}, {"stranger": FOUND})
    assert "- Rows and views: `batch_independence`, " in page
    lines = page.splitlines()
    assert "| [stranger](#stranger) | 1.2 | `SumFusion` | 1 (1 without verdict) | 3 (2 with one error) |" in lines
    assert "Python 3.11.0, torch 2.0, stranger 1.2; " in page
    assert "the modules do not use: heavy. " in page
    assert "It stops. (`export`)\n\n```python\nprint(1)\n```\n\n```\nTypeError: a | b\n```" in page
    escaped = "torch.export should work; found TypeError: a \\| b."
    assert f"| `export`, `compile_dynamic` | `dims=[1]` | {escaped} |" in lines
    assert "| `nonfinite` | `all` | NaN; found 0. By design. |" in lines
    assert "No verdict: `no_leak` (too slow)." in lines
    assert "Holds: `forward_shape`." in lines
    assert "Does not apply: `linear`." in lines


def test_a_package_that_cannot_be_installed(make: ModuleType) -> None:
    page = make.page("{table}", {"stranger": GIVEN}, {"stranger": {"problem": "no wheel"}})
    assert "| [stranger](#stranger) |  | not installed |  |  |" in page
    assert "Could not be installed or imported: `no wheel`" in page


def test_the_verdict_on_a_rule(make: ModuleType, tmp_path: Path) -> None:
    def record(status: str, case: str = "", reason: str = "") -> dict[str, str]:
        return {"status": status, "case": case, "reason": reason}

    failed = [record("failed", "dims=[4, 4]", "long"), record("failed", "dims=[1]", f"short {tmp_path}/a/b.py")]
    verdict = make._verdict([record("skipped"), record("passed", "dims=[2]"), record("error"), *failed], tmp_path)
    assert verdict == {"verdict": "fails", "case": "dims=[1]", "reason": "short b.py", "cases": 2, "of": 4}
    assert make._verdict([record("passed"), record("skipped")], tmp_path) == {"verdict": "holds"}
    assert make._verdict([record("error", "c", "r")], tmp_path)["verdict"] == "no verdict"
    assert make._verdict([record("skipped")], tmp_path) == {"verdict": None}
