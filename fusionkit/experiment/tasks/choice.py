"""Which task a label is: the one that was asked for, or the one that its values suggest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fusionkit._util.text import one_line, value_text
from fusionkit.errors import ConfigError, FusionError, nearest
from fusionkit.experiment.source import Array, Labels
from fusionkit.experiment.tasks.base import Task
from fusionkit.experiment.tasks.classification import Classification
from fusionkit.experiment.tasks.multilabel import Multilabel
from fusionkit.experiment.tasks.regression import Regression

#: Whole numbers are classes if there are at most this many different ones, or each occurs at least that often.
FEW_CLASSES, OFTEN = 20, 10


@dataclass(frozen=True)
class Target:
    """A task and the target of every row, as the task takes it.

    Attributes:
        task: not fitted yet.
        values: (m,) or (m, t).
        reason: what the label is, what follows, and the key that changes it.
    """

    task: Task
    values: Array
    reason: str = ""


def choose(labels: Labels, task: str = "auto", separator: str | None = None) -> Target:
    """Return the target that labels are for a task.

    Args:
        labels: of m rows.
        task: ``auto`` or the name of a task.
        separator: between the tags of a text.

    Raises:
        ConfigError: the labels cannot be those of the task.
        FusionError: labels of which no task can be.
    """
    if separator is not None:
        return _tags(labels, task, separator)
    found, reason = _suggested(labels)
    if task not in ("auto", found):
        found, reason = task, f"{reason.partition(':')[0]}, for task={task}"
    return replace(_TASKS[found](labels), reason=reason)


def _suggested(labels: Labels) -> tuple[str, str]:
    """Return the task that the values suggest, and why."""
    values, texts = labels.values, labels.values.dtype.kind in "UO"
    if values.ndim == 2:
        if texts:
            return "multilabel", "several columns"  # Which its function refuses.
        if np.isin(values, (0, 1)).all():
            one_hot = "; one 1 in every row: classes? one column with their names" if (values.sum(1) == 1).all() else ""
            return "multilabel", f"only 0 and 1: labels; amounts? task=regression{one_hot}"
        return "regression", "numbers: targets"
    different, counts = np.unique(values, return_counts=True)
    if texts:
        return "classification", f"text, {len(different)} different ones: classes"
    if values.dtype.kind == "b":
        return "classification", "true and false: classes; amounts? task=regression"
    if values.dtype.kind == "f" and (values != np.floor(values)).any():
        return "regression", "numbers with fractions: amounts; classes? task=classification"
    what = f"whole numbers, {len(different)} different ones"
    if len(different) <= FEW_CLASSES or counts.min() >= OFTEN:
        return "classification", f"{what}: classes; amounts? task=regression"
    return "regression", f"{what}: amounts; classes? task=classification"


def _classification(labels: Labels, least: int = 2) -> Target:
    if labels.values.ndim == 2:
        found = f"{labels.values.shape[1]} columns"
        raise ConfigError(f"{labels.what} should be one column for task=classification; found {found}.")
    different = np.unique(labels.values)
    classes: list[Any] = different.tolist()
    if len(classes) < least:
        raise FusionError(f"{labels.what} should contain at least two classes; found only {classes[0]!r}.")
    # The inverse of ``unique`` would take five times the memory.
    return Target(Classification(classes), np.searchsorted(different, labels.values))


def _multilabel(labels: Labels) -> Target:
    values = labels.values.reshape(len(labels.values), -1)
    if values.dtype.kind in "UO":
        if labels.values.ndim == 2:
            raise FusionError(
                f"{labels.what} should be one column of text, or several columns of numbers or of true and false; "
                f"found text in one of {values.shape[1]} columns."
            )
        advice = "In a table data.label_separator=';' divides a text into tags."
        raise ConfigError(f"{labels.what} should contain 0 and 1 for task=multilabel; found text.  {advice}")
    wrong = ~np.isin(values, (0, 1))
    if wrong.any():
        found = f"{values[wrong][0]:g} in row {int(wrong.any(1).argmax())}"
        raise ConfigError(f"{labels.what} should contain 0 and 1 for task=multilabel; found {found}.")
    return Target(Multilabel(list(labels.names)), values.astype(bool))


def _regression(labels: Labels) -> Target:
    values = labels.values.reshape(len(labels.values), -1)
    if values.dtype.kind in "UO":
        found = one_line(repr(str(values.flat[0])), 40)
        raise ConfigError(f"{labels.what} should contain numbers for task=regression; found {found} in row 0.")
    return Target(Regression(list(labels.names)), values.astype(np.float64))


def _tags(labels: Labels, task: str, separator: str) -> Target:
    """Return the multilabel target of texts such as ``red;round``."""
    values: npt.NDArray[Any] = labels.values
    if task not in ("auto", "multilabel"):
        raise ConfigError(f"data.label_separator should be given with task=multilabel; found task={task}.")
    if values.ndim == 2 or values.dtype.kind not in "UO":
        found = f"{values.shape[1]} columns" if values.ndim == 2 else "numbers"
        raise ConfigError(f"{labels.what} should be one column of text for data.label_separator; found {found}.")
    if not any(separator in text for text in values.tolist()):
        found = f"no {separator!r} in any row"
        raise ConfigError(f"{labels.what} should contain data.label_separator between tags; found {found}.")
    rows = [{tag for part in text.split(separator) if (tag := part.strip())} for text in values.tolist()]
    tags = sorted(set().union(*rows))
    if not tags:
        raise FusionError(f"{labels.what} should contain tags; found none.")
    target = np.array([[tag in row for tag in tags] for row in rows], dtype=bool)
    return Target(Multilabel(tags), target, f"text with tags between {separator!r}, {len(tags)} different ones")


def known_target(task: Task, labels: Labels, separator: str | None = None) -> Array:
    """Return the target that labels are for a task that was learnt.

    Raises:
        FusionError: labels that the task does not know, or of another kind.
    """
    try:
        if task.name == "classification":
            found = _classification(labels, least=1)
        else:
            found = choose(labels, task.name, separator)
    except ConfigError as error:
        raise FusionError(str(error)) from error
    if task.name == "regression":
        if found.values.shape[1] != task.outputs:
            should = f"{labels.what} should have {task.outputs} targets, as the run was trained on"
            raise FusionError(f"{should}; found {found.values.shape[1]}.")
        return found.values
    places = {value_text(one): i for i, one in enumerate(task.classes)}
    keys = [value_text(one) for one in found.task.classes]
    if unknown := [key for key in keys if key not in places]:
        known = f"{labels.what} should contain what the run was trained on, {', '.join(list(places)[:12])}"
        raise FusionError(f"{known}; found {unknown[0]!r}.{nearest(unknown[0], places)}")
    if task.name == "classification":
        return np.array([places[key] for key in keys], dtype=np.int64)[found.values]
    target = np.zeros((len(found.values), task.outputs), dtype=bool)
    target[:, [places[key] for key in keys]] = found.values
    return target


_TASKS: dict[str, Callable[[Labels], Target]] = {
    "classification": _classification,
    "multilabel": _multilabel,
    "regression": _regression,
}


def from_description(description: Mapping[str, Any]) -> Task:
    """Return the task that a model's description names.

    Raises:
        ValueError, KeyError, TypeError: not such a description.
    """
    name = description.get("task", "classification")
    if name == "regression":
        targets, mean, scale = (description[key] for key in ("targets", "target_mean", "target_scale"))
        finite = np.isfinite([mean, scale]).all() and min(scale, default=0.0) > 0
        named = isinstance(targets, list) and all(isinstance(one, str) for one in targets)
        if not named or not len(targets) == len(mean) == len(scale) or not finite:
            raise ValueError(f"the targets {targets!r}, their means {mean!r} and scales {scale!r}")
        return Regression(list(targets), list(mean), list(scale))
    classes = description["classes"]
    if not isinstance(classes, list) or not classes:
        raise ValueError(f"the classes {classes!r}")
    if name not in ("classification", "multilabel"):
        raise ValueError(f"the task {name!r}")
    return Classification(classes) if name == "classification" else Multilabel(classes)
