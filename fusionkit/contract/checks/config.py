"""The constructor's options, the config node of the operator, and the way back to it."""

from __future__ import annotations

import inspect
import json
from functools import partial
from typing import Any

import torch
from omegaconf import OmegaConf

from fusionkit import config
from fusionkit.config.interpolations import resolve
from fusionkit.config.keys import CONTROL_KEYS
from fusionkit.config.safe import check_tree
from fusionkit.config.sentences import mistakes
from fusionkit.config.types import options_of
from fusionkit.contract.checks._common import agrees, copy_buffers, expect_resolves, expect_value, same_output, skip_if
from fusionkit.contract.rules import Violation, describe, expect, no_error, outcome, rule, skip
from fusionkit.contract.subject import Subject
from fusionkit.core import factory
from fusionkit.errors import ConfigError
from fusionkit.fusion import Fusion

#: Keys of a node that are no options of the constructor; ``missing`` is one of ``create``.
NO_OPTIONS = CONTROL_KEYS | {"name", "defaults", "missing"}


@rule(scope="none", basic=True)
def check_signature(subject: Subject) -> None:
    """The constructor names every option, without `**kwargs`; that of a fusion takes `n`, `dims` and `device`.

    Write every option into the signature, and pass those of the base class to `super().__init__`.
    """
    parameters = inspect.signature(subject.cls).parameters
    basic = ("n", "dims", "device")
    for name, parameter in parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        found = f"{parameter}, which is {parameter.kind.description}"
        expect(named, "every parameter of the constructor should be an option with a name", found)
        fine = parameter.default is not parameter.empty or name not in basic
        expect(fine, f"{name} should have a default", f"{name} without one")
    for name in basic if subject.kind == "fusion" else ():
        expect(name in parameters, f"the constructor should take {name} by keyword", f"only {', '.join(parameters)}")


@rule(scope="first")
def check_config_composes(subject: Subject) -> None:
    """Its config node, a YAML file or the generated one, composes into the configuration and names this operator.

    Write the file `conf/fusion/<name>.yaml` (`conf/fabrication/<name>.yaml`) as the generated node shows it, or
    remove it.
    """
    expect_resolves(subject, f"{subject.kind}.name", str(_composed(subject).get("name")))


@rule(scope="first")
def check_config_safe(subject: Subject) -> None:
    """Its config node instantiates under the allow-list.

    Select nested objects by name; use no `_target_` but fusionkit's factories and the allowed classes of torch.
    """
    with no_error(f"the node {subject.kind} should instantiate under the allow-list"):
        node = OmegaConf.create(config.node(subject.kind, subject.record.key) or "")
        # What a node may refer to; config_composes checks its other interpolations.
        tree = {"n": None, "dims": None, "device": "cpu", "fabrication": {"name": "dense"}, subject.kind: node}
        node = resolve(OmegaConf.create(tree))[subject.kind]
        check_tree(node, subject.kind)
        if subject.kind == "fusion":
            config.build({**node, **subject.options}, "fusion")
        else:
            factory.create_fabrication(**{**node, **subject.options})


@rule(scope="first")
def check_config_matches_signature(subject: Subject) -> None:
    """Every key of its config node is an option of the constructor, and every value has the type of that option.

    Rename the key, or correct the value or the annotation.
    """
    text = config.node(subject.kind, subject.record.key)
    if text is None:
        raise Violation("the operator should have a config node", "none")
    content: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    signature = options_of(subject.cls)
    known = signature.json_schema()["properties"]
    later = [key for key in content if key in known and str(content[key]).startswith(("${", "???"))]
    options = {key: value for key, value in content.items() if key not in (*NO_OPTIONS, *later)}
    wrong = mistakes(signature, options, subject.kind, complete=False)
    expect(not wrong, "the node should fit the constructor", " ".join(wrong.values()))


def _composed(subject: Subject) -> dict[str, Any]:
    """Return the node of the subject from the composed configuration."""
    name = subject.record.key
    text = config.node(subject.kind, name) or ""
    # The node has ??? for an option without a default; the case has its value.
    required = [
        f"{subject.kind}.{option}={json.dumps(value)}"
        for option, value in subject.options.items()
        if f"\n{option}: ???" in f"\n{text}"
    ]
    with no_error(f"the configuration should compose with {subject.kind}={name}"):
        found: dict[str, Any] = config.compose([f"{subject.kind}={name}", *required])[subject.kind]
    return found


