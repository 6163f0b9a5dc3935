"""Imports one plugin, asks it what it offers, and keeps whatever goes wrong to it.

Every plugin gets a pluggy manager of its own: a misspelt or raising hook can then stick to no other plugin.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from reprlib import Repr
from time import perf_counter
from types import FunctionType, MethodType, ModuleType
from typing import Any, Literal

import pluggy

from fusionkit import hookspecs
from fusionkit._util.text import printable
from fusionkit.errors import nearest
from fusionkit.hookspecs import PROJECT, Spec
from fusionkit.registry.discovery import CORE_TARGET, Candidate, canonical, disabled, incompatible

__all__ = ["Kind", "Plugin", "PluginProblem", "ask", "call", "checks_of", "describe", "load", "mentions", "shown"]

NAME = re.compile(r"[a-z][a-z0-9_]*")
TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

HOOKS = tuple(name for name in hookspecs.__all__ if name.startswith("fusionkit_"))
# A module with nothing but the hooks: pluggy looks at every name of what it is given, for every plugin.
_SPECS = ModuleType("hooks")
vars(_SPECS).update({name: getattr(hookspecs, name) for name in HOOKS})

_FOLDER = Path(__file__).parents[1]

Kind = Literal["fusion", "fabrication"]
Status = Literal["loaded", "failed", "incompatible", "disabled"]


class PluginProblem(Exception):
    """Something that a plugin offers, or fails to; the message is a whole sentence, the cause is what was raised."""


@dataclass(frozen=True, eq=False)
class Plugin:
    """A plugin after the attempt to load it.

    Attributes:
        name: the left side of its entry point.
        target: the right side.
        distribution: who offers it.
        version: of the distribution, None where it has none.
        status: loaded, failed, incompatible or disabled.
        error: why it is not loaded.
        traceback: of the failure, where something was raised.
        seconds: that importing it and calling its hooks took.
        specs: what it offers, by kind and name; for a plugin that failed, what was known by then.
        conf: its Hydra config folders, ``pkg://...``.
        warnings: a sentence for each name or alias of it that does not work in its short form.
        module: the object that the entry point names.
        manager: calls its hooks.
        local: registered at run time, hence known to this process only.
    """

    name: str
    target: str
    distribution: str
    version: str | None
    status: Status = "loaded"
    error: str | None = None
    traceback: str | None = None
    seconds: float = 0.0
    specs: Mapping[Kind, Mapping[str, Spec]] = field(default_factory=dict)
    conf: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    module: object = None
    manager: pluggy.PluginManager | None = None
    local: bool = False

    @property
    def core(self) -> bool:
        """Whether this is the first-party plugin, whose names nobody can take."""
        return self.target == CORE_TARGET

    @property
    def title(self) -> str:
        """Return the plugin as messages name it: ``'gram' of fusionkit-gram 0.1.0``."""
        return " ".join(part for part in (f"{self.name!r} of {self.distribution}", self.version) if part)

    def names(self, kind: Kind) -> list[str]:
        """Return the names that it adds to the registry, sorted; none unless it is loaded."""
        specs = self.specs.get(kind, {}) if self.status == "loaded" else {}
        return sorted(name for name, spec in specs.items() if spec.removed is None)

    def failed(self, problem: BaseException) -> Plugin:
        """Return the plugin quarantined because of ``problem``, its traceback kept."""
        if not isinstance(problem, PluginProblem):
            return replace(self, status="failed", error=describe(problem), traceback=_trace(problem))
        cause = problem.__cause__
        return replace(self, status="failed", error=str(problem), traceback=_trace(cause) if cause else None)

    def to_dict(self) -> dict[str, Any]:
        """Return the record that ``fusionkit plugins --json`` prints."""
        return {
            "plugin": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "status": self.status,
            "error": self.error,
            "fusions": self.names("fusion"),
            "fabrications": self.names("fabrication"),
            "target": self.target,
            "seconds": round(self.seconds, 6),
            "warnings": list(self.warnings),
            "traceback": self.traceback,
        }


def load(candidate: Candidate, running: str, *, core: bool = False) -> Plugin:
    """Import a plugin, unless the environment or its requirement on fusionkit ``running`` forbid it, and ask it.

    Never raises on the plugin's account, except KeyboardInterrupt.  The core needs no permission.
    """
    plugin = Plugin(candidate.name, candidate.target, candidate.distribution, candidate.version)
    if not core and (reason := disabled(candidate)):
        return replace(plugin, status="disabled", error=reason)
    if not core and (reason := incompatible(candidate, running)):
        return replace(plugin, status="incompatible", error=reason)
    if not core and canonical(candidate.distribution) == PROJECT:
        return plugin.failed(PluginProblem(f"its distribution should have a name of its own; found {PROJECT}"))
    start = perf_counter()
    try:
        plugin = ask(replace(plugin, module=_module(candidate)))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        plugin = plugin.failed(error)
    return replace(plugin, seconds=perf_counter() - start)


def _module(candidate: Candidate) -> object:
    """Import a plugin.  What it does to ``sys.modules`` at the expense of others is undone, and a problem."""
    before = dict(sys.modules)
    try:
        module = candidate.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit as well, and pytest.skip() at module level, which is no Exception.
        raise PluginProblem(f"it cannot be imported: {describe(error)}") from error
    finally:
        changed = _put_back(before)
    if changed:
        raise PluginProblem(f"it should change no module of fusionkit, and leave none that fails; found {changed[0]!r}")
    if isinstance(module, ModuleType) and getattr(getattr(module, "__spec__", None), "_initializing", False):
        raise PluginProblem("it should not ask the registry while it is imported; found that it does")
    return module


def _put_back(before: Mapping[str, ModuleType]) -> list[str]:
    """Mend ``sys.modules``: fusionkit's modules are as before, and each can be inspected, as many libraries do.

    Returns:
        The names of those that were not so.
    """
    now = dict(sys.modules)
    own = [name for name in before if name.startswith(PROJECT) and _own(name)]  # The first test is the quick one.
    changed = [name for name in own if now.get(name) is not before[name]]
    wrong = [name for name in now.keys() - before.keys() if not _sound(name, now[name])]
    for name in wrong:
        del sys.modules[name]
    sys.modules.update({name: before[name] for name in changed})
    return [*changed, *wrong]


def _own(name: str) -> bool:
    return name == PROJECT or name.startswith(f"{PROJECT}.")


def _sound(name: str, module: object) -> bool:
    """Whether a new module can be inspected and, if it has one of fusionkit's names, is in fusionkit's folder."""
    try:
        spec = getattr(module, "__spec__", None) if isinstance(module, ModuleType) else None
        return not _own(name) or (spec is not None and Path(str(spec.origin)).is_relative_to(_FOLDER))
    except Exception:
        return False


def ask(plugin: Plugin) -> Plugin:
    """Call those hooks of an imported plugin that are needed to list it, and return it loaded or failed."""
    specs: dict[Kind, dict[str, Spec]] = {"fusion": {}, "fabrication": {}}
    plugin = replace(plugin, specs=specs)
    try:
        plugin = replace(plugin, manager=_manager(plugin))
        for result in call(plugin, "fusionkit_fusions"):
            _collect("fusionkit_fusions", result, specs["fusion"])
        for result in call(plugin, "fusionkit_fabrications"):
            _collect("fusionkit_fabrications", result, specs["fabrication"])
        conf = [path for result in call(plugin, "fusionkit_conf") for path in _conf(result)]
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return plugin.failed(error)
    return replace(plugin, conf=tuple(conf))


def checks_of(plugin: Plugin) -> list[Callable[..., Any]]:
    """Return the contract checks that a loaded plugin offers.

    Raises:
        PluginProblem: its hook raises, or returns something else.
    """
    checks: list[Callable[..., Any]] = []
    for result in call(plugin, "fusionkit_checks"):
        functions = _items("fusionkit_checks", result, "functions")
        for function in functions:
            # Not any callable: what is asked of it later, its name and docstring, may then be trusted to be there.
            if not isinstance(function, FunctionType | MethodType) or not function.__name__.startswith("check_"):
                raise PluginProblem(
                    f"fusionkit_checks should return functions called check_<name>; found {shown(function)}"
                )
        checks += functions
    return checks


def call(plugin: Plugin, hook: str, **arguments: Any) -> list[Any]:
    """Return the results of a plugin's implementations of ``hook``.

    Raises:
        PluginProblem: one raises, or returns None where the hook has a result.
    """
    if plugin.manager is None:
        return []
    caller: pluggy.HookCaller = getattr(plugin.manager.hook, hook)
    try:
        results: Any = caller(**arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginProblem(f"{hook} should not raise; found {describe(error)}") from error
    if type(results) is not list:  # A wrapper may return anything.
        raise PluginProblem(f"a wrapper of {hook} should return the list of results; found {shown(results)}")
    wanted = sum(not (impl.wrapper or impl.hookwrapper) for impl in caller.get_hookimpls())
    if len(results) < wanted and hook != "fusionkit_run_finished":  # pluggy leaves out what is None.
        raise PluginProblem(f"{hook} should return what its specification says; found None")
    return results


def _manager(plugin: Plugin) -> pluggy.PluginManager:
    """Return a manager of this plugin alone, with at least one implementation, each of a hook that exists."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(_SPECS)
    try:
        manager.register(plugin.module, plugin.name)
    except pluggy.PluginValidationError as error:
        raise PluginProblem(f"a hook should fit its specification; found {_one_line(str(error))}") from error
    # Not check_pending(): it names no alternatives.
    callers = manager.get_hookcallers(plugin.module) or []
    if not callers:
        raise PluginProblem(f"it should mark at least one hook with @fusionkit.hookimpl; found none in {plugin.target}")
    for caller in callers:
        if not caller.has_spec() and not all(impl.optionalhook for impl in caller.get_hookimpls()):
            hint = nearest(caller.name, HOOKS, limit=1)
            raise PluginProblem(f"its hooks should be among {', '.join(HOOKS)}; found {caller.name!r}.{hint}")
    return manager


