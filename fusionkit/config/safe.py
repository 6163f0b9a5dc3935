"""What a config may build.

Hydra calls whatever ``_target_`` names.  Here a target is looked up in a fixed table: fusionkit's own factories, and
classes of ``torch.nn`` and ``torch.optim`` that do nothing but compute.  Nothing is imported because a config names
it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fusionkit.errors import ConfigError, FusionError

__all__ = [
    "CONTROL_KEYS",
    "FACTORIES",
    "MAX_DEPTH",
    "allow",
    "allowed_name",
    "build",
    "check_tree",
    "extra_names",
    "resolve_target",
]

#: The targets that build operators, by registry key.
FACTORIES = frozenset({"fusionkit.create", "fusionkit.create_fabrication"})


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Classes that compute on their input and neither call nor import what their arguments name.
TORCH_NN = _words("""
    AlphaDropout BatchNorm1d Bilinear CELU Dropout ELU FeatureAlphaDropout Flatten GELU GLU GroupNorm Hardshrink
    Hardsigmoid Hardswish Hardtanh Identity LayerNorm LazyLinear LeakyReLU Linear LogSigmoid LogSoftmax Mish
    PReLU RMSNorm RReLU ReLU ReLU6 SELU SiLU Sigmoid Softmax Softmin Softplus Softshrink Softsign Tanh
    Tanhshrink Threshold
""")
TORCH_OPTIM = _words("""
    ASGD Adadelta Adagrad Adam AdamW Adamax LBFGS NAdam RAdam RMSprop Rprop SGD
