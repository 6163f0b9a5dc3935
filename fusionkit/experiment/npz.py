"""A ``.npz`` file of arrays: checked, and never unpickled."""

from __future__ import annotations

import lzma
import math
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fusionkit._util.files import MAX_RATIO, MAX_UNPACKED, file_digest, size_on_disk
from fusionkit._util.text import count_of
from fusionkit.config.options import FileOptions
from fusionkit.errors import FusionError, nearest
from fusionkit.experiment.missing import check_mask
from fusionkit.experiment.roles import check_role
from fusionkit.experiment.source import LABELS, ROLES, Array, Labels, Source, decoded, native, objects_refused
from fusionkit.experiment.stored import StoredArray, StoredView, read_header

#: The data sets that ship with the package: name -> file.
EMBEDDED: dict[str, Path] = {"mfeat": Path(__file__).parents[1] / "data" / "mfeat.npz"}
#: What reading a damaged file raises; the last three come from an encrypted member and from odd shapes.
_DAMAGES = (
    *(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, MemoryError),
    *(RuntimeError, OverflowError, TypeError),
)
_NEEDED = {
    "label": "an array 'label' with a label per row",
    "mask": "an array 'mask' (rows, views), which data.missing=mask asks for",
}


def read_npz(options: FileOptions) -> Source:
    """Read and check a ``.npz`` file; nothing is unpickled.

    ``label`` is (m,) or (m, t), and a one-dimensional array may have a role; every other array is a view (m, n_i).

    Args:
        options: of the group ``data``.

    Raises:
        FusionError: a file that cannot be used; the message says which array and why.
    """
    path = Path(options.path)
    arrays, digest = _read(path)
    mask = pop_array(path, arrays, "mask") if options.missing == "mask" else None
    return arrays_source(path, digest, arrays, mask)


def pop_array(path: Path, arrays: dict[str, Any], name: str) -> Any:
    """Take an array out of those of a file or a folder.

    Raises:
        FusionError: there is none of this name.
    """
    if name not in arrays:
        what = _NEEDED.get(name, f"the view {name!r}, which the run was trained on")
        found = ", ".join(map(repr, arrays)) or "none"
        raise FusionError(f"{path} should contain {what}; found the arrays {found}.{nearest(name, arrays)}")
    return arrays.pop(name)


def pop_roles(arrays: dict[str, Any]) -> dict[str, Any]:
    """Take those that have a role out of arrays, which may be stored: name -> array of one dimension."""
    return {name: arrays.pop(name) for name in ROLES if name in arrays and arrays[name].ndim == 1}


def read_views(options: FileOptions, names: Sequence[str], labelled: bool = False) -> Source:
    """Read the views of some names, in this order, and ids, of new data; other arrays are ignored.

    Args:
        options: of the group ``data``.
        names: of the views.
        labelled: whether to read the label, which else need not be there.

    Raises:
        FusionError: as ``read_npz``.
    """
    path = Path(options.path)
    arrays, digest = _read(path)
    mask = pop_array(path, arrays, "mask") if options.missing == "mask" else None
    label = pop_array(path, arrays, "label") if labelled else arrays.pop("label", None)
    return views_source(path, digest, arrays, names, mask, label if labelled else None)


def views_source(
    path: Path,
    digest: str,
    arrays: dict[str, Any],
    names: Sequence[str],
    mask: Array | None = None,
    label: Array | None = None,
) -> Source:
    """Return the views of some names, in this order, and ids; arguments as for ``arrays_source``, but for the label.

    Raises:
        FusionError: as ``read_npz``.
    """
    roles, order = pop_roles(arrays), list(arrays)
    views = {name: check_view(path, name, pop_array(path, {**arrays}, name)) for name in names}
    ids = {"id": roles["id"]} if "id" in roles else {}
    counts = {name: len(array) for name, array in {**views, **ids}.items()}
    if len({*counts.values()}) > 1:
        raise FusionError(f"The arrays of {path} should have the same number of rows; found {counts}.")
    rows = counts[names[0]]
    if mask is not None:
        check_mask(f"The array 'mask' of {path}", mask, (rows, len(order)))
        mask = mask[:, [order.index(name) for name in names]]
    labels = Labels(np.empty((rows, 0)), [], "") if label is None else _check_label(path, label, rows)
    return Source(path, digest, views, labels, ids, mask)


