"""The command ``fusionkit show``: everything about one operator, data set or run."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped, unused-ignore]

import fusionkit
from fusionkit import config, registry
from fusionkit._util.text import error_message
from fusionkit.cli.commands import imported, json_option, kind_option, print_json, wrong_usage
from fusionkit.config.nodes import annotation, yaml_file
from fusionkit.errors import ConfigError, FusionError, RegistryError
from fusionkit.experiment.results import RESULT
from fusionkit.registry.catalogue import Record, instead
from fusionkit.registry.loading import Kind, Operator

#: The figures of ``fusionkit.cost`` that are shown.
FIGURES = ("m", "macs", "elementwise", "parameter_bytes", "buffer_bytes", "output_bytes", "peak_activation_bytes")


@click.command(
    epilog="""\b
Examples:
  fusionkit show lowrank
  fusionkit show parameterized_concatenation dims=[76,216] n=64
  fusionkit show mfeat
  fusionkit show data=table data.path=patients.csv data.label=outcome
  fusionkit show multirun/c8280a2eedbf5ac1"""
)
@click.argument("name")
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]...")
@kind_option
@json_option
def show(name: str, options: tuple[str, ...], kind: Kind | None, as_json: bool) -> None:
    """Show one fusion, fabrication, data set or run.

    Of an operator its origin, signature, formula and traits, with options also its sizes; of a data set its licence,
    who collected it, and how to get it.

    NAME is a name, an alias, or DISTRIBUTION/NAME.  The options are those of its constructor: dims=[76,216] n=64.
    With data=NAME and further options of the command run instead, show what that run would read.
    With the directory of a completed run instead, print its summary as the command run does, and draw its pictures
    where they are absent, as in the jobs of a sweep.
    """
    if kind is None and (Path(name) / RESULT).is_file():
        if options:
            raise click.UsageError(f"A run should be shown without options; found {' '.join(options)}.")
        imported("show_run:show_run")(Path(name), as_json)
        return
    if "=" in name:
        imported("show_data:show_data")([name, *options], as_json)
        return
    # The output must not contain what a plugin prints while it is imported.
    with redirect_stdout(sys.stderr), wrong_usage():
        found = describe(_record(name, kind), parse(options))
    if as_json:
        print_json(found)
    else:
        print(page(found))


def _record(name: str, kind: Kind | None) -> Record:
    try:
        return registry.find(name, kind)
    except RegistryError as error:
        if kind in ("fabrication", "dataset") or yaml_file("fusion", name) is None:
            raise
        raise ConfigError(
            f"the name should be that of an operator; found the preset {name!r}: fusionkit conf show fusion={name}"
        ) from error


def parse(settings: Sequence[str]) -> dict[str, Any]:
    """Return ``key=value`` arguments as a dict, values read as in a config: ``dims=[76,216]``, ``r=8``, ``a.b=null``.

    Integers separated by commas are a list too, ``dims=76,216``, because some shells require brackets to be quoted.

    Raises:
        ConfigError: an argument has no ``=``, no key, or a value that cannot be read.
    """
    lines = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not key or not equals:
            raise ConfigError(f"an option should have the form key=value, such as dims=76,216; found {setting!r}.")
        lines.append(f"{key}=[{value}]" if re.fullmatch(r"(\d+,)+\d*", value) else setting)
    try:
        options: Any = OmegaConf.to_container(OmegaConf.from_dotlist(lines), resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        reason = getattr(error, "problem", None) or error_message(error)  # The problem lacks YAML's position.
        raise ConfigError(f"options should be plain values; found {' '.join(settings)!r} ({reason}).") from error
    return {str(key): value for key, value in options.items()}


def describe(record: Record, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of ``fusionkit list`` and more; if there are ``options``, also the sizes of an operator.

    Raises:
        RegistryError: the class cannot be imported.
        ConfigError, FusionError: the options do not fit.
    """
    if record.kind == "dataset":
        return _described_data(record, options)
    cls: Any = registry.load(record.kind, record.qualified)
    head, details = _doc(cls)
    signature = inspect.signature(cls)
    return {
        **_described(record, cls, head),
        "signature": f"{cls.__name__}{_unquoted(signature)}",
        "options": [_option(parameter) for parameter in signature.parameters.values()],
        "formula": formula(f"{head}\n\n{details}"),
        "doc": " ".join(head.split()),
        "details": details,
        "traits": cls.traits.declared(),
        "absent_view": cls.absent_view() if record.kind == "fusion" else None,
        **_sizes(record.kind, record, options),
        "config": config.node(record.kind, record.key),
    }


def _described(record: Record, target: Any, head: str) -> dict[str, Any]:
    file, line = _location(target)
    return {
        **record.to_dict(),
        "summary": record.summary or textwrap.shorten(head.replace("`", ""), 100, placeholder=" ..."),
        "replacement": record.spec.deprecated,
        "plugin": record.plugin,
        "file": file,
        "line": line,
    }


