"""The name under which pip knows this project, its version, and the names that its distributions had before."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

#: On PyPI ``fusionkit``, the name of the package and of the command, belongs to another project.
DISTRIBUTION = "tensor-fusionkit"

_PREFIX = re.compile(r"tensor[-_.]+(?=fusionkit(?:[-_./]|$))", re.IGNORECASE)


def version() -> str:
    """Return the running version, also of a source tree that is not installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        import tomllib  # Not needed where the project is installed.

        try:
            project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
            return str(project["project"]["version"])
        except FileNotFoundError:
            return "0.0.0"


def unprefixed(name: str) -> str:
    """Return the name of a distribution, or a qualified name, without the prefix that it did not have up to 0.1.

    ``tensor-fusionkit-mlflow`` becomes ``fusionkit-mlflow``; other names, such as ``tensor-train``, remain.
    """
    match = _PREFIX.match(name)
    return name[match.end() :] if match else name


def install_command(extra: str) -> str:
    """Return the command that installs an extra of this project."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"
