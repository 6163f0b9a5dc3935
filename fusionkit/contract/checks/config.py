"""The config node of the operator, and the way back to it."""

from __future__ import annotations

import json
from typing import Any

import torch

from fusionkit import registry
from fusionkit.contract.rules import Violation, describe, equal, expect, rule, skip
from fusionkit.contract.subject import Subject
from fusionkit.core import factory
from fusionkit.errors import ConfigError
from fusionkit.fusion import Fusion

#: Keys of a node that speak to Hydra.
CONTROL = ("_target_", "_recursive_", "_convert_", "_partial_", "name", "defaults")


@rule(scope="first", needs=("hydra",))
def check_config_composes(subject: Subject) -> None:
    """Its config node, a YAML file or the generated one, composes into the configuration and names this operator.

    Write the file `conf/fusion/<name>.yaml` (`conf/fabrication/<name>.yaml`) as the generated node shows it, or
    remove it.
    """
    node = _composed(subject)
    name = node.get("name")
    try:
        found = registry.resolve(subject.kind, str(name)).qualified
    except LookupError as error:
        found = str(error)
    expect(found == subject.record.qualified, f"{subject.kind}.name should mean {subject.record.qualified}", found)


@rule(scope="first", needs=("hydra",))
def check_config_safe(subject: Subject) -> None:
    """Its config node instantiates under the allow-list.

    Select nested objects by name; no `_target_` but fusionkit's factories and allow-listed classes of torch.
    """
    from omegaconf import OmegaConf

    from fusionkit.config import build
    from fusionkit.config import node as node_text
    from fusionkit.config.interpolations import resolve
    from fusionkit.config.safe import check_tree

    try:
        tree = {
            "n": None,
            "dims": None,
            "device": "cpu",
            "fabrication": {"name": "dense"},
            subject.kind: OmegaConf.create(node_text(subject.kind, subject.record.key) or ""),
        }
        # What else the node takes from the configuration, composing tells.
        node = resolve(OmegaConf.create(tree))[subject.kind]
        check_tree(node, subject.kind)
        if subject.kind == "fusion":
            build({**node, **subject.options}, "fusion")
        else:
            factory.create_fabrication(**{**node, **subject.options})
    except Exception as error:
        raise Violation(f"the node {subject.kind} should instantiate under the allow-list", describe(error)) from error


@rule(scope="first", needs=("hydra",))
def check_config_matches_signature(subject: Subject) -> None:
    """Every key of its config node is an option of the constructor, and every value has the type of that option.

    Rename the key, or correct the value or the annotation.
    """
    from omegaconf import OmegaConf

    from fusionkit.config import node
    from fusionkit.config.sentences import mistakes
    from fusionkit.config.types import options_of

    text = node(subject.kind, subject.record.key)
    if text is None:
        raise Violation("the operator should have a config node", "none")
    content: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    signature = options_of(subject.cls)
    known = signature.json_schema()["properties"]
    later = [key for key in content if key in known and str(content[key]).startswith(("${", "???"))]
    options = {key: value for key, value in content.items() if key not in (*CONTROL, *later)}
    wrong = mistakes(signature, options, subject.kind, complete=False)
    expect(not wrong, "the node should fit the constructor", " ".join(wrong.values()))


def _composed(subject: Subject) -> dict[str, Any]:
    """Return the node of the subject from the composed configuration."""
    from fusionkit.config import compose, node

    name = subject.record.key
    text = node(subject.kind, name) or ""
    # Options without a default stand as ??? in the node; the case has them.
    required = [
        f"{subject.kind}.{option}={json.dumps(value)}"
        for option, value in subject.options.items()
        if f"\n{option}: ???" in f"\n{text}"
    ]
    try:
        cfg = compose([f"{subject.kind}={name}", *required])
    except ConfigError as error:
        raise Violation(f"the configuration should compose with {subject.kind}={name}", describe(error)) from error
    found: dict[str, Any] = cfg[subject.kind]
    return found


