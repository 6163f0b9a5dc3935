"""The commands ``fusionkit list`` and ``fusionkit plugins``.  They import neither torch nor an operator."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

import click

from fusionkit import registry
from fusionkit._util.tables import print_table
from fusionkit.cli.commands import json_option, kind_option, print_json
from fusionkit.registry import lookup
from fusionkit.registry.catalogue import KINDS, Record
from fusionkit.registry.loading import Kind, Plugin

# The output must not contain what a plugin prints while it is imported: hence redirect_stdout below.


@click.command("list", epilog="\b\nExample:\n  fusionkit list --kind fabrication")
@kind_option
@json_option
def list_names(kind: Kind | None, as_json: bool) -> None:
    """List every fusion, fabrication and data set on this machine, without importing them."""
    with redirect_stdout(sys.stderr):
        records = registry.records(kind)
    if as_json:
        print_json([record.to_dict() for record in records])
    else:
        _print_records(records)


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


@click.command(epilog="\b\nExample:\n  fusionkit plugins --strict")
@click.option("--strict", is_flag=True, help="Import every class and function too; exit 1 if a plugin is not loaded.")
@click.option("--traceback", is_flag=True, help="Print the traceback of each failure as well.")
@json_option
def plugins(strict: bool, traceback: bool, as_json: bool) -> int:
    """Show which installed plugins are loaded, which are not, and why."""
    with redirect_stdout(sys.stderr):
        found = registry.verify(import_targets=strict)
    if as_json:
        print_json([plugin.to_dict() for plugin in found])
    else:
        _print_plugins(found, traceback)
    unloaded = [plugin for plugin in found if plugin.status != "loaded"]
    quarantined = [plugin for plugin in unloaded if plugin.status != "disabled"]
    return int(bool(unloaded if strict else quarantined and lookup.strict()))


def _print_plugins(found: Sequence[Plugin], tracebacks: bool) -> None:
    """Print a table, and below it warnings about names that need their qualified form, and the tracebacks."""
    rows = [
        (
            plugin.name,
            _owner(plugin.distribution, plugin.version),
            plugin.status,
            *(len(plugin.names(kind)) for kind in KINDS),
            f"{plugin.seconds:.3f}",
            plugin.error,
        )
        for plugin in found
    ]
    columns = ("plugin", "distribution", "status", *(f"{kind}s" for kind in KINDS), "seconds", "error")
    print_table(columns, rows, whole=("plugin", "status"))
    for plugin in found:
        for warning in plugin.warnings:
            print(f"warning: {plugin.title}: {warning}")
        if tracebacks and plugin.traceback:
            print(f"\n{plugin.title}:\n{plugin.traceback.rstrip()}")


def _owner(distribution: str, version: str | None) -> str:
    return f"{distribution} {version}" if version else distribution