def _collect(hook: str, result: object, specs: dict[str, Spec]) -> None:
    """Add what a hook returned to ``specs``; all that is readable, before the first problem is raised."""
    if not isinstance(result, Mapping):
        raise PluginProblem(f"{hook} should return a dict from names to targets; found {shown(result)}")
    problems: list[str] = []
    for key, value in result.items():
        name = _plain(key)
        if not isinstance(name, str) or not NAME.fullmatch(name):
            problems.append(f"a name in {hook} should match {NAME.pattern}; found {shown(name)}")
            continue
        spec = _plain_spec(value if isinstance(value, Spec) else Spec(value))
        problems += _flaws(f"{name!r} in {hook}", spec)
        if name in specs:
            problems.append(f"{hook} should have each name once; found {name!r} twice")
        specs[name] = spec
    owners: dict[object, str] = {name: name for name in specs}
    for name, spec in specs.items():
        for alias in spec.aliases:
            if owners.setdefault(alias, name) != name:
                problems.append(
                    f"{hook} should have each name once; found {alias!r} for {owners[alias]!r} and {name!r}"
                )
    if problems:
        raise PluginProblem("; ".join(problems))


def _plain(value: Any) -> Any:
    """Return a string as a ``str``: what a subclass of it does later is no business of the registry."""
    return str.__str__(value) if isinstance(value, str) else value


