"""What the template is asked: the names of a new package, derived from its directory and its operator, and checked."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path

from packaging.version import Version

import fusionkit
from fusionkit import registry
from fusionkit.errors import ConfigError
from fusionkit.registry import Kind
from fusionkit.registry.discovery import canonical
from fusionkit.registry.loading import NAME

DISTRIBUTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
#: Files and folders beside the operator's module, whose names it cannot have.
TAKEN = ("plugin", "conf")
#: What the operator's module imports, hence cannot be called itself.
IMPORTED = ("Any", "Iterable", "Mapping", "Sequence", "Tensor")
#: Hydra reads these as values, so that `fusion=null` would select nothing.
VALUES = ("null", "true", "false", "inf", "nan")


@dataclass(frozen=True)
class Answers:
    """The answers to the questions of ``template/copier.yml``.

    Attributes:
        kind: fusion or fabrication.
        name: in the registry.
        distribution: name of the distribution, that of the directory.
        package: of the Python package.
        module: in it, with the class.
        class_name: the name in camel case.
        requires: the requirement on fusionkit, which admits the running version.
    """

    kind: Kind
    name: str
    distribution: str
    package: str
    module: str
    class_name: str
    requires: str

    @classmethod
    def of(cls, directory: Path, kind: Kind, name: str) -> Answers:
        """Return the answers for a package in ``directory`` with the operator ``name``.

        Raises:
            ConfigError: one of the names is not possible, or taken.
        """
        package = _package(directory.name)
        _check_name(kind, name, directory.name)
        camel = "".join(part.capitalize() for part in name.split("_"))
        return cls(
            kind=kind,
            name=name,
            distribution=directory.name,
            package=package,
            module=f"{name}_{kind}" if name in TAKEN or iskeyword(name) else name,
            class_name=f"{camel}{kind.capitalize()}" if iskeyword(camel) or camel in IMPORTED else camel,
            requires=requirement(fusionkit.__version__),
        )

    def to_dict(self) -> dict[str, str]:
        """Return the answers as copier takes them."""
        return asdict(self)


def requirement(version: str) -> str:
    """Return a requirement on fusionkit that ``version`` meets: from its minor release on."""
    running = Version(version)
    minor = f"{running.major}.{running.minor}"
    return f"fusionkit>={minor if running >= Version(minor) else running.public}"


def _package(distribution: str) -> str:
    """Return the name of the package of a distribution."""
    package = re.sub(r"[-_.]+", "_", distribution).lower()
    if not DISTRIBUTION.fullmatch(distribution) or not package.isidentifier() or iskeyword(package):
        raise ConfigError(
            "the name of the directory, which is that of the distribution, should start with a letter, hold letters, "
            f"digits and -, _ or . only, and be no keyword of Python; found {distribution!r}."
        )
    if package in sys.stdlib_module_names or package in ("tests", "fusionkit") or _foreign(package):
        raise ConfigError(
            f"the name of the directory should give the package a name of its own; found {distribution!r}, "
            f"and a module {package} exists."
        )
    return package


def _foreign(package: str) -> bool:
    """Whether a module of this name is installed, by another distribution than one that is a plugin."""
    if any(record.target.partition(":")[0].split(".")[0] == package for record in registry.records()):
        return False  # An earlier version of this very package.
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return True


def _check_name(kind: Kind, name: str, distribution: str) -> None:
    if not NAME.fullmatch(name) or name in VALUES:
        raise ConfigError(
            f"the name of the new {kind} should match {NAME.pattern}, and be none of {', '.join(VALUES)}; "
            f"found {name!r}."
        )
    for record in registry.records():
        own = canonical(record.distribution) == canonical(distribution)
        if name in (record.name, *record.aliases) and not own:
            raise ConfigError(
                f"the name of the new {kind} should be free; found {name!r}, a {record.kind} of {record.distribution}."
            )
