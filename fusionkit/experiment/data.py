"""Multi-view data for a run: a registered data set, a ``.npz`` file, a folder or a table, checked, with its task."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fusionkit import registry
from fusionkit._util.distribution import DISTRIBUTION
from fusionkit._util.text import one_line, printable, short_repr
from fusionkit.config.options import DataOptions, FileOptions, FolderOptions, NpzOptions, TableOptions, data_options
from fusionkit.errors import ConfigError, DimsError, FusionError
from fusionkit.experiment.folder import read_folder
from fusionkit.experiment.missing import check_mask, presence
from fusionkit.experiment.moments import Moments
from fusionkit.experiment.npz import arrays_source, read_npz
from fusionkit.experiment.source import Array, Rows, Source
from fusionkit.experiment.stored import StoredView, joined
from fusionkit.experiment.stream import survey
from fusionkit.experiment.tables.format import TableFormat
from fusionkit.experiment.tasks.base import Task
from fusionkit.experiment.tasks.choice import choose
from fusionkit.hookspecs import DatasetSpec
from fusionkit.registry import lookup
from fusionkit.registry.loading import PluginProblem, foreign_code

#: The data groups that read a user's own files.
OWN = ("npz", "folder", "table")


@dataclass(frozen=True, kw_only=True)
class Dataset(Source):
    """What a run reads, and its targets; the rows of ``test_path`` are the last ones.

    Attributes:
        name: the form of a user's own data (``OWN``), or the registered data set.
        task: not fitted yet.
        target: (m,) or (m, t), as the task takes it.
        impute: ``mean``: present rows may have some NaN, for which the means of the training part stand.
        reason: what the label is, and what follows for the task.
        test_rows: the rows of ``test_path``; None without one.
        moments: of the training part, where the views stay in their files; None before ``fitted``.
    """

    name: str
    task: Task
    target: Array
    impute: str | None = None
    reason: str = ""
    test_rows: Rows | None = None
    moments: list[Moments] | None = None

    @property
    def classes(self) -> list[Any]:
        """The label values of a classification, sorted; the labels of a multilabel task; else empty."""
        return list(self.task.classes)

    @property
    def stored(self) -> bool:
        """Whether the views are ``StoredView``; ``mask`` is then that of the file, and NaN were not looked for."""
        return is_stored(self)

    @property
    def strata(self) -> Rows | None:
        """The class of each row, (m,), which every part of a split should have; None for other tasks."""
        return self.target if self.task.name == "classification" else None

    @property
    def dims(self) -> list[int]:
        """The widths of the views."""
        return [view.shape[1] for view in self.views.values()]

    @property
    def label(self) -> str:
        """The name to show: of the data set, or of the user's file."""
        return printable(self.path.name) if self.name in OWN else self.name

    @property
    def rows(self) -> int:
        """The number of rows m."""
        return len(self.target)

    def fitted(self, training_rows: Rows, *, shown: bool = False) -> Dataset:
        """Return the data with zeros for the categories that the training rows lack.

        Views that stay in their files are read once: which are present, and their moments, are known then.

        Args:
            training_rows: of the training part.
            shown: whether to show the progress.

        Raises:
            FusionError: as ``stream.survey``.
        """
        if self.stored:
            names = [f"View {key!r} of {self.path}" for key in self.views]
            stored: list[Any] = list(self.views.values())
            found = survey(names, stored, self.mask, self.impute, training_rows, shown=shown)
            return replace(self, mask=found[0], moments=found[1])
        if self.table is None:
            return self
        table, views = self.table.fitted(self.views, training_rows)
        return replace(self, table=table, views=views)

    def describe(self) -> dict[str, Any]:
        """Return what ``result.json`` records about its data, in JSON types."""
        described = {
            "name": self.name,
            "label": self.label,
            "digest": self.digest,
            "rows": self.rows,
            "views": list(self.views),
        }
        if self.classes:
            described["classes"] = self.classes
        if self.unlabelled:
            described["unlabelled"] = self.unlabelled
        if self.mask is not None:
            absent = dict(zip(self.views, (~self.mask).sum(0).tolist(), strict=True))
            described |= {"missing": absent, "rows_without_views": int((~self.mask.any(1)).sum())}
        return described


