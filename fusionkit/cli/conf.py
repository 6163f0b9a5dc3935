"""The commands ``fusionkit conf check``, of every config, and ``fusionkit conf show``, of one of them."""

from __future__ import annotations

import inspect
import re
import sys

import click

from fusionkit import registry
from fusionkit._util.progress import ProgressBar
from fusionkit._util.text import count_of
from fusionkit.cli.commands import json_option, print_json
from fusionkit.config.check import check_all, report
from fusionkit.config.folders import conf_dir, folder_of
from fusionkit.config.nodes import GROUPS, annotation, find_record, group_of, node_text, yaml_file
from fusionkit.config.options import described
from fusionkit.errors import ConfigError, nearest
from fusionkit.registry.catalogue import words
from fusionkit.registry.loading import FORMS, Kind, Operator


@click.group(epilog="\b\nExamples:\n  fusionkit conf check\n  fusionkit conf show fusion=parameterized_concatenation")
def conf() -> None:
    """Check every config of fusionkit and its plugins, or show one."""


@conf.command(epilog="\b\nExample:\n  fusionkit conf check --json")
@json_option
def check(as_json: bool) -> int:
    """Check every option of every group against signatures and types; no operator is built."""
    findings = []
    with ProgressBar(None, shown=sys.stderr.isatty() and not as_json) as progress:
        for finding in check_all():
            findings.append(finding)
            progress.update(len(findings), f"{len(findings)} {finding.group} {finding.option}")
    wrong = [finding for finding in findings if finding.status != "ok"]
    if as_json:
        print_json(report(findings))
        return int(bool(wrong))
    for finding in wrong:
        print(f"{finding.status:<9} {finding.distribution}: {'/'.join(filter(None, (finding.group, finding.option)))}")
        print(f"          {finding.message}")
    print(f"{count_of(len(findings), 'config')} checked: {len(findings) - len(wrong)} right, {len(wrong)} wrong.")
    return int(bool(wrong))


@conf.command(epilog="\b\nExamples:\n  fusionkit conf show fusion=summation\n  fusionkit conf show train=default")
@click.argument("option", metavar="GROUP=NAME")
def show(option: str) -> None:
    """Print a config, such as fusion=summation, with types, defaults and comments."""
    group, _, name = option.partition("=")
    if not name and group in GROUPS:  # Another group lists its names.
        raise ConfigError(f"conf show should get GROUP=NAME, such as fusion=summation; found {option!r}.")
    kind = GROUPS.get(group)
    if kind == "dataset" and name in FORMS:
        kind = None
    print(_registered(kind, name) if kind else _file(group, name), end="")


def _registered(kind: Kind, name: str) -> str:
    text = node_text(kind, name)
    if text is None:
        registry.resolve(kind, name)  # Raises an error if the name is wrong.
        raise ConfigError(f"There should be a node for the {words(kind)} {name!r}; found none.")
    record = find_record(kind, name)
    file = yaml_file(group_of(kind), record.name if record is not None else name)
    used = file is not None and file.read_text(encoding="utf-8") == text
    found = re.search(r"^name: *(\S+)", text, re.MULTILINE)
    named = found[1].strip('"') if found else name
    origin = file if used else f"generated from the {'registry' if kind == 'dataset' else 'signature'}"
    typed = _with_descriptions("data", named, text) if kind == "dataset" else _with_types(kind, named, text)
    return f"# {origin}\n{typed}"


def _with_types(kind: Operator, name: str, text: str) -> str:
    """Append to each option of a node the type and the default from the signature of the constructor."""
    parameters = inspect.signature(registry.load(kind, name)).parameters
    lines = []
    for line in text.splitlines():
        option = re.match(r"(?!name:)(\w+):", line)
        parameter = parameters.get(option[1]) if option else None
        if parameter is not None:
            typed = "" if parameter.annotation is parameter.empty else f"{annotation(parameter.annotation)}, "
            default = "required" if parameter.default is parameter.empty else f"default {parameter.default!r}"
            line = f"{line}  # {typed}{default}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _file(group: str, name: str) -> str:
    folders = [conf_dir(), *(folder for _, path in registry.conf_paths() if (folder := folder_of(path)) is not None)]
    groups = sorted({file.parent.relative_to(f).as_posix() for f in folders for file in f.rglob("*.yaml")} - {"."})
    if group not in groups:
        raise ConfigError(f"The group should be one of {', '.join(groups)}; found {group!r}.{nearest(group, groups)}")
    # The first folder wins.
    options = {file.stem: file for folder in reversed(folders) for file in (folder / group).glob("*.yaml")}
    if name not in options:
        known = ", ".join(sorted(options))
        raise ConfigError(f"{group} should be one of {known}; found {name!r}.{nearest(name, options)}")
    return f"# {options[name]}\n{_with_descriptions(group, name, options[name].read_text(encoding='utf-8'))}"


def _with_descriptions(group: str, name: str, text: str) -> str:
    """Append to each option of data, model or train its type and range."""
    known = described(group, name) if group in ("data", "model", "train") else {}
    return re.sub(
        r"^(\w+):.*$", lambda line: f"{line[0]}  # {known[line[1]]}" if line[1] in known else line[0], text, flags=re.M
    )
