"""The functions of the registry: which fusions, fabrications and data sets exist, where they come from, what a name
means.

An operator is imported when it is used, not before.  The state is one snapshot, immutable but for a cache of classes;
``refresh``, ``register`` and a plugin that fails late replace it by a new snapshot, so readers need no lock.

Names: ``<distribution>/<name>`` always works.  A short name works unless it belongs to the core (then it means the
core's one) or two plugins have it (then it is an error).
"""

from __future__ import annotations

import copy
import importlib
import os
import pkgutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fusionkit._util.distribution import DISTRIBUTION, version
from fusionkit._util.text import short_repr
from fusionkit.errors import RegistryError
from fusionkit.registry import loading
from fusionkit.registry.catalogue import KINDS, Record, Snapshot, instead, words
from fusionkit.registry.discovery import CORE_TARGET, Candidate, follow_path_files, installed
from fusionkit.registry.loading import Kind, Operator, Plugin, PluginProblem
from fusionkit.registry.ownership import clashes

STRICT = "FUSIONKIT_STRICT"

#: The base class of each kind of operator.  fusionkit.core fills this in, because the registry must not import it.
BASES: dict[Operator, type] = {}


class DeprecatedNameWarning(DeprecationWarning):
    """A registered name is used that will be removed; the message says what to use instead."""


# -- queries -----------------------------------------------------------------------------------------------------------


def records(kind: Kind | None = None) -> list[Record]:
    """Return all records of the registry, or those of one kind, sorted by kind (fusions first) and name."""
    kinds = _kinds(kind)
    return [record for record in _checked_snapshot().records if record.kind in kinds]


def names(kind: Kind) -> list[str]:
    """Return the names of one kind, sorted: the short name if it works, else the qualified one."""
    return sorted(record.key for record in records(kind))


def fusions() -> list[str]:
    """Return the names of all fusions on this machine, sorted.  Imports none of them."""
    return names("fusion")


def fabrications() -> list[str]:
    """Return the names of all fabrications on this machine, sorted.  Imports none of them."""
    return names("fabrication")


def resolve(kind: Kind, name: str) -> Record:
    """Return the record of a short name, an alias, or ``<distribution>/`` with one of them.  Imports nothing.

    Raises:
        RegistryError: no plugin or more than one has the name, it was removed, or its plugin is not loaded.
    """
    return _checked_snapshot().resolve(_kinds(kind), name)


def find(name: str, kind: Kind | tuple[Kind, ...] | None = None) -> Record:
    """Return the record of a name whose kind may be unknown, as on the command line.  Imports nothing.

    Args:
        name: short, an alias or qualified.
        kind: the only one to look in, or several; None: all.

    Raises:
        RegistryError: as for ``resolve``; or several kinds have the name.
    """
    return _checked_snapshot().resolve(_kinds(kind), name)


def load(kind: Operator, name: str) -> type:
    """Import and return the class that is registered as ``name``.

    Raises:
        RegistryError: as for ``resolve``; or the class cannot be imported, or is not a Fusion (a Fabrication).
    """
    return record_and_class(kind, name)[1]


def dataset(name: str) -> Callable[..., Any]:
    """Import and return the function that reads the data set ``name``; the first use of a deprecated name warns.

    Raises:
        RegistryError: as for ``resolve``; or the function cannot be imported, or is none.
    """
    record = resolve("dataset", name)
    if record.spec.deprecated is not None:
        _warn_once(record)
    return _function(record)


def key_of(cls: type) -> str | None:
    """Return the name under which a class is registered, the shortest that works; None if it is not registered."""
    snapshot = _checked_snapshot()
    used = [record for record, known in list(snapshot.classes.values()) if known is cls]
    found = [*used, *(record for record in snapshot.records if _imported(record) is cls)]
    rank = {"ok": 0, "deprecated": 1, "shadowed": 2, "ambiguous": 2}
    best = min(found, key=lambda r: (rank[r.status], r.distribution != DISTRIBUTION, r.qualified), default=None)
    return best.key if best else None


