"""A plugin that is an object."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fusionkit import hookimpl


def hooks(**offers: Any) -> SimpleNamespace:
    """Return a plugin object with these fusions."""
    return SimpleNamespace(__name__="local_pkg.plugin", fusionkit_fusions=hookimpl(lambda: offers))
