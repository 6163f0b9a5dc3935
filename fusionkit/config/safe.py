"""What a config may build.

Hydra calls whatever ``_target_`` names.  Here a target is looked up in a fixed table: fusionkit's own factories, and
classes of ``torch.nn`` and ``torch.optim`` that do nothing but compute.  Nothing is imported because a config names
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fusionkit.config.keys import CONTROL_KEYS, MAX_DEPTH, join, refuse
from fusionkit.core.allowed import ALLOWED, FACTORY_NAMES, allowed_name, resolve_target
from fusionkit.errors import ConfigError, FusionError

__all__ = ["build", "check_tree"]


def check_tree(tree: object, key: str = "") -> None:
    """Walk plain containers and refuse every target that is not allowed, and every other way to steer ``instantiate``.

    Raises:
        ConfigError: the message contains each full dotted key and what was found.
    """
    refuse(_mistakes(tree, key, 0))


def _mistakes(tree: object, key: str, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise ConfigError(f"{key[:80]} should be nested at most {MAX_DEPTH} levels deep; found more.")
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            here = join(key, name)
            if not isinstance(name, str):
                yield f"{here} should have a string as its name; found {name!r}."
            elif name.startswith("_") and name.endswith("_") and (wanted := _wanted_of_control(name, value)):
                yield f"{here} should be {wanted}; found {value!r}."
            yield from _mistakes(value, here, depth + 1)
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from _mistakes(value, f"{key}[{index}]", depth + 1)
    elif isinstance(tree, str):
        # Text that was escaped once would be an interpolation to whatever makes a config of it again.
        if "${" in tree:
            yield f"{key} should contain no '${{' once it is resolved; found {tree!r}."
    elif not isinstance(tree, bool | int | float | None):
        yield f"{key} should be text, a number, a list or a mapping; found {type(tree).__name__} {tree!r}."


def _wanted_of_control(name: str, value: object) -> str | None:
    """Return what the value of a key that steers ``instantiate`` should be, or None if it is right."""
    if name == "_target_":
        return None if allowed_name(value) else ALLOWED
    allowed = {"_partial_": (False,), "_recursive_": (True, False), "_convert_": ("none", "partial", "object", "all")}
    if name not in allowed:
        return f"absent: only {', '.join(sorted(CONTROL_KEYS))} may have such names"
    if any(value is one or (isinstance(one, str) and value == one) for one in allowed[name]):
        return None
    return {"_partial_": "absent or false", "_recursive_": "true or false"}.get(name, "none, partial, object or all")


def build(node: Mapping[str, Any], key: str = "", keys: Mapping[str, str] | None = None) -> Any:
    """Build what ``node`` describes from a checked, plain copy of it; see ``fusionkit.config.build``.

    Args:
        node: a mapping with ``_target_``.
        key: its dotted key, for messages.
        keys: where parts of it really stand, by their dotted key in the node.
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
    if not key or option is None:
        return message
    fabrication = node.get("parameter_fabrication")
    below = fabrication if isinstance(fabrication, Mapping) else {}
    for known, above in ((node, key), (below, join(key, "parameter_fabrication"))):
        if option[0] in known:
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
