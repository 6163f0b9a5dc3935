"""The commands ``fusionkit list``, ``fusionkit show`` and ``fusionkit plugins``."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace

from fusionkit import registry
from fusionkit._util.tables import print_table
from fusionkit.cli.arguments import Parser
from fusionkit.cli.summary import summary
from fusionkit.errors import ConfigError, FusionError, RegistryError
from fusionkit.registry import lookup
from fusionkit.registry.catalogue import KINDS, Record
from fusionkit.registry.loading import Kind, Plugin

__all__ = ["list_names", "plugins", "show"]

# A plugin that prints while it is imported must not end up in the output: hence redirect_stdout below.


def list_names(argv: Sequence[str]) -> int:
    """Print every name of the registry.  Imports no operator."""
    parser = _parser(
        "list",
        "List every fusion and fabrication on this machine. None of them is imported.",
        "fusionkit list --kind fabrication",
    )
    _add_kind(parser, "list only this kind")
    _add_json(parser, "print a JSON list of records")
    options = parser.parse_args(argv)
    with redirect_stdout(sys.stderr):
        records = [replace(record, summary=summary(record)) for record in registry.records(options.kind)]
    if options.json:
        _print_json([record.to_dict() for record in records])
    else:
        _print_records(records)
    return 0


def _print_records(records: Sequence[Record]) -> None:
    """Print a table, or on a terminal too narrow for it one of two columns for each kind and distribution."""
    columns = ("kind", "name", "aliases", "distribution", "status", "summary")
    rows = [
        (r.kind, r.key, ", ".join(r.aliases), _owner(r.distribution, r.version), r.status, r.summary) for r in records
    ]
    needed = sum(max(map(len, column)) + 3 for column in zip(columns, *rows, strict=True))
    if not sys.stdout.isatty() or needed <= shutil.get_terminal_size().columns:
        print_table(columns, rows, whole=("kind", "name"))
        return
    groups: dict[tuple[Kind, str], list[tuple[str, str]]] = {}
    for kind, name, aliases, owner, status, text in rows:
        notes = [f"also {aliases}"] * bool(aliases) + [status] * (status != "ok")
        groups.setdefault((kind, owner), []).append((name, f"{text} ({'; '.join(notes)})" if notes else text))
    for (kind, owner), group in groups.items():
        print_table((kind, owner), group, whole=(kind,))


def plugins(argv: Sequence[str]) -> int:
    """Print what became of every plugin; with ``--strict`` fail if one is not loaded."""
    parser = _parser(
        "plugins",
        "Say which installed plugins loaded, which did not, and why.",
        "fusionkit plugins --strict",
    )
    parser.add_argument(
        "--strict", action="store_true", help="import every class too; exit 1 if a plugin is not loaded"
    )
    parser.add_argument("--traceback", action="store_true", help="print the traceback of each failure as well")
    _add_json(parser, "print a JSON list of records")
    options = parser.parse_args(argv)
    with redirect_stdout(sys.stderr):
        found = registry.verify(import_targets=options.strict)
    if options.json:
        _print_json([plugin.to_dict() for plugin in found])
    else:
        print_table(
            ("plugin", "distribution", "status", "fusions", "fabrications", "seconds", "error"),
            [
                (
                    plugin.name,
                    _owner(plugin.distribution, plugin.version),
                    plugin.status,
                    len(plugin.names("fusion")),
                    len(plugin.names("fabrication")),
                    f"{plugin.seconds:.3f}",
                    plugin.error,
                )
                for plugin in found
            ],
            whole=("plugin", "status"),
        )
        _print_remarks(found, options.traceback)
    unloaded = [plugin for plugin in found if plugin.status != "loaded"]
    quarantined = [plugin for plugin in unloaded if plugin.status != "disabled"]
    return int(bool(unloaded if options.strict else quarantined and lookup.strict()))


def show(argv: Sequence[str]) -> int:
    """Print all about one operator or fabrication; given its sizes, also how large it is."""
    parser = _parser(
        "show",
        "Show one fusion or fabrication: where it is from, its signature, formula and traits; with options, its sizes.",
        "fusionkit show lowrank\n  fusionkit show parameterized_concatenation dims=[76,216] n=64",
    )
    parser.add_argument("name", metavar="NAME", help="a name, an alias, or DISTRIBUTION/NAME")
    parser.add_argument(
        "options", metavar="KEY=VALUE", nargs="*", help="options to build it with, such as dims=[76,216] n=64"
    )
    _add_kind(parser, "which one, where a fusion and a fabrication share a name")
    _add_json(parser, "print one JSON object")
    options = parser.parse_intermixed_args(argv)
    with redirect_stdout(sys.stderr):
        record = _record(options.name, options.kind)
        from fusionkit.cli import show as description  # It imports torch, which --help and a mistyped name do not need.

        try:
            found = description.describe(record, description.parse(options.options))
        except FusionError as error:  # The options are the user's.
            raise ConfigError(str(error)) from error
    if options.json:
        _print_json(found)
    else:
        print(description.page(found))
    return 0


def _record(name: str, kind: Kind | None) -> Record:
    try:
        return registry.find(name, kind)
    except RegistryError as error:
        from fusionkit.config.nodes import yaml_file

        if kind == "fabrication" or yaml_file("fusion", name) is None:
            raise
        raise ConfigError(
            f"the name should be that of an operator; found the preset {name!r}: fusionkit conf show fusion={name}"
        ) from error


def _parser(command: str, description: str, examples: str) -> Parser:
    return Parser(
        prog=f"fusionkit {command}",
        description=description,
        epilog=f"examples:\n  {examples}",
    )


def _add_kind(parser: Parser, text: str) -> None:
    parser.add_argument("--kind", choices=KINDS, help=text)


def _add_json(parser: Parser, text: str) -> None:
    parser.add_argument("--json", action="store_true", help=text)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _owner(distribution: str, version: str | None) -> str:
    return f"{distribution} {version}" if version else distribution


def _print_remarks(found: Sequence[Plugin], tracebacks: bool) -> None:
    """Print what does not fit into the table: names that work only in their qualified form, tracebacks."""
    for plugin in found:
        for warning in plugin.warnings:
            print(f"warning: {plugin.title}: {warning}")
        if tracebacks and plugin.traceback:
            print(f"\n{plugin.title}:\n{plugin.traceback.rstrip()}")
