"""The classes and functions that a config may name as a ``_target_``: a fixed table, and what ``allow`` adds.

A name in a config never causes an import.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any

from fusionkit.errors import ConfigError

#: The targets that build an operator from its registry key.
FACTORY_NAMES = frozenset({"fusionkit.create", "fusionkit.create_fabrication"})
#: What a target should be, for messages.
ALLOWED = "fusionkit.create, fusionkit.create_fabrication or an allow-listed class of torch.nn or torch.optim"
#: The functions behind FACTORY_NAMES; filled by fusionkit.core.factory, which imports this module.
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
TORCH_OPTIM = _words("ASGD Adadelta Adagrad Adam AdamW Adamax LBFGS NAdam RAdam RMSprop Rprop SGD")

#: What ``allow`` added.
_extra: dict[str, Any] = {}


def allow(target: str | type | Callable[..., Any]) -> None:
    """Let configs of this process name ``target`` (a class, a function, or its dotted name) as a ``_target_``.

    Only Python code can do this: no config key and no environment variable does the same.

    Raises:
        ConfigError: the dotted name cannot be imported, or what it names cannot be called.
    """
    try:
        obj = pkgutil.resolve_name(target) if isinstance(target, str) else target
    except (ImportError, AttributeError, ValueError):
        raise ConfigError(f"An allowed target should be importable; found {target!r}.") from None
    if not callable(obj):
        raise ConfigError(
            f"An allowed target should be a class or a function; found {target!r}, a {type(obj).__name__}."
        )
    _extra[_identity(obj)] = obj
    if isinstance(target, str):
        _extra[target] = obj


def extra_names() -> list[str]:
    """Return the names that ``allow`` added in this process; the workers of a parallel launcher do not have them."""
    return sorted(_extra)


def allowed_name(target: object) -> bool:
    """Whether ``target`` is a permitted ``_target_``.  Public names are recognized without importing torch."""
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
        target: the dotted name in the config.
        key: the full dotted key of the target, for the message.

    Raises:
        ConfigError: the target is not allowed.
    """
    if not allowed_name(target):
        raise ConfigError(f"{key} should be {ALLOWED}; found {target!r}.")
    if target in _extra:
        return _extra[target]
    if target in FACTORY_NAMES:
        return FACTORIES[target]
    obj = _torch_table().get(target)
    if obj is None:
        raise ConfigError(f"{key} should name a class of the installed torch; found {target!r}.")
    return obj


def _identity(obj: Any) -> str:
    return f"{getattr(obj, '__module__', '?')}.{getattr(obj, '__qualname__', type(obj).__qualname__)}"


def _torch_table() -> dict[str, Any]:
    """Return the permitted classes of torch, each by its public and by its canonical name."""
    import torch

    table = {}
    for module, public, names in ((torch.nn, "torch.nn", TORCH_NN), (torch.optim, "torch.optim", TORCH_OPTIM)):
        for name in names:
            obj = getattr(module, name, None)
            identity = _identity(obj)
            # A class that replaces torch's own (a monkeypatch) has another identity.
            if isinstance(obj, type) and identity.startswith(f"{public}.") and obj.__qualname__ == name:
                table[f"{public}.{name}"] = table[identity] = obj
    return table
