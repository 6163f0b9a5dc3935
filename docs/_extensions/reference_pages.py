"""Adds to the pages of the reference what the code knows: the help of every command, the options of a run."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import click
import yaml

from fusionkit.cli import main
from fusionkit.cli.commands import COMMANDS, imported
from fusionkit.config import conf_dir, options
from fusionkit.config.sentences import expected

if TYPE_CHECKING:
    from sphinx.application import Sphinx

#: Heading, prefix of the keys, model, and the file with the defaults below conf/.
GROUPS = [
    ("Shared options", "", options.RunConfig, "config.yaml"),
    ("The model", "model.", options.ModelOptions, "model/linear.yaml"),
    ("The training", "train.", options.TrainOptions, "train/default.yaml"),
    ("Data: a registered data set", "data.", options.DataOptions, None),
    ("Data: an npz file", "data.", options.NpzOptions, "data/npz.yaml"),
    ("Data: a folder of arrays", "data.", options.FolderOptions, "data/folder.yaml"),
    ("Data: a table", "data.", options.TableOptions, "data/table.yaml"),
    ("The fusion", "fusion.", options.FusionNode, "fusion/parameterized_concatenation.yaml"),
]


def commands() -> str:
    """Return a section per command, in Markdown."""
    return "\n".join(f"## `fusionkit {name}`\n\n```text\n{_help(name)}```\n" for name in _names())


def _names() -> Iterator[str]:
    for name, (target, _) in COMMANDS.items():
        yield name
        command = imported(target)
        if isinstance(command, click.Group):
            yield from (f"{name} {below}" for below in command.commands)


def _help(name: str) -> str:
    with redirect_stdout(io.StringIO()) as output:
        if main([*name.split(), "--help"]):
            raise ValueError(f"fusionkit {name} --help should succeed.")
    return output.getvalue()


def run_options() -> str:
    """Return a table per group of options, in Markdown."""
    return "\n".join(f"## {heading}\n\n{_table(prefix, model, file)}\n" for heading, prefix, model, file in GROUPS)


def _table(prefix: str, model: type[options.Options], file: str | None) -> str:
    schema = model.model_json_schema()
    defaults = yaml.safe_load((conf_dir() / file).read_text(encoding="utf-8")) if file else {}
    rows = ["| option | value | default | meaning |", "|---|---|---|---|"]
    for name, one in schema["properties"].items():
        if name == "name" or "description" not in one:  # What selects a group, or is the same in every run.
            continue
        default = defaults.get(name, one.get("default", "???"))
        shown = "required" if default == "???" else f"`{yaml.safe_dump(default, width=1000).splitlines()[0]}`"
        cells = f"`{prefix}{name}`", expected(one, schema), shown, one["description"]
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|').replace('*', chr(92) + '*') for cell in cells)} |")
    return "\n".join(rows)


def _add(app: Sphinx, page: str, content: list[str]) -> None:
    made = {"api/commands": commands, "api/options": run_options}
    if page in made:
        content[0] += f"\n{made[page]()}"


def _without_ways_back(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Remove the links from a source page back to the reference: they assume one page for all names of a module."""
    if page.startswith("_modules/"):
        context["body"] = re.sub(r'<a class="viewcode-back".*?</a>', "", context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the sections when Sphinx reads the pages."""
    app.connect("source-read", _add)
    app.connect("html-page-context", _without_ways_back)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
