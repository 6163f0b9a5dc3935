"""Multi-view data for a run: a built-in data set or a ``.npz`` file, checked, and its stratified split."""

from __future__ import annotations

import hashlib
import lzma
import math
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fusionkit._util.files import MAX_RATIO, MAX_UNPACKED, size_on_disk
from fusionkit._util.text import printable
from fusionkit.errors import ConfigError, DimsError, FusionError, nearest
from fusionkit.experiment.missing import presence

Rows = npt.NDArray[np.int64]

#: The readers of the headers of arrays of numbers, by magic string.
_HEADERS = {
    np.lib.format.magic(1, 0): np.lib.format.read_array_header_1_0,
    np.lib.format.magic(2, 0): np.lib.format.read_array_header_2_0,
}
#: What reading a damaged file raises; the last three come from an encrypted member and from odd shapes.
_DAMAGES = (
    *(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, MemoryError),
    *(RuntimeError, OverflowError, TypeError),
)
_LABELS = "whole numbers or strings, a class per row"

#: The data sets that ship with the package: name -> file.
EMBEDDED: dict[str, Path] = {"mfeat": Path(__file__).parents[1] / "data" / "mfeat.npz"}


@dataclass(frozen=True)
class Dataset:
    """k views of the same m rows, and their classes.

    Attributes:
        name: ``mfeat``, ``digits``, ``npz``, ...
        path: the file that the arrays came from; for a data set of scikit-learn only its name.
        digest: SHA-256 of that file, or of the arrays.
        views: name -> array (m, n_i), in the order of the file.
        target: (m,) indices into ``classes``.
        classes: the label values, sorted; Python ints, floats, bools or strings.
        mask: (m, k), True where a view of a row is present; None: all are.
        impute: ``mean``: present rows may have some NaN, for which the means of the training part stand.
    """

    name: str
    path: Path
    digest: str
    views: dict[str, npt.NDArray[Any]]
    target: Rows
    classes: list[int | float | bool | str]
    mask: npt.NDArray[np.bool_] | None = None
    impute: str | None = None

    @property
    def dims(self) -> list[int]:
        """The widths of the views."""
        return [view.shape[1] for view in self.views.values()]

    @property
    def label(self) -> str:
        """The name to show: of the data set, or of the ``.npz`` file."""
        return printable(self.path.name) if self.name == "npz" else self.name

    @property
    def rows(self) -> int:
        """The number of rows m."""
        return len(self.target)

    def describe(self) -> dict[str, Any]:
        """Return what ``result.json`` records about its data, in JSON types."""
        described = {
            "name": self.name,
            "label": self.label,
            "digest": self.digest,
            "rows": self.rows,
            "views": list(self.views),
            "classes": self.classes,
        }
        if self.mask is not None:
            absent = dict(zip(self.views, (~self.mask).sum(0).tolist(), strict=True))
            described |= {"missing": absent, "rows_without_views": int((~self.mask.any(1)).sum())}
        return described


def load_data(node: Mapping[str, Any], dims: Any = None) -> Dataset:
    """Read the data that a node of ``conf/data`` selects.

    Args:
        node: checked as ``DataOptions``: ``name``, for ``npz`` the ``path`` of the file, and maybe ``dims``.
        dims: the widths that the rest of the config expects; None for those of the file.

    Raises:
        DimsError: the file has other widths than ``dims``.
        FusionError: a file that is missing or cannot be used; the message says which array and why.
    """
    name = node["name"]
    if name == "npz" or name in EMBEDDED:
        options = {key: node[key] for key in ("missing", "impute") if key in node}
        data = read_npz(EMBEDDED.get(name) or Path(node["path"]), name, **options)
    else:
        from fusionkit.experiment.datasets import DATASETS

        arrays = DATASETS[name]()
        data = _dataset(name, Path(name), _arrays_digest(arrays), arrays)
    for key, given in (("data.dims", node.get("dims")), ("dims", dims)):
        if given is not None and list(given) != data.dims:
            widths = f"{data.dims}, the widths of the views in {data.path.name}"
            raise DimsError(f"{key} should be {widths}; found {list(given)}.")
    return data