def load_data(node: Mapping[str, Any], dims: Any = None, task: str = "classification") -> Dataset:
    """Read the data that a node of ``conf/data`` selects.

    Args:
        node: the options of the group ``data``.
        dims: the widths that the rest of the config expects; None for those of the file.
        task: ``auto``, or what the label should be.

    Raises:
        DimsError: the file has other widths than ``dims``.
        ConfigError: the label cannot be that of the task.
        RegistryError: a data set that is not registered.
        FusionError: a file that is missing or cannot be used; the message says which array or column, and why.
    """
    options = data_options(node)
    data = _own_data(options, task) if isinstance(options, FileOptions) else _registered_data(options, task)
    for key, given in (("data.dims", options.dims), ("dims", dims)):
        if given is not None and list(given) != data.dims:
            widths = f"{data.dims}, the widths of the views in {data.path.name}"
            raise DimsError(f"{key} should be {widths}; found {list(given)}.")
    return data


def read_source(options: FileOptions, known: TableFormat | None = None) -> Source:
    """Read a user's own file, or a file per view.

    Args:
        options: of the group ``data``.
        known: how another table was encoded, to encode this one likewise.

    Raises:
        FusionError: a file that cannot be used.
    """
    if isinstance(options, TableOptions):
        source: Source = _imported("tables.reading:read_table")(options, known=known)
        return source
    return read_folder(options) if isinstance(options, FolderOptions) else read_npz(options)


def is_stored(source: Source) -> bool:
    """Whether the views stay in their files."""
    return any(isinstance(view, StoredView) for view in source.views.values())


def _registered_data(options: DataOptions, task: str) -> Dataset:
    """Return a registered data set with its task: where none is asked for, that of its spec.

    Raises:
        RegistryError: there is none of this name.
        FusionError: the data are not there, or its function returns no arrays that can be used.
    """
    record, function = registry.resolve("dataset", options.name), registry.dataset(options.name)
    spec, title = record.spec, lookup.title(record)
    try:
        with foreign_code("", title), redirect_stdout(sys.stderr):  # The output of a command may be JSON.
            found = function(options.path)
    except PluginProblem as problem:
        cause = problem.__cause__
        if isinstance(cause, FusionError | ConfigError):
            raise cause from None
        if isinstance(cause, ModuleNotFoundError) and record.distribution == DISTRIBUTION:  # scikit-learn, an extra.
            raise cause from None
        raise FusionError(f"{title} should be readable; found {problem}.") from problem.__cause__
    source = _read(Path(options.name), title, found)
    own = spec.task if isinstance(spec, DatasetSpec) else "classification"
    chosen = choose(source.labels, own if task == "auto" else task)
    present = presence([f"View {key!r} of {source.path}" for key in source.views], list(source.views.values()))
    return Dataset(
        **{**vars(source), "mask": present},
        name=options.name,
        task=chosen.task,
        target=chosen.values,
        reason="as the data set says" if task == "auto" else chosen.reason,
    )


def _read(path: Path, title: str, found: object) -> Source:
    """Return what the function of a data set found: arrays, or the path of an ``.npz`` file."""
    if isinstance(found, str | Path):
        return read_npz(NpzOptions(name="npz", path=str(found)))
    wrong = [found]
    if isinstance(found, Mapping):
        typed = [pair for name, array in found.items() for pair in ((name, str), (array, np.ndarray))]
        wrong = [one for one, kind in typed if not isinstance(one, kind)]
    if wrong or not isinstance(found, Mapping):
        should = "a dict of arrays, or the path of an .npz file"
        raise FusionError(f"the function of {title} should return {should}; found {one_line(short_repr(wrong[0]))}.")
    return arrays_source(path, arrays_digest(found), dict(found))


def _own_data(options: FileOptions, task: str) -> Dataset:
    """Return the data of a user's files, those of ``test_path`` last."""
    form, source, test_rows = type(options.path), read_source(options), None
    if options.test_path is not None:
        if not isinstance(options.test_path, form):
            should = "a file" if form is str else f"a mapping of {', '.join(options.path)} to files"
            raise ConfigError(f"data.test_path should be {should}, as data.path is; found {options.test_path!r}.")
        before = len(source.labels.values)
        # With the two paths exchanged, both still count towards data.memory_gb.
        test = options.model_copy(update={"path": options.test_path, "test_path": options.path})
        try:
            source = _joined(source, read_source(test, known=source.table))
        except FusionError as error:
            raise FusionError(str(error).replace("data.path", "data.test_path")) from error
        test_rows = np.arange(before, len(source.labels.values))
    return dataset(options, source, task, test_rows)


