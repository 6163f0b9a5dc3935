"""The public names with their signatures, in ``public_names.txt``: ``python -m tests.test_stability`` writes it anew.

The file has one line for each name, sorted, so that the difference of a change shows what it adds, changes or removes;
docs/stability.md says what may.  It is the same under every supported Python and torch.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Container, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel

from fusionkit import hookspecs
from fusionkit.cli import run
from fusionkit.cli.commands import COMMANDS, RENAMED, imported
from fusionkit.cli.commands import fusionkit as command_group
from fusionkit.config import compose
from fusionkit.config.hydra_bridge import argument_parser
from fusionkit.experiment.checkpoint import Facts
from fusionkit.experiment.results import Result
from tests.test_importable import NAMES

FILE = Path(__file__).with_name("public_names.txt")
#: Modules of which everything in ``__all__`` is public.
MODULES = [
    *("fusionkit", "fusionkit.errors", "fusionkit.fusion", "fusionkit.fabrication", "fusionkit.testing"),
    *("fusionkit.experiment", "fusionkit.experiment.parallel", "fusionkit.config", "fusionkit.contract.rules"),
]
#: What public functions return, and what the bench of a plugin imports.
MORE = {
    "fusionkit.bench.references": ["Job", "Reference", "References"],
    "fusionkit.contract.report": ["Report", "Result"],
    "fusionkit.experiment.model": ["FusionModel"],
}
#: What a subclass writes or uses, although the names begin with an underscore.
EXTENSION = {"_factory", "_fuse", "_materialize", "_project"}


def ours(value: object) -> bool:
    """Whether a class or function is defined in this project."""
    return str(getattr(value, "__module__", "")).partition(".")[0] == "fusionkit"


class Source(str):
    """An annotation as it stands in the source: without quotation marks in a signature."""

    __repr__ = str.__str__


def signature(function: Any, *, bound: bool = False) -> str:
    """Return the signature with the annotations as they stand in the source; bound, without its first parameter."""
    found = inspect.signature(function)
    parameters = [
        one if one.annotation is one.empty else one.replace(annotation=Source(one.annotation))
        for one in list(found.parameters.values())[bound:]
    ]
    returns = found.return_annotation
    return str(
        found.replace(
            parameters=parameters, return_annotation=Source(returns) if returns is not found.empty else returns
        )
    )


def members(path: str, cls: type, listed: Container[object]) -> Iterator[str]:
    """Yield a line for each public method, property and field of a class, but for those of bases that are listed."""
    bases = [base for base in cls.__mro__ if ours(base) and (base is cls or base not in listed)]
    fields = {name for base in bases for name in inspect.get_annotations(base)}
    for name in fields.union(*map(vars, bases)):
        if name.startswith("_") and name not in EXTENSION:
            continue
        found = inspect.getattr_static(cls, name, None)
        if isinstance(found, property):
            yield f"{path}.{name}: property"
        elif isinstance(found, classmethod | staticmethod):
            bound = isinstance(found, classmethod)
            yield f"{path}.{name}{signature(found.__func__, bound=bound)}  [{type(found).__name__}]"
        elif inspect.isfunction(found) and ours(found):
            yield f"{path}.{name}{signature(found, bound=True)}"
        elif name in fields or not hasattr(found, "__get__"):  # Descriptors: what scikit-learn puts there.
            yield f"{path}.{name}: attribute"


def lines_of(path: str, value: Any, listed: Container[object]) -> Iterator[str]:
    """Yield the line of a name, and those of what belongs to it."""
    if not inspect.isclass(value):
        yield path + (signature(value) if ours(value) and hasattr(value, "__name__") and callable(value) else "")
    elif issubclass(value, BaseException):
        yield f"{path}({', '.join(base.__name__ for base in value.__bases__)})  [exception]"
    else:
        own = inspect.isfunction(inspect.getattr_static(value, "__init__", None))
        yield f"{path}{signature(inspect.getattr_static(value, '__init__'), bound=True) if own else ''}  [class]"
        yield from members(path, value, listed)


def python_names() -> Iterator[str]:
    """Yield the lines of modules; a class or function that has several names is described at the first one."""
    homes: dict[object, str] = {}
    for module in sorted({*NAMES, *MODULES, *MORE}):
        found = import_module(module)
        names = {*NAMES.get(module, []), *MORE.get(module, []), *(found.__all__ if module in MODULES else [])}
        for name in sorted(names):
            path, value = f"{module}.{name}", getattr(found, name)
            home = homes.setdefault(value, path) if inspect.isclass(value) or inspect.isfunction(value) else path
            if home == path:
                yield from lines_of(path, value, homes)
            else:
                yield f"{path} = {home}"


def hooks() -> Iterator[str]:
    """Yield the lines of the hooks of plugins."""
    for name, value in vars(hookspecs).items():
        if name.startswith("fusionkit_"):
            yield f"hook {name}{signature(value)}"


def parameters(path: str, command: click.Command) -> Iterator[str]:
    """Yield the lines of a command: its arguments and options."""
    yield path
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            several = " ..." if parameter.multiple else ""
            value = "" if parameter.is_flag else f" {parameter.metavar or parameter.type.name.upper()}"
            choices = f" {'|'.join(parameter.type.choices)}" if isinstance(parameter.type, click.Choice) else value
            found = parameter.default
            default = f" = {found!r}" if isinstance(found, str | int | float) and not parameter.is_flag else ""
            yield f"{path} {', '.join(parameter.opts)}{choices}{several}{default}"
        else:
            yield f"{path} ARGUMENT {parameter.name}{' ...' if parameter.nargs == -1 else ''}"
    if isinstance(command, click.Group) and command is not command_group:
        for name, one in command.commands.items():
            yield from parameters(f"{path} {name}", one)


def commands() -> Iterator[str]:
    """Yield the lines of all commands; of ``run`` only the options that Hydra's applications do not have."""
    yield from parameters("command fusionkit", command_group)
    for name, (target, _) in COMMANDS.items():
        yield from parameters(f"command fusionkit {name}", imported(target))
    for former, name in RENAMED.items():
        yield f"command fusionkit {former}  [deprecated: {name}]"
    hydra = {option for action in argument_parser()._actions for option in action.option_strings}
    for action in run.parse([])[1]._actions:
        for option in {*action.option_strings} - hydra:
            yield f"command fusionkit run {option} {action.metavar}"


