"""One line on each name of the registry, also where its plugin gives none: of the docstring, without an import."""

from __future__ import annotations

import ast
import re
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec
from inspect import cleandoc
from pathlib import Path
from textwrap import shorten

from fusionkit.registry.catalogue import Record

__all__ = ["first_sentence", "summary"]

_WIDTH = 100


def summary(record: Record) -> str:
    """Return the summary of a record: its plugin's, else the first sentence of the class's docstring, else nothing.

    The source of the class is found and parsed; nothing of it runs.
    """
    if record.summary:
        return record.summary
    if isinstance(record.spec.target, type):
        return first_sentence(record.spec.target.__doc__)
    module, _, name = record.target.partition(":")
    try:
        nodes: list[ast.stmt] = ast.parse(_source(module).read_bytes()).body
        for part in name.split("."):
            (cls,) = (node for node in nodes if isinstance(node, ast.ClassDef) and node.name == part)
            nodes = cls.body
        return first_sentence(ast.get_docstring(cls))
    except (ImportError, OSError, SyntaxError, ValueError, RecursionError):  # No such file, no such class, not Python.
        return ""


def first_sentence(doc: str | None) -> str:
    """Return the first sentence of a docstring, or what stands before a semicolon, in at most 100 characters."""
    text = " ".join(cleandoc(doc or "").partition("\n\n")[0].replace("`", "").split())
    sentence = re.split(r"(?<=[^\s.][.!?])\s(?![a-z])|;\s", text, maxsplit=1)[0].rstrip(".")
    return shorten(sentence, _WIDTH, placeholder=" ...")


def _source(module: str) -> Path:
    """Return the file of a module; of its parents none but the outermost is asked for, which imports nothing."""
    loaded = sys.modules.get(module)
    top, *rest = module.split(".")
    spec = getattr(loaded, "__spec__", None) or find_spec(top)
    if loaded is None:
        name = top
        for part in rest:
            if spec is None or spec.submodule_search_locations is None:
                break
            name = f"{name}.{part}"
            spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    if spec is None or spec.origin is None or not spec.has_location:
        raise ImportError(module)
    return Path(spec.origin)