@rule()
def check_config_round_trip(subject: Subject) -> None:
    """`create(**op.to_config())` builds an operator with the same n, l, state_dict keys and output.

    Take every option as a keyword of a JSON type, and let the operator depend on nothing else.
    """
    skip_if(subject.source.record is None, "needs a registry entry, and the subject is not registered")
    op = subject.operator()
    _, error = outcome(op.to_config)
    if subject.source.instance is not None and isinstance(error, ConfigError):
        skip(f"the instance has no config: {error}")
    options = _options_of(op)
    with no_error("to_config() should consist of JSON types"):
        text = json.dumps(options, allow_nan=False)
    expect(json.loads(text) == options, "to_config() should survive JSON", text[:200])
    with no_error(f"create should accept to_config(), {text[:200]}"):
        again = factory.create(**json.loads(text)).eval()
    expect_value("n of the rebuilt operator", again.calculate_n(), op.calculate_n())
    expect_value("l of the rebuilt operator", again.calculate_l(), op.calculate_l())
    expect_value("the keys of the rebuilt operator", list(again.state_dict()), list(op.state_dict()))
    again.load_state_dict(op.state_dict())
    same_output(subject, "the output of the rebuilt operator", again, op)
    if subject.kind == "fusion" and subject.source.instance is None:
        _rebuilt_with_options_of_the_base(subject, op)


def _rebuilt_with_options_of_the_base(subject: Subject, op: Fusion) -> None:
    options = {"preprocess": {"name": "tanh"}, "postprocess": {"name": "sigmoid"}, "require_parameters": False}
    if not subject.offers(*options):
        return
    bare = subject.build(dtype=torch.float64, **{**options, **subject.options}).eval()
    with no_error(f"create should accept to_config() of one built with {options}"):
        again = factory.create(**_options_of(bare)).eval()
    expect(not again.require_parameters, "require_parameters=False should be in to_config()", "that it is not")
    copy_buffers(bare, again)
    x, w = subject.views(3), op.flat_w().detach()
    what = "the output of the rebuilt operator, with preprocess, postprocess and an external w,"
    agrees(subject, what, subject.forward(again, x, w=w), bare, x, w=w)


def _options_of(op: Any) -> dict[str, Any]:
    with no_error("to_config() should return the arguments in JSON types"):
        options: dict[str, Any] = op.to_config()
    return options


@rule(tier=2, kinds=("fusion",), scope="examples")
def check_config_containers(subject: Subject) -> None:
    """`dims` as a list, a tuple or a ListConfig build the same operator.

    Pass `dims` to the base class unchanged, and use `self.dims`.
    """
    dims = list(subject.dims)
    first = subject.operator(dims=dims)
    for form in (tuple(dims), OmegaConf.create(dims)):
        what = f"dims as {type(form).__name__}"
        op = subject.operator(dims=form)
        same = op.dims == tuple(dims) and type(op.dims) is tuple
        expect(same, f"{what} should give the attribute dims {tuple(dims)}", repr(op.dims))
        expect_value(f"n with {what}", op.calculate_n(), first.calculate_n())
        op.load_state_dict(first.state_dict())
        same_output(subject, f"the output with {what}", op, first)


@rule(tier=2, scope="first")
def check_unknown_option(subject: Subject) -> None:
    """A misspelt option is refused, and the nearest name suggested.

    Take no `**kwargs`; the base class then refuses what it does not know.
    """
    for option in inspect.signature(subject.cls).parameters:
        wrong = option + "x" if len(option) > 1 else option + "_"
        should = f"the misspelt option {wrong!r} should be refused with a message that names it"
        if len(option) > 3:  # Of a shorter one a misspelling need not be near.
            should += f" and suggests {option!r}"
        _, error = outcome(partial(subject.cls, **{**subject.options, wrong: None}))
        suggests = len(option) <= 3 or f"'{option}'" in str(error).partition(wrong)[2]
        refused = isinstance(error, ValueError | TypeError) and wrong in str(error) and suggests
        expect(refused, should, "no error" if error is None else describe(error))
