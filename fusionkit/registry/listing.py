"""Lets ``fusionkit.fusions`` be two things: the package of the operators, and the public function that lists all names.

Importing a submodule sets it as an attribute of its parent, so a function of the same name would be lost as soon as the
first operator is imported.  Instead the package itself can be called.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


class _Listing(ModuleType):
    """A package that can be called: it returns the sorted names that the function of its name in the registry gives."""

    def __call__(self) -> list[str]:
        """Return the names of all operators of this kind on this machine, sorted.  Imports none of them."""
        registry = importlib.import_module("fusionkit.registry")
        names: list[str] = getattr(registry, self.__name__.rpartition(".")[2])()
        return names


def make_callable(package: str) -> None:
    """Turn the imported ``package`` into a ``_Listing``."""
    sys.modules[package].__class__ = _Listing
