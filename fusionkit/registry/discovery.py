"""Finds the installed plugins and decides which of them may be imported.  Imports none of them."""

from __future__ import annotations

import importlib.metadata
import os
import re
import site
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email import message_from_string
from functools import cache, partial
from pathlib import Path
from typing import NoReturn

from fusionkit._util.distribution import DISTRIBUTION, unprefixed
from fusionkit._util.text import error_message
from fusionkit.hookspecs import PROJECT

ALLOW = "FUSIONKIT_PLUGINS"
CORE_TARGET = "fusionkit.builtin"

_SECTION = re.compile(rf"^\s*\[\s*{PROJECT}\s*\]", re.MULTILINE)
#: A requirement on fusionkit itself, by its name or the one before, not on a distribution whose name begins like that.
_ON_FUSIONKIT = re.compile(rf"\W*(?P<prefix>tensor[-_.]+)?{PROJECT}(?![\w.-]*\w)", re.IGNORECASE)


@dataclass(frozen=True)
class Candidate:
    """A plugin that is installed and not yet imported.

    Attributes:
        name: the left side of its entry point.
        target: the right side, ``package.module`` or ``package.module:object``.
        distribution: the distribution that contains it.
        version: version of the distribution, None if its metadata have none.
        load: imports the plugin.
        requires: the ``Requires-Dist`` lines of the distribution.
    """

    name: str
    target: str
    distribution: str
    version: str | None
    load: Callable[[], object]
    requires: tuple[str, ...] = ()


def normalized(distribution: str) -> str:
    """Return the name of a distribution normalized as in PEP 503, so that two spellings become equal."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def canonical(distribution: str) -> str:
    """Return the normalized name of a distribution without its prefix."""
    return normalized(unprefixed(distribution))


def installed() -> list[Candidate]:
    """Return the plugins of all installed distributions without the core's own, sorted by distribution and name.

    Of a distribution that was left beside the one that has its new name, what both have is returned once.
    """
    found = [candidate for candidate in _candidates() if candidate.target != CORE_TARGET]
    # The new name comes last, hence stays.
    found.sort(key=lambda candidate: unprefixed(candidate.distribution) != candidate.distribution)
    once = {(canonical(one.distribution), one.name, one.target): one for one in found}
    return sorted(once.values(), key=lambda candidate: (canonical(candidate.distribution), candidate.name))


def _candidates() -> Iterator[Candidate]:
    """Yield the plugins, and for each malformed line a candidate whose ``load`` raises an error.

    ``importlib.metadata.entry_points`` is not used: one malformed file of any distribution makes it fail entirely.
    """
    names = set()
    for distribution in importlib.metadata.distributions():
        lines = entry_lines(distribution)
        if not lines:
            continue
        name, version, requires = metadata_of(distribution)
        if normalized(name) in names:  # Shadowed by one earlier on sys.path.
            continue
        names.add(normalized(name))
        for line in lines:
            left, _, right = map(str.strip, line.partition("="))
            entry = importlib.metadata.EntryPoint(left, right, PROJECT)
            if match := entry.pattern.match(right):
                target = ":".join(part for part in (match["module"], match["attr"]) if part)
                yield Candidate(left, target, name, version, entry.load, requires)
            else:
                yield Candidate(left, "", name, version, partial(_malformed, line))


def entry_lines(distribution: importlib.metadata.Distribution) -> list[str]:
    """Return the lines of the section ``[fusionkit]`` of ``entry_points.txt``; of an unreadable file, the error."""
    try:
        text = distribution.read_text("entry_points.txt") or ""
    except (OSError, ValueError) as error:
        return [error_message(error)]
    return list(_lines(text)) if _SECTION.search(text) else []


def _lines(text: str) -> Iterator[str]:
    own = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            own = _SECTION.match(line) is not None
        elif own and line and not line.startswith(("#", ";")):
            yield line


def metadata_of(distribution: importlib.metadata.Distribution) -> tuple[str, str | None, tuple[str, ...]]:
    """Return name ("unknown" if the metadata are missing or unreadable), version and requirements."""
    try:
        text, requires = distribution.read_text("METADATA"), None
        if text is None:  # An egg-info folder has the metadata in other files.
            text, requires = distribution.read_text("PKG-INFO") or "", distribution.requires
    except (OSError, ValueError):
        text, requires = "", None
    # Faster than ``distribution.metadata``, which also parses the description, often hundreds of lines.
    headers = message_from_string(text.partition("\n\n")[0])
    found = requires or headers.get_all("Requires-Dist") or ()
    return headers.get("Name", "unknown"), headers.get("Version"), tuple(found)


def _malformed(line: str) -> NoReturn:
    raise ValueError(f"its entry_points.txt should have lines of the form name = module; found {line!r}")


def follow_path_files() -> None:
    """Append the folders in ``.pth`` files to ``sys.path``, for editable installations made since the process started.

    Lines with code are not run.
    """
    sites = site.getsitepackages() + ([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])
    for file in (file for folder in sites if folder in sys.path for file in sorted(Path(folder).glob("*.pth"))):
        with suppress(OSError, UnicodeDecodeError):
            for line in map(str.strip, file.read_text(encoding="utf-8").splitlines()):
                path = str(file.parent / line)
                code_or_comment = line.startswith(("#", "import ", "import\t"))
                if line and not code_or_comment and path not in sys.path and os.path.isdir(path):
                    sys.path.append(path)


def disabled(candidate: Candidate) -> str | None:
    """Return why the environment variable FUSIONKIT_PLUGINS disables a plugin, None if it does not."""
    allowed = os.environ.get(ALLOW)
    if allowed is None or canonical(candidate.distribution) in {canonical(name.strip()) for name in allowed.split(",")}:
        return None
    return f"{ALLOW} should name {candidate.distribution}; found {allowed!r}"


def incompatible(candidate: Candidate, running: str) -> str | None:
    """Return why a plugin cannot be used with fusionkit ``running``, None if it can or has no requirement.

    A version is accepted if it or its base version meets the requirement: 0.2.0rc1 is accepted for ``>=0.2``.
    """
    reasons = (_unmet(line, running) for line in candidate.requires if _ON_FUSIONKIT.match(line))
    return next((reason for reason in reasons if reason), None)


def renamed(requirement: str) -> str | None:
    """Return a requirement on fusionkit by the name that it had before with the new name; None for any other."""
    match = _ON_FUSIONKIT.match(requirement)
    return f"{DISTRIBUTION}{requirement[match.end() :]}" if match and not match["prefix"] else None


def outdated(candidate: Candidate) -> list[str]:
    """Return a sentence for each requirement of a plugin that should be renamed."""
    pairs = [(line, renamed(line)) for line in candidate.requires]
    should = "which pip takes for another project: write"
    return [f"it requires {line!r}, {should} {new!r} in its pyproject.toml" for line, new in pairs if new]


@cache
def _unmet(line: str, running: str) -> str | None:
    from packaging import markers, requirements, version  # Slow to import; needed where a plugin is installed.

    try:
        requirement = requirements.Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            return None
    except RecursionError:
        return f"its requirement on fusionkit should be short; found one of {len(line)} characters"
    except (requirements.InvalidRequirement, markers.UndefinedComparison, markers.UndefinedEnvironmentName) as error:
        return f"its requirement on fusionkit should follow PEP 508; found {line!r} ({error_message(error)})"
    accepted = (running, version.Version(running).base_version)
    if any(requirement.specifier.contains(candidate, prereleases=True) for candidate in accepted):
        return None
    return f"it requires {line!r}; found fusionkit {running}"
