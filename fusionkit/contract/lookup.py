"""Find the subjects for a name, a class or an instance."""

from __future__ import annotations

import copy
import importlib
import sys
from pkgutil import iter_modules
from typing import Any

from torch import nn

from fusionkit import registry
from fusionkit.contract.rules import Kind, describe
from fusionkit.contract.subject import FabricationSubject, FusionSubject, Source, Subject
from fusionkit.errors import ConfigError, RegistryError, nearest
from fusionkit.fabrication import Fabrication
from fusionkit.fusion import Fusion
from fusionkit.registry.catalogue import OPERATORS, Record


def all_subjects(kind: Kind | None = None) -> list[Subject]:
    """Return every registered subject, fusions first."""
    kinds = (kind,) if kind else OPERATORS
    return [_registered(one, record) for one in kinds for record in registry.records(one)]


def subjects_of(obj: Any, kind: Kind | None = None) -> list[Subject]:
    """Return the subjects for ``obj``: a name, ``module:Class``, a class, an instance, or a list of these.

    A name that both kinds have gives two subjects.  An instance is checked without its pre- and postprocess, as they
    need not have its traits; the check ``processing`` adds others.

    Raises:
        RegistryError: ``obj`` is not registered, cannot be imported, or is of another type.
        ConfigError: an instance without dims, or with ``require_parameters=False``.
    """
    if isinstance(obj, str):
        return [_of_class(_import(obj))] if ":" in obj else _named(obj, kind)
    if isinstance(obj, type):
        return [_of_class(obj)]
    if isinstance(obj, Fusion | Fabrication):
        if isinstance(obj, Fusion):
            _check_instance(obj)
            obj = _without_processing(obj)
        return [_of_class(type(obj), obj)]
    if isinstance(obj, list | tuple | set | frozenset):
        return [subject for one in obj for subject in subjects_of(one, kind)]
    raise RegistryError(
        "what is checked should be a name, 'module:Class', a subclass or an instance of fusionkit.Fusion or "
        f"fusionkit.Fabrication; found {obj!r}."
    )


def _check_instance(op: Fusion) -> None:
    if getattr(op, "dims", None) is None:
        raise ConfigError(f"An operator that is checked should have dims; found {op.name} without.")
    if op._layout and not op.require_parameters:
        raise ConfigError(
            f"An operator that is checked should own its parameters; found {op.name} with require_parameters=False."
        )


def _without_processing(op: Fusion) -> Fusion:
    bare = copy.deepcopy(op)
    bare.preprocess = bare.postprocess = None
    for option in ("preprocess", "postprocess"):
        bare._arguments.pop(option, None)
    return bare


def _named(name: str, kind: Kind | None) -> list[Subject]:
    found, errors = [], []
    for one in (kind,) if kind else OPERATORS:
        try:
            found.append(_registered(one, registry.resolve(one, name)))
        except RegistryError as error:
            errors.append(error)
    if not found:
        # The error that suggests a name is the more helpful one.
        raise max(errors, key=lambda error: "Did you mean" in str(error))
    return found


def _registered(kind: Kind, record: Record) -> Subject:
    return _subject(Source(record.qualified, kind, record))


def _of_class(cls: type, instance: nn.Module | None = None) -> Subject:
    if not issubclass(cls, Fusion | Fabrication):
        raise RegistryError(
            f"what is checked should be a subclass of fusionkit.Fusion or fusionkit.Fabrication; found {cls!r}."
        )
    kind: Kind = "fusion" if issubclass(cls, Fusion) else "fabrication"
    key = registry.key_of(cls)
    record = registry.resolve(kind, key) if key is not None else None
    name = record.qualified if record else f"{cls.__module__}:{cls.__qualname__}"
    return _subject(Source(name, kind, record, cls, instance))


def _subject(source: Source) -> Subject:
    return FusionSubject(source) if source.kind == "fusion" else FabricationSubject(source)


def _import(target: str) -> type:
    should = f"{target!r} should be an importable 'module:Class'; found"
    module, _, path = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not f"{module}.".startswith(f"{missing}."):  # Not found is a module that it imports.
            raise RegistryError(f"{should} {describe(error)}.") from error
        parent, _, wanted = missing.rpartition(".")
        known = [info.name for info in iter_modules(getattr(sys.modules[parent], "__path__", []) if parent else None)]
        hint = nearest(wanted, known, limit=1)
        raise RegistryError(f"{should} no module {wanted!r}{f' in {parent}' if parent else ''}.{hint}") from error
    where = module
    for part in path.split("."):
        if not hasattr(found, part):
            known = [name for name, value in vars(found).items() if isinstance(value, type)]
            raise RegistryError(f"{should} no {part!r} in {where}.{nearest(part, known, limit=1)}")
        found, where = getattr(found, part), f"{where}.{part}"
    if not isinstance(found, type):
        raise RegistryError(f"{target!r} should be a class; found {found!r}.")
    return found