def known_widths(node: Mapping[str, Any]) -> list[int] | None:
    """Return the widths of the views in the file of a node of ``conf/data``, from its headers alone.

    None where they are not that easily known, also of a file that cannot be used: ``load_data`` says why.
    """
    path = EMBEDDED.get(node["name"]) or Path(node.get("path") or "")
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with zipfile.ZipFile(path) as archive:
            headers = {member.filename.removesuffix(".npy"): _header(archive, member) for member in archive.infolist()}
    except _DAMAGES:
        return None
    for other in ("label", "mask") if node.get("missing") == "mask" else ("label",):
        headers.pop(other, None)
    shapes = [header[0] for header in headers.values() if header is not None]
    known = len(shapes) == len(headers) and all(len(shape) == 2 and min(shape) > 0 for shape in shapes)
    return [width for _, width in shapes] if known else None


def read_npz(path: Path, name: str = "npz", missing: str = "nan", impute: str | None = None) -> Dataset:
    """Read and check a ``.npz`` file: every array but ``label`` is a view (m, n_i); nothing is unpickled.

    Args:
        path: of the file.
        name: of the data set.
        missing: what says that a view is absent from a row: ``nan``, its numbers, or ``mask``, the array of this name.
        impute: as an attribute of the data set.

    Raises:
        FusionError: a file that cannot be used; the message says which array and why.
    """
    arrays, digest = _read(path)
    if missing == "mask" and "mask" not in arrays:
        found = ", ".join(map(repr, arrays)) or "none"
        should = "contain an array 'mask' (rows, views), which data.missing=mask asks for"
        raise FusionError(f"{path} should {should}; found the arrays {found}.")
    mask = arrays.pop("mask") if missing == "mask" else None
    return _dataset(name, path, digest, arrays, mask, impute)


def _dataset(
    name: str,
    path: Path,
    digest: str,
    arrays: dict[str, npt.NDArray[Any]],
    mask: npt.NDArray[Any] | None = None,
    impute: str | None = None,
) -> Dataset:
    if "label" not in arrays:
        found = (", ".join(map(repr, arrays)) or "none") + "." + nearest("label", arrays)
        raise FusionError(f"{path} should contain an array 'label' with a class per row; found the arrays {found}")
    label = arrays.pop("label")
    if not arrays:
        raise FusionError(f"{path} should contain at least one view besides 'label'; found none.")
    views = {key: _check_view(path, key, array) for key, array in arrays.items()}
    rows = len(next(iter(views.values())))
    for key, view in views.items():
        if len(view) != rows:
            raise FusionError(f"View {key!r} of {path} should have {rows} rows, as the first view; found {len(view)}.")
    names = [f"View {key!r} of {path}" for key in views]
    present = presence(names, list(views.values()), mask, impute, f"The array 'mask' of {path}")
    return Dataset(name, path, digest, views, *_check_label(path, label, rows), present, impute)


