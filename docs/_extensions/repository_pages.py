"""Makes pages of the site of Markdown files elsewhere in the repository.

Links of a page to a file that is no page lead to the repository's host.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
REPOSITORY = "https://github.com/tensor-fusionkit/tensor-fusionkit"
#: The files of the repository, by the pages that they become.
PAGES = {
    "project/changelog": "CHANGELOG.md",
    "project/contributing": "CONTRIBUTING.md",
    "project/security": "SECURITY.md",
    "project/code-of-conduct": "CODE_OF_CONDUCT.md",
    **{
        f"packages/{readme.parent.name.removeprefix('fusionkit-')}": readme.relative_to(ROOT).as_posix()
        for readme in ROOT.glob("plugins/*/README.md")
    },
}
PAGES = {page: source for page, source in PAGES.items() if (ROOT / source).is_file()}
_PAGE_OF = {source: f"docs/{page}.md" for page, source in PAGES.items()}
_LINK = re.compile(r"\]\((?P<path>(?:\.\./|[\w.-])[^)\s:#]*)(?P<anchor>#[^)\s]*)?\)")


def relinked(text: str, source: str, page: str) -> str:
    """Return the Markdown of `source`, a path in the repository, with its links as those of `page` of the site."""

    def replace(link: re.Match[str]) -> str:
        target = os.path.normpath(PurePosixPath(source).parent / link["path"])
        found = _PAGE_OF.get(target) or _PAGE_OF.get(f"{target}/README.md") or target
        if found in _PAGE_OF.values() or (found.startswith("docs/") and (ROOT / found).is_file()):
            url = os.path.relpath(found, PurePosixPath(f"docs/{page}").parent)
        else:
            url = f"{REPOSITORY}/{'tree' if (ROOT / target).is_dir() else 'blob'}/main/{target}"
        return f"]({url}{link['anchor'] or ''})"

    return _LINK.sub(replace, text)


def _copy(app: Sphinx) -> None:
    for page, source in PAGES.items():
        path = Path(app.srcdir) / f"{page}.md"
        text = relinked((ROOT / source).read_text(encoding="utf-8"), source, page)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")


def _relink(app: Sphinx, page: str, content: list[str]) -> None:
    if page not in PAGES and app.env.doc2path(page).suffix == ".md":
        content[0] = relinked(content[0], f"docs/{page}.md", page)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the pages before Sphinx looks for them."""
    app.connect("builder-inited", _copy)
    app.connect("source-read", _relink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
