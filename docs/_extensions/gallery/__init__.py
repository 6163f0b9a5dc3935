"""Makes the gallery: a page per fusion and fabrication, written before Sphinx looks for its pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def _write(app: Sphinx) -> None:
    from gallery.pages import write  # noqa: PLC0415  # It imports torch.

    write(Path(app.srcdir) / "gallery")


def _shorten(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Leave out of a docstring what its page in the gallery begins with: all but the arguments and errors."""
    if what == "class" and app.env.docname.startswith("gallery/"):
        sections = [i for i, line in enumerate(lines) if line in ("Args:", "Raises:")]
        del lines[: min(sections, default=len(lines))]


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the pages before Sphinx looks for them."""
    app.connect("builder-inited", _write)
    app.connect("autodoc-process-docstring", _shorten, priority=400)  # Before napoleon reads the sections.
    return {"parallel_read_safe": True, "parallel_write_safe": True}
