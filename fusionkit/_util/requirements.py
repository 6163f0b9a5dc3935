"""What this project requires, and what of it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement

from fusionkit._util.distribution import DISTRIBUTION


@dataclass(frozen=True)
class Need:
    """A requirement of this project.

    Attributes:
        text: as pip takes it, ``torch>=2.11``.
        name: of the distribution.
        extra: the extra that has it; empty if it is always required.
        found: the version that is installed, None if there is none.
        met: whether that version will do.
    """

    text: str
    name: str
    extra: str
    found: str | None
    met: bool


def needs() -> list[Need]:
    """Return the requirements of this project that apply to this machine, its own extras aside.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    return list(_needs(metadata.distribution(DISTRIBUTION)))


def extras() -> list[str]:
    """Return the extras of this project, with the exception of ``needs``."""
    return metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []


def _needs(project: metadata.Distribution) -> Iterator[Need]:
    for requirement in map(Requirement, project.requires or ()):
        marker, requirement.marker = requirement.marker, None
        for extra in ("", *extras()):
            if requirement.name != DISTRIBUTION and (marker is None or marker.evaluate({"extra": extra})):
                found = None
                with suppress(metadata.PackageNotFoundError):
                    found = metadata.version(requirement.name)
                met = found is not None and requirement.specifier.contains(found, prereleases=True)
                yield Need(str(requirement), requirement.name, extra, found, met)
                break
