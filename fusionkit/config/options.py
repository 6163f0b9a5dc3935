"""What every option of a configuration may be: keys against the constructor or the group's files, types, ranges."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from fusionkit.config.folders import conf_dir, plugin_folders
from fusionkit.config.keys import CONTROL_KEYS, join, unknown_key
from fusionkit.config.nodes import Kind
from fusionkit.errors import ConfigError, RegistryError, nearest

__all__ = ["missing", "present", "validate"]

#: A rule returns what should be, or None if the value is right.
Rule = Callable[[Any], str | None]


def _integer(minimum: int, maximum: float = math.inf, *, optional: bool = False) -> Rule:
    def rule(value: Any) -> str | None:
        if value is None and optional:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
            return None
        bounds = f"of at least {minimum}" if maximum == math.inf else f"from {minimum} to {maximum}"
        return f"an integer {bounds}{' or null' if optional else ''}"

    return rule


def _real(low: float, high: float = math.inf, *, low_open: bool = False, high_open: bool = False) -> Rule:
    def rule(value: Any) -> str | None:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if number and (low < value if low_open else low <= value) and (value < high if high_open else value <= high):
            return None
        bounds = f"{'above' if low_open else 'of at least'} {low:g}"
        if high < math.inf:
            bounds += f" and {'below' if high_open else 'at most'} {high:g}"
        return f"a number {bounds}"

    return rule


def _one_of(*values: str) -> Rule:
    def rule(value: Any) -> str | None:
        if value in values:
            return None
        return f"one of {', '.join(values)}"

    return rule


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "a text"


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _widths(value: Any) -> str | None:
    whole = isinstance(value, list | tuple) and bool(value)
    if value is None or (whole and all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in value)):
        return None
    return "a list of integers of at least 1, or null"


def _device(value: Any) -> str | None:
    if isinstance(value, str) and re.fullmatch(r"[a-z]+(:\d+)?", value):
        return None
    return "a device such as cpu, cuda or cuda:1"


#: Rules by dotted key.  What has none is checked against the type of its default.
RULES: dict[str, Rule] = {
    "n": _integer(1),
    "dims": _widths,
    "device": _device,
    "seed": _integer(0, 2**32 - 1),
    "data.name": _text,
    "data.path": _text,
    "data.dims": _widths,
    "data.test_size": _real(0, 1, low_open=True, high_open=True),
    "data.fold": _integer(0, optional=True),
    "train.epochs": _integer(1),
    "train.batch_size": _integer(1),
    "train.lr": _real(0, low_open=True),
    "train.weight_decay": _real(0),
    "train.label_smoothing": _real(0, 1, high_open=True),
    "train.input_dropout": _real(0, 1, high_open=True),
    "train.devices": _integer(1),
    # The names are those of the modules of fusionkit.experiment, which import torch.
    "train.optimizer": _one_of("adamw", "adam", "sgd"),
    "train.scheduler": _one_of("onecycle", "constant"),
    "train.precision": _one_of("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"),
    "model.head": _one_of("linear"),
    "model.encoder": _one_of("none", "linear", "mlp"),
    "model.activation": _one_of("none", "gelu", "relu", "tanh"),
    "model.encoder_width": _integer(1, optional=True),
    "fusion.n": _integer(1, optional=True),
    "fusion.dims": _widths,
    "fusion.device": _device,
    "fusion.require_parameters": _boolean,
}
GROUPS = ("fusion", "fabrication", "data", "model", "train")
TOP = ("n", "dims", "device", "seed", *GROUPS)


def validate(cfg: Mapping[str, Any], *, deep: bool = True, complete: bool = True) -> None:
    """Check keys, types and ranges of a plain configuration; nothing is built.

    Args:
        cfg: the whole, without the ``hydra`` node.
        deep: check operators against their classes, which imports them.  Otherwise only an operator is imported that
        has
            keys its file does not have.
        complete: whether a missing value (``???``) is an error.

    Raises:
        ConfigError: with the dotted key, what should be, what was found and the nearest key.
    """
    for name in cfg:
        if name not in TOP:
            raise _unknown(name, TOP)
    present(cfg)
    if complete and (absent := missing(cfg)) is not None:
        raise ConfigError(f"{absent} should be given, as in {absent}=...; found nothing.")
    for name in ("n", "dims", "device", "seed"):
        _apply(name, cfg[name], None)
    for group in ("data", "model", "train"):
        _check_group(group, _mapping(cfg, group))
    _check_fusion(_mapping(cfg, "fusion"), cfg, deep, complete)
    _check_fabrication(_mapping(cfg, "fabrication"), "fabrication", deep, complete)


def present(cfg: Mapping[str, Any]) -> None:
    """Check that every top-level key is there, before references lead to one that is not.

    Raises:
        ConfigError: names the first that is not.
    """
    for name in TOP:
        if name not in cfg:
            raise ConfigError(f"{name} should be in the configuration; found nothing.")


def missing(cfg: object, key: str = "") -> str | None:
    """Return the dotted key of the first missing value (``???``), or None."""
    if cfg == "???":
        return key
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(cfg, Mapping):
        items = ((join(key, name), value) for name, value in cfg.items())
    elif isinstance(cfg, list | tuple):
        items = ((f"{key}[{index}]", value) for index, value in enumerate(cfg))
    return next((found for here, value in items if (found := missing(value, here)) is not None), None)


def _mapping(cfg: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    node = cfg[group]
    if not isinstance(node, Mapping):
        raise ConfigError(f"{group} should be a mapping, chosen by {group}=NAME; found {node!r}.")
    return node


def _unknown(key: str, known: Iterable[str]) -> ConfigError:
    """Return the error for a key that does not exist beside ``known`` (names, not dotted)."""
    parent = key.rpartition(".")[0]
    return ConfigError(unknown_key(key, [join(parent, name) for name in known]))


def _apply(key: str, value: Any, default: Any) -> None:
    if value == "???":
        return
    rule = RULES.get(key)
    wanted = rule(value) if rule is not None else _like(value, default)
    if wanted is not None:
        guess = nearest(value, wanted.removeprefix("one of ").split(", ")) if isinstance(value, str) else ""
        raise ConfigError(f"{key} should be {wanted}; found {value!r}.{guess}")


def _like(value: Any, default: Any) -> str | None:
    """Return what should be if ``value`` has not the type of ``default``."""
    if isinstance(default, bool):
        return _boolean(value)
    if isinstance(default, int):
        return None if isinstance(value, int) and not isinstance(value, bool) else "an integer"
    if isinstance(default, float):
        return None if isinstance(value, int | float) and not isinstance(value, bool) else "a number"
    if isinstance(default, str) and default != "???":
        return None if isinstance(value, str) else "a text"
    if isinstance(default, list):
        return None if isinstance(value, list) else "a list"
    return None


# -- data, model, train ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _group_files(group: str) -> dict[str, dict[str, Any]]:
    """Return the options of a group: file name -> its keys and defaults, from fusionkit's folder and the plugins'."""
    import yaml  # type: ignore[import-untyped, unused-ignore]

    from fusionkit.config.folders import folder_of

    found: dict[str, dict[str, Any]] = {}
    for folder in (conf_dir(), *(folder_of(path) for _, path in plugin_folders())):
        for file in sorted((folder / group).glob("*.yaml")) if folder is not None else ():
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            if isinstance(content, dict):
                found.setdefault(file.stem, {name: value for name, value in content.items() if name != "defaults"})
    return found


def _check_group(group: str, node: Mapping[str, Any]) -> None:
    files = _group_files(group)
    if group == "data":
        by_name = {content.get("name"): content for content in files.values()}
        name = node.get("name")
        if name not in by_name:
            names = [str(one) for one in by_name]
            guess = nearest(str(name), names)
            raise ConfigError(f"data.name should be one of {', '.join(names)}; found {name!r}.{guess}")
        known = by_name[name]
    else:
        known = {name: value for content in files.values() for name, value in content.items()}
    for name, value in node.items():
        if name not in known:
            raise _unknown(f"{group}.{name}", known)
        _apply(f"{group}.{name}", value, known[name])
    for name in known if group == "data" else ():
        if name not in node:
            raise ConfigError(f"{group}.{name} should be in the configuration; found nothing.")


# -- operators ---------------------------------------------------------------------------------------------------------


def _check_fusion(node: Mapping[str, Any], cfg: Mapping[str, Any], deep: bool, complete: bool) -> None:
    if node.get("_target_") != "fusionkit.create":
        raise ConfigError(f"fusion._target_ should be 'fusionkit.create'; found {node.get('_target_')!r}.")
    if node.get("_recursive_", True) is not False:
        raise ConfigError(f"fusion._recursive_ should be false; found {node.get('_recursive_')!r}.")
    options = {name: value for name, value in node.items() if name not in CONTROL_KEYS}
    _check_operator("fusion", options, "fusion", deep, complete)
    nested = options.get("parameter_fabrication")
    if isinstance(nested, Mapping) and nested != cfg.get("fabrication"):
        _check_fabrication(nested, "fusion.parameter_fabrication", deep, complete)
    elif isinstance(nested, str) and nested != "???":
        _check_fabrication({"name": nested}, "fusion.parameter_fabrication", deep, complete)
    elif not (nested is None or isinstance(nested, str | Mapping)):
        raise ConfigError(
            f"fusion.parameter_fabrication should be the name of a fabrication, a mapping with its name, or null; "
            f"found {nested!r}."
        )
    for role in ("preprocess", "postprocess") if deep else ():
        _check_processing(options.get(role), f"fusion.{role}")


def _check_processing(spec: Any, key: str) -> None:
    """Check names, options and their types of what is applied before or after an operator."""
    from fusionkit.config.types import mismatch, options_with_types
    from fusionkit.core.allowed import resolve_target
    from fusionkit.core.processing import NAMES

    if isinstance(spec, list | tuple):
        for index, one in enumerate(spec):
            _check_processing(one, f"{key}[{index}]")
        return
    if spec is None or spec == "???":
        return
    if not isinstance(spec, str | Mapping):
        raise ConfigError(f"{key} should be a name, a mapping with a name, a list of them, or null; found {spec!r}.")
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    if "_target_" in options:
        cls = resolve_target(options["_target_"], f"{key}._target_")
        if not isinstance(cls, type):
            return  # An operator of fusionkit: its factory checks it.
    else:
        name = options.pop("name", None)
        if name not in NAMES:
            guess = nearest(str(name), NAMES)
            raise ConfigError(f"{key}.name should be one of {', '.join(NAMES)}; found {name!r}.{guess}")
        cls = NAMES[name][0]
    known = options_with_types(cls)
    for option, value in options.items():
        if option in CONTROL_KEYS or value == "???":
            continue
        if option not in known:
            raise _unknown(f"{key}.{option}", known)
        # Text may stand for the width of the view: "{view}".
        wanted = None if value == "{view}" else mismatch(value, known[option][1])
        if wanted is not None:
            raise ConfigError(f"{key}.{option} should be {wanted}; found {value!r}.")


def _check_fabrication(node: Mapping[str, Any], key: str, deep: bool, complete: bool) -> None:
    if "_target_" in node and node["_target_"] != "fusionkit.create_fabrication":
        found = node["_target_"]
        raise ConfigError(f"{key}._target_ should be 'fusionkit.create_fabrication'; found {found!r}.")
    options = {name: value for name, value in node.items() if name not in CONTROL_KEYS}
    _check_operator("fabrication", options, key, deep, complete)


def _check_operator(kind: Kind, options: Mapping[str, Any], key: str, deep: bool, complete: bool) -> None:
    """Check an operator's options: cheaply against its file, or against its constructor."""
    from fusionkit import registry

    name = options.get("name")
    if not isinstance(name, str) or name == "???":
        raise ConfigError(f"{key}.name should be the name of a {kind}; found {name!r}.")
    try:
        registry.resolve(kind, name)
    except RegistryError as error:
        raise ConfigError(f"{key}.name: {error}") from error
    for option, value in options.items():
        if f"{kind}.{option}" in RULES:
            rule_key = f"{kind}.{option}"
            wanted = RULES[rule_key](value) if value != "???" else None
            if wanted is not None:
                raise ConfigError(f"{key}.{option} should be {wanted}; found {value!r}.")
    if not deep and set(options) <= _file_keys(kind, name):
        return
    _check_signature(kind, name, options, key, complete)


