"""Makes the package ``fusionkit.fusions`` callable, so that ``fusionkit.fusions()`` can list all names.

A function ``fusionkit.fusions`` would be overwritten when the first operator is imported: importing a submodule sets it
as an attribute of its parent package.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


class _Listing(ModuleType):
    """A package that can be called: it calls the function of the same name in ``fusionkit.registry``."""

    def __call__(self) -> list[str]:
        """Return the names of all operators of this kind on this machine, sorted.  Imports none of them."""
        registry = importlib.import_module("fusionkit.registry")
        names: list[str] = getattr(registry, self.__name__.rpartition(".")[2])()
        return names


def make_callable(package: str) -> None:
    """Make the imported ``package`` a ``_Listing``."""
    sys.modules[package].__class__ = _Listing