def arrays_source(path: Path, digest: str, arrays: dict[str, Any], mask: Array | None = None) -> Source:
    """Return what arrays hold: the label, those with a role, and the views.

    Args:
        path: of the file or the folder.
        digest: of its content.
        arrays: by name; views may be stored.
        mask: which views are present, not checked yet.

    Raises:
        FusionError: as ``read_npz``.
    """
    label, roles = pop_array(path, arrays, "label"), pop_roles(arrays)
    views = check_views(path, arrays)
    rows = len(next(iter(views.values())))
    checked = {role: check_role(role, one, rows, f"The array {role!r} of {path}") for role, one in roles.items()}
    unused = "mask" in views and views["mask"].dtype == bool
    notes = ["The array 'mask' is a view; data.missing=mask takes it as which views are present."] if unused else []
    return Source(path, digest, views, _check_label(path, label, rows), checked, mask, notes)


def check_views(path: Path, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the views among arrays, which may be stored, as PyTorch takes them: all but label, roles and mask.

    Raises:
        FusionError: there is none, or one that is no view, or has another number of rows.
    """
    if not arrays:
        raise FusionError(f"{path} should contain at least one view besides 'label'; found none.")
    views = {key: check_view(path, key, array) for key, array in arrays.items()}
    rows = len(next(iter(views.values())))
    for key, view in views.items():
        if len(view) != rows:
            raise FusionError(f"View {key!r} of {path} should have {rows} rows, as the first view; found {len(view)}.")
    return views


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
            digest = file_digest(file)
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                _check_names(path, archive.files)
                return {key: _array(path, key, archive) for key in archive.files}, digest
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        hint = "  data=folder reads a folder." if isinstance(error, IsADirectoryError) else ""
        raise FusionError(f"The data file should be a .npz file; found {path}: {error.strerror}.{hint}") from None
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
        header = read_header(file)
    return None if header is None else (header[0], header[2])


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
        raise objects_refused(path, key) from None
    if not isinstance(array, np.ndarray):
        raise FusionError(f"{path} should contain arrays only; found {key!r}, which is none.")
    return array


def check_view(path: Path, key: str, array: Any) -> Any:
    """Return a view as PyTorch takes it; one that is stored, of which only dtype and shape are checked, as it is.

    Raises:
        FusionError: another dtype or shape.
    """
    view = f"View {key!r} of {path}"
    roles = f"  Arrays of one dimension named {', '.join(ROLES)} have that role." if array.ndim == 1 else ""
    if array.dtype.kind not in "fiub":
        raise FusionError(f"{view} should contain real numbers; found dtype {array.dtype}.{roles}")
    if array.ndim != 2 or not array.size:
        found = f"found {array.shape}.{roles}"
        raise FusionError(f"{view} should have the shape (rows, width), neither of them 0; {found}")
    if isinstance(array, StoredArray | StoredView):
        return array
    with np.errstate(over="ignore"):  # A long double may become infinite, which is refused later.
        return native(array)


def _check_label(path: Path, label: Array, rows: int) -> Labels:
    what = f"The array 'label' of {path}"
    if label.dtype.kind not in "fiubUS":
        raise FusionError(f"{what} should contain {LABELS}; found dtype {label.dtype}.")
    if label.ndim not in (1, 2) or len(label) != rows or not label.size:
        should = f"have the shape ({rows},), or ({rows}, targets), as the views have {rows} rows"
        raise FusionError(f"{what} should {should}; found {label.shape}.")
    if label.shape[1:] == (1,):
        label = label[:, 0]
    names = [str(i) for i in range(label.shape[1])] if label.ndim == 2 else ["label"]
    return Labels(_plain_label(what, label), names, what)


def _plain_label(what: str, label: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the labels in a type that JSON has; those that differ still do."""
    label = decoded(what, label)
    if label.dtype.kind == "f":
        exact, label = label, label.astype(np.float64)
        wrong = ~np.isfinite(label.reshape(len(label), -1)).all(1)
        if count := int(wrong.sum()):
            found = f"NaN or infinite in {count_of(count, 'row')}, the first is row {int(wrong.argmax())}"
            raise FusionError(f"{what} should be finite; found {found}.")
        if (exact != label).any():
            raise FusionError(f"{what} should contain numbers that float64 can hold; found dtype {exact.dtype}.")
    if label.dtype.kind == "U":
        empty = np.strings.str_len(np.strings.strip(label)).reshape(len(label), -1).min(1) == 0
        if count := int(empty.sum()):
            found = f"it in {count_of(count, 'row')}, the first is row {int(empty.argmax())}"
            raise FusionError(f"{what} should have no empty text; found {found}.")
        try:
            "".join(set(label.ravel().tolist())).encode()
        except UnicodeEncodeError as error:  # No record could hold it.
            found = error.object[error.start]
            raise FusionError(
                f"{what} should contain Unicode text; found {found!r}, half of a surrogate pair."
            ) from None
    return label