def conf_paths() -> list[tuple[str, str]]:
    """Return the Hydra config folders of the plugins as pairs (distribution, ``pkg://package.folder``)."""
    return [(plugin.distribution, path) for plugin in _checked_snapshot().loaded for path in plugin.conf]


def checks() -> list[Callable[..., Any]]:
    """Return the contract checks of all plugins.  A plugin whose hook fails is quarantined and contributes none."""
    found = _load_checks()
    _checked_snapshot()  # Raises under FUSIONKIT_STRICT=1 if one was quarantined.
    return found


def run_finished(result: Mapping[str, Any], run_dir: Path | None = None) -> None:
    """Call the hook ``fusionkit_run_finished`` of every plugin, each with its own copy of ``result``.

    A plugin that raises causes a RuntimeWarning only, because the run itself is complete.

    Raises:
        RegistryError: a plugin raised, and FUSIONKIT_STRICT=1 is set.
    """
    for plugin in _checked_snapshot().loaded:
        try:
            loading.call_hook(plugin, "fusionkit_run_finished", result=copy.deepcopy(dict(result)), run_dir=run_dir)
        except PluginProblem as problem:
            message = f"the plugin {plugin.title} should process the finished run; found that {problem}."
            if strict():
                raise RegistryError(message) from problem
            warnings.warn(message, RuntimeWarning, stacklevel=2)


def plugins() -> list[Plugin]:
    """Return every installed plugin, loaded or not, the core's first.

    It does not raise even under FUSIONKIT_STRICT=1, since it is how to find out what is wrong.
    """
    return list(current_snapshot().plugins)


def quarantined() -> list[Plugin]:
    """Return the plugins that failed or are incompatible; none if the registry was not used yet."""
    return list(_published.quarantined) if _published else []


def verify(*, import_targets: bool = False) -> list[Plugin]:
    """Return what ``plugins`` returns, after calling also the hooks that listing does not need.

    The warnings of the core's plugin name the distributions that have what belongs to another one.

    Args:
        import_targets: also import every class and function; a plugin with one that cannot be imported is returned as
            failed.
    """
    _load_checks()
    snapshot = current_snapshot()
    found = [_with_targets(snapshot, plugin) if import_targets else plugin for plugin in snapshot.plugins]
    shared = tuple(map(str, clashes()))
    return [replace(plugin, warnings=plugin.warnings + shared) if plugin.core else plugin for plugin in found]


# -- changes -----------------------------------------------------------------------------------------------------------


def refresh() -> None:
    """Search again for plugins that were installed (also editable), upgraded or removed since the process started.

    A module that was already imported is not reloaded.
    """
    follow_path_files()
    importlib.invalidate_caches()
    _load_plugins(anew=True)
    _checked_snapshot()


def register(module: object) -> None:
    """Add a plugin to this process: a module (or any object) with hook implementations.

    A module that is known already is read again, for instance after ``importlib.reload``; and a class replaces an
    earlier one of the same name and module, as when a notebook cell runs again.  The top-level package of the module
    serves as its distribution, so qualified names are ``<package>/<name>``.
    Other processes, such as the workers of a parallel sweep, do not have the plugin.

    Raises:
        RegistryError: its hooks do not fit ``fusionkit.hookspecs``.
    """
    with _lock:
        before = current_snapshot()
        known = next((plugin for plugin in before.given if plugin.module is module), None)
        if known is not None:
            again = loading.collect_offers(replace(known, status="loaded", error=None, traceback=None))
            given = [again if plugin is known else plugin for plugin in before.given]
            _publish_registered(Snapshot(given, sealed=before.sealed), given.index(again))
            return
        name = str(getattr(module, "__name__", type(module).__module__))
        package = name.partition(".")[0]
        found = getattr(sys.modules.get(package), "__version__", None)
        its_version = found if isinstance(found, str) else None
        plugin = loading.collect_offers(Plugin(name, name, package, its_version, module=module, local=True))
        given = [*(loading.without_redefined(old, plugin) for old in before.given), plugin]
        _publish_registered(Snapshot(given, sealed=before.sealed), -1)


