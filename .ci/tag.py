"""Checks by `python .ci/tag.py v0.2.0` that a tag names the version of every distribution here."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

tag = sys.argv[1]
wrong = 0
for path in sorted([ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]):
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    if tag != f"v{project['version']}":
        print(f"The tag should be v{project['version']}, the version of {project['name']}; found {tag}.")
        wrong += 1
sys.exit(bool(wrong))
