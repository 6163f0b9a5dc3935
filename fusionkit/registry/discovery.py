"""Finds the plugins that are installed, and says which of them may be imported.  Imports none of them."""

from __future__ import annotations

import importlib.metadata
import os
import re
import site
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email import message_from_string
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fusionkit._util.text import printable
from fusionkit.hookspecs import PROJECT

__all__ = [
    "ALLOW",
    "CORE_TARGET",
    "Candidate",
    "canonical",
    "disabled",
    "follow_path_files",
    "incompatible",
    "installed",
]

GROUP = "fusionkit"
ALLOW = "FUSIONKIT_PLUGINS"
CORE_TARGET = "fusionkit.builtin"


@dataclass(frozen=True)
class Candidate:
    """A plugin that is installed and not yet imported.

    Attributes:
        name: the left side of its entry point.
        target: the right side, ``package.module`` or ``package.module:object``.
        distribution: who offers it.
        version: of the distribution, None where its metadata have none.
        load: imports it.
        requires: the ``Requires-Dist`` lines of the distribution.
    """

    name: str
    target: str
    distribution: str
    version: str | None
    load: Callable[[], object]
    requires: tuple[str, ...] = ()


class _Origin(NamedTuple):
    """What a distribution says about itself."""

    name: str
    version: str | None
    requires: tuple[str, ...]


def canonical(distribution: str) -> str:
    """Return the name of a distribution in the form in which two spellings of it are equal (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def installed() -> list[Candidate]:
    """Return the plugins of all installed distributions but the core's own, sorted by distribution and name."""
    candidates = [candidate for candidate in _candidates() if candidate.target != CORE_TARGET]
    return sorted(candidates, key=lambda candidate: (canonical(candidate.distribution), candidate.name))


def _candidates() -> Iterator[Candidate]:
    try:
        entries = list(importlib.metadata.entry_points(group=GROUP))
    except Exception:  # One malformed file of any distribution, related or not, is enough.
        yield from _candidates_one_by_one()
        return
    origins: dict[int, _Origin] = {}  # By identity, since reading the metadata is the slow part.
    for entry in entries:
        if entry.dist is not None:
            key = id(entry.dist)
            if key not in origins:
                origins[key] = _origin(entry.dist)
            yield _candidate(entry, origins[key])


def _candidates_one_by_one() -> Iterator[Candidate]:
    """Yield the same, and for each plugin with a malformed file a candidate whose ``load`` says so."""
    seen = set()
    for distribution in importlib.metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except Exception:  # Not even text: then reading the entry points below fails as well, and is reported.
            text = f"[{GROUP}]"
        if not re.search(rf"^\s*\[\s*{GROUP}\s*\]", text, re.MULTILINE):
            continue
        origin = _origin(distribution)
        if canonical(origin.name) in seen:  # Shadowed by one earlier on sys.path, as for entry_points().
            continue
        seen.add(canonical(origin.name))
        try:
            entries = list(distribution.entry_points)
        except Exception as error:
            yield _unreadable(origin, error)
        else:
            yield from (_candidate(entry, origin) for entry in entries if entry.group == GROUP)


def _candidate(entry: importlib.metadata.EntryPoint, origin: _Origin) -> Candidate:
    match = entry.pattern.match(entry.value)
    if match is None:
        return _unreadable(origin, ValueError(repr(entry.value)), entry.name)
    target = ":".join(part for part in (match["module"], match["attr"]) if part)  # Extras say nothing here.
    return Candidate(entry.name, target, origin.name, origin.version, entry.load, origin.requires)


def _unreadable(origin: _Origin, error: Exception, name: str = "entry_points.txt") -> Candidate:
    def load() -> object:
        raise ValueError(f"its entry_points.txt should have lines of the form name = module; found {error}") from error

    return Candidate(name, "", origin.name, origin.version, load)


def _origin(distribution: importlib.metadata.Distribution) -> _Origin:
    """Return name, version and requirements, also of a distribution whose metadata are missing or unreadable."""
    name = version = None
    requires: Sequence[str] = ()
    try:
        text = distribution.read_text("METADATA")
        if text:
            # Not .metadata, which would parse the description as well, often hundreds of lines.
            headers = message_from_string(text.partition("\n\n")[0])
            name, version = headers.get("Name"), headers.get("Version")
            requires = headers.get_all("Requires-Dist") or ()
        else:  # An egg-info folder, which keeps the same in other files.
            name, version, requires = distribution.name, distribution.version, distribution.requires or ()
    except Exception:
        pass  # The name of the folder remains.
    if not name:
        # importlib has no public attribute for the folder <name>-<version>.dist-info.
        name, _, stem = Path(str(getattr(distribution, "_path", "unknown"))).stem.partition("-")
        version = version or stem or None
    return _Origin(printable(name), version, tuple(requires))


def follow_path_files() -> None:
    """Append to ``sys.path`` the folders that editable installations have named in ``.pth`` files since the start.

    Lines that are code are not run: they are for the start of an interpreter.
    """
    sites = site.getsitepackages() + ([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])
    for file in (file for folder in sites if folder in sys.path for file in sorted(Path(folder).glob("*.pth"))):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        for line in map(str.strip, lines):
            path = str(file.parent / line)
            if line and not line.startswith(("#", "import ", "import\t")) and os.path.isdir(path):
                sys.path += [path] if path not in sys.path else []


def disabled(candidate: Candidate) -> str | None:
    """Return why the environment keeps a plugin out, None if it does not."""
    allowed = os.environ.get(ALLOW)
    if allowed is None or canonical(candidate.distribution) in {canonical(name.strip()) for name in allowed.split(",")}:
        return None
    return f"{ALLOW} should name {candidate.distribution}; found {allowed!r}"


def incompatible(candidate: Candidate, running: str) -> str | None:
    """Return why a plugin's distribution does not fit fusionkit ``running``, None if it does or does not say.

    The running version fits if it or its base version does: 0.2.0rc1 serves a plugin that requires ``>=0.2``.
    """
    for line in candidate.requires:
        # Requirements on others, malformed or not, are the installer's business.
        reason = _unmet(line, running) if PROJECT in line.lower() else None
        if reason:
            return reason
    return None


@cache
def _unmet(line: str, running: str) -> str | None:
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.version import Version

    try:
        requirement = Requirement(line)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName) as error:
        if _leading_name(line) not in (PROJECT, None):
            return None
        return f"its requirement on fusionkit should follow PEP 508; found {line!r} ({' '.join(str(error).split())})"
    if canonical(requirement.name) != PROJECT or not applies:
        return None
    version = Version(running)
    accepted = (str(version), version.base_version)
    if any(requirement.specifier.contains(candidate, prereleases=True) for candidate in accepted):
        return None
    return f"it requires {line!r}; found fusionkit {running}"


def _leading_name(line: str) -> str | None:
    """Return the distribution that a malformed requirement speaks of, None if even that cannot be read."""
    match = re.match(r"\s*([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)", line)
    return canonical(match[1]) if match else None