def dataset(options: FileOptions, source: Source, task: str, test_rows: Rows | None = None) -> Dataset:
    """Return a user's own data with their task, and which views are present.

    Args:
        options: of the group ``data``.
        source: all rows.
        task: ``auto``, or what the label should be.
        test_rows: those of ``test_path``.

    Raises:
        ConfigError: the label cannot be that of the task.
        FusionError: views or a mask that cannot be used.
    """
    chosen = choose(source.labels, task, getattr(options, "label_separator", None))
    # Of data larger than memory, labels are kept once: as targets.
    labels = replace(source.labels, values=np.empty(0)) if is_stored(source) else source.labels
    return Dataset(
        **{**vars(source), "labels": labels, "mask": _present(options, source)},
        name=options.name,
        task=chosen.task,
        target=chosen.values,
        impute=options.impute,
        reason=chosen.reason,
        test_rows=test_rows,
    )


def _present(options: FileOptions, source: Source) -> Any:
    """Return which views are present, (m, k); None if all are.  Of stored views it is the mask of the file."""
    names = [f"View {key!r} of {source.path}" for key in source.views]
    what = f"The array 'mask' of {source.path}"
    if not is_stored(source):
        return presence(names, list(source.views.values()), source.mask, options.impute, what)
    if source.mask is None:
        return None
    check_mask(what, source.mask, (len(source.labels.values), len(names)))
    return None if source.mask.all() else source.mask


def _imported(target: str) -> Any:
    """Import ``module:name`` of this package; pandas and scikit-learn take longer to import than a short run."""
    module, _, name = target.partition(":")
    return getattr(import_module(f"{__package__}.{module}"), name)


def _joined(first: Source, second: Source) -> Source:
    """Return the rows of two files, those of the second behind those of the first.

    Raises:
        FusionError: the files differ in views, widths, labels or roles.
    """
    widths = [{name: view.shape[1] for name, view in one.views.items()} for one in (first, second)]
    if widths[0] != widths[1]:
        should = f"contain the views of {first.path}, {widths[0]}"
        raise FusionError(f"{second.path} should {should}; found {widths[1]}.")
    labels = [one.labels.values for one in (first, second)]
    texts = [values.dtype.kind in "UO" for values in labels]
    if texts[0] != texts[1] or labels[0].shape[1:] != labels[1].shape[1:]:
        should, found = (
            f"{'text' if text else 'numbers'} of shape ({', '.join(('rows', *map(str, values.shape[1:])))})"
            for text, values in zip(texts, labels, strict=True)
        )
        raise FusionError(f"{second.labels.what} should be {should}, as that of {first.path}; found {found}.")
    masks = [one.mask for one in (first, second) if one.mask is not None]  # Both, or none: one option asks for them.
    digest = hashlib.sha256(f"{first.digest} {second.digest}".encode()).hexdigest()
    return replace(
        first,
        digest=digest,
        views={
            name: (joined if isinstance(view, StoredView) else np.concatenate)([view, second.views[name]])
            for name, view in first.views.items()
        },
        labels=replace(first.labels, values=np.concatenate(labels)),
        roles={name: _joined_role(name, first, second) for name in first.roles},
        mask=np.concatenate(masks) if masks else None,
        notes=list(dict.fromkeys([*first.notes, *second.notes])),
        unlabelled=first.unlabelled + second.unlabelled,
    )


def _joined_role(name: str, first: Source, second: Source) -> Array:
    """Return what has a role in the first file, for the rows of both.

    Raises:
        FusionError: the second file lacks an id or a group.
    """
    given, rows = first.roles[name], len(second.labels.values)
    if name in second.roles:
        return np.concatenate([given, second.roles[name]])
    if name in ("weight", "split", "folds"):  # The rows are test: no loss has a weight, and no other split is taken.
        return np.concatenate([given, given[:1].repeat(rows)])
    raise FusionError(f"{second.path} should have {name!r} for each row, as {first.path} has; found none.")


def arrays_digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return a SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