@rule()
def check_config_round_trip(subject: Subject) -> None:
    """`create(**op.to_config())` builds an operator of the same n, l and state_dict keys, and of the same output.

    Take every option as a keyword of plain type, and keep nothing else that matters.
    """
    if subject.source.record is None:
        skip("needs a registry entry, and the subject is not registered")
    op = subject.operator()
    if subject.source.instance is not None:
        try:
            op.to_config()
        except ConfigError as error:
            skip(f"the instance has no config: {error}")
    config = _config(op)
    try:
        text = json.dumps(config, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Violation("to_config() should consist of JSON types", describe(error)) from error
    expect(json.loads(text) == config, "to_config() should survive JSON", text[:200])
    try:
        again = factory.create(**json.loads(text)).eval()
    except Exception as error:
        raise Violation(f"create should accept to_config(), {text[:200]}", describe(error)) from error
    expect(again.calculate_n() == op.calculate_n(), f"n of the rebuilt operator should be {op.calculate_n()}", again.n)
    l = op.calculate_l()
    expect(again.calculate_l() == l, f"l of the rebuilt operator should be {l}", again.calculate_l())
    keys = list(op.state_dict())
    expect(
        list(again.state_dict()) == keys, f"the rebuilt operator should have the keys {keys}", list(again.state_dict())
    )
    again.load_state_dict(op.state_dict())
    if not subject.promises(op).stochastic:
        x = subject.views(3)
        equal("the output of the rebuilt operator", subject.forward(again, x), subject.forward(op, x))
    if subject.kind == "fusion" and subject.source.instance is None:
        _rebuilt_with_options_of_the_base(subject, op)


def _rebuilt_with_options_of_the_base(subject: Subject, op: Fusion) -> None:
    options = {"preprocess": {"name": "tanh"}, "postprocess": {"name": "sigmoid"}, "require_parameters": False}
    if not subject.offers(*options):
        return
    bare = subject.build(dtype=torch.float64, **{**options, **subject.options}).eval()
    try:
        again = factory.create(**_config(bare)).eval()
    except Exception as error:
        raise Violation(f"create should accept to_config() of one built with {options}", describe(error)) from error
    expect(not again.require_parameters, "require_parameters=False should be in to_config()", "that it is not")
    for name, buffer in dict(again.named_buffers()).items():
        buffer.copy_(dict(bare.named_buffers())[name])
    if not subject.promises(bare).stochastic:
        x, w = subject.views(3), op.flat_w().detach()
        what = "the output of the rebuilt operator, with preprocess, postprocess and an external w,"
        equal(what, subject.forward(again, x, w=w), subject.forward(bare, x, w=w))


def _config(op: Any) -> dict[str, Any]:
    try:
        config: dict[str, Any] = op.to_config()
    except Exception as error:
        raise Violation("to_config() should return the arguments in plain types", describe(error)) from error
    return config


@rule(tier=2, kinds=("fusion",), scope="examples", needs=("hydra",))
def check_config_containers(subject: Subject) -> None:
    """`dims` as a list, a tuple or a ListConfig build the same operator.

    Hand `dims` to the base class as it comes, and use `self.dims`.
    """
    from omegaconf import OmegaConf

    dims = list(subject.dims)
    first = subject.operator(dims=dims)
    x = subject.views(3)
    wanted = subject.forward(first, x)
    for form in (tuple(dims), OmegaConf.create(dims)):
        what = f"dims as {type(form).__name__}"
        op = subject.operator(dims=form)
        expect(
            op.dims == tuple(dims) and type(op.dims) is tuple,
            f"{what} should give the attribute dims {tuple(dims)}",
            repr(op.dims),
        )
        expect(
            op.calculate_n() == first.calculate_n(), f"{what} should give n = {first.calculate_n()}", op.calculate_n()
        )
        op.load_state_dict(first.state_dict())
        if not subject.promises(first).stochastic:
            equal(f"the output with {what}", subject.forward(op, x), wanted)


@rule(tier=2, scope="first")
def check_unknown_option(subject: Subject) -> None:
    """A misspelt option is refused, and the nearest name suggested.

    Take no `**kwargs`; the base class then refuses what it does not know.
    """
    import inspect

    for option in inspect.signature(subject.cls).parameters:
        wrong = option + "x" if len(option) > 1 else option + "_"
        should = f"the misspelt option {wrong!r} should be refused with a message that names it"
        if len(option) > 3:  # Of a shorter one a misspelling need not be near.
            should += f" and suggests {option!r}"
        try:
            subject.cls(**{**subject.options, wrong: None})
        except Exception as error:
            suggests = len(option) <= 3 or f"'{option}'" in str(error).partition(wrong)[2]
            expect(
                isinstance(error, ValueError | TypeError) and wrong in str(error) and suggests, should, describe(error)
            )
        else:
            expect(False, should, "no error")
