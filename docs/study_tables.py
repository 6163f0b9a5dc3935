"""Writes the tables of ``fusionkit study`` into ``study.md``: ``python docs/study_tables.py study/study.json``."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from fusionkit.cli.study_run import markdown, missing_markdown

PAGE = Path(__file__).with_name("study.md")


def tables(text: str, prefix: str = "") -> dict[str, str]:
    """Return the tables of a Markdown text by their headings of the third level, with a prefix to each."""
    parts = re.split(r"^### (.+)\n", text, flags=re.MULTILINE)[1:]
    return {prefix + heading: body.strip() for heading, body in zip(parts[::2], parts[1::2], strict=True)}


def main(file: str) -> None:
    """Replace the table below each heading that the page and the study have in common."""
    study = json.loads(Path(file).read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    found = tables(markdown(study["rows"])) | tables(missing_markdown(study["missing"]), "Missing views: ")
    for heading, table in found.items():
        start = rf"(?m)^### {re.escape(heading)}\n\n"
        page, count = re.subn(start + r"(\|.*\n)+", lambda _, h=heading, t=table: f"### {h}\n\n{t}\n", page)
        if count != 1:
            raise SystemExit(f"study.md should have one table below the heading '### {heading}'; found {count}.")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