""")

#: The keys by which a node steers Hydra's ``instantiate``; any other key of the form ``_x_`` is refused.
CONTROL_KEYS = frozenset({"_target_", "_recursive_", "_convert_", "_partial_"})

#: Deeper configs are taken for an attack on the stack.
MAX_DEPTH = 64

_extra: dict[str, Any] = {}


def allow(target: str | type | Callable[..., Any]) -> None:
    """Let configs of this process name ``target`` as a ``_target_``; see ``fusionkit.config.allow``."""
    obj = _import(target) if isinstance(target, str) else target
    if not callable(obj):
        raise ConfigError(
            f"An allowed target should be a class or a function; found {target!r}, a {type(obj).__name__}."
        )
    _extra[_identity(obj)] = obj
    if isinstance(target, str):
        _extra[target] = obj


def extra_names() -> list[str]:
    """Return what ``allow`` permits in this process; it does not reach the workers of a parallel launcher."""
    return sorted(_extra)


def allowed_name(target: object) -> bool:
    """Whether ``target`` is a permitted ``_target_``; imports torch only if the name is not the public one."""
    if not isinstance(target, str):
        return False
    if target in FACTORIES or target in _extra:
        return True
    module, _, name = target.rpartition(".")
    if (module == "torch.nn" and name in TORCH_NN) or (module == "torch.optim" and name in TORCH_OPTIM):
        return True
    return target.startswith(("torch.nn.modules.", "torch.optim.")) and target in _torch_table()


def resolve_target(target: str, key: str) -> Any:
    """Return the class or function that ``target`` names.

    Args:
        target: the dotted name that stands in the config.
        key: its full dotted key, for the message.

    Raises:
        ConfigError: the target is not allowed.
    """
    if not allowed_name(target):
        raise refusal(target, key)
    if target in _extra:
        return _extra[target]
    if target in FACTORIES:
        import fusionkit

        return getattr(fusionkit, target.rpartition(".")[2])
    obj = _torch_table().get(target)
    if obj is None:
        raise ConfigError(f"{key} should name a class of the installed torch; found {target!r}.")
    return obj


def refusal(target: object, key: str) -> ConfigError:
    """Return the error for a target that is not allowed."""
    return ConfigError(
        f"{key} should be fusionkit.create, fusionkit.create_fabrication or an allow-listed class of torch.nn or "
        f"torch.optim; found {target!r}."
    )


def check_tree(tree: object, key: str = "", *, depth: int = 0) -> None:
    """Walk plain containers and refuse every target that is not allowed, and every other way to steer ``instantiate``.

    Raises:
        ConfigError: the message contains the full dotted key and what was found.
    """
    if depth > MAX_DEPTH:
        raise ConfigError(f"{key[:80]} should be nested at most {MAX_DEPTH} levels deep; found more.")
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            here = join(key, name)
            if not isinstance(name, str):
                raise ConfigError(f"{here} should have a string as its name; found {name!r}.")
            if name == "_target_" and not allowed_name(value):
                raise refusal(value, here)
            if name.startswith("_") and name.endswith("_") and name != "_target_":
                _check_control(name, value, here)
            check_tree(value, here, depth=depth + 1)
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            check_tree(value, f"{key}[{index}]", depth=depth + 1)
    elif isinstance(tree, str):
        # Text that was escaped once would be an interpolation to whoever makes a config of it again.
        if "${" in tree:
            raise ConfigError(f"{key} should contain no '${{' once it is resolved; found {tree!r}.")
    elif not (tree is None or isinstance(tree, bool | int | float)):
        raise ConfigError(f"{key} should be text, a number, a list or a mapping; found {type(tree).__name__} {tree!r}.")


def _check_control(name: str, value: object, key: str) -> None:
    if name not in CONTROL_KEYS:
        raise ConfigError(
            f"{key} should not be in a config: only {', '.join(sorted(CONTROL_KEYS))} may have such names."
        )
    if name == "_partial_" and value is not False:
        raise ConfigError(f"{key} should be absent or false; found {value!r}.")
    if name == "_recursive_" and not isinstance(value, bool):
        raise ConfigError(f"{key} should be true or false; found {value!r}.")
    if name == "_convert_" and value not in ("none", "partial", "object", "all"):
        raise ConfigError(f"{key} should be none, partial, object or all; found {value!r}.")


def build(node: Mapping[str, Any], key: str = "", keys: Mapping[str, str] | None = None) -> Any:
    """Build what ``node`` describes from a checked, plain copy of it; see ``fusionkit.config.build``.

    Args:
        node: a mapping with ``_target_``.
        key: its dotted key, for messages.
        keys: where parts of it really stand, by their dotted key in the node.
    """
    from fusionkit.config.interpolations import resolve

    if not isinstance(node, Mapping):
        raise ConfigError(f"{key or 'The node'} should be a mapping with _target_; found {type(node).__name__}.")
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
    factory = resolve_target(target, join(key, "_target_"))
    options = {name: value for name, value in node.items() if name not in CONTROL_KEYS}
    if target in FACTORIES:
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


def join(key: str, name: object) -> str:
    """Return the dotted key of ``name`` below ``key``."""
    return f"{key}.{name}" if key else str(name)


def _identity(obj: Any) -> str:
    return f"{getattr(obj, '__module__', '?')}.{getattr(obj, '__qualname__', type(obj).__qualname__)}"


def _torch_table() -> dict[str, Any]:
    """Return the permitted classes of torch by their public and by their canonical name."""
    import torch

    table = {}
    for module, public, names in ((torch.nn, "torch.nn", TORCH_NN), (torch.optim, "torch.optim", TORCH_OPTIM)):
        for name in names:
            obj = getattr(module, name, None)
            identity = _identity(obj)
            # A class that someone put in place of torch's own has another identity.
            if isinstance(obj, type) and identity.startswith(f"{public}.") and obj.__qualname__ == name:
                table[f"{public}.{name}"] = table[identity] = obj
    return table


def _import(target: str) -> Any:
    """Import what ``target`` names; only ever called with names that come from Python code."""
    for module, path in _splits(target):
        try:
            obj = importlib.import_module(module)
        except ImportError:
            continue
        try:
            for part in path:
                obj = getattr(obj, part)
        except AttributeError:
            continue
        return obj
    raise ConfigError(f"An allowed target should be importable; found {target!r}.")


def _splits(target: str) -> Iterator[tuple[str, list[str]]]:
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        yield ".".join(parts[:cut]), parts[cut:]