def _arrays_digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def split(data: Dataset, *, seed: int, test_size: float = 0.2, fold: int | None = None) -> tuple[Rows, Rows]:
    """Return the rows of the training part and of the test part, stratified by class.

    Args:
        data: the rows to split.
        seed: of the shuffling.
        test_size: the share of the test part, above 0 and below 1.
        fold: which of the ``round(1 / test_size)`` folds is the test part; the folds of one seed do not overlap.
            None draws one test part.

    Raises:
        ConfigError: there is no such fold.
        FusionError: a class has too few rows to be in every part, or a part too few to hold every class.
    """
    folds = round(1 / test_size)
    if fold is not None and folds < 2:
        raise ConfigError("data.test_size should be at most 2/3 where data.fold is given, for two folds or more.")
    if fold is not None and not 0 <= fold < folds:
        raise ConfigError(f"data.fold should be null or an integer from 0 to {folds - 1}; found {fold!r}.")
    counts = np.bincount(data.target)
    smallest, parts = int(counts.argmin()), 2 if fold is None else folds
    if counts[smallest] < parts:
        raise FusionError(
            f"Every class of {data.path} should have at least {parts} rows, one in each part of the split; "
            f"found {counts[smallest]} of class {data.classes[smallest]!r}."
        )
    test_rows = int(np.ceil(test_size * data.rows))
    for part, rows in (("test", test_rows), ("training", data.rows - test_rows)):
        if rows < len(data.classes):
            raise FusionError(
                f"The {part} part of {data.path} should have at least {len(data.classes)} rows, one per class; "
                f"found {rows} of {data.rows} rows at test_size {test_size}."
            )
    if fold is None:
        return _stratified(data.target, test_rows, seed)
    from sklearn.model_selection import StratifiedKFold

    train, test = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(data.target, data.target))[fold]
    return np.asarray(train, dtype=np.int64), np.asarray(test, dtype=np.int64)


def _stratified(target: Rows, test_rows: int, seed: int) -> tuple[Rows, Rows]:
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


def _shares(counts: Rows, total: int, random: np.random.RandomState) -> Rows:
    """Return ``total`` rows divided among classes in proportion to ``counts``; lots decide between equal remainders."""
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


def _read(path: Path) -> tuple[dict[str, npt.NDArray[Any]], str]:
    """Return the arrays of the file in its order, and the file's SHA-256."""
    try:
        if not path.is_dir() and not stat.S_ISREG(path.stat().st_mode):  # Opening a pipe would wait for a writer.
            raise FusionError(f"The data file should be a .npz file; found {path}: a pipe or a device.")
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise FusionError(f"{path} should be a .npz file, as numpy.savez writes it; found another format.")
            with zipfile.ZipFile(file) as members:
                _check_sizes(path, members)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                _check_names(path, archive.files)
                return {key: _array(path, key, archive) for key in archive.files}, digest
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise FusionError(f"The data file should be a .npz file; found {path}: {error.strerror}.") from None
    except FusionError:
        raise
    except _DAMAGES as error:
        raise FusionError(f"{path} should be a complete .npz file; found it damaged ({error}).") from error


