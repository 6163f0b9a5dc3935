"""The parser of the commands: every complaint is one sentence."""

from __future__ import annotations

import argparse

import pytest

from fusionkit import ConfigError
from fusionkit.cli.arguments import Parser


def whole(text: str) -> int:
    return int(text)


def even(text: str) -> int:
    if int(text) % 2:
        raise argparse.ArgumentTypeError(f"it should be even; found {text}")
    return int(text)


@pytest.fixture
def parser() -> Parser:
    parser = Parser(prog="fusionkit try", epilog="examples:\n  fusionkit try this")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("more", nargs="*")
    parser.add_argument("--kind", "-k", choices=("fusion", "fabrication"))
    parser.add_argument("-t", "--tier", type=int, choices=(1, 2))
    parser.add_argument("--lr", type=float)
    parser.add_argument("--rows", type=whole)
    parser.add_argument("--even", type=even)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--csv", action="store_true")
    return parser


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "fusionkit try should get NAME; found none."),
        (
            "x --knd=fusion",
            "An option of fusionkit try should be one of --help, --kind, --tier, --lr, --rows, --even, --json, --csv; "
            "found '--knd=fusion'. Did you mean '--kind'?",
        ),
        ("x --kind fusions", "--kind should be one of fusion, fabrication; found 'fusions'. Did you mean 'fusion'?"),
        ("x -k 3", "--kind should be one of fusion, fabrication; found '3'."),
        ("x -t 3", "--tier should be one of 1, 2; found '3'."),
        ("x --tier two", "--tier should be an integer; found 'two'."),
        ("x --lr fast", "--lr should be a number; found 'fast'."),
        ("x --rows a", "--rows should be whole; found 'a'."),
        ("x --even 3", "--even should be even; found 3."),
        ("x --lr", "--lr should be followed by one argument; found none."),
        ("x --json=3", "--json should stand without a value; found '3'."),
        ("x --json --csv", "--csv should not stand beside --json; found both."),
    ],
)
def test_sentences(line: str, sentence: str, parser: Parser) -> None:
    for parse in (parser.parse_args, parser.parse_intermixed_args):
        with pytest.raises(ConfigError) as caught:
            parse(line.split())
        assert str(caught.value) == sentence


def test_no_abbreviations(parser: Parser) -> None:
    with pytest.raises(ConfigError, match="found '--jso'"):
        parser.parse_args(["x", "--jso"])


def test_too_many_arguments() -> None:
    parser = Parser(prog="fusionkit try")
    with pytest.raises(ConfigError, match=r"^fusionkit try should get options only; found 'x' besides\.$"):
        parser.parse_args(["x", "y"])
    parser.add_argument("directory", metavar="DIR")
    with pytest.raises(ConfigError, match=r"^fusionkit try should get DIR; found 'y' besides\.$"):
        parser.parse_args(["x", "y"])


def test_subcommands() -> None:
    parser = Parser(prog="fusionkit try")
    commands = parser.add_subparsers(dest="command", required=True, metavar="one|two")
    commands.add_parser("one").add_argument("--json", action="store_true")
    commands.add_parser("two").add_argument("where")
    for line, sentence in (
        ("", "fusionkit try should get one|two; found none."),
        ("oen", "fusionkit try should get one of one, two; found 'oen'. Did you mean 'one'?"),
        (
            "one --jsn",
            "An option of fusionkit try should be one of --help, --json; found '--jsn'. Did you mean '--json'?",
        ),
        ("two", "fusionkit try two should get where; found none."),
    ):
        with pytest.raises(ConfigError) as caught:
            parser.parse_args(line.split())
        assert str(caught.value) == sentence


def test_what_is_right_is_parsed_and_help_is_kept(parser: Parser, capsys: pytest.CaptureFixture[str]) -> None:
    found = parser.parse_args(["x", "y", "--tier", "2"])
    assert (found.name, found.more, found.tier) == ("x", ["y"], 2)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.endswith("examples:\n  fusionkit try this\n")
