"""The command ``fusionkit doctor``: what is installed, whether it works together, and how to mend it."""

from __future__ import annotations

import importlib
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import click

from fusionkit import registry
from fusionkit._util.distribution import DISTRIBUTION, install_command, version
from fusionkit._util.machine import cpu_count
from fusionkit._util.requirements import Need, extras, needs
from fusionkit._util.tables import print_table
from fusionkit._util.text import error_line
from fusionkit.cli.commands import json_option, print_json
from fusionkit.registry.loading import Plugin
from fusionkit.registry.ownership import clashes

SCHEMA_VERSION = 1
PACKAGE = Path(__file__).resolve().parents[1]
#: The folders, below the current one, in which conf/config.yaml puts runs and sweeps.
FOLDERS = ("outputs", "multirun")


@click.command(epilog="\b\nExamples:\n  fusionkit doctor\n  fusionkit doctor --json")
@json_option
def doctor(as_json: bool) -> int:
    """Examine this installation: versions, devices, plugins, extras, and whether runs can be written here.

    What has to be mended is said last, with the command that does it, and makes the exit status 1.  An extra that is
    missing need not be mended.
    """
    with redirect_stdout(sys.stderr):  # For what a plugin prints while it is imported.
        found = examine()
    if as_json:
        print_json(found)
    else:
        _print(found)
    return int(bool(found["problems"]))


def examine() -> dict[str, Any]:
    """Return what ``fusionkit doctor --json`` prints."""
    required, missing_project = _required()
    devices, wrong_devices = _devices()
    plugins = registry.verify()
    folders = [_folder(name) for name in FOLDERS]
    shared = clashes()
    replaced = any(not clash.beside for clash in shared)
    problems = [
        *map(str, shared),
        *([] if replaced else missing_project),
        *_unmet(required),
        *wrong_devices,
        *_unloaded(plugins),
        *(f"runs should be written to {one['folder']}; found {one['error']}" for one in folders if one["error"]),
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "problems": problems,
        "package": str(PACKAGE),
        "versions": {
            "python": platform.python_version(),
            DISTRIBUTION: version(),
            **{need.name: need.found for need in required if not need.extra},
        },
        "devices": devices,
        "plugins": [plugin.to_dict() for plugin in plugins],
        "extras": _extras(required) if required else [],
        "clashes": [asdict(clash) for clash in shared],
        "folders": folders,
    }


def _required() -> tuple[list[Need], list[str]]:
    """Return the requirements, and what is wrong where there are no metadata that name them."""
    try:
        return needs(), []
    except PackageNotFoundError:
        source = PACKAGE.parent
        where = f"-e {shlex.quote(str(source))}" if (source / "pyproject.toml").is_file() else DISTRIBUTION
        return [], [f"{DISTRIBUTION} should be installed; found only its files in {PACKAGE}: pip install {where}"]


def _unmet(required: Sequence[Need]) -> Iterator[str]:
    for need in required:
        if not need.extra and not need.met:
            yield f"{need.text} should be installed; found {need.found or 'none'}: pip install '{need.text}'"


def _unloaded(plugins: Sequence[Plugin]) -> Iterator[str]:
    for plugin in plugins:
        if plugin.status in ("failed", "incompatible"):
            yield f"the plugin {plugin.title} should load; found it {plugin.status}: {plugin.error}"


def _extras(required: Sequence[Need]) -> list[dict[str, Any]]:
    found = []
    for extra in extras():
        missing = [need.text for need in required if need.extra == extra and not need.met]
        found.append({"extra": extra, "missing": missing, "command": install_command(extra) if missing else None})
    return found


def _devices() -> tuple[list[dict[str, Any]], list[str]]:
    """Return the devices that torch can use, and what is wrong with torch.  Its import takes a second or more."""
    found: list[dict[str, Any]] = [{"device": "cpu", "name": f"{cpu_count()} cores", "memory": None}]
    try:
        torch: Any = importlib.import_module("torch")
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is not None:
            module = torch.get_device_module(accelerator)
            for index in range(module.device_count()):
                # Apple's devices have no properties.
                of = module.get_device_properties(index) if hasattr(module, "get_device_properties") else None
                name, memory = getattr(of, "name", None), getattr(of, "total_memory", None)
                found.append({"device": f"{accelerator.type}:{index}", "name": name, "memory": memory})
    except (ImportError, OSError, RuntimeError) as error:
        return found, [f"torch should work; found {error_line(error)}"]
    return found, []


def _folder(name: str) -> dict[str, Any]:
    """Return whether a folder can be made and written; nothing is left behind."""
    folder = Path(name)
    try:
        folder = Path.cwd() / name
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        with TemporaryFile(dir=existing):
            return {"folder": str(folder), "error": None}
    except OSError as error:
        return {"folder": str(folder), "error": error.strerror or error_line(error)}


def _print(found: dict[str, Any]) -> None:
    """Print one table, and below it the warnings of plugins and what has to be mended."""
    print_table(("what", "name", "found", "details"), _rows(found), whole=("what", "name"))
    for one in found["plugins"]:
        for warning in one["warnings"]:
            if warning not in found["problems"]:
                print(f"warning: {one['plugin']!r} of {one['distribution']}: {warning}")
    for problem in found["problems"]:
        print(f"to mend: {problem}")
    if not found["problems"]:
        print("Nothing has to be mended.")


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str, str | None, str | None]]:
    for name, number in found["versions"].items():
        yield "version", name, number or "missing", found["package"] if name == DISTRIBUTION else None
    for one in found["devices"]:
        yield "device", one["device"], one["name"], f"{one['memory'] / 2**30:.1f} GiB" if one["memory"] else None
    for one in found["plugins"]:
        yield "plugin", one["plugin"], one["status"], f"{one['distribution']} {one['version'] or ''}"
    for one in found["extras"]:
        missing = f"{', '.join(one['missing'])}: {one['command']}" if one["missing"] else None
        yield "extra", one["extra"], "missing" if one["missing"] else "installed", missing
    for one in found["folders"]:
        yield "folder", Path(one["folder"]).name, "not writable" if one["error"] else "writable", one["folder"]
