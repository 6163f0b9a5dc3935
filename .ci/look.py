"""`look.py SITE OUT AXE` looks at one page of each kind in a browser, as a person would.

Each page is opened at 1280 and at 390 pixels, light and dark: its screenshot goes to OUT, and a fault is what is wider
than the page, what axe-core (AXE, the path of its axe.min.js) finds serious, or a focus that cannot be seen when a
person moves by the keyboard.  It needs playwright and a Chromium, a path in the variable CHROMIUM or playwright's own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

#: One page of each kind.
KINDS = [
    "index",
    "tour",
    "tutorials/application",
    "howto/adapter",
    "your-own-data",
    "contract",
    "study",
    "bench",
    "published",
    "gallery/index",
    "gallery/fusions/median",
    "gallery/fabrications/monarch",
    "api/index",
    "api/operators",
    "api/commands",
    "packages/attention",
    "project/changelog",
    "search",
]
#: Elements whose content is cut or which stand out of the page.
CUT = """() => [...document.querySelectorAll('article *, header *, .sidebar-drawer *')].filter(e => {
    const style = getComputedStyle(e), box = e.getBoundingClientRect();
    if (!box.width || !box.height || style.visibility === 'hidden') return false;
    for (let a = e; a; a = a.parentElement)
        if (a !== e && ['auto', 'scroll'].includes(getComputedStyle(a).overflowX)) return false;
    if (['hidden', 'clip'].includes(style.overflowX) && e.scrollWidth > e.clientWidth + 1) return true;
    return e.closest('article') && box.right > innerWidth + 1;
}).map(e => e.outerHTML.slice(0, 120))"""
FOCUSED = """() => {
    const e = document.activeElement, box = e.getBoundingClientRect();
    const inside = box.width > 0 && box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight;
    const seen = inside && e.checkVisibility({opacityProperty: true, visibilityProperty: true});
    return [e.outerHTML.slice(0, 80), seen && getComputedStyle(e).outlineStyle !== 'none'];
}"""


def faults(page: Page, axe: str) -> list[str]:
    """Return what is wrong with the page that is open."""
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    found = [f"{width[0]} pixels wide, shown in {width[1]}"] if width[0] > width[1] else []
    found += [f"cut: {element}" for element in page.evaluate(CUT)]
    page.evaluate(axe)
    violations = page.evaluate("axe.run().then(result => result.violations)")
    found += [
        f"{fault['impact']}: {fault['id']}: {node['html'][:120]}"
        for fault in violations
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
    for _ in range(12):
        page.keyboard.press("Tab")
        page.wait_for_timeout(300)  # A drawer slides in.
        element, seen = page.evaluate(FOCUSED)
        if not seen and not element.startswith("<body"):
            found.append(f"the focus cannot be seen: {element}")
    return found


def look(browser: Browser, site: Path, out: Path, axe: str) -> int:
    """Look at every kind of page, and return the number of faults."""
    count = 0
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
            for kind in KINDS:
                query = "?q=lowrank" if kind == "search" else ""
                page.goto(f"{(site / kind).resolve().as_uri()}.html{query}")
                page.wait_for_load_state("networkidle")
                page.screenshot(path=out / f"{kind.replace('/', '-')}-{width}-{scheme}.png")
                for fault in faults(page, axe):
                    count += 1
                    print(f"{kind}, {width} pixels, {scheme}: {fault}")
    return count


if __name__ == "__main__":
    site, out, script = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM"), args=["--no-sandbox"])
        found = look(browser, site, out, script.read_text(encoding="utf-8"))
    print(f"{found} faults on {len(KINDS)} pages at two widths, light and dark; screenshots in {out}")
    sys.exit(bool(found))