def _publish_registered(after: Snapshot, index: int) -> None:
    """Publish the snapshot, unless the plugin at ``index`` failed: its names may clash with those of another plugin."""
    plugin = after.plugins[index]
    if plugin.status != "loaded":
        raise RegistryError(f"the plugin {plugin.title} cannot be registered: {plugin.error}.")
    _publish(after)


@contextmanager
def isolated(*modules: object) -> Iterator[None]:
    """Return a context in which the registry contains only the core and the plugins ``modules``.

    For tests of plugins: they depend on no installed plugin, and leave nothing registered.  It affects all threads of
    the process.

    Raises:
        RegistryError: a module cannot be registered.
    """
    before = current_snapshot()
    try:
        _publish(Snapshot([plugin for plugin in before.given if plugin.core], sealed=True))
        for module in modules:
            register(module)
        yield
    finally:
        _publish(before)


def _load_checks() -> list[Callable[..., Any]]:
    found = []
    for plugin in current_snapshot().loaded:
        try:
            found += loading.checks_of(plugin)
        except PluginProblem as problem:
            _quarantine(plugin, problem)
    return found


# -- importing classes -------------------------------------------------------------------------------------------------


def record_and_class(kind: Operator, name: str) -> tuple[Record, type]:
    """Return record and class of a name; the first use of a deprecated name warns."""
    snapshot = _checked_snapshot()
    found = snapshot.classes.get((kind, name)) if isinstance(name, str) else None
    if found is None:
        record = snapshot.resolve(_kinds(kind), name)
        found = snapshot.classes[kind, name] = (record, _class(kind, record))
    if found[0].spec.deprecated is not None:
        _warn_once(found[0])
    return found


def _import(record: Record) -> Any:
    """Return the target of a record, or raise a RegistryError that names its distribution and what is wrong."""
    try:
        with loading.foreign_code("", title(record)):
            return pkgutil.resolve_name(record.target) if isinstance(record.spec.target, str) else record.spec.target
    except PluginProblem as problem:
        cause = problem.__cause__
        raise RegistryError(f"{title(record)} cannot be imported from {record.target!r}: {problem}.") from cause


def title(record: Record) -> str:
    """Return a record as messages name it: ``the fusion 'gram' of fusionkit-gram 0.1.0``."""
    owner = " ".join(part for part in (record.distribution, record.version) if part)
    return f"the {words(record.kind)} {record.key!r} of {owner}"


def _class(kind: Operator, record: Record) -> type:
    """Return the class of an operator, or raise a RegistryError."""
    cls = _import(record)
    base = BASES.get(kind)  # None if fusionkit.core is not imported; then ``cls`` cannot be a subclass.
    if base is not None and isinstance(cls, type) and issubclass(cls, base):
        return cls
    should = f"should be a subclass of fusionkit.{kind.capitalize()}"
    raise RegistryError(f"{title(record)} {should}; found {short_repr(cls)} at {record.target!r}.")


def _function(record: Record) -> Callable[..., Any]:
    """Return the function of a data set, or raise a RegistryError."""
    function: Callable[..., Any] = _import(record)
    if callable(function):
        return function
    raise RegistryError(f"{title(record)} should be a function; found {short_repr(function)} at {record.target!r}.")


def _imported(record: Record) -> object:
    """Return the target of a record if its module is already imported, else None.  Imports nothing."""
    if not isinstance(record.spec.target, str):
        return record.spec.target
    module, _, path = record.target.partition(":")
    found: object = sys.modules.get(module)
    for part in path.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    return found


