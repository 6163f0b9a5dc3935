"""Multi-view data for a run: a set that is at hand or one's own ``.npz`` file, checked, and its stratified split."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fusionkit._util.text import printable
from fusionkit.errors import ConfigError, DimsError, FusionError, nearest
from fusionkit.experiment.datasets import DATASETS

__all__ = ["EMBEDDED", "Dataset", "load_data", "read_npz", "split"]

#: The sets that ship with the package: name -> file.
EMBEDDED: dict[str, Path] = {"mfeat": Path(__file__).parents[1] / "data" / "mfeat.npz"}


@dataclass(frozen=True)
class Dataset:
    """k views of the same m rows, and their classes.

    Attributes:
        name: ``mfeat``, ``digits``, ``npz``, ...
        path: the file they came from; only a name for a set of scikit-learn's.
        digest: SHA-256 of that file, or of the arrays.
        views: name -> array (m, n_i), in the order of the file.
        target: (m,) indices into ``classes``.
        classes: the label values, sorted; plain ints, floats, bools or strings.
    """

    name: str
    path: Path
    digest: str
    views: dict[str, npt.NDArray[Any]]
    target: npt.NDArray[np.int64]
    classes: list[int | float | bool | str]

    @property
    def dims(self) -> list[int]:
        """The widths of the views."""
        return [view.shape[1] for view in self.views.values()]

    @property
    def label(self) -> str:
        """What people read: the name of the set, or of one's own file."""
        return printable(self.path.name) if self.name == "npz" else self.name

    @property
    def rows(self) -> int:
        """The number of rows m."""
        return len(self.target)

    def describe(self) -> dict[str, Any]:
        """Return what a result records about its data, in plain JSON types."""
        return {
            "name": self.name,
            "label": self.label,
            "digest": self.digest,
            "rows": self.rows,
            "views": list(self.views),
            "classes": self.classes,
        }


def load_data(node: Mapping[str, Any], dims: Any = None) -> Dataset:
    """Read the data that a node of ``conf/data`` selects.

    Args:
        node: ``name`` (``mfeat``, ``digits``, ``breast_cancer`` or ``npz``) and for ``npz`` the ``path`` of the file.
        dims: the widths that the rest of the config counts on; None for whatever the file has.

    Raises:
        ConfigError: an unknown name, or no path.
        DimsError: the file has other widths than ``dims``.
        FusionError: a file that is missing or cannot be used; the message says which array and why.
    """
    name = node.get("name")
    if name in EMBEDDED:
        data = read_npz(EMBEDDED[name], name=str(name))
    elif name in DATASETS:
        arrays = DATASETS[str(name)]()
        data = _dataset(str(name), Path(str(name)), _arrays_digest(arrays), arrays)
    elif name == "npz":
        path = node.get("path")
        if not isinstance(path, str | Path) or not str(path):
            raise ConfigError(f"data.path should be the .npz file to train on; found {path!r}.")
        data = read_npz(Path(path))
    else:
        known = [*EMBEDDED, *DATASETS, "npz"]
        raise ConfigError(f"data.name should be one of {', '.join(known)}; found {name!r}.{nearest(str(name), known)}")
    for key, given in (("data.dims", node.get("dims")), ("dims", dims)):
        if given is not None and list(given) != data.dims:
            raise DimsError(
                f"{key} should be {data.dims}, the widths of the views in {data.path.name}; found {list(given)}."
            )
    return data


def read_npz(path: Path, name: str = "npz") -> Dataset:
    """Read and check a ``.npz`` file: every array but ``label`` is a view (m, n_i); nothing is unpickled.

    Raises:
        FusionError: not such a file; the message says which array and why.
    """
    arrays, digest = _read(path)
    return _dataset(name, path, digest, arrays)


def _dataset(name: str, path: Path, digest: str, arrays: dict[str, npt.NDArray[Any]]) -> Dataset:
    if "label" not in arrays:
        hint = nearest("label", arrays) if arrays else ""
        found = ", ".join(map(repr, arrays)) or "none"
        raise FusionError(f"{path} should hold an array 'label' with a class per row; found the arrays {found}.{hint}")
    label = arrays.pop("label")
    if not arrays:
        raise FusionError(f"{path} should hold at least one view besides 'label'; found none.")
    views = {key: _check_view(path, key, array) for key, array in arrays.items()}
    first = next(iter(views))
    rows = len(views[first])
    for key, view in views.items():
        if len(view) != rows:
            raise FusionError(
                f"View {key!r} of {path} should have {rows} rows, as view {first!r} has; found {len(view)}."
            )
    target, classes = _check_label(path, label, rows)
    return Dataset(name, path, digest, views, target, classes)


