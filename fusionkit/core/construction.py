"""The construction of fusions and fabrications: checks of options before ``__init__``, completion after it.

The metaclass refuses unknown options and suggests the nearest known one, keeps the arguments in JSON types for
``to_config``, and calls ``_constructed`` of the finished object.  It knows neither base class.
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from typing import Any, TypeVar, cast

import numpy
import torch

from fusionkit._util.trees import to_python
from fusionkit.errors import ConfigError, DimsError, OptionError, nearest
from fusionkit.registry import lookup

T = TypeVar("T")


class Unwritable:
    """Stands in the kept arguments for a value that has no JSON form."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __repr__(self) -> str:
        return f"<{self.why}>"


@cache
def _signature(cls: type) -> inspect.Signature:
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    return signature.replace(parameters=list(signature.parameters.values())[1:])


class ConstructMeta(type):
    """Metaclass of ``Fusion`` and ``Fabrication``."""

    @property
    def __signature__(cls) -> inspect.Signature:
        # Otherwise inspect, help() and Hydra would show (*args, **kwargs) of the metaclass.
        return _signature(cls)

    def __call__(cls: type[T], *args: Any, **kwargs: Any) -> T:
        """Construct an object whose registry key is not known."""
        return construct(cls, None, kwargs, args)


def construct(cls: type[T], key: str | None, kwargs: Mapping[str, Any], args: Sequence[Any] = ()) -> T:
    """Return ``cls(*args, **kwargs)`` as the operator that the registry knows as ``key``.

    Raises:
        OptionError: the constructor has no such option.
    """
    signature = _signature(cast("type", cls))
    parameters = signature.parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for option in kwargs:
            if option not in parameters:
                known = f"options among {', '.join(parameters)}" if parameters else "no options"
                hint = nearest(option, parameters)
                raise OptionError(f"{key or cls.__name__} should get {known}; found {option!r}.{hint}")
    args, kwargs = to_python(tuple(args)), to_python(kwargs)
    # Converted before __init__ runs, which may change lists.
    given = signature.bind(*args, **kwargs).arguments if args else kwargs
    arguments = {
        str(name): json_form(value)
        for name, value in given.items()
        if name not in parameters or value is not parameters[name].default
    }
    try:
        obj: T = type.__call__(cls, *args, **kwargs)
    except (RuntimeError, TypeError, OverflowError) as error:  # Of torch, which has no one class for it.
        if "overflow" not in str(error).lower() and not isinstance(error, OverflowError):
            raise
        found = str(error).partition("\n")[0]
        raise DimsError(f"{key or cls.__name__} should have sizes that a tensor can have; found: {found}") from error
    obj._constructed(key, arguments)  # type: ignore[attr-defined]
    return obj


def inherit_options(init: Callable[..., None], base: Callable[..., None]) -> Callable[..., None]:
    """Replace ``**common: Unpack[FusionOptions]`` in the signature of a constructor by the parameters of ``base``.

    They can then also be given by position.  A constructor without ``**common`` is returned unchanged.
    """
    own = inspect.signature(init)
    parameters = {p.name: p for p in own.parameters.values() if "FusionOptions" not in str(p.annotation)}
    if len(parameters) == len(own.parameters):
        return init
    parameters = parameters | {n: p for n, p in inspect.signature(base).parameters.items() if n not in parameters}
    signature = own.replace(parameters=sorted(parameters.values(), key=lambda p: p.kind))

    @wraps(init)
    def __init__(*args: Any, **kwargs: Any) -> None:
        init(**signature.bind(*args, **kwargs).arguments)

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    return __init__


#: Types and their conversion to JSON types; the first that fits is used.
_JSON: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (torch.dtype, lambda dtype: str(dtype).removeprefix("torch.")),
    ((torch.device, str), str),
    (Mapping, lambda value: {str(key): json_form(item) for key, item in value.items()}),
    ((torch.Tensor, numpy.ndarray), lambda value: value.tolist()),
    (Sequence, lambda value: [json_form(item) for item in value]),
    (numbers.Integral, int),
    (numbers.Real, float),
)


def json_form(value: Any) -> Any:
    """Return ``value`` in JSON types; a part that has no JSON form becomes an ``Unwritable``."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    for types, convert in _JSON:
        if isinstance(value, types) and not isinstance(value, bytes):
            return convert(value)
    if isinstance(type(value), ConstructMeta):
        try:
            return value.to_config()
        except ConfigError as error:
            return Unwritable(str(error))
    return Unwritable(f"an object of type {type(value).__module__}.{type(value).__qualname__}")


def writable(owner: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the kept arguments of the operator called ``owner``, for its config.

    Raises:
        ConfigError: an argument has no JSON form; the message names it.
    """

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, Unwritable):
            should = "be a name, a number, a list or a mapping to be written to a config"
            raise ConfigError(f"{owner}: the argument {path} should {should}; found {value.why}.")
        if isinstance(value, dict):
            return {key: walk(item, f"{path}.{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, f"{path}[{index}]") for index, item in enumerate(value)]
        return value

    return {name: walk(value, name) for name, value in arguments.items()}


def registered_key(obj: Any) -> str:
    """Return the registry key of an operator, for its config.

    Raises:
        ConfigError: its class is not registered.
    """
    key = obj._key or lookup.key_of(type(obj))
    if key is None:
        raise ConfigError(
            f"{type(obj).__module__}:{type(obj).__qualname__} should be registered to have a config; it is not."
        )
    return str(key)
