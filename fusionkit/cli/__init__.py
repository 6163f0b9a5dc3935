"""The ``fusionkit`` command; each command is a module of this package."""

from fusionkit.cli.commands import main

__all__ = ["main"]
