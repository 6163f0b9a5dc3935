"""The scripts of docs/ that make parts of the pages."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def page_script(name: str) -> ModuleType:
    """Return the module docs/<name>.py."""
    spec = spec_from_file_location(name, Path(__file__).parents[1] / f"docs/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
