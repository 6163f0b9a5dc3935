"""``fusionkit conf``: check every config, or show the node of an operator."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from fusionkit.cli.arguments import Parser
from fusionkit.config.nodes import Kind
from fusionkit.errors import ConfigError, nearest

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run ``fusionkit conf ARGV``; 1 if the check finds something wrong."""
    parser = Parser(
        prog="fusionkit conf",
        description="Check every config of fusionkit and its plugins, or show one.",
        epilog="examples:\n  fusionkit conf check\n  fusionkit conf show fusion=parameterized_concatenation",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="check|show")
    check = commands.add_parser(
        "check",
        help="check every option of every group against signatures and types; nothing is built",
        epilog="example:\n  fusionkit conf check --json",
    )
    check.add_argument("--json", action="store_true", help="print the findings as JSON")
    show = commands.add_parser(
        "show",
        help="print a config with types, defaults and comments",
        epilog="examples:\n  fusionkit conf show fusion=summation\n  fusionkit conf show train=default",
    )
    show.add_argument("option", metavar="GROUP=NAME", help="such as fusion=summation")
    arguments = parser.parse_args(argv)
    return _check(as_json=arguments.json) if arguments.command == "check" else _show(arguments.option)


def _check(*, as_json: bool) -> int:
    from fusionkit.config.check import check_all, report

    findings = []
    tty = sys.stderr.isatty() and not as_json
    for finding in check_all():
        findings.append(finding)
        if tty:
            print(f"\r\x1b[K{len(findings)} {finding.group} {finding.option}", end="", file=sys.stderr, flush=True)
    if tty:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    wrong = [finding for finding in findings if finding.status != "ok"]
    if as_json:
        print(json.dumps(report(findings), indent=2, ensure_ascii=False))
        return bool(wrong)
    for finding in wrong:
        print(f"{finding.status:<9} {finding.distribution}: {'/'.join(filter(None, (finding.group, finding.option)))}")
        print(f"          {finding.message}")
    plural = "config" if len(findings) == 1 else "configs"
    print(f"{len(findings)} {plural} checked: {len(findings) - len(wrong)} right, {len(wrong)} wrong.")
    return bool(wrong)


def _show(option: str) -> int:
    group, equals, name = option.partition("=")
    if not equals or not name:
        raise ConfigError(f"conf show should get GROUP=NAME, such as fusion=summation; found {option!r}.")
    if group in get_args(Kind):
        kind: Any = group
        print(_operator(kind, name), end="")
        return 0
    print(_file(group, name), end="")
    return 0


def _operator(kind: Kind, name: str) -> str:
    from fusionkit import registry
    from fusionkit.config.nodes import node_text, status, yaml_file

    text = node_text(kind, name)
    if text is None:
        registry.resolve(kind, name)  # Says what is wrong with the name.
        raise ConfigError(f"There should be a node for the {kind} {name!r}; found none.")
    record = status(kind, name)
    file = yaml_file(kind, record.name if record is not None else name)
    used = file is not None and file.read_text(encoding="utf-8") == text
    found = re.search(r"^name: *(\S+)", text, re.MULTILINE)
    named = found[1].strip('"') if found else name
    return f"# {file if used else 'generated from the signature'}\n{_typed(kind, named, text)}"


def _typed(kind: Kind, name: str, text: str) -> str:
    """Append to each option of a node its type and default, as its constructor has them."""
    import inspect

    from fusionkit import registry
    from fusionkit.config.nodes import annotation

    parameters = inspect.signature(registry.load(kind, name)).parameters
    lines = []
    for line in text.splitlines():
        option = re.match(r"(\w+):", line)
        parameter = parameters.get(option[1]) if option else None
        if parameter is None or option is None or option[1] == "name":
            lines.append(line)
            continue
        typed = "" if parameter.annotation is parameter.empty else annotation(parameter.annotation)
        default = "required" if parameter.default is parameter.empty else f"default {parameter.default!r}"
        lines.append(f"{line}  # {', '.join(part for part in (typed, default) if part)}")
    return "\n".join(lines) + "\n"


def _file(group: str, name: str) -> str:
    from fusionkit import registry
    from fusionkit.config.folders import conf_dir, folder_of

    folders = [conf_dir(), *(folder for _, path in registry.conf_paths() if (folder := folder_of(path)) is not None)]
    groups = sorted({file.parent.relative_to(f).as_posix() for f in folders for file in f.rglob("*.yaml")} - {"."})
    if group not in groups:
        raise ConfigError(f"The group should be one of {', '.join(groups)}; found {group!r}.{nearest(group, groups)}")
    options: dict[str, Path] = {}
    for folder in folders:
        for file in sorted((folder / group).glob("*.yaml")):
            options.setdefault(file.stem, file)
    if name not in options:
        raise ConfigError(
            f"{group} should be one of {', '.join(options)}; found {name!r}.{nearest(name, list(options))}"
        )
    return f"# {options[name]}\n{_worded(group, options[name].read_text(encoding='utf-8'))}"


def _worded(group: str, text: str) -> str:
    """Append to each option of data, model or train what it may be."""
    from fusionkit.config.options import described

    words = described(group) if group in ("data", "model", "train") else {}
    return re.sub(
        r"^(\w+):.*$", lambda line: f"{line[0]}  # {words[line[1]]}" if line[1] in words else line[0], text, flags=re.M
    )
