"""The answers to the template's questions: the names in a new package, derived from its directory and operator."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path

from packaging.version import Version

import fusionkit
from fusionkit import registry
from fusionkit._util.distribution import DISTRIBUTION
from fusionkit.errors import ConfigError
from fusionkit.hookspecs import PROJECT
from fusionkit.registry import Operator
from fusionkit.registry.catalogue import words
from fusionkit.registry.discovery import canonical
from fusionkit.registry.loading import NAME

NAME_OF_DISTRIBUTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
#: Names of the other module of the package, and of its folder for configs if there is one.
TAKEN = ("plugin", "conf")
#: Names that the operator's module imports, which its class cannot have.
IMPORTED = ("Any", "FusionOptions", "Iterable", "Mapping", "Sequence", "Tensor", "Unpack")
#: Hydra reads these as values: `fusion=null` selects nothing.
VALUES = ("null", "true", "false", "inf", "nan")


@dataclass(frozen=True)
class Answers:
    """The answers to the questions of ``template/copier.yml``.

    Attributes:
        kind: fusion or fabrication.
        name: registered name of the operator.
        distribution: name of the distribution and of the directory.
        package: name of the Python package.
        module: name of the module in it that contains the class.
        class_name: name of the class, ``name`` in camel case.
        requires: requirement on fusionkit that the running version meets.
        parameters: whether the fusion has parameters and an option.
    """

    kind: Operator
    name: str
    distribution: str
    package: str
    module: str
    class_name: str
    requires: str
    parameters: bool = False

    @classmethod
    def of(cls, directory: Path, kind: Operator, name: str, *, parameters: bool = False) -> Answers:
        """Return the answers for a package in ``directory`` with the operator ``name``.

        Raises:
            ConfigError: a name is invalid or taken.
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
            parameters=parameters,
        )


def requirement(version: str) -> str:
    """Return a requirement that ``version`` of fusionkit and all later ones meet: its minor release or newer."""
    running = Version(version)
    minor = f"{running.major}.{running.minor}"
    return f"{DISTRIBUTION}>={minor if running >= Version(minor) else running.public}"


def _package(distribution: str) -> str:
    """Return the name of the Python package for a distribution, or raise a ``ConfigError``."""
    package = re.sub(r"[-_.]+", "_", distribution).lower()
    if not NAME_OF_DISTRIBUTION.fullmatch(distribution) or not package.isidentifier() or iskeyword(package):
        raise ConfigError(
            "the name of the directory, which is that of the distribution, should start with a letter, contain only "
            f"letters, digits, -, _ and ., and not be a keyword of Python; found {distribution!r}."
        )
    taken = PROJECT if canonical(distribution) == PROJECT else package
    if taken in sys.stdlib_module_names or taken in ("tests", PROJECT) or _foreign(taken):
        raise ConfigError(
            f"the name of the directory should make a new name for the package; found {distribution!r}, "
            f"and a module {taken} exists."
        )
    return package


def _foreign(package: str) -> bool:
    """Whether a module of this name is installed that does not belong to a plugin."""
    if any(record.target.partition(":")[0].split(".")[0] == package for record in registry.records()):
        return False  # Presumably an earlier version of the same package.
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return True


def _check_name(kind: Operator, name: str, distribution: str) -> None:
    if not NAME.fullmatch(name) or name in VALUES:
        should = f"match {NAME.pattern}, and be none of {', '.join(VALUES)}"
        raise ConfigError(f"the name of the new {kind} should {should}; found {name!r}.")
    for record in registry.records():
        own = canonical(record.distribution) == canonical(distribution)
        if name in (record.name, *record.aliases) and not own:
            found = f"{name!r}, a {words(record.kind)} of {record.distribution}"
            raise ConfigError(f"the name of the new {kind} should be free; found {found}.")
