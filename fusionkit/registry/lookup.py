"""The registry: which fusions and fabrications there are, whose they are, and which name means what.

Nothing here imports an operator before it is used.  What was found is kept in a snapshot that never changes;
``refresh``, ``register`` and a plugin that fails late put a new one in its place, so readers need no lock.

Names: ``<distribution>/<name>`` always works.  A short name works unless it belongs to the core (then it means the
core's operator) or comes from two plugins (then it is refused).
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
from pathlib import Path
from typing import Any

from fusionkit._util.text import short_repr
from fusionkit.errors import RegistryError
from fusionkit.hookspecs import PROJECT
from fusionkit.registry import loading
from fusionkit.registry.catalogue import KINDS, Record, Snapshot, instead
from fusionkit.registry.discovery import CORE_TARGET, Candidate, follow_path_files, installed
from fusionkit.registry.loading import Kind, Plugin, PluginProblem

STRICT = "FUSIONKIT_STRICT"

#: The base class of each kind; the core, which lies above the registry, enters them.
BASES: dict[Kind, type] = {}


class DeprecatedNameWarning(DeprecationWarning):
    """A name of the registry is used that will be removed; the message says what to use instead."""


# -- the public questions ----------------------------------------------------------------------------------------------


def records(kind: Kind | None = None) -> list[Record]:
    """Return every name of the registry, or those of one kind, sorted by kind (fusions first) and name."""
    if kind is not None:
        _check_kind(kind)
    return [record for record in _current().records if kind in (None, record.kind)]


def names(kind: Kind) -> list[str]:
    """Return the names of one kind, sorted: the short name where it works, the qualified one elsewhere."""
    return sorted(record.key for record in records(kind))


def fusions() -> list[str]:
    """Return the names of all fusions on this machine, sorted.  Imports none of them."""
    return names("fusion")


def fabrications() -> list[str]:
    """Return the names of all fabrications on this machine, sorted.  Imports none of them."""
    return names("fabrication")


def resolve(kind: Kind, name: str) -> Record:
    """Return what ``name`` means: a short name, an alias, or ``<distribution>/`` with one of them.  Imports nothing.

    Raises:
        RegistryError: no plugin has it, several have, it was removed, or the plugin that would have it is not loaded.
    """
    return _current().resolve((_check_kind(kind),), name)


def find(name: str, kind: Kind | None = None) -> Record:
    """Return what ``name`` means where its kind may be left open, as on the command line.  Imports nothing.

    Raises:
        RegistryError: as ``resolve``; or both kinds have the name.
    """
    return _current().resolve(KINDS if kind is None else (_check_kind(kind),), name)


def load(kind: Kind, name: str) -> type:
    """Return the class behind ``name``, imported now.

    Raises:
        RegistryError: as ``resolve``; or the class cannot be imported, or is not a Fusion (a Fabrication).
    """
    return use(kind, name)[1]


def key_of(cls: type) -> str | None:
    """Return the name under which a class is registered, the best one if there are several; None if it is not."""
    snapshot = _current()
    used = [record for record, known in list(snapshot.classes.values()) if known is cls]
    found = [*used, *(record for record in snapshot.records if _imported(record) is cls)]
    rank = {"ok": 0, "deprecated": 1, "shadowed": 2, "ambiguous": 2}
    best = min(found, key=lambda r: (rank[r.status], r.distribution != PROJECT, r.qualified), default=None)
    return best.key if best else None


def conf_paths() -> list[tuple[str, str]]:
    """Return the Hydra config folders of the plugins as pairs (distribution, ``pkg://package.folder``)."""
    return [(plugin.distribution, path) for plugin in _current().loaded for path in plugin.conf]


def checks() -> list[Callable[..., Any]]:
    """Return the contract checks of all plugins.  A plugin whose hook fails is quarantined and gives none."""
    found = _load_checks()
    _current()  # Under FUSIONKIT_STRICT=1 a quarantine is an error.
    return found


def run_finished(result: Mapping[str, Any], run_dir: Path | None = None) -> None:
    """Call this hook of every plugin, each with a copy of the run's result and with its directory.

    A plugin that raises is reported by a RuntimeWarning: the run is complete by then.

    Raises:
        RegistryError: a plugin raised, and FUSIONKIT_STRICT=1 is set.
    """
    for plugin in _current().loaded:
        try:
            loading.call_hook(plugin, "fusionkit_run_finished", result=copy.deepcopy(dict(result)), run_dir=run_dir)
        except PluginProblem as problem:
            message = f"the plugin {plugin.title} should take note of the finished run; found that {problem}."
            if strict():
                raise RegistryError(message) from problem
            warnings.warn(message, RuntimeWarning, stacklevel=2)


def plugins() -> list[Plugin]:
    """Return every installed plugin, the core's first, loaded or not.

    Not even FUSIONKIT_STRICT=1 makes it raise: it is there to say what is wrong.
    """
    return list(current_snapshot().plugins)


def quarantined() -> list[Plugin]:
    """Return the plugins that are not loaded and should be; none before the plugins were loaded."""
    return list(_published.quarantined) if _published else []


def verify(*, import_targets: bool = False) -> list[Plugin]:
    """Return the same after calling the hooks that listing does not need; a plugin where one fails is quarantined.

    Args:
        import_targets: also import every class; a plugin with one that cannot be imported is reported as failed.
    """
    _load_checks()
    snapshot = current_snapshot()
    return [_with_targets(snapshot, plugin) if import_targets else plugin for plugin in snapshot.plugins]


# -- changing it -------------------------------------------------------------------------------------------------------


def refresh() -> None:
    """Look for plugins again: for those installed (editable too), upgraded or removed since this process started.

    A module that is imported already stays as it is, as everywhere in Python.
    """
    follow_path_files()
    importlib.invalidate_caches()
    _load_plugins(anew=True)
    _current()


def register(module: object) -> None:
    """Add a plugin to this process: a module (or any object) with hook implementations.

    Its distribution is the module's top-level package, so the qualified names are ``<package>/<name>``.
    Other processes, such as the workers of a parallel sweep, do not see it.

    Raises:
        RegistryError: its hooks are not as ``fusionkit.hookspecs`` says.
    """
    with _lock:
        before = current_snapshot()
        if any(plugin.module is module for plugin in before.loaded):
            return
        plugin = loading.collect_offers(_local_plugin(module))
        after = Snapshot([*before.given, plugin], sealed=before.sealed)
        plugin = after.plugins[-1]  # As judged next to the others.
        if plugin.status != "loaded":
            raise RegistryError(f"the plugin {plugin.title} cannot be registered: {plugin.error}.")
        publish(after)


@contextmanager
def isolated(*modules: object) -> Iterator[None]:
    """Within this context the registry holds the core, the plugins ``modules``, and nothing else.

    For tests of plugins: what is installed on the machine cannot disturb them, and nothing of theirs remains.
    It concerns the whole process, all its threads.

    Raises:
        RegistryError: a module cannot be registered.
    """
    before = current_snapshot()
    try:
        publish(Snapshot([plugin for plugin in before.given if plugin.core], sealed=True))
        for module in modules:
            register(module)
        yield
    finally:
        publish(before)


def _load_checks() -> list[Callable[..., Any]]:
    found = []
    for plugin in current_snapshot().loaded:
        try:
            found += loading.checks_of(plugin)
        except PluginProblem as problem:
            _quarantine(plugin, problem)
    return found


# -- importing classes -------------------------------------------------------------------------------------------------


def use(kind: Kind, name: str) -> tuple[Record, type]:
    """Return record and class of a name, and warn once if it is deprecated.  Called by what the user calls."""
    snapshot = _current()
    found = snapshot.classes.get((kind, name)) if isinstance(name, str) else None
    if found is None:
        record = snapshot.resolve((_check_kind(kind),), name)
        found = snapshot.classes[kind, name] = (record, _import(record))
    if found[0].spec.deprecated is not None:
        _warn_once(found[0])
    return found


def _import(record: Record) -> type:
    """Return the class of a record, or raise a RegistryError that says whose it is and what is wrong."""
    owner = " ".join(part for part in (record.distribution, record.version) if part)
    what = f"the {record.kind} {record.key!r} of {owner}"
    try:
        with loading.foreign_code():
            cls = record.spec.target if isinstance(record.spec.target, type) else pkgutil.resolve_name(record.target)
    except PluginProblem as problem:
        cause = problem.__cause__
        raise RegistryError(f"{what} cannot be imported from {record.target!r}: {problem}.") from cause
    base = BASES.get(record.kind)  # None: not even the base class was imported.
    if base is not None and isinstance(cls, type) and issubclass(cls, base):
        return cls
    should = f"should be a subclass of fusionkit.{record.kind.capitalize()}"
    raise RegistryError(f"{what} {should}; found {short_repr(cls)} at {record.target!r}.")


def _imported(record: Record) -> object:
    """Return what a record's target is at the moment, None if its module is not imported; imports nothing."""
    if isinstance(record.spec.target, type):
        return record.spec.target
    module, _, path = record.target.partition(":")
    found: object = sys.modules.get(module)
    for part in path.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    return found


def _with_targets(snapshot: Snapshot, plugin: Plugin) -> Plugin:
    """Return the plugin, failed if one of its classes cannot be imported."""
    errors = []
    for record in snapshot.records:
        if (record.distribution, record.plugin) == (plugin.distribution, plugin.name):
            try:
                _import(record)
            except RegistryError as error:
                errors.append(error)
    if not errors:
        return plugin
    problem = PluginProblem("; ".join(map(str, errors)))
    problem.__cause__ = errors[0]
    return plugin.failed(problem)


_warned: set[tuple[Kind, str]] = set()


def _warn_once(record: Record) -> None:
    with _lock:
        if (record.kind, record.qualified) in _warned:
            return
        _warned.add((record.kind, record.qualified))
    message = f"the {record.kind} {record.key!r} is deprecated: {instead(record.spec.deprecated or '')}."
    warnings.warn(message, DeprecatedNameWarning, stacklevel=4)  # _warn_once, _use, create or load, their caller.


# -- the state ---------------------------------------------------------------------------------------------------------

_lock = threading.RLock()
_published: Snapshot | None = None
_loading = False


def _current() -> Snapshot:
    """Return the registry, unless it is to be perfect (FUSIONKIT_STRICT=1) and is not."""
    snapshot = current_snapshot()
    if snapshot.quarantined and strict():
        found = "; ".join(f"{plugin.title}: {plugin.error}" for plugin in snapshot.quarantined)
        raise RegistryError(f"under {STRICT}=1 every plugin should load; found {found}.")
    return snapshot


def current_snapshot() -> Snapshot:
    """Return what was found, whatever FUSIONKIT_STRICT says; the plugins are loaded now if they are not yet."""
    return _published or _load_plugins()


def _load_plugins(*, anew: bool = False) -> Snapshot:
    """Load the plugins, once for all threads, and publish what was found."""
    global _loading
    with _lock:
        before = _published
        if before is not None and (before.sealed or not anew):
            return before
        if _loading:  # The lock is reentrant, so a plugin that is being imported came here.
            raise RegistryError("the registry should not be used by a plugin that is being imported; found that it is.")
        _loading = True
        try:
            running: str = importlib.import_module(PROJECT).__version__
            core = Candidate("builtin", CORE_TARGET, PROJECT, running, lambda: importlib.import_module(CORE_TARGET))
            found = [loading.load(candidate, running) for candidate in installed()]
            local = [plugin for plugin in before.given if plugin.local] if before else []
            return publish(Snapshot([loading.load(core, running, core=True), *found, *local]))
        finally:
            _loading = False


def publish(snapshot: Snapshot) -> Snapshot:
    """Put ``snapshot`` in the place of what was found."""
    global _published
    _published = snapshot
    return snapshot


def _quarantine(plugin: Plugin, problem: PluginProblem) -> None:
    """Replace the registry by one in which ``plugin`` has failed."""
    with _lock:
        before = current_snapshot()
        given = [other.failed(problem) if other.module is plugin.module else other for other in before.given]
        publish(Snapshot(given, sealed=before.sealed))


def _local_plugin(module: object) -> Plugin:
    name = str(getattr(module, "__name__", type(module).__module__))
    package = name.partition(".")[0]
    version = getattr(sys.modules.get(package), "__version__", None)
    return Plugin(name, name, package, version if isinstance(version, str) else None, module=module, local=True)


def _check_kind(kind: Kind) -> Kind:
    if kind not in KINDS:
        raise RegistryError(f"the kind should be {' or '.join(map(repr, KINDS))}; found {kind!r}.")
    return kind


def strict() -> bool:
    """Whether FUSIONKIT_STRICT turns every quarantine into an error."""
    return flag(STRICT)


def flag(variable: str) -> bool:
    """Whether an environment variable is set to something other than 0, false, no or off."""
    return os.environ.get(variable, "").strip().lower() not in ("", "0", "false", "no", "off")
