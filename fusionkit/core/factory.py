"""Builds fusions and fabrications from their registry keys."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from fusionkit.core import allowed, first_call
from fusionkit.core.construction import construct
from fusionkit.core.fabrication import CallableFabrication, Fabrication
from fusionkit.core.fusion import Fusion
from fusionkit.core.traits import StandIn
from fusionkit.errors import ConfigError, FusionError
from fusionkit.registry import lookup

CHECK = "FUSIONKIT_CHECK"


def create(name: str, *, check: bool = False, missing: StandIn | None = None, **options: Any) -> Fusion:
    """Build the fusion that the registry knows as ``name``.

    Args:
        name: a short name, an alias, or ``<distribution>/<name>``.
        check: verify n, l, shape, dtype and device on the first forward, as with the environment variable
            ``FUSIONKIT_CHECK=1``.
        missing: what stands in for an absent view, for any operator: ``placeholder`` (a learned vector),
            ``indicator`` (a learned vector added to the result) or ``rescale`` (linear operators: times
            k / number of present views); None leaves it to the operator.
        **options: arguments of the constructor: ``dims``, ``n``, ...

    Returns:
        A ``torch.nn.Module`` that takes a list of k views (..., n_i) and returns a tensor (..., n).

    Raises:
        RegistryError: the name is unknown, or its class cannot be imported.
        OptionError: the constructor has no such option.
        FusionError: the constructor refuses a value.
    """
    record, cls = lookup.record_and_class("fusion", name)
    operator: Fusion = construct(cls, record.key, options)
    if missing is not None:
        operator.add_missing(missing)
    if check or lookup.flag(CHECK):
        first_call.attach(operator)
    return operator


def create_fabrication(name: str, **options: Any) -> Fabrication:
    """Build the fabrication that the registry knows as ``name``, for instance to pass as ``parameter_fabrication``.

    Args:
        name: a short name, an alias, or ``<distribution>/<name>``.
        **options: arguments of the constructor, such as ``r=8``; n and D are given to its methods.

    Raises:
        RegistryError: the name is unknown, or its class cannot be imported.
        OptionError: the constructor has no such option.
        FusionError: the constructor refuses a value.
    """
    record, cls = lookup.record_and_class("fabrication", name)
    fabrication: Fabrication = construct(cls, record.key, options)
    return fabrication


def as_fabrication(spec: Any) -> Fabrication:
    """Return a new fabrication for ``spec``: None (dense), a name, a mapping with a name, a fabrication (copied), or a
    callable object.

    Raises:
        FusionError: anything else.
        ConfigError: a mapping without a name, or with a ``_target_``.
        RegistryError: an unknown name.
    """
    if spec is None:
        spec = "dense"
    if isinstance(spec, str):
        return create_fabrication(spec)
    if isinstance(spec, Mapping):
        options = {str(key): value for key, value in spec.items()}
        if "_target_" in options:
            raise ConfigError(f"parameter_fabrication should select by name; found _target_ {options['_target_']!r}.")
        if not isinstance(options.get("name"), str):
            raise ConfigError(f"parameter_fabrication should have a name; found {dict(spec)!r}.")
        return create_fabrication(**options)
    if isinstance(spec, Fabrication):
        return copy.deepcopy(spec)
    if callable(spec) and callable(getattr(spec, "calculate_l", None)) and not isinstance(spec, type):
        return CallableFabrication(spec)
    raise FusionError(
        "parameter_fabrication should be None, a name, a mapping with a name, a Fabrication, or a callable object with "
        f"calculate_l(n=, D=); found {spec!r}."
    )


allowed.FACTORIES.update({"fusionkit.create": create, "fusionkit.create_fabrication": create_fabrication})