def keys(path: str, tree: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the options of the configuration, with their defaults."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from keys(f"{path}{name}.", value)
        else:
            yield f"config {path}{name} = {value!r}"


def fields(path: str, model: Any) -> Iterator[str]:
    """Yield the lines of the keys of a file of JSON."""
    for name, field in model.items():
        yield f"{path} {name}"
        inner = getattr(field, "annotation", None)
        if inspect.isclass(inner) and issubclass(inner, BaseModel):
            yield from (f"{path} {name}.{one}" for one in inner.model_fields)


def lines() -> list[str]:
    """Return all lines."""
    found = {*python_names(), *hooks(), *commands(), *keys("", compose([]))}
    found |= {*fields("result.json", Result.model_fields), *fields("checkpoint", Facts.__annotations__)}
    return sorted(found)


def test_public_names_are_those_of_the_list() -> None:
    committed = FILE.read_text(encoding="utf-8").splitlines()
    changes = [line for line in difflib.ndiff(committed, lines()) if line[0] in "+-"]
    assert not changes, "\n".join([*changes, "see docs/stability.md, then python -m tests.test_stability"])


@pytest.mark.parametrize(
    "line",
    [
        "fusionkit.create_fabrication(",
        "fusionkit.Fusion.restrict(",
        "fusionkit.experiment.FusionClassifier.predict_proba(",
        "hook fusionkit_run_finished(result: dict[str, Any], run_dir: Path | None)",
        "command fusionkit run --resume RUN_DIR",
        "command fusionkit conf check",
        "command fusionkit bench --device TEXT = 'cpu'",
        "config train.lr = ",
        "result.json data.digest",
    ],
)
def test_the_list_has_every_kind_of_name(line: str) -> None:
    assert [one for one in lines() if one.startswith(line)]


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n", encoding="utf-8")
