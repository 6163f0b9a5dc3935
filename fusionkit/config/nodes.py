"""The config node of an operator or a data set: its YAML file, or one that is generated, as from the signature."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusionkit import registry
from fusionkit.config.folders import conf_dir, folder_of
from fusionkit.errors import RegistryError
from fusionkit.registry import Kind, Operator, Record

#: The options of every fusion that a node sets from the top level, or that say nothing about the operator.
COMMON = ("n", "dims", "name", "require_parameters", "device", "dtype", "preprocess", "postprocess", "missing")


#: The groups of what the registry has, in alphabetical order.
GROUPS: dict[str, Kind] = {"data": "dataset", "fabrication": "fabrication", "fusion": "fusion"}


def group_of(kind: Kind) -> str:
    """Return the group of a kind: ``data`` for data sets."""
    return "data" if kind == "dataset" else kind


def kind_and_name(config_path: str) -> tuple[Kind, str] | None:
    """Return kind and name of a config such as ``fusion/summation``; None for a config of another group."""
    group, _, name = config_path.strip("/").removesuffix(".yaml").partition("/")
    return (GROUPS[group], name) if group in GROUPS and name else None


def find_record(kind: Kind, name: str) -> Record | None:
    """Return the record of a name, an alias or a qualified name; None when the registry does not give it."""
    try:
        return registry.resolve(kind, name)
    except RegistryError:
        return None


def yaml_file(group: str, name: str) -> Path | None:
    """Return the YAML file that the option ``name`` of a group is read from, or None."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or ".." in name:
        return None
    folders = [conf_dir(), *(folder for _, path in registry.conf_paths() if (folder := folder_of(path)) is not None)]
    files = (folder / group / f"{name}.yaml" for folder in folders)
    return next((file for file in files if file.is_file()), None)


def node_text(kind: Kind, name: str) -> str | None:
    """Return the YAML text of the config node of an operator or a data set: its file, or a generated one.

    The class of an operator is imported only when there is no file.  None when there is neither.
    """
    record = find_record(kind, name)
    file = yaml_file(group_of(kind), name if record is None or record.status == "ambiguous" else record.name)
    if file is not None and (record is None or record.key == record.name):
        return file.read_text(encoding="utf-8")
    if record is None:
        return None
    return _data_node(record) if kind == "dataset" else _generated(kind, record)


def _data_node(record: Record) -> str:
    """Return the node of a data set without a file."""
    summary = [f"# {record.summary}"] if record.summary else []
    return "\n".join([*summary, f"name: {_yaml(record.key)}", _DATA_OPTIONS])


#: The options of ``DataOptions``, with their descriptions and defaults.
_DATA_OPTIONS = """\
# The file or folder of a data set that is not installed; null looks for the installed one.
path: null
# Widths of the views; null takes them from the data, other widths are an error.
dims: null
# Part of the rows that is held out for the metrics, stratified by class; 0 trains on all rows.
test_size: 0.2
# Part of the other rows that is held out to choose the epoch and to rank runs; 0: none.
validation_size: 0.0
# Which of the 1/test_size folds, or which value of data.folds, is held out; null draws one test part.
fold: null
"""


def _generated(kind: Operator, record: Record) -> str:
    cls = registry.load(kind, record.key)
    summary = record.summary or (inspect.getdoc(cls) or "").partition("\n")[0]
    lines = [f"# {summary}"] if summary else []
    if kind == "fusion":
        lines += ["_target_: fusionkit.create", "_recursive_: false", "_convert_: all", f"name: {_yaml(record.key)}"]
        lines += _shared(cls)
    else:
        lines.append(f"name: {_yaml(record.key)}")
    described = descriptions(cls)
    for parameter in own_options(cls):
        lines += _option(parameter, described.get(parameter.name, ""))
    return "\n".join(lines) + "\n"


def _shared(cls: type) -> list[str]:
    """Return the options that every fusion has, as far as this one has them."""
    parameters = inspect.signature(cls).parameters
    catch_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    free = getattr(getattr(cls, "traits", None), "free_n", False)
    shared = {
        "n": ("${n}", "Output width.") if free else ("null", "Output width.  null: it follows from the widths."),
        "dims": ("${dims}", "Widths of the views; they follow from the data."),
        "device": ("${device}", "Where the parameters live."),
        "preprocess": ("null", "Applied to each view before the fusion; see the group fusion/preprocess."),
        "postprocess": ("null", "Applied to the result."),
        "missing": (
            "null",
            "What stands in for an absent view: placeholder, indicator or rescale; null leaves it to the fusion.",
        ),
    }
    return [
        line
        for name, (value, comment) in shared.items()
        if catch_all or name in parameters or name == "missing"  # Which create treats, for every fusion.
        for line in (f"# {comment}", f"{name}: {value}")
    ]


def own_options(cls: type) -> Iterator[inspect.Parameter]:
    """Yield the options that an operator has beyond those of every fusion, ``COMMON``."""
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.name not in COMMON and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            yield parameter


def descriptions(cls: type) -> dict[str, str]:
    """Return what the docstrings of a class and its constructor say of each option, under ``Args:``."""
    found: dict[str, str] = {}
    for text in (inspect.getdoc(inspect.getattr_static(cls, "__init__")), inspect.getdoc(cls)):
        section = re.search(r"^Args:\n((?:[ \t].*\n?|\n)+)", text or "", re.MULTILINE)
        entries = re.finditer(
            r"^ +(\w+(?:, \w+)*)(?: \([^)\n]*\))?: (.*(?:\n {6,}\S.*)*)", section[1] if section else "", re.MULTILINE
        )
        for entry in entries:
            found.update(dict.fromkeys(entry[1].split(", "), " ".join(entry[2].split())))
    return found


def _option(parameter: inspect.Parameter, described: str) -> list[str]:
    if parameter.name == "parameter_fabrication":
        return ["# How the matrices are made: the group fabrication.", "parameter_fabrication: ${fabrication}"]
    of_type = "" if parameter.annotation is parameter.empty else annotation(parameter.annotation)
    comment = " -- ".join(part for part in (described, of_type) if part)
    lines = [f"# {comment}"] if comment else []
    if parameter.default is parameter.empty:
        return [*lines, f"{parameter.name}: ???"]
    text = _yaml(parameter.default)
    # A default that no config can hold is left to the constructor.
    return [] if text is None else [*lines, f"{parameter.name}: {text}"]


def annotation(of: Any) -> str:
    """Return the type of an option as one writes it, without module names of the standard library."""
    text = of if isinstance(of, str) else inspect.formatannotation(of)
    return re.sub(r"\s+", " ", re.sub(r"\b(?:typing|collections\.abc)\.", "", text))


def _yaml(value: Any) -> str | None:
    """Return ``value`` on one line of YAML, or None if no config can hold it or it would be interpolated."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        return None
    if "${" in text:
        return None
    if isinstance(value, str) and re.fullmatch(r"[a-z_][a-z0-9_]*", value) and value not in _WORDS:
        return value
    # JSON's 1e-05 would be text to YAML.
    return re.sub(r"(?<![\w.\"])(-?\d+)(e[+-]?\d+)\b", r"\1.0\2", text)


_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