def _line(value: Any) -> Any:
    """Return a text as one plain line that can be printed."""
    return printable(" ".join(str.split(value))) if isinstance(value, str) else value


def _plain_spec(spec: Spec) -> Spec:
    """Return the spec with plain strings, and without whatever a subclass of it does."""
    return Spec(
        _plain(spec.target),
        tuple(_plain(alias) for alias in spec.aliases),
        _line(spec.summary),
        _line(spec.deprecated),
        _line(spec.removed),
    )


def _flaws(where: str, spec: Spec) -> Iterator[str]:
    """Yield what is wrong with the parts of a spec, as far as that is seen without importing its target."""
    gone = spec.removed is not None and spec.target == ""
    if (
        not gone
        and not isinstance(spec.target, type)
        and not (isinstance(spec.target, str) and TARGET.fullmatch(spec.target))
    ):
        yield f"the target of {where} should be 'package.module:Class' or a class; found {shown(spec.target)}"
    for alias in spec.aliases:
        if not isinstance(alias, str) or not NAME.fullmatch(alias):
            yield f"an alias of {where} should match {NAME.pattern}; found {shown(alias)}"
    summary: object = spec.summary
    if not isinstance(summary, str):
        yield f"'summary' of {where} should be a string; found {shown(summary)}"
    for part, value in (("deprecated", spec.deprecated), ("removed", spec.removed)):
        if value is not None and (not isinstance(value, str) or not value):
            yield f"{part!r} of {where} should say what to use instead; found {shown(value)}"


