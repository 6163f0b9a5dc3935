"""Remakes the hook reference in ``docs/plugins.md`` from the docstrings of ``fusionkit.hookspecs``; run it as it is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fusionkit import hookspecs

PAGE = Path(__file__).with_name("plugins.md")
BEGIN, END = "<!-- hooks: made by docs/hook_reference.py -->\n", "<!-- end of hooks -->\n"


def reference() -> str:
    """Return the section: every hook, in the order of the module, then what they may return."""
    hooks = [
        function
        for name, function in vars(hookspecs).items()
        if name.startswith("fusionkit_") and inspect.isfunction(function)
    ]
    return "\n".join([*map(_hook, hooks), *map(_spec, (hookspecs.Spec, hookspecs.DatasetSpec))])


def updated(page: str) -> str:
    """Return the text of the page with the section made anew."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} should contain {BEGIN.strip()} and {END.strip()}; found one of them missing.")
    return f"{before}{begin}\n{reference()}\n{end}{after}"


def _hook(function: Callable[..., Any]) -> str:
    name, signature = function.__name__, str(inspect.signature(function)).replace("'", "")
    return f"### `{name}`\n\n```python\ndef {name}{signature}: ...\n```\n\n{_markdown(function)}\n"


def _spec(cls: type) -> str:
    summary, _, attributes = _markdown(cls).partition("\n\nAttributes:\n")
    defaults = {name: parameter.default for name, parameter in inspect.signature(cls).parameters.items()}
    lines = [f"### `{cls.__name__}`", "", summary, "", "| field | default | meaning |", "|---|---|---|"]
    for name, meaning in re.findall(r"^    (\w+): (.*(?:\n     .*)*)", attributes, re.MULTILINE):
        default = "" if defaults[name] is inspect.Parameter.empty else f"`{defaults[name]!r}`"
        lines.append(f"| `{name}` | {default} | {' '.join(meaning.split())} |")
    return "\n".join(lines) + "\n"


def _markdown(documented: object) -> str:
    return (inspect.getdoc(documented) or "").replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
