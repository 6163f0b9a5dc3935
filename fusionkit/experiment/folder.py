"""A folder of ``.npy`` files, one per array: checked by their headers before anything is read, and never unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from fusionkit._util.files import content_digest, npy_files
from fusionkit._util.text import listed
from fusionkit.config.options import FileOptions, FolderOptions
from fusionkit.errors import FusionError
from fusionkit.experiment.npz import arrays_source, check_views, pop_array, pop_roles, views_source
from fusionkit.experiment.source import Source
from fusionkit.experiment.stored import StoredArray, StoredView, stored_array

#: Files beside the arrays that need no mention.
_COMMENTS = (".*", "README*", "*.json", "*.txt", "*.md")


def read_folder(options: FolderOptions) -> Source:
    """Read and check a folder, whose arrays are those of a ``.npz`` file in the order of their names.

    Where the files of the views, those of ``test_path`` included, are greater than ``memory_gb``, the views are
    ``StoredView``; labels, roles and mask are always read.

    Args:
        options: of the group ``data``.

    Raises:
        FusionError: a folder that cannot be used; the message says which array and why.
    """
    path = Path(options.path)
    headers = _headers(path)
    mask = pop_array(path, headers, "mask").whole() if options.missing == "mask" else None
    views = _views(path, headers)
    size = sum(view.nbytes for view in views.values())
    if options.test_path is not None:
        test = Path(options.test_path)
        size += sum(view.nbytes for name, view in _headers(test).items() if name in views)
    notes = _ignored(path)
    if stored := size > options.memory_gb * 1e9:
        more = f"more than data.memory_gb={options.memory_gb:g}"
        notes.append(f"The views take {size / 1e9:.3g} GB, {more}: they stay in their files and are streamed.")
    arrays: dict[str, Any] = {
        name: StoredView((array,)) if stored and name in views else array.whole() for name, array in headers.items()
    }
    source = arrays_source(path, _digest(path), arrays, mask)
    return replace(source, notes=[*source.notes, *notes])


def read_stored(options: FileOptions, names: Sequence[str], labelled: bool = False) -> Source:
    """Return what ``read_views`` does, for a folder, but leave views (``StoredView``) and ids in their files.

    Raises:
        FusionError: as ``read_folder``.
    """
    path = Path(options.path)
    headers: dict[str, Any] = _headers(path)
    mask = pop_array(path, headers, "mask").whole() if options.missing == "mask" else None
    label = pop_array(path, headers, "label").whole() if labelled else headers.pop("label", None)
    source = views_source(path, "", headers, names, mask, label if labelled else None)
    return replace(source, views={name: StoredView((view,)) for name, view in source.views.items()})


def _headers(path: Path) -> dict[str, StoredArray]:
    """Return all arrays, unread, in the order of their names."""
    try:
        files = npy_files(path)
    except OSError as error:
        raise FusionError(f"The data should be a folder of .npy files; found {path}: {error.strerror}.") from None
    for name in files:
        if name.encode(errors="replace").decode() != name:  # No record could hold half of a surrogate pair.
            raise FusionError(f"The files of {path} should have names in UTF-8; found {name!r}.")
    return {name: stored_array(file) for name, file in files.items()}


def _views(path: Path, headers: dict[str, StoredArray]) -> dict[str, StoredArray]:
    """Return those that are views."""
    views = dict(headers)
    pop_array(path, views, "label")
    pop_roles(views)
    return check_views(path, views)


def _digest(path: Path) -> str:
    try:
        return content_digest(path)
    except OSError as error:  # As of a file that was removed.
        raise FusionError(f"{path} should stay readable; found {error.strerror}.") from error


def _ignored(path: Path) -> list[str]:
    """Return a note about files that a user may take for arrays, as a list of one or none."""
    names = sorted(one.name for one in path.iterdir() if one.suffix != ".npy")
    left = [name for name in names if not any(fnmatch(name, pattern) for pattern in _COMMENTS)]
    return [f"Ignored in {path}, because they do not end in .npy: {listed(left)}."] if left else []
