"""What the theme leaves out for people who use the keyboard or a screen reader."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

#: Captions get a level, and what scrolls sideways can be reached by the keyboard.
_MENDED = {
    'role="heading"': 'role="heading" aria-level="2"',
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
}
#: The parameters of a signature, one a line: a list of descriptions without terms.
_PARAMETERS = re.compile(r"<dl>\n((?:<dd>.*?</dd>\n)+)</dl>")


def _lines(found: re.Match[str]) -> str:
    return f'<span class="parameters">{found[1].replace("<dd>", "<span>").replace("</dd>", "</span>")}</span>'


def _mend(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    for part in ("body", "furo_navigation_tree"):
        for found, mended in _MENDED.items():
            context[part] = context.get(part, "").replace(found, mended)
    context["body"] = _PARAMETERS.sub(_lines, context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Mend each page after the theme has prepared it."""
    app.connect("html-page-context", _mend, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
