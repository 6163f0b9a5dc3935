"""The files by which others judge and join the project: the hooks of pre-commit, the forms for issues, the policies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
FORMS = sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml"))

# The source distribution has none of the files whose names begin with a dot.
in_a_clone = pytest.mark.skipif(not FORMS, reason="these files are only in a clone")


def read_yaml(path: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(path))


@in_a_clone
def test_pre_commit_has_the_linter_of_the_constraints() -> None:
    pinned = re.search(r"^ruff==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    hooks = {Path(one["repo"]).name: one["rev"] for one in read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]}
    assert hooks["ruff-pre-commit"] == f"v{pinned[1]}"


@in_a_clone
@pytest.mark.parametrize("path", [path for path in FORMS if path.stem != "config"], ids=lambda path: path.stem)
def test_form(path: Path) -> None:
    form = read_yaml(path)
    assert {"name", "description", "body"} <= form.keys()
    fields = [one for one in form["body"] if one["type"] != "markdown"]
    assert len({one["id"] for one in fields}) == len(fields)
    assert all(one["attributes"]["label"] for one in fields)
    assert any(one.get("validations", {}).get("required") for one in fields)


@in_a_clone
def test_the_form_for_faults_asks_for_doctor() -> None:
    form = read_yaml(ROOT / ".github/ISSUE_TEMPLATE/bug.yml")
    asked = [one for one in form["body"] if "fusionkit doctor" in one["attributes"].get("label", "")]
    assert [one["validations"]["required"] for one in asked] == [True]


def test_security_names_what_is_judged_and_how_to_report() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for what in ("a configuration", "a run directory", "a data file", "a plugin", "an exported `.pt2` file"):
        assert f"**{what}**" in text
    assert "https://github.com/tensor-fusionkit/tensor-fusionkit/security/advisories/new" in text
