"""The scripts of docs/ and .ci/ that make or check the pages."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def page_script(name: str, folder: str = "docs") -> ModuleType:
    """Return the module <folder>/<name>.py of the repository."""
    spec = spec_from_file_location(name, Path(__file__).parents[1] / f"{folder}/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)  # Its dataclasses look for it there.
    spec.loader.exec_module(module)
    return module
