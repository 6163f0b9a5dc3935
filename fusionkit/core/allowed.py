"""The classes and functions that a config may name as a ``_target_``: a fixed table, and what ``allow`` adds.

Nothing is imported because a config names it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from fusionkit.errors import ConfigError

#: The targets that build operators, by registry key.
FACTORY_NAMES = frozenset({"fusionkit.create", "fusionkit.create_fabrication"})
#: In words, what a target should be.
ALLOWED = "fusionkit.create, fusionkit.create_fabrication or an allow-listed class of torch.nn or torch.optim"
#: Entered by fusionkit.core.factory, which lies above this module.
FACTORIES: dict[str, Callable[..., Any]] = {}


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


_extra: dict[str, Any] = {}


def allow(target: str | type | Callable[..., Any]) -> None:
    """Let configs of this process name ``target`` (a class, a function, or its dotted name) as a ``_target_``.

    It has no counterpart in a config or an environment variable, on purpose.

    Raises:
        ConfigError: the dotted name leads to nothing, or to something that cannot be called.
    """
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
    if target in FACTORY_NAMES or target in _extra:
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
    if target in FACTORY_NAMES:
        return FACTORIES[target]
    obj = _torch_table().get(target)
    if obj is None:
        raise ConfigError(f"{key} should name a class of the installed torch; found {target!r}.")
    return obj


def refusal(target: object, key: str) -> ConfigError:
    """Return the error for a target that is not allowed."""
    return ConfigError(f"{key} should be {ALLOWED}; found {target!r}.")


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
            # A class that was put in the place of torch's own has another identity.
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