def _with_targets(snapshot: Snapshot, plugin: Plugin) -> Plugin:
    """Return the plugin, failed if one of its classes or functions cannot be imported."""
    errors = []
    for record in snapshot.records:
        if (record.distribution, record.plugin) == (plugin.distribution, plugin.name):
            try:
                _function(record) if record.kind == "dataset" else _class(record.kind, record)
            except RegistryError as error:
                errors.append(error)
    problem = PluginProblem("; ".join(map(str, errors)))
    problem.__cause__ = errors[0] if errors else None
    return plugin.failed(problem) if errors else plugin


_warned: set[tuple[Kind, str]] = set()


def _warn_once(record: Record) -> None:
    with _lock:
        if (record.kind, record.qualified) in _warned:
            return
        _warned.add((record.kind, record.qualified))
    message = f"the {words(record.kind)} {record.key!r} is deprecated: {instead(record.spec.deprecated or '')}."
    warnings.warn(message, DeprecatedNameWarning, stacklevel=4)  # The caller of create or load.


# -- the state ---------------------------------------------------------------------------------------------------------

_lock = threading.RLock()
_published: Snapshot | None = None
_loading = False


def _checked_snapshot() -> Snapshot:
    """Return the snapshot; under FUSIONKIT_STRICT=1 raise a RegistryError if a plugin is quarantined."""
    snapshot = current_snapshot()
    if snapshot.quarantined and strict():
        found = "; ".join(f"{plugin.title}: {plugin.error}" for plugin in snapshot.quarantined)
        raise RegistryError(f"under {STRICT}=1 every plugin should load; found {found}.")
    return snapshot


def current_snapshot() -> Snapshot:
    """Return the snapshot, whatever FUSIONKIT_STRICT is; loads the plugins at the first call."""
    return _published or _load_plugins()


def _load_plugins(*, anew: bool = False) -> Snapshot:
    """Load the plugins, in one thread only, and publish the snapshot; ``anew`` replaces an existing one."""
    global _loading
    with _lock:
        before = _published
        if before is not None and (before.sealed or not anew):
            return before
        if _loading:  # The lock is reentrant, so this call comes from a plugin during its own import.
            raise RegistryError("the registry should not be used by a plugin that is being imported; found that it is.")
        _loading = True
        try:
            running = version()
            core = Candidate(
                "builtin", CORE_TARGET, DISTRIBUTION, running, lambda: importlib.import_module(CORE_TARGET)
            )
            found = [loading.load(candidate, running) for candidate in installed()]
            local = [plugin for plugin in before.given if plugin.local] if before else []
            return _publish(Snapshot([loading.load(core, running), *found, *local]))
        finally:
            _loading = False


def _publish(snapshot: Snapshot) -> Snapshot:
    """Make ``snapshot`` the state of the registry."""
    global _published
    _published = snapshot
    return snapshot


def _quarantine(plugin: Plugin, problem: PluginProblem) -> None:
    """Publish a snapshot in which ``plugin`` has failed."""
    with _lock:
        before = current_snapshot()
        given = [other.failed(problem) if other.module is plugin.module else other for other in before.given]
        _publish(Snapshot(given, sealed=before.sealed))


def _kinds(kind: Kind | tuple[Kind, ...] | None) -> tuple[Kind, ...]:
    """Return the kinds among which a name is looked up: those that are given, or all."""
    if isinstance(kind, tuple):
        return kind
    if kind is not None and kind not in KINDS:
        raise RegistryError(f"the kind should be one of {', '.join(KINDS)}; found {kind!r}.")
    return KINDS if kind is None else (kind,)


def strict() -> bool:
    """Whether the environment variable FUSIONKIT_STRICT makes every quarantine an error."""
    return flag(STRICT)


def flag(variable: str) -> bool:
    """Whether an environment variable is set to something other than 0, false, no or off."""
    return os.environ.get(variable, "").strip().lower() not in ("", "0", "false", "no", "off")
