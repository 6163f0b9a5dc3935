"""Writes the tables of ``fusionkit study`` into ``study.md``: ``python docs/study_tables.py study/study.json``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusionkit.cli.study_run import markdown, missing_markdown

PAGE = Path(__file__).with_name("study.md")


def with_tables(page: str, study: Mapping[str, Any]) -> str:
    """Return the page with the tables of a study, each in place of the one below the same heading.

    Raises:
        ValueError: a heading of the study is not exactly once in the page, or has no table below it.
    """
    missing = re.sub(r"(?m)^### ", "### Missing views: ", missing_markdown(study["missing"]))
    parts = re.split(r"(?m)^(### .+)\n", f"{markdown(study['rows'])}\n{missing}")[1:]
    for heading, table in zip(parts[::2], parts[1::2], strict=True):
        new = f"{heading}\n\n{table.strip()}\n"
        page, count = re.subn(rf"(?m)^{re.escape(heading)}\n\n(\|.*\n)+", lambda _, new=new: new, page)
        if count != 1:
            raise ValueError(f"study.md should have one table below the heading {heading!r}; found {count}.")
    return page


if __name__ == "__main__":
    study = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), study), encoding="utf-8")