def _check_sizes(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse an archive that unpacks to far more than is there, before its arrays are read."""
    unpacked, packed = sum(member.file_size for member in archive.infolist()), size_on_disk(path.stat())
    if unpacked > max(MAX_UNPACKED, MAX_RATIO * packed):
        raise FusionError(
            f"{path} should unpack to at most {MAX_UNPACKED} bytes, or {MAX_RATIO} times its size; "
            f"found {unpacked} bytes in {packed}."
        )
    for member in archive.infolist():
        header = _header(archive, member)
        if header is None:
            continue
        shape, dtype = header
        claimed = math.prod(shape) * dtype.itemsize
        if not dtype.hasobject and claimed > member.file_size:
            found = f"an array of shape {shape}, in {member.file_size}"
            raise FusionError(f"{member.filename!r} of {path} should contain its {claimed} bytes; found {found}.")


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """Return shape and dtype of an array in an archive; None where its header cannot be read."""
    with archive.open(member) as file:
        read = _HEADERS.get(file.read(8))
        if read is None:
            return None
        shape, _, dtype = read(file)
    return shape, dtype


def _check_names(path: Path, names: list[str]) -> None:
    """Refuse arrays of which numpy would read one in place of another: it takes ``a.npy`` for the array ``a``."""
    counts = Counter(names)
    for name, count in counts.items():
        if count > 1 or f"{name}.npy" in counts:
            found = f"{name!r} twice" if count > 1 else f"{name!r} and '{name}.npy'"
            raise FusionError(f"{path} should contain arrays whose names differ, without '.npy'; found {found}.")


def _array(path: Path, key: str, archive: Mapping[str, Any]) -> npt.NDArray[Any]:
    try:
        array = archive[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        what, hint = "numbers", ""
        if key == "label":
            what, hint = _LABELS, "  numpy.unique(label, return_inverse=True)[1] numbers the classes."
        found = "Python objects, which are not read because that could run code"
        raise FusionError(f"The array {key!r} of {path} should contain {what}; found {found}.{hint}") from None
    if not isinstance(array, np.ndarray):
        raise FusionError(f"{path} should contain arrays only; found {key!r}, which is none.")
    return array


def check_unmasked(what: str, values: Any) -> None:
    """Refuse the masked entries of an array, whose data are no values.

    Raises:
        FusionError: there are masked entries.
    """
    if isinstance(values, np.ma.MaskedArray) and (masked := int(np.ma.getmaskarray(values).sum())):
        raise FusionError(f"{what} should have no masked entries; found {masked}.")


def native(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array as PyTorch takes it; a copy where it has a long double, another byte order, or negative strides,
    or is read-only.
    """
    long = array.dtype.kind == "f" and array.dtype.itemsize > 8
    array = np.require(array, np.float64 if long else array.dtype.newbyteorder("="), ["ALIGNED", "WRITEABLE"])
    return array.copy() if min(array.strides, default=0) < 0 else array


def _check_view(path: Path, key: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = f"View {key!r} of {path}"
    if array.dtype.kind not in "fiub":
        raise FusionError(f"{view} should contain real numbers; found dtype {array.dtype}.")
    if array.ndim != 2 or not array.size:
        raise FusionError(f"{view} should have the shape (rows, width), neither of them 0; found {array.shape}.")
    with np.errstate(over="ignore"):  # A long double may become infinite, which is refused later.
        return native(array)


def _check_label(path: Path, label: npt.NDArray[Any], rows: int) -> tuple[Rows, list[int | float | bool | str]]:
    """Return the labels as indices into the sorted classes, and the classes as Python values."""
    what = f"The array 'label' of {path}"
    if label.dtype.kind not in "fiubUS":
        raise FusionError(f"{what} should contain {_LABELS}; found dtype {label.dtype}.")
    if label.shape != (rows,):
        raise FusionError(
            f"{what} should have the shape ({rows},), as the views have {rows} rows; found {label.shape}."
        )
    label = _plain_label(what, label)
    values, target = np.unique(label, return_inverse=True)
    classes: list[int | float | bool | str] = values.tolist()
    broken = [value for value in classes if isinstance(value, float) and not value.is_integer()]
    if broken and np.bincount(target).min() < 2:  # A target of a regression.
        raise FusionError(
            f"{what} should contain classes, as whole numbers or strings, because the task is classification only; "
            f"found {len(broken)} different numbers that are not whole, such as {broken[0]:g}."
        )
    if len(classes) < 2:
        raise FusionError(f"{what} should contain at least two classes; found only {classes[0]!r}.")
    return target.astype(np.int64), classes


def _plain_label(what: str, label: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the labels in a type that JSON has; those that differ still do."""
    if label.dtype.kind == "S":
        try:
            label = np.char.decode(label, "utf-8")
        except UnicodeDecodeError as error:  # To replace what is no UTF-8 could make different labels equal.
            hint = "numpy.char.decode(label, 'latin-1') decodes another encoding."
            raise FusionError(f"{what} should contain text in UTF-8; found {error.object!r}.  {hint}") from None
    if label.dtype.kind == "f":
        exact, label = label, label.astype(np.float64)
        if infinite := int((~np.isfinite(label)).sum()):
            raise FusionError(f"{what} should be finite; found {infinite} NaN or infinite.")
        if (exact != label).any():
            raise FusionError(f"{what} should contain numbers that float64 can hold; found dtype {exact.dtype}.")
    if label.dtype.kind == "U":
        try:
            "".join(set(label.tolist())).encode()
        except UnicodeEncodeError as error:  # No record could hold it.
            found = error.object[error.start]
            raise FusionError(
                f"{what} should contain Unicode text; found {found!r}, half of a surrogate pair."
            ) from None
    return label
