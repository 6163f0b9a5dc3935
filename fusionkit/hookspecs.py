"""The six hooks of a plugin, all optional.

A plugin is a small module that an installed distribution names in the entry-point group ``fusionkit``::

    [project.entry-points.fusionkit]
    gram = "fusionkit_gram.plugin"

and that implements at least one of the hooks below::

    import fusionkit

    @fusionkit.hookimpl
    def fusionkit_fusions():
        return {"gram": "fusionkit_gram.gram:Gram"}

The module is imported whenever operators are listed, so it should import neither torch nor the operators: a target
given as a string is imported when it is used.  Later releases may add arguments to hooks, but never remove one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy

__all__ = [
    "PROJECT",
    "DatasetSpec",
    "Spec",
    "fusionkit_checks",
    "fusionkit_conf",
    "fusionkit_datasets",
    "fusionkit_fabrications",
    "fusionkit_fusions",
    "fusionkit_run_finished",
    "hookimpl",
]

PROJECT = "fusionkit"

hookimpl = pluggy.HookimplMarker(PROJECT)
hookspec = pluggy.HookspecMarker(PROJECT)


@dataclass(frozen=True)
class Spec:
    """A registered fusion or fabrication: its class, and what is known about it before that is imported.

    Attributes:
        target: ``"package.module:Class"``, imported on first use; or the class itself.
        aliases: other names.
        summary: one line for ``fusionkit list``.
        deprecated: what to use instead, a name or a sentence; using the name warns once.
        removed: what to use instead, a name or a sentence; using the name is an error, and ``target`` may be ``""``.
    """

    target: str | type
    aliases: tuple[str, ...] = ()
    summary: str = ""
    deprecated: str | None = None
    removed: str | None = None

    def __post_init__(self) -> None:
        _freeze_aliases(self)


@dataclass(frozen=True)
class DatasetSpec:
    """A registered data set: the function that reads it, and what is known about it before it is read.

    Attributes:
        target: ``"package.module:function"``, imported on first use; or the function itself.  It is called with
            ``data.path``, a text or None, and returns a dict of the arrays that an ``.npz`` file would hold: ``label``,
            the views in their order, and optionally ``split``, ``group`` and the like; or the path of such a file.  It
            raises a ``FusionError`` that says what to install, or which file to give, if the data are not there.
        task: what the label is: classification, multilabel or regression.
        licence: of the data.
        citation: who collected the data, and where they were published.
        origin: where the data come from, and how to get them.
        summary: one line for ``fusionkit list``.
        aliases: other names.
        deprecated: what to use instead, a name or a sentence; using the name warns once.
        removed: what to use instead, a name or a sentence; using the name is an error, and ``target`` may be ``""``.
    """

    target: str | Callable[..., Any]
    task: str = "classification"
    licence: str = ""
    citation: str = ""
    origin: str = ""
    summary: str = ""
    aliases: tuple[str, ...] = ()
    deprecated: str | None = None
    removed: str | None = None

    def __post_init__(self) -> None:
        _freeze_aliases(self)


def _freeze_aliases(spec: Spec | DatasetSpec) -> None:
    """Make a tuple of the aliases of a spec, which may be a list."""
    aliases: object = spec.aliases
    if not isinstance(aliases, tuple | list):  # A common mistake: ("sum") is a string.
        raise TypeError(f"the aliases of a {type(spec).__name__} should be a tuple of names; found {aliases!r}")
    object.__setattr__(spec, "aliases", tuple(aliases))


@hookspec
def fusionkit_fusions() -> Mapping[str, str | type | Spec]:  # type: ignore[empty-body]
    """Return the fusion operators: name -> ``"package.module:Class"``, the class, or a ``Spec``.

    A name matches ``[a-z][a-z0-9_]*``.  The name ``<distribution>/<name>`` always works; the short name works unless
    the core or another plugin has it too.
    """


@hookspec
def fusionkit_fabrications() -> Mapping[str, str | type | Spec]:  # type: ignore[empty-body]
    """Return the fabrications, in the same form as ``fusionkit_fusions``."""


@hookspec
def fusionkit_datasets() -> Mapping[str, str | Callable[..., Any] | DatasetSpec]:  # type: ignore[empty-body]
    """Return the data sets: name -> ``"package.module:function"``, the function, or a ``DatasetSpec``.

    ``fusionkit run data=NAME`` reads one.  Names follow the rules of ``fusionkit_fusions``; ``npz``, ``table`` and
    ``folder`` are taken.
    """


@hookspec
def fusionkit_conf() -> Sequence[str]:  # type: ignore[empty-body]
    """Return the Hydra config folders of the plugin as ``"pkg://package.folder"``."""


@hookspec
def fusionkit_checks() -> Sequence[Callable[..., Any]]:  # type: ignore[empty-body]
    """Return further checks for ``fusionkit check``: functions called ``check_<name>`` that take a subject.

    Called by ``fusionkit check`` and ``fusionkit plugins``, not when operators are listed, so it may import torch.
    """


@hookspec
def fusionkit_run_finished(result: dict[str, Any], run_dir: Path | None) -> None:
    """Process the result of a completed or failed run, for instance send it to a tracker.

    Args:
        result: the contents of ``result.json``.
        run_dir: the directory of that file and the other files of the run.
    """
