"""`links.py SITE` checks a built site, and lists the links that leave it.

Faults are broken links inside the site, images without a text, and files that a page loads from elsewhere.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors, the links and the loaded files of a page, and its images without a text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors, self.links, self.loaded, self.silent = {"", "top"}, set[str](), set[str](), set[str]()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of the addresses of one tag."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        if tag in ("link", "script", "img", "iframe", "source", "object"):
            self.loaded |= {values[name] for name in ("src", "href", "data") if values.get(name)}
        if tag == "img" and not values.get("alt"):
            self.silent.add(values["src"])


def faults(site: Path, foreign: dict[str, list[str]]) -> list[str]:
    """Return what is wrong with the pages below `site`, and add to `foreign` the pages of each link that leaves it."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site.resolve()).as_posix()
        found += [f"{name}: an image without a text: {image}" for image in page.silent]
        for link in sorted(page.links | page.loaded):
            url = urlsplit(link)
            if url.scheme or url.netloc:
                if link in page.loaded and url.scheme != "data":
                    found.append(f"{name}: loads {link}")
                elif url.scheme in ("http", "https"):
                    foreign[link].append(name)
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if not target.is_file():
                found.append(f"{name}: no file {link}")
            elif target in pages and unquote(url.fragment) not in pages[target].anchors:
                found.append(f"{name}: no anchor {link}")
    return found


if __name__ == "__main__":
    foreign: dict[str, list[str]] = defaultdict(list)
    broken = faults(Path(sys.argv[1]), foreign)
    print(*(f"{link}  ({len(pages)} pages)" for link, pages in sorted(foreign.items())), sep="\n")
    print(*broken, sep="\n", file=sys.stderr)
    print(f"{len(foreign)} links leave the site, {len(broken)} faults")
    sys.exit(bool(broken))
