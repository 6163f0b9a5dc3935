"""Which columns of a table are views, labels and roles, and which are left out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from fusionkit._util.text import listed
from fusionkit.config.options import TableOptions
from fusionkit.errors import FusionError, nearest
from fusionkit.experiment.source import ROLES, misplaced
from fusionkit.experiment.tables.columns import quoted

_ONE_VIEW = "table"


@dataclass(frozen=True)
class Layout:
    """What the columns of a table are.

    Attributes:
        views: name -> columns.
        categorical: columns whose numbers are categories.
        notes: lines for the user.
    """

    views: dict[str, list[str]]
    categorical: frozenset[str]
    notes: list[str]


def lay_out(names: Sequence[str], options: TableOptions, what: str) -> Layout:
    """Decide what each column of one file is.

    Args:
        names: of its columns.
        options: of the run.
        what: names the file in messages.

    Raises:
        FusionError: a column that an option names does not exist, or one is in no view or in two.
    """
    special(names, options, what)
    free, categorical, notes = kept(names, options, what)
    if not free:
        should = "have a column besides the label, roles and what data.drop leaves out"
        raise FusionError(f"{what} should {should}; found none.")
    if options.views is not None:
        views = _given(names, free, options, what)
    else:
        views = _by_prefix(free)
        if len(views) == 1 and _ONE_VIEW in views:
            notes.append("All columns are one view; names such as a__age and b__dose, or data.views, make several.")
    _check_once(views, free, options, what)
    return Layout(views, categorical, notes)


def kept(names: Sequence[str], options: TableOptions, what: str) -> tuple[list[str], frozenset[str], list[str]]:
    """Return the columns that views may have, those whose numbers are categories, and lines for the user.

    Raises:
        FusionError: as ``chosen``.
    """
    dropped, categorical = (
        chosen(f"data.{key}", getattr(options, key), names, what) for key in ("drop", "categorical")
    )
    free = features(names, options)
    left = sorted(dropped & {*free})
    notes = [f"Left out by data.drop: {', '.join(left)}."] if left else []
    return [name for name in free if name not in dropped], categorical, notes


def special(names: Collection[str], options: TableOptions, what: str) -> tuple[list[str], dict[str, str]]:
    """Return the columns of the label, and those with a role.

    Raises:
        FusionError: there is no such column, or a label is named twice.
    """
    labels = names_of(options.label)
    if not labels or len({*labels}) < len(labels):
        raise FusionError(f"data.label should name different columns; found {labels}.")
    roles = {role: column for role in ROLES if (column := getattr(options, role)) is not None}
    for key, column in [*(("label", label) for label in labels), *roles.items()]:
        if column not in names:
            hint = nearest(column, names) or f"  Its columns are {listed(map(repr, names))}."
            raise FusionError(f"data.{key} should name a column of {what}; found {column!r}.{hint}")
    return labels, roles


def features(names: Iterable[str], options: TableOptions) -> list[str]:
    """Return the columns that are neither labels nor roles."""
    taken = {*names_of(options.label), *(getattr(options, role) for role in ROLES)}
    return [name for name in names if name not in taken]


def chosen(key: str, patterns: str | Sequence[str] | None, names: Sequence[str], what: str) -> frozenset[str]:
    """Return the columns that patterns mean.

    Raises:
        FusionError: a pattern means none.
    """
    known = dict.fromkeys(names)
    return frozenset(name for pattern in names_of(patterns) for name in _matching(key, pattern, known, what))


def _matching(key: str, pattern: str, names: Collection[str], what: str) -> list[str]:
    """Return the columns that a pattern means, in which * stands for any text and ? for one character."""
    if pattern in names:
        return [pattern]
    regex = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    found = [name for name in names if re.fullmatch(regex, name, re.DOTALL)]
    if not found:
        raise FusionError(f"{key} should name columns of {what}; found {pattern!r}.{nearest(pattern, names)}")
    return found


def _given(names: Sequence[str], free: list[str], options: TableOptions, what: str) -> dict[str, list[str]]:
    """Return the views that ``data.views`` names."""
    known, usable = dict.fromkeys(names), {*free}
    taken = {*names} - {*features(names, options)}
    views: dict[str, list[str]] = {}
    for view, columns in (options.views or {}).items():
        key = f"data.views.{view}"
        found: dict[str, None] = {}
        for pattern in names_of(columns):
            if pattern in taken:
                raise FusionError(f"{key} should name columns without another role; found {pattern!r}.")
            found.update(dict.fromkeys(_matching(key, pattern, known, what)))
        views[view] = [name for name in found if name in usable]
        if not views[view]:
            raise FusionError(f"{key} should have at least one column that is not left out; found none.")
    return views


def _by_prefix(free: list[str]) -> dict[str, list[str]]:
    """Return the views that prefixes name, as in ``view__column``; without any all columns are one view."""
    views: dict[str, list[str]] = {}
    for name in free:
        prefix, mark, rest = name.partition("__")
        if prefix and mark and rest:
            views.setdefault(prefix, []).append(name)
    return views or {_ONE_VIEW: free}


def _check_once(views: dict[str, list[str]], free: list[str], options: TableOptions, what: str) -> None:
    """Refuse a column that is in no view, or in two."""
    if (wrong := misplaced(views, free)) is not None:
        column, where = wrong
        how = "data.views" if options.views is not None else "its prefix, as in view__column"
        way_out = f"data.drop={quoted(column)} leaves it out."
        raise FusionError(f"Column {column!r} of {what} should be in one view, by {how}; found {where}.  {way_out}")


def names_of(value: str | Sequence[str] | None) -> list[str]:
    """Return an option that is a column or a list of columns as a list."""
    return [] if value is None else [value] if isinstance(value, str) else list(value)
