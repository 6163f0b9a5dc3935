"""Imports one plugin and collects what it offers; an error becomes the status of that plugin alone.

Every plugin has its own pluggy manager, so that a misspelt or raising hook does not affect other plugins.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Literal, get_args

import pluggy

from fusionkit import hookspecs
from fusionkit._util.text import error_line, one_line, printable, short_repr
from fusionkit.errors import nearest
from fusionkit.hookspecs import PROJECT, DatasetSpec, Spec
from fusionkit.registry.discovery import CORE_TARGET, Candidate, canonical, disabled, incompatible, outdated

NAME = re.compile(r"[a-z][a-z0-9_]*")
TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

HOOKS = tuple(name for name in hookspecs.__all__ if name.startswith("fusionkit_"))

#: What the registry has: two kinds of operators, and data sets.
Operator = Literal["fusion", "fabrication"]
Kind = Literal["fusion", "fabrication", "dataset"]
#: The forms of a user's own data, in place of which no data set can be registered: data=NAME chooses either.
FORMS = ("npz", "table", "folder")
TASKS = ("classification", "multilabel", "regression")
Status = Literal["loaded", "failed", "incompatible", "disabled"]


class PluginProblem(Exception):
    """What is wrong with a plugin.  The message is a sentence without its full stop; the cause is what was raised."""


def _folder() -> str | None:
    """Return the current folder, None if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _torch_state() -> dict[str, Any]:
    """Return torch's settings of the process by name; those of a new process if torch is not imported."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_default_device"):  # It is being imported.
        return dict(zip(_TORCH, ("torch.float32", "cpu", True, False), strict=True))
    dtype, device = str(torch.get_default_dtype()), str(torch.get_default_device())
    found = (dtype, device, torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    return dict(zip(_TORCH, found, strict=True))


def _set_torch(name: str, value: Any) -> None:
    torch = sys.modules["torch"]
    if name == "default dtype":
        torch.set_default_dtype(getattr(torch, value.removeprefix("torch.")))
    elif name == "default device":
        torch.set_default_device(None if value == "cpu" else value)
    elif name == "grad mode":
        torch.set_grad_enabled(value)
    else:
        mode = torch.inference_mode(value)
        mode.__enter__()
        _ENTERED.append(mode)


_TORCH = ("default dtype", "default device", "grad mode", "inference mode")
#: Modes that were entered to put back an earlier one; each would end with its object.
_ENTERED: list[Any] = []


@contextmanager
def process_state() -> Iterator[list[str]]:
    """Put back the folder, the recursion limit and torch's settings after the context; yield a list of what changed.

    The list is empty until the context ends.
    """
    changed: list[str] = []
    folder, limit, before = _folder(), sys.getrecursionlimit(), _torch_state()
    try:
        yield changed
    finally:
        if folder is not None and _folder() != folder:
            changed.append("folder")
            with suppress(OSError):
                os.chdir(folder)
        if sys.getrecursionlimit() != limit:
            changed.append("recursion limit")
            sys.setrecursionlimit(limit)
        # Inference mode first: it disables gradients, and gives them back.
        for name in reversed(_TORCH):
            if _torch_state()[name] != before[name]:
                changed.append(name)
                _set_torch(name, before[name])


@contextmanager
def foreign_code(what: str = "", owner: str | None = None) -> Iterator[None]:
    """Turn any exception in this context, except Ctrl-C, into a ``PluginProblem`` that begins with ``what``.

    Where the ``owner`` of the code is given, what that changes of the process is put back, with a warning.
    """
    try:
        if owner is None:
            yield
            return
        with process_state() as changed:
            yield
        if changed:
            what_changed = " and ".join(changed)
            message = f"{owner} should leave the {what_changed} of the process as found; it was changed, and put back."
            warnings.warn(message, RuntimeWarning, stacklevel=4)
    except (PluginProblem, KeyboardInterrupt):
        raise
    except BaseException as error:  # Also SystemExit, and pytest.skip() at module level.
        raise PluginProblem(f"{what}{error_line(error).rstrip('.')}") from error


@dataclass(frozen=True, eq=False)
class Plugin:
    """A plugin after the attempt to load it.

    Attributes:
        name: the left side of its entry point.
        target: the right side.
        distribution: the distribution that contains it.
        version: version of the distribution, None if it has none.
        status: loaded, failed, incompatible or disabled.
        error: why it is not loaded.
        traceback: traceback of the failure, if an exception was raised.
        seconds: time of the import and of its hooks.
        specs: its operators and data sets, by kind and name; of a failed plugin, those collected before the failure.
        conf: its Hydra config folders, ``pkg://...``.
        warnings: one per name or alias whose short form does not mean its operator, and per requirement to be renamed.
        module: the object that the entry point names.
        manager: calls its hooks.
        local: registered at run time, hence in this process only.
    """

    name: str
    target: str
    distribution: str
    version: str | None
    status: Status = "loaded"
    error: str | None = None
    traceback: str | None = None
    seconds: float = 0.0
    specs: Mapping[Kind, Mapping[str, Spec | DatasetSpec]] = field(default_factory=dict)
    conf: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    module: object = None
    manager: pluggy.PluginManager | None = None
    local: bool = False

    @property
    def core(self) -> bool:
        """Whether this is the plugin of the core, whose names are reserved."""
        return self.target == CORE_TARGET

    @property
    def title(self) -> str:
        """The plugin in messages: ``'gram' of fusionkit-gram 0.1.0``."""
        return " ".join(part for part in (f"{self.name!r} of {self.distribution}", self.version) if part)

    def names(self, kind: Kind) -> list[str]:
        """Return the names that it adds to the registry, sorted; none unless it is loaded."""
        specs = self.specs.get(kind, {}) if self.status == "loaded" else {}
        return sorted(name for name, spec in specs.items() if spec.removed is None)

    def failed(self, problem: PluginProblem) -> Plugin:
        """Return a copy of the plugin with the status failed, and with ``problem`` and its traceback."""
        cause = problem.__cause__
        trace = printable("".join(traceback.format_exception(cause))) if cause else None
        return replace(self, status="failed", error=str(problem), traceback=trace)

    def to_dict(self) -> dict[str, Any]:
        """Return the record that ``fusionkit plugins --json`` prints."""
        offers = {f"{kind}s": self.names(kind) for kind in get_args(Kind)}
        fields = {name: getattr(self, name) for name in ("distribution", "version", "status", "error")}
        details = {"target": self.target, "seconds": round(self.seconds, 6), "warnings": list(self.warnings)}
        return {"plugin": self.name, **fields, **offers, **details, "traceback": self.traceback}


def load(candidate: Candidate, running: str) -> Plugin:
    """Import a plugin, unless the environment disables it or it requires another version of fusionkit.

    An error of the plugin becomes its status; only KeyboardInterrupt is raised.  The core's own is always imported.

    Args:
        candidate: the plugin.
        running: the running version of fusionkit.
    """
    warnings = tuple(outdated(candidate))
    plugin = Plugin(candidate.name, candidate.target, candidate.distribution, candidate.version, warnings=warnings)
    if not plugin.core and (reason := disabled(candidate)):
        return replace(plugin, status="disabled", error=reason)
    if not plugin.core and (reason := incompatible(candidate, running)):
        return replace(plugin, status="incompatible", error=reason)
    start = perf_counter()
    try:
        if not plugin.core and canonical(candidate.distribution) == PROJECT:
            raise PluginProblem(f"its distribution should have a name of its own; found {candidate.distribution}")
        with foreign_code("it cannot be imported: ", f"the plugin {plugin.title}"):
            module = candidate.load()
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            raise PluginProblem("it should not use the registry while it is imported; found that it does")
        plugin = collect_offers(replace(plugin, module=module))
    except PluginProblem as problem:
        plugin = plugin.failed(problem)
    return replace(plugin, seconds=perf_counter() - start)


def collect_offers(plugin: Plugin) -> Plugin:
    """Call the hooks of an imported plugin that listing needs; return the plugin with their results, or failed."""
    specs: dict[Kind, dict[str, Spec | DatasetSpec]] = {kind: {} for kind in get_args(Kind)}
    plugin = replace(plugin, specs=specs)
    try:
        with foreign_code():
            plugin = replace(plugin, manager=_manager(plugin))
            for kind, found in specs.items():
                for result in call_hook(plugin, f"fusionkit_{kind}s"):
                    _add_specs(f"fusionkit_{kind}s", result, found, DatasetSpec if kind == "dataset" else Spec)
            conf = _listed(plugin, "fusionkit_conf", "'pkg://package.folder'", _is_package_path)
    except PluginProblem as problem:
        return plugin.failed(problem)
    return replace(plugin, conf=tuple(conf))


def without_redefined(plugin: Plugin, later: Plugin) -> Plugin:
    """Return a plugin of this process without the names for which ``later`` has the same class, defined anew."""
    if not plugin.local or plugin.distribution != later.distribution:
        return plugin
    specs = {
        kind: {name: spec for name, spec in found.items() if not _redefined(spec, later.specs[kind].get(name))}
        for kind, found in plugin.specs.items()
    }
    return replace(plugin, specs=specs)


def _redefined(spec: Spec | DatasetSpec, later: Spec | DatasetSpec | None) -> bool:
    """Whether the class or function of ``later`` is that of ``spec``, defined anew."""
    if later is None or isinstance(spec.target, str) or isinstance(later.target, str):
        return False
    return target_name(spec.target) == target_name(later.target)


def target_name(target: str | Callable[..., Any]) -> str:
    """Return the target of a spec as ``package.module:Class``."""
    if isinstance(target, str):
        return target
    named = target if hasattr(target, "__qualname__") else type(target)  # An object that is called has no name.
    return f"{named.__module__}:{named.__qualname__}"


def checks_of(plugin: Plugin) -> list[Callable[..., Any]]:
    """Return the contract checks that a loaded plugin offers.

    Raises:
        PluginProblem: its hook raises, or does not return a list of functions called ``check_<name>``.
    """
    return _listed(plugin, "fusionkit_checks", "functions called check_<name>", _is_check)


def call_hook(plugin: Plugin, hook: str, **arguments: Any) -> list[Any]:
    """Return the results of a plugin's implementations of ``hook``.

    Raises:
        PluginProblem: one raises, or returns None where the hook has a result.
    """
    if plugin.manager is None:
        return []
    caller: pluggy.HookCaller = getattr(plugin.manager.hook, hook)
    with foreign_code(f"{hook} should not raise; found ", f"the plugin {plugin.title}"):
        results: Any = caller(**arguments)
    if not isinstance(results, list):
        raise PluginProblem(f"a wrapper of {hook} should return the list of results; found {short_repr(results)}")
    wanted = sum(not (impl.wrapper or impl.hookwrapper) for impl in caller.get_hookimpls())
    if len(results) < wanted and hook != "fusionkit_run_finished":  # pluggy drops results that are None.
        raise PluginProblem(f"{hook} should return what its specification says; found None")
    return results


def _manager(plugin: Plugin) -> pluggy.PluginManager:
    """Return a manager with this plugin only; it must implement at least one hook, and no unknown one."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin.module, plugin.name)
    except pluggy.PluginValidationError as error:
        raise PluginProblem(f"a hook should fit its specification; found {one_line(str(error))}") from error
    # Not check_pending(), which suggests no similar names.
    callers = manager.get_hookcallers(plugin.module) or []
    if not callers:
        raise PluginProblem(f"it should mark at least one hook with @fusionkit.hookimpl; found none in {plugin.target}")
    for caller in callers:
        if not caller.has_spec() and not all(impl.optionalhook for impl in caller.get_hookimpls()):
            hint = nearest(caller.name, HOOKS, limit=1)
            raise PluginProblem(f"its hooks should be among {', '.join(HOOKS)}; found {caller.name!r}.{hint}")
    return manager