def _arrays_digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def split(
    data: Dataset, *, seed: int, test_size: float = 0.2, fold: int | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows of the training and of the test part, stratified by class.

    Args:
        data: whose rows.
        seed: of the shuffling.
        test_size: the share of the test part.
        fold: which of the ``round(1 / test_size)`` folds is the test part; the folds of one seed do not overlap.
            None draws one test part.

    Raises:
        ConfigError: a ``test_size`` that is no number between 0 and 1; no such fold.
        FusionError: a class, or a part, with too few rows to hold every class.
    """
    if isinstance(test_size, bool) or not isinstance(test_size, int | float) or not 0 < test_size < 1:
        raise ConfigError(f"data.test_size should be a number above 0 and below 1; found {test_size!r}.")
    counts = np.bincount(data.target, minlength=len(data.classes))
    least = int(counts.argmin())
    if counts[least] < 2:
        raise FusionError(
            f"Every class of {data.path} should have at least 2 rows, for the stratified split; "
            f"found {counts[least]} of class {data.classes[least]!r}."
        )
    test_rows = int(np.ceil(test_size * data.rows))
    for part, rows in (("test", test_rows), ("training", data.rows - test_rows)):
        if rows < len(data.classes):
            raise FusionError(
                f"The {part} part of {data.path} should have at least {len(data.classes)} rows, one per class; "
                f"found {rows} of {data.rows} rows at test_size {test_size}."
            )
    if fold is not None:
        return _fold(data, seed, round(1 / test_size), fold, int(counts[least]), least)
    return _stratified(data.target, test_rows, seed)


def _stratified(
    target: npt.NDArray[np.int64], test_rows: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows that scikit-learn's ``train_test_split`` draws; its import takes longer than a short run."""
    random = np.random.RandomState(seed)
    counts = np.bincount(target)
    members = np.split(np.argsort(target, kind="stable"), np.cumsum(counts)[:-1])
    in_training = _shares(counts, len(target) - test_rows, random)
    in_test = _shares(counts - in_training, test_rows, random)
    train, test = [], []
    for rows, first, second in zip(members, in_training, in_test, strict=True):
        shuffled = rows[random.permutation(len(rows))]
        train.append(shuffled[:first])
        test.append(shuffled[first : first + second])
    return random.permutation(np.concatenate(train)), random.permutation(np.concatenate(test))


def _shares(counts: npt.NDArray[np.int64], total: int, random: np.random.RandomState) -> npt.NDArray[np.int64]:
    """Return ``total`` rows divided among classes in proportion to ``counts``; equal remainders draw lots."""
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    remainders = exact - shares
    missing = int(total - shares.sum())
    for remainder in np.unique(remainders)[::-1]:
        if missing <= 0:
            break
        (alike,) = np.nonzero(remainders == remainder)
        drawn = random.choice(alike, size=min(len(alike), missing), replace=False)
        shares[drawn] += 1
        missing -= len(drawn)
    return np.asarray(shares, dtype=np.int64)


def _fold(
    data: Dataset, seed: int, folds: int, fold: int, rows: int, least: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the parts of one fold; ``rows`` is the size of the smallest class, of index ``least``."""
    from sklearn.model_selection import StratifiedKFold

    if folds < 2:
        raise ConfigError("data.test_size should be at most 2/3 where data.fold is given, for two folds or more.")
    if type(fold) is not int or not 0 <= fold < folds:
        raise ConfigError(f"data.fold should be null or an integer from 0 to {folds - 1}; found {fold!r}.")
    if rows < folds:
        raise FusionError(
            f"Every class of {data.path} should have at least {folds} rows, one per fold; "
            f"found {rows} of class {data.classes[least]!r}."
        )
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(data.target, data.target)
    train, test = list(parts)[fold]
    return np.asarray(train, dtype=np.int64), np.asarray(test, dtype=np.int64)


def _read(path: Path) -> tuple[dict[str, npt.NDArray[Any]], str]:
    """Return the arrays of the file in its order, and the file's SHA-256."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            if not zipfile.is_zipfile(file):
                raise FusionError(f"{path} should be a .npz file, as numpy.savez writes it; found another format.")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {key: _array(path, key, archive) for key in archive.files}, digest
    except FileNotFoundError:
        raise FusionError(f"The data file should exist; found no file {path}.") from None
    except IsADirectoryError:
        raise FusionError(f"The data file should be a .npz file; found the directory {path}.") from None
    except PermissionError:
        raise FusionError(f"The data file should be readable; found no permission to read {path}.") from None
    except FusionError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, MemoryError, NotImplementedError) as error:
        raise FusionError(f"{path} should be a complete .npz file; found it damaged ({error}).") from error


def _array(path: Path, key: str, archive: Mapping[str, Any]) -> npt.NDArray[Any]:
    try:
        array = archive[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        what = "whole numbers or strings, a class per row" if key == "label" else "numbers"
        hint = "  label.astype(str) makes strings of them." if key == "label" else ""
        raise FusionError(
            f"The array {key!r} of {path} should hold {what}; found Python objects, "
            f"which are not read because that could run code.{hint}"
        ) from None
    if not isinstance(array, np.ndarray):
        raise FusionError(f"{path} should hold arrays only; found {key!r}, which is none.")
    return array


def _check_view(path: Path, key: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind not in "fiub":
        raise FusionError(f"View {key!r} of {path} should hold real numbers; found dtype {array.dtype}.")
    if array.ndim != 2:
        raise FusionError(f"View {key!r} of {path} should have the shape (rows, width); found {array.shape}.")
    if 0 in array.shape:
        raise FusionError(
            f"View {key!r} of {path} should have at least one row and one column; found the shape {array.shape}."
        )
    if array.dtype.kind == "f":
        nans, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        if nans or infinite:
            found = " and ".join(f"{count} {what}" for count, what in ((nans, "NaN"), (infinite, "infinite")) if count)
            raise FusionError(f"View {key!r} of {path} should be finite; found {found} among {array.size} values.")
    # PyTorch takes native byte order only, and no long doubles.
    return array.astype(np.float64 if array.dtype.itemsize > 8 else array.dtype.newbyteorder("="), copy=False)


def _check_label(
    path: Path, label: npt.NDArray[Any], rows: int
) -> tuple[npt.NDArray[np.int64], list[int | float | bool | str]]:
    """Return the labels as indices into the sorted classes, and the classes as plain values."""
    if label.dtype.kind not in "fiubUS":
        raise FusionError(
            f"The array 'label' of {path} should hold whole numbers or strings, a class per row; "
            f"found dtype {label.dtype}."
        )
    if label.ndim != 1:
        raise FusionError(f"The array 'label' of {path} should have the shape (rows,); found {label.shape}.")
    if len(label) != rows:
        raise FusionError(f"The array 'label' of {path} should have {rows} rows, as the views; found {len(label)}.")
    if label.dtype.kind == "f" and not np.isfinite(label).all():
        raise FusionError(
            f"The array 'label' of {path} should be finite; found {int((~np.isfinite(label)).sum())} NaN or infinite."
        )
    if label.dtype.kind == "S":
        label = np.char.decode(label, "utf-8", "replace")
    if label.dtype.kind == "f":
        label = label.astype(np.float64)
    values, target = np.unique(label, return_inverse=True)
    target = target.astype(np.int64)
    classes: list[int | float | bool | str] = values.tolist()
    broken = [value for value in classes if isinstance(value, float) and not value.is_integer()]
    if broken and np.bincount(target).min() < 2:  # A target of a regression.
        raise FusionError(
            f"The array 'label' of {path} should hold classes, as whole numbers or strings, because the task is "
            f"classification only; found {len(broken)} different numbers that are not whole, such as {broken[0]:g}."
        )
    if len(classes) < 2:
        raise FusionError(f"The array 'label' of {path} should hold at least two classes; found only {classes[0]!r}.")
    return target, classes