def _conf(result: object) -> list[str]:
    paths = [_plain(path) for path in _items("fusionkit_conf", result, "'pkg://package.folder'")]
    for path in paths:
        if not isinstance(path, str) or not path.startswith("pkg://"):
            raise PluginProblem(f"fusionkit_conf should return a list of 'pkg://package.folder'; found {shown(path)}")
    return paths


def _items(hook: str, result: object, what: str) -> list[Any]:
    """Return the list that a hook returned, itself and not what a subclass makes of it."""
    if isinstance(result, list):
        return list.copy(result)
    if isinstance(result, tuple):
        return list(tuple.__iter__(result))
    raise PluginProblem(f"{hook} should return a list of {what}; found {shown(result)}")


# -- words -------------------------------------------------------------------------------------------------------------


def describe(error: BaseException) -> str:
    """Return an exception of somebody else's code in one line: ``ImportError: No module named 'x'``."""
    try:
        text = _one_line(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException:  # Its __str__ is somebody else's code too.
        text = ""
    return f"{_type_name(error)}: {text}" if text else _type_name(error)


_REPR = Repr()
_REPR.maxother = _REPR.maxstring = 100


def shown(value: object) -> str:
    """Return a short ``repr`` of somebody else's object, which may itself be broken."""
    try:
        return printable(_REPR.repr(value))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"an object of type {_type_name(value)} without a repr"


def _type_name(value: object) -> str:
    name: str = vars(type)["__name__"].__get__(type(value))  # Whatever its metaclass has under this name.
    return name


def _one_line(text: str) -> str:
    line = printable(" ".join(str.split(text))).rstrip(".")
    return line if len(line) <= 400 else f"{line[:400]}..."


def _trace(error: BaseException) -> str:
    return printable("".join(traceback.format_exception(error)))


# -- evidence ----------------------------------------------------------------------------------------------------------


def mentions(plugin: Plugin, kind: Kind, name: str) -> bool:
    """Whether a plugin that is not loaded would have had ``name``, by what it said before it failed or by its source.

    The source is read, not imported; a quoted ``name`` in it is evidence enough for a hint.
    """
    specs = plugin.specs.get(kind, {})
    if name in specs or any(name in spec.aliases for spec in specs.values()):
        return True
    source = _source(plugin.target.partition(":")[0])
    try:
        text = source.read_text(encoding="utf-8", errors="replace") if source else ""
    except OSError:
        text = ""
    return re.search(rf"""(['"]){re.escape(name)}\1""", text) is not None


def _source(module: str) -> Path | None:
    """Return the file of a module without importing its parents, as ``importlib.util.find_spec`` would."""
    origin, path = None, None
    for name in accumulate(module.split("."), "{}.{}".format):
        try:
            found = next((spec for finder in sys.meta_path if (spec := finder.find_spec(name, path, None))), None)
        except Exception:
            found = None
        if found is None:
            return None
        origin, path = found.origin, found.submodule_search_locations
    return Path(origin) if isinstance(origin, str) and origin.endswith(".py") else None
