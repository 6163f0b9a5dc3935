"""Builds objects from configs, safely.

Hydra calls whatever ``_target_`` names.  Here a target is looked up in a fixed table: fusionkit's own factories, and
classes of ``torch.nn`` and ``torch.optim`` that only compute.  A name in a config never causes an import.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fusionkit.config.keys import CONTROL_KEYS, join, refuse, walk
from fusionkit.core.allowed import ALLOWED, FACTORY_NAMES, allowed_name, resolve_target
from fusionkit.errors import ConfigError, FusionError


def check_tree(tree: object, key: str = "") -> None:
    """Walk plain containers and refuse every target that is not allowed, and every key that controls ``instantiate``.

    Raises:
        ConfigError: the message contains each full dotted key and what was found.
    """
    found = ((here, value, _wanted(name, value)) for here, name, value in walk(tree, key))
    refuse(f"{here} should {wanted}; found {value!r}." for here, value, wanted in found if wanted)


def _wanted(name: object, value: object) -> str | None:
    """Return what a node that is called ``name`` should be, or None if it is right."""
    if not isinstance(name, str):
        return "have a string as its name"
    if isinstance(value, str) and "${" in value:
        # It was escaped, and would be an interpolation if the text became part of a config again.
        return "contain no '${' once it is resolved"
    if not isinstance(value, bool | int | float | str | Mapping | list | tuple | None):
        return "be text, a number, a list or a mapping"
    if name == "_target_":
        return None if allowed_name(value) else f"be {ALLOWED}"
    if name == "_convert_":
        return None if value in ("none", "partial", "object", "all") else "be none, partial, object or all"
    if name == "_recursive_":
        return None if isinstance(value, bool) else "be true or false"
    if name == "_partial_":
        return None if value is False else "be absent or false"
    own = name.startswith("_") and name.endswith("_")
    return f"be absent: only {', '.join(sorted(CONTROL_KEYS))} may have such names" if own else None


def build(node: Mapping[str, Any], key: str = "", keys: Mapping[str, str] | None = None) -> Any:
    """Build the object that a node such as ``cfg.fusion`` describes, after checking all of the node.

    Args:
        node: a mapping with ``_target_``; a ``DictConfig`` is resolved first.
        key: the dotted key of the node, for messages.
        keys: the dotted keys in the configuration for parts of the node, by their dotted key in the node.

    Raises:
        ConfigError: a ``_target_`` that is not allowed, a key that controls instantiation, or an unsafe interpolation.
    """
    if not isinstance(node, Mapping):
        raise ConfigError(f"{key or 'The node'} should be a mapping with _target_; found {type(node).__name__}.")
    from fusionkit.config.interpolations import resolve

    plain = resolve(node, key)
    check_tree(plain, key)
    try:
        return _build(plain, key)
    except (FusionError, ConfigError) as error:
        if len(error.args) == 1:
            error.args = (_located(str(error), plain, key, keys or {}),)
        raise


def _located(message: str, node: Mapping[str, Any], key: str, keys: Mapping[str, str]) -> str:
    """Return the message of an operator, which begins with the name of an option, with the option's full key."""
    option = re.match(r"[A-Za-z]\w*(?=[.,\[ ])", message)
    for known, above in ((node, key), (node.get("parameter_fabrication"), join(key, "parameter_fabrication"))):
        if key and option and isinstance(known, Mapping) and option[0] in known:
            return f"{join(keys.get(above, above), option[0])}{message[option.end() :]}"
    return message


def _build(node: Mapping[str, Any], key: str) -> Any:
    target = node.get("_target_")
    if target is None:
        raise ConfigError(f"{join(key, '_target_')} should name what to build; found nothing.")
    if target in FACTORY_NAMES:
        from fusionkit.core import factory as _factory  # noqa: F401 - it imports torch, and enters the factories.
    factory = resolve_target(target, join(key, "_target_"))
    options = {name: value for name, value in node.items() if name not in CONTROL_KEYS}
    if target in FACTORY_NAMES:
        # The factories take nested nodes as they are and apply the same table to them.
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(f"{join(key, 'name')} should be the name of an operator; found {name!r}.")
        return factory(name, **options)
    return factory(**{name: _nested(value, join(key, name)) for name, value in options.items()})


def _nested(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return _build(value, key)
        return {name: _nested(item, join(key, name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nested(item, f"{key}[{index}]") for index, item in enumerate(value)]
    return value