@lru_cache(maxsize=256)
def _file_keys(kind: Kind, name: str) -> frozenset[str]:
    import yaml  # type: ignore[import-untyped, unused-ignore]

    from fusionkit.config.nodes import yaml_file

    file = yaml_file(kind, name)
    content = yaml.safe_load(file.read_text(encoding="utf-8")) if file is not None else None
    return frozenset(content) if isinstance(content, dict) else frozenset()


def _check_signature(kind: Kind, name: str, options: Mapping[str, Any], key: str, complete: bool) -> None:
    import inspect

    from fusionkit import registry
    from fusionkit.config.types import mismatch, options_with_types

    try:
        cls = registry.load(kind, name)
    except RegistryError as error:
        raise ConfigError(f"{key}.name: {error}") from error
    parameters = options_with_types(cls)
    catch_all = any(p.kind is p.VAR_KEYWORD for p, _ in parameters.values())
    known = [option for option, (p, _) in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    for option, value in options.items():
        if option == "name":
            continue
        if option not in known:
            if catch_all:
                continue
            raise _unknown(f"{key}.{option}", [one for one in known if one != "name"])
        if value == "???":
            continue
        parameter, annotation = parameters[option]
        # A null stands for the default wherever a node writes it, whatever the annotation says.
        if value is None and parameter.default is None:
            continue
        wanted = mismatch(value, annotation)
        if wanted is not None:
            raise ConfigError(f"{key}.{option} should be {wanted}; found {value!r}.")
    for option in known:
        parameter, _ = parameters[option]
        if parameter.default is inspect.Parameter.empty and option not in options and complete:
            raise ConfigError(f"{key}.{option} should be given, because {name} has no default for it; found nothing.")
