"""Where the file of a data set is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fusionkit import FusionError


def located(path: str | None, file: str, places: Iterable[Path], name: str, install: str) -> Path:
    """Return the file of a set.

    Args:
        path: ``data.path``, the file or a folder that has it; None looks into the places.
        file: its name.
        places: folders in which it lies when it is installed.
        name: of the set.
        install: the command that installs it.

    Raises:
        FusionError: it is not there.
    """
    if path is not None:
        found = Path(path, file) if Path(path).is_dir() else Path(path)
        if not found.is_file():
            raise FusionError(f"data.path should be {file}, or the folder that has it; found no file {found}.")
        return found
    places = list(places)
    for place in places:
        if (place / file).is_file():
            return place / file
    should = f"be installed by `{install}`, or data.path be {file} or the folder that has it"
    looked = f" in {', '.join(map(str, places))}" if places else ""
    raise FusionError(f"The data set {name} should {should}; found none{looked}.")


def unreadable(path: Path, what: str, error: Exception) -> FusionError:
    """Return the sentence for a file that a reader gave up on."""
    lines = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return FusionError(f"{path} should be {what}; found one that cannot be read ({said}).")