def _described_data(record: Record, options: Mapping[str, Any]) -> dict[str, Any]:
    if options:
        command = f"fusionkit show data={record.key} {' '.join(f'data.{name}=...' for name in options)}"
        raise ConfigError(f"a data set should be shown without options; found {', '.join(options)}.  Try {command}")
    function = registry.dataset(record.qualified)
    head, details = _doc(function)
    return {
        **_described(record, function, head),
        "doc": " ".join(head.split()),
        "details": details,
        "reads": f"fusionkit show data={record.key}",
        "config": config.node(record.kind, record.key),
    }


def _doc(target: Any) -> tuple[str, str]:
    """Return the first paragraph of a docstring, and the rest."""
    head, _, details = inspect.cleandoc(target.__doc__ or "").partition("\n\n")
    return head, details


def page(found: Mapping[str, Any]) -> str:
    """Return what ``describe`` found as text: a line per entry, the details and the config node below."""
    traits = [name if value is True else f"{name}={value}" for name, value in found.get("traits", {}).items()]
    data = found["kind"] == "dataset"
    lines = {
        **{key: found[key] for key in ("name", "kind")},
        "aliases": ", ".join(found["aliases"]),
        "qualified": found["qualified"],
        "distribution": " ".join(filter(None, (found["distribution"], found["version"]))),
        "status": found["status"] + (f": {instead(found['replacement'])}" if found["replacement"] else ""),
        "function" if data else "class": found["target"],
        "file": f"{found['file']}:{found['line']}" if found["file"] else "",
        **{key: found.get(key) for key in ("summary", "formula", "doc", "task", "licence", "citation", "origin")},
        "rows, views, parts": found.get("reads"),
        "traits": ", ".join(traits),
        "absent view": found.get("absent_view"),
        **{key: found.get(key) for key in ("n", "l", "dense_l", *FIGURES, "cost_error", "signature")},
    }
    lines = {label: value for label, value in lines.items() if value not in (None, "")}
    width = max(map(len, lines)) + 2
    text = "\n".join(f"{label:<{width}}{value}" for label, value in lines.items())
    for label in ("details", "config"):
        if found[label]:
            text += f"\n\n{label}\n{textwrap.indent(found[label].rstrip(), '  ')}"
    return text


def formula(doc: str) -> str | None:
    """Return the first formula of a docstring: in backticks or dollars, else the first line with an equals sign."""
    text = " ".join(doc.split())
    for ticked in re.finditer(r"``(.+?)``|`(.+?)`|\$+(.+?)\$+", text):
        found = next(group for group in ticked.groups() if group)
        if not re.fullmatch(r"[\w.]+", found):  # A single word is the name of something.
            return found
    return next((line.strip() for line in doc.splitlines() if "=" in line), None)


def _location(cls: Any) -> tuple[str | None, int | None]:
    try:
        return inspect.getsourcefile(cls), inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):  # Made in an interactive session, or without its source.
        return None, None


def _unquoted(signature: inspect.Signature) -> str:
    """Return the parameters as text; annotations that are strings appear without quotes."""
    text = str(signature.replace(return_annotation=signature.empty))
    return re.sub(r""": (['"])(.+?)\1(?= = |[,)])""", r": \2", text)


def _option(parameter: inspect.Parameter) -> dict[str, Any]:
    """Return a parameter of the constructor: name, type as text, required, default as text."""
    given = parameter.default is not parameter.empty
    starred = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return {
        "name": parameter.name,
        "type": None if parameter.annotation is parameter.empty else annotation(parameter.annotation),
        "required": not given and not starred,
        "default": repr(parameter.default) if given else None,
    }


def _sizes(kind: Operator, record: Record, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return n and l of the operator with these ``options``, and with ``dims`` its cost; nothing is allocated."""
    if not options:
        return {"n": None, "l": None}
    own = dict(options)
    m = own.pop("m", 1)
    if not isinstance(m, int) or m < 1:
        raise FusionError(f"m, the number of rows, should be an integer of at least 1; found {m!r}.")
    if kind == "fusion":
        fusion = fusionkit.create(record.qualified, **{**own, "device": "meta"})
    elif {"n", "dims"} <= own.keys():
        size = {"n": own.pop("n"), "dims": own.pop("dims")}
        made = fusionkit.create_fabrication(record.qualified, **own)
        fusion = fusionkit.create("parameterized_concatenation", parameter_fabrication=made, device="meta", **size)
    else:
        raise FusionError(
            f"the size of W should be given, as in n=64 dims=76,216; found {', '.join(own) or 'neither'}."
        )
    found = {"n": fusion.calculate_n(), "l": fusion.calculate_l()}
    if kind == "fabrication":
        found["dense_l"] = found["n"] * sum(fusion.dims or ())
    if options.get("dims") is None:
        return found
    try:
        figures = fusionkit.cost(record.qualified, kind=kind, **options)
    except FusionError as error:  # n and l are arithmetic; the rest needs a forward pass on the meta device.
        return {**found, "cost_error": str(error)}
    return {**found, **{key: figures[key] for key in FIGURES}}
