"""Makes pages of the site of Markdown files elsewhere in the repository.

Links of a page to a file that is no page lead to the repository's host.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
REPOSITORY = "https://github.com/tensor-fusionkit/tensor-fusionkit"
#: The files of the repository, by the pages that they become.
PAGES = {
    "project/changelog": "CHANGELOG.md",
    "project/contributing": "CONTRIBUTING.md",
    **{
        f"packages/{readme.parent.name.removeprefix('fusionkit-')}": readme.relative_to(ROOT).as_posix()
        for readme in sorted(ROOT.glob("plugins/*/README.md"))
    },
}
_LINK = re.compile(r"(\]\()((?:\.\./|[\w.-])[^)\s:#]*)(#[^)\s]*)?(?=\))")


def relinked(text: str, source: str, page: str) -> str:
    """Return the Markdown of `source`, a path in the repository, with its links as those of `page` of the site."""

    def replace(match: re.Match[str]) -> str:
        target = PurePosixPath(os.path.normpath(PurePosixPath(source).parent / match[2]))
        named = next(
            (name for name, file in PAGES.items() if PurePosixPath(file) in (target, target / "README.md")), None
        )
        if named is None and target.parts[0] == "docs":
            named = target.relative_to("docs").as_posix()
        elif named is not None:
            named += ".md"
        if named is None or not (named in {f"{page}.md" for page in PAGES} or (DOCS / named).is_file()):
            kind = "tree" if (ROOT / target).is_dir() else "blob"
            return f"{match[1]}{REPOSITORY}/{kind}/main/{target}{match[3] or ''}"
        return f"{match[1]}{os.path.relpath(named, PurePosixPath(page).parent)}{match[3] or ''}"

    return _LINK.sub(replace, text)


def _copy(app: Sphinx) -> None:
    for page, source in PAGES.items():
        path = Path(app.srcdir) / f"{page}.md"
        text = relinked((ROOT / source).read_text(encoding="utf-8"), source, page)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")


def _relink(app: Sphinx, page: str, content: list[str]) -> None:
    if page not in PAGES:
        content[0] = relinked(content[0], f"docs/{page}.md", page)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the pages before Sphinx looks for them."""
    app.connect("builder-inited", _copy)
    app.connect("source-read", _relink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
