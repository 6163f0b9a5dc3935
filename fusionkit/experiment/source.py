"""What a user's file holds before its task is known: views, labels, and the arrays or columns with a role."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusionkit.errors import FusionError

if TYPE_CHECKING:
    from fusionkit.experiment.tables.format import TableFormat

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]

#: What a one-dimensional array of such a name in a .npz file or a folder is, or the column of such a key of a table.
ROLES = ("id", "group", "split", "folds", "weight")
#: What the labels of rows should be.
LABELS = "numbers or strings, one per row"


@dataclass(frozen=True)
class Labels:
    """The labels of m rows, as they stand in the file.

    Attributes:
        values: (m,), or (m, t) for t of them; numbers, booleans or text, none of them missing.
        names: of the columns; of an array the numbers from 0 where there are several.
        what: names them in messages, such as "The array 'label' of FILE".
    """

    values: Array
    names: Sequence[str]
    what: str


@dataclass(frozen=True)
class Source:
    """k views of the same m rows, their labels and roles.

    Attributes:
        path: the file, or the first of several, or the folder, for messages.
        digest: SHA-256 of the content of all files.
        views: name -> array (m, n_i) of real numbers, or a ``StoredView``; rows of NaN where a view is absent.
        labels: of the rows.
        roles: of ``ROLES``, those that are there: (m,).  ``weight`` is float64, the others text or numbers.
        mask: (m, k), True where a view of a row is present; None: where it is not all NaN.
        notes: lines for the user: what was left out, how to name views.
        table: how a table was encoded; None for arrays.
        unlabelled: the number of ids that were left out because they have no label.
    """

    path: Path
    digest: str
    views: dict[str, Any]
    labels: Labels
    roles: dict[str, Array] = field(default_factory=dict)
    mask: npt.NDArray[np.bool_] | None = None
    notes: list[str] = field(default_factory=list)
    table: TableFormat | None = None
    unlabelled: int = 0


@dataclass(frozen=True)
class Batch:
    """Some rows of new data.

    Attributes:
        start: the number of the first row.
        views: k arrays (m, n_i); without a mask, rows of NaN where a view is absent.
        ids: (m,) as they stand; None where the run has none.
        mask: (m, k), True where a view is present.
        unseen: column -> the number of its cells with a category that the training part does not have.
        fraction: the share of the data that is read, this batch included.
    """

    start: int
    views: list[Array]
    ids: Array | None = None
    mask: Array | None = None
    unseen: dict[str, int] = field(default_factory=dict)
    fraction: float = 1.0


def decoded(what: str, values: Array) -> Array:
    """Return bytes as text, anything else as it is.

    Raises:
        FusionError: bytes that are no UTF-8; to replace them could make different values equal.
    """
    try:
        return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
    except UnicodeDecodeError as error:
        hint = "numpy.char.decode(array, 'latin-1') decodes another encoding."
        raise FusionError(f"{what} should contain text in UTF-8; found {error.object!r}.  {hint}") from None


def objects_refused(path: Path, key: str) -> FusionError:
    """Return the error of an array of Python objects in a file or a folder."""
    what, hint = "numbers", ""
    if key == "label":
        what, hint = LABELS, "  numpy.unique(label, return_inverse=True)[1] numbers the classes."
    found = "Python objects, which are not read because that could run code"
    return FusionError(f"The array {key!r} of {path} should contain {what}; found {found}.{hint}")


def check_unmasked(what: str, values: Any) -> None:
    """Refuse the masked entries of an array, whose data are no values.

    Raises:
        FusionError: there are masked entries.
    """
    if isinstance(values, np.ma.MaskedArray) and (masked := int(np.ma.getmaskarray(values).sum())):
        raise FusionError(f"{what} should have no masked entries; found {masked}.")


def misplaced(views: Mapping[str, Iterable[Any]], columns: Iterable[Any]) -> tuple[Any, str] | None:
    """Return the first column that is in no view or in two, and where it is, for messages; None if there is none."""
    holders: dict[Any, list[str]] = {column: [] for column in columns}
    for view, own in views.items():
        for column in own:
            holders[column].append(repr(view))
    wrong = ((column, held) for column, held in holders.items() if len(held) != 1)
    return next(((column, f"it in {' and in '.join(held) or 'none'}") for column, held in wrong), None)


def check_orders(named: Iterable[tuple[str, Any]]) -> None:
    """Refuse data frames of the same rows in another order; what is no data frame may be anything.

    Args:
        named: pairs of a name, for messages, and a data frame.

    Raises:
        FusionError: their indexes differ only in order.
    """
    frames = [(name, one.index) for name, one in named if hasattr(one, "columns") and hasattr(one, "index")]
    for name, index in frames[1:]:
        first, wanted = frames[0]
        if not index.equals(wanted) and Counter(index) == Counter(wanted):
            should = "have their rows in the same order"
            advice = "view.loc[other.index] reorders one."
            raise FusionError(f"{first} and {name} should {should}; found indexes that differ only in order.  {advice}")


def native(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array as PyTorch takes it; a copy where it has a long double, another byte order, or negative strides,
    or is read-only.
    """
    long = array.dtype.kind == "f" and array.dtype.itemsize > 8
    array = np.require(array, np.float64 if long else array.dtype.newbyteorder("="), ["ALIGNED", "WRITEABLE"])
    return array.copy() if min(array.strides, default=0) < 0 else array
