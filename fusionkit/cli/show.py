"""All that ``fusionkit show`` says about one name of the registry.  Imports its class, hence torch."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped, unused-ignore]

from fusionkit import registry
from fusionkit.cli.summary import first_sentence
from fusionkit.core import factory
from fusionkit.core.costing import cost
from fusionkit.errors import ConfigError, FusionError
from fusionkit.fusion import check_dims, check_size
from fusionkit.registry.catalogue import Record, instead

__all__ = ["describe", "formula", "page", "parse"]

# What ``show`` takes from ``fusionkit.cost``.
FIGURES = ("m", "macs", "elementwise", "parameter_bytes", "buffer_bytes", "output_bytes", "peak_activation_bytes")


def parse(settings: Sequence[str]) -> dict[str, Any]:
    """Return ``key=value`` arguments as a dict, values read as in a config: ``dims=[76,216]``, ``r=8``, ``a.b=null``.

    Integers with commas between are a list without brackets too, which many a shell wants quoted: ``dims=76,216``.

    Raises:
        ConfigError: one has no ``=``, no key, or a value that cannot be read.
    """
    lines = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not key or not equals:
            raise ConfigError(f"an option should have the form key=value, such as dims=76,216; found {setting!r}.")
        lines.append(f"{key}=[{value}]" if re.fullmatch(r"(\d+,)+\d*", value) else setting)
    try:
        options = OmegaConf.to_container(OmegaConf.from_dotlist(lines), resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        reason = getattr(error, "problem", None) or " ".join(str(error).split())  # A parser adds where in its text.
        raise ConfigError(f"options should be plain values; found {' '.join(settings)!r} ({reason}).") from error
    return {str(key): value for key, value in options.items()} if isinstance(options, dict) else {}


def describe(record: Record, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of ``fusionkit list`` and more; with ``options`` to build it, also its sizes.

    Raises:
        RegistryError: the class cannot be imported.
        ConfigError, FusionError: the options do not fit.
    """
    cls = registry.load(record.kind, record.qualified)
    file, line = _location(cls)
    doc = inspect.cleandoc(cls.__doc__ or "")
    return {
        **record.to_dict(),
        "summary": record.summary or first_sentence(cls.__doc__),
        "replacement": record.spec.deprecated,
        "plugin": record.plugin,
        "file": file,
        "line": line,
        "signature": _signature(cls),
        "options": _options(cls),
        "formula": formula(doc),
        "doc": " ".join(doc.partition("\n\n")[0].split()),
        "details": doc.partition("\n\n")[2],
        "traits": cls.traits.declared(),  # type: ignore[attr-defined]
        **_sizes(record, options),
        "config": _config(record),
    }


def page(found: Mapping[str, Any]) -> str:
    """Return what ``describe`` found as text: one line each, the options and the config node below."""
    version = f" {found['version']}" if found["version"] else ""
    status = found["status"] + (f": {instead(found['replacement'])}" if found["replacement"] else "")
    traits = [name if value is True else f"{name}={value}" for name, value in found["traits"].items()]
    lines = {
        "name": found["name"],
        "kind": found["kind"],
        "aliases": ", ".join(found["aliases"]),
        "qualified": found["qualified"],
        "distribution": f"{found['distribution']}{version}",
        "status": status,
        "class": found["target"],
        "file": f"{found['file']}:{found['line']}" if found["file"] else "",
        "summary": found["summary"],
        "formula": found["formula"],
        "doc": found["doc"],
        "traits": ", ".join(traits),
        "n": found["n"],
        "l": found["l"],
        "dense_l": found.get("dense_l"),
        **{label: found.get(label) for label in (*FIGURES, "cost_error")},
        "signature": found["signature"],
    }
    lines = {label: value for label, value in lines.items() if value not in (None, "")}
    width = max(map(len, lines)) + 2
    text = "\n".join(f"{label:<{width}}{value}" for label, value in lines.items())
    for label in ("details", "config"):
        if found[label]:
            text += f"\n\n{label}\n{_indented(found[label])}"
    return text


def formula(doc: str) -> str | None:
    """Return the first formula of a docstring: in backticks or dollars, else the first line with an equals sign."""
    text = " ".join(doc.split())
    for ticked in re.finditer(r"``(.+?)``|`(.+?)`|\$+(.+?)\$+", text):
        found = next(group for group in ticked.groups() if group)
        if not re.fullmatch(r"[\w.]+", found):  # A single word is the name of something.
            return found
    return next((line.strip() for line in doc.splitlines() if "=" in line), None)


def _location(cls: type) -> tuple[str | None, int | None]:
    try:
        return inspect.getsourcefile(cls), inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):  # Made in an interactive session, or without its source.
        return None, None


def _signature(cls: type) -> str:
    return f"{cls.__name__}({', '.join(_parts(inspect.signature(cls)))})"


def _parts(signature: inspect.Signature) -> list[str]:
    """Return the parameters as in a ``def``, with annotations as their author wrote them."""
    parts = []
    starred = False  # Whether a * stands before the keyword-only parameters already.
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
        starred = starred or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        annotation = _annotation(parameter)
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        parts.append(f"{_stars(parameter)}{parameter.name}{f': {annotation}' if annotation else ''}{default}")
    return parts


def _stars(parameter: inspect.Parameter) -> str:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return "*"
    return "**" if parameter.kind is parameter.VAR_KEYWORD else ""


def _annotation(parameter: inspect.Parameter) -> str | None:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return None
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _options(cls: type) -> list[dict[str, Any]]:
    """Return the parameters of the constructor: name, type as text, required, default as text."""
    return [
        {
            "name": parameter.name,
            "type": _annotation(parameter),
            "required": parameter.default is parameter.empty and not _stars(parameter),
            "default": None if parameter.default is parameter.empty else repr(parameter.default),
        }
        for parameter in inspect.signature(cls).parameters.values()
    ]


def _sizes(record: Record, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return n and l of what ``options`` build, and with ``dims`` its cost; nothing is allocated."""
    if not options:
        return {"n": None, "l": None}
    if "m" in options:
        check_size("m, the number of rows,", options["m"])
    own = {key: value for key, value in options.items() if key != "m"}
    found = _fabrication_sizes(record, own) if record.kind == "fabrication" else _fusion_sizes(record, own)
    if options.get("dims") is None:
        return found
    try:
        figures = cost(record.qualified, kind=record.kind, **options)
    except FusionError as error:  # n and l are arithmetic; the rest needs a forward pass on the meta device.
        return {**found, "cost_error": str(error)}
    return {**found, **{key: figures[key] for key in FIGURES}}


def _fusion_sizes(record: Record, options: dict[str, Any]) -> dict[str, Any]:
    with torch.device("meta"):
        fusion = factory.create(record.qualified, **options)
    return {"n": fusion.calculate_n(), "l": fusion.calculate_l()}


def _fabrication_sizes(record: Record, options: dict[str, Any]) -> dict[str, Any]:
    if not {"n", "dims"} <= options.keys():
        raise FusionError(
            f"the size of W should be given, as in n=64 dims=76,216; found {', '.join(options) or 'neither'}."
        )
    n, D = options.pop("n"), sum(check_dims(options.pop("dims")))
    l = factory.create_fabrication(record.qualified, **options).calculate_l(n, D)
    return {"n": n, "l": l, "dense_l": n * D}


def _config(record: Record) -> str | None:
    from fusionkit.config import node

    return node(record.kind, record.key)


def _indented(text: str) -> str:
    return textwrap.indent(text.rstrip(), "  ")
