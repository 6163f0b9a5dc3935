"""Makes the gallery: a page per fusion and fabrication, written before Sphinx looks for its pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def _write(app: Sphinx) -> None:
    from gallery.pages import write  # noqa: PLC0415  # It imports torch.

    write(Path(app.srcdir) / "gallery")


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the pages before Sphinx looks for them."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
