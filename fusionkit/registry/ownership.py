"""Finds distributions that have what belongs to another one: of other projects, or left behind by a change of name."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from urllib.parse import unquote, urlsplit

from fusionkit._util.distribution import DISTRIBUTION, unprefixed
from fusionkit.hookspecs import PROJECT
from fusionkit.registry.discovery import CORE_TARGET, entry_lines, metadata_of, normalized

_IN_PACKAGE = re.compile(rf"^{PROJECT}/", re.MULTILINE)


@dataclass(frozen=True)
class Clash:
    """A distribution that has what belongs to another one.

    Attributes:
        what: what it has.
        owner: the distribution to which that belongs.
        beside: whether the owner is installed too.
        distribution: the other one.
        version: its version, None if its metadata have none.
        foreign: whether it is another project's; else it is the owner under its former name.
        mend: the commands that mend it.
    """

    what: str
    owner: str
    beside: bool
    distribution: str
    version: str | None
    foreign: bool
    mend: str

    def __str__(self) -> str:
        title = " ".join(filter(None, (self.distribution, self.version)))
        which = "another project" if self.foreign else "the same under its former name"
        place = "beside it" if self.beside else "in its place"
        return f"{self.what} should belong to {self.owner} alone; found {title} {place}, {which}: {self.mend}"


def clashes() -> list[Clash]:
    """Return the distributions that have the name or the package ``fusionkit``, or a plugin, of another one."""
    found = _concerned()
    return [clash for name in found if (clash := _clash(name, found)) is not None]


def _concerned() -> dict[str, Distribution]:
    """Return the distributions that are called fusionkit, have files of that package or plugins, by normalized name."""
    named = distributions(name=PROJECT)
    others = (one for one in distributions() if entry_lines(one) or _in_package(one))
    found: dict[str, Distribution] = {}
    for distribution in (*named, *others):
        found.setdefault(normalized(metadata_of(distribution)[0]), distribution)  # The first on sys.path counts.
    return found


def _clash(name: str, found: Mapping[str, Distribution]) -> Clash | None:
    """Return what is wrong with one of the distributions found, if anything is."""
    other, targets = found[name], _targets(found[name])
    if name == DISTRIBUTION:
        return None
    if CORE_TARGET in targets or name == PROJECT or _in_package(other):
        what, owner, foreign = f"the name {PROJECT}", DISTRIBUTION, CORE_TARGET not in targets
    elif (new := _renamed(name, targets, found)) is not None:
        what, owner, foreign = f"the plugin {', '.join(sorted(targets))}", new, False
    else:
        return None
    title, version, _ = metadata_of(other)
    return Clash(what, owner, owner in found, title, version, foreign, _mend(title, other, found.get(owner), foreign))


def _renamed(name: str, targets: set[str], found: Mapping[str, Distribution]) -> str | None:
    """Return the distribution that has the new name of another one, and the same plugin."""
    return next(
        (new for new in found if new != name and unprefixed(new) == name and targets & _targets(found[new])), None
    )


def _targets(distribution: Distribution) -> set[str]:
    return {line.partition("=")[2].strip() for line in entry_lines(distribution)}


def _in_package(distribution: Distribution) -> bool:
    try:
        return _IN_PACKAGE.search(distribution.read_text("RECORD") or "") is not None
    except (OSError, ValueError):  # It is no text.
        return False


def _mend(title: str, other: Distribution, owner: Distribution | None, foreign: bool) -> str:
    """Return the commands that remove a distribution, and install its owner if that is missing or loses files by it."""
    command = f"pip uninstall -y {title}"
    if owner is None:
        return f"{command} && pip install {DISTRIBUTION if foreign else _source(other)}"
    if _files(owner) & _files(other):
        return f"{command} && pip install --force-reinstall --no-deps {_source(owner)}"
    return command


def _files(distribution: Distribution) -> set[str]:
    return {os.path.normpath(str(file.locate())) for file in distribution.files or ()}


def _source(distribution: Distribution) -> str:
    """Return from where pip installed a distribution, as its argument."""
    text = distribution.read_text("direct_url.json")
    if text is None:  # From an index.
        return distribution.name
    found = json.loads(text)
    url = unquote(urlsplit(found["url"]).path) if found["url"].startswith("file:") else found["url"]
    if "vcs_info" in found:
        url = f"{found['vcs_info']['vcs']}+{found['url']}"
    return f"{'-e ' if found.get('dir_info', {}).get('editable') else ''}{shlex.quote(url)}"