def _add_specs(
    hook: str, result: object, specs: dict[str, Spec | DatasetSpec], form: type[Spec] | type[DatasetSpec]
) -> None:
    """Add what a hook returned to ``specs``, in their form.  The valid ones are added even if others are wrong."""
    if not isinstance(result, Mapping):
        raise PluginProblem(f"{hook} should return a dict from names to targets; found {short_repr(result)}")
    problems: list[str] = []
    owners: dict[str, str] = {}
    for name, value in result.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            problems.append(f"a name in {hook} should match {NAME.pattern}; found {short_repr(name)}")
            continue
        if name in specs:
            problems.append(f"{hook} should have each name once; found {name!r} twice")
        specs[name] = value if isinstance(value, form) else form(value)
        problems += _flaws(f"{name!r} in {hook}", specs[name])
    for name, spec in specs.items():
        for short in (name, *spec.aliases):
            if form is DatasetSpec and short in FORMS:
                problems.append(f"a name in {hook} should not be a form of data, {', '.join(FORMS)}; found {short!r}")
            if (owner := owners.setdefault(short, name)) != name:
                problems.append(f"{hook} should have each name once; found {short!r} for {owner!r} and {name!r}")
    if problems:
        raise PluginProblem("; ".join(problems))


def _flaws(where: str, spec: Spec | DatasetSpec) -> Iterator[str]:
    """Yield what is wrong with a spec; its target is not imported."""
    target, wanted, data = spec.target, spec.removed is None or spec.target != "", isinstance(spec, DatasetSpec)
    fits = callable(target) if data else isinstance(target, type)
    if wanted and not fits and not (isinstance(target, str) and TARGET.fullmatch(target)):
        should = "'package.module:function' or a function" if data else "'package.module:Class' or a class"
        yield f"the target of {where} should be {should}; found {short_repr(target)}"
    for alias in spec.aliases:
        if not isinstance(alias, str) or not NAME.fullmatch(alias):
            yield f"an alias of {where} should match {NAME.pattern}; found {short_repr(alias)}"
    for part in ("summary", *(("licence", "citation", "origin") if data else ())):
        if not isinstance(text := getattr(spec, part), str):
            yield f"{part!r} of {where} should be a string; found {short_repr(text)}"
    if isinstance(spec, DatasetSpec) and spec.task not in TASKS:
        yield f"'task' of {where} should be one of {', '.join(TASKS)}; found {short_repr(spec.task)}"
    for part, value in (("deprecated", spec.deprecated), ("removed", spec.removed)):
        if value is not None and (not isinstance(value, str) or not value.strip()):
            yield f"{part!r} of {where} should say what to use instead; found {short_repr(value)}"


def _listed(plugin: Plugin, hook: str, what: str, valid: Callable[[object], bool]) -> list[Any]:
    """Return the items of the lists that a hook returned, or raise a ``PluginProblem`` that names an invalid one."""
    items: list[Any] = []
    for result in call_hook(plugin, hook):
        wrong = [item for item in result if not valid(item)] if isinstance(result, list | tuple) else [result]
        if wrong:
            raise PluginProblem(f"{hook} should return a list of {what}; found {short_repr(wrong[0])}")
        items += result
    return items


def _is_check(item: object) -> bool:
    return inspect.isroutine(item) and item.__name__.startswith("check_")


def _is_package_path(item: object) -> bool:
    return isinstance(item, str) and item.startswith("pkg://")
