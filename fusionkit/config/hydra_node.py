"""What the ``hydra`` node of a configuration may differ in from the one that Hydra, its plugins and config.yaml make.

Hydra calls what stands there: callbacks, launchers, sweepers and the factories of Python's logging; it writes where its
paths point, and sets environment variables.  A config may set what ``_TEXTS`` and ``_NUMBERS`` list, the command line
all but what names something to call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from fusionkit.config.folders import conf_dir
from fusionkit.config.hydra_bridge import raw
from fusionkit.config.keys import refuse
from fusionkit.core.allowed import extra_names

__all__ = ["HANDLERS", "check_command_line", "check_files", "check_search_path"]

#: Where a value stands below ``hydra``: keys, and indices of lists.
Path = tuple[str | int, ...]

#: The handlers that the command line may choose: none that imports, calls, or opens a connection.
HANDLERS = (
    *("logging.StreamHandler", "logging.NullHandler", "logging.FileHandler", "logging.handlers.WatchedFileHandler"),
    *("logging.handlers.RotatingFileHandler", "logging.handlers.TimedRotatingFileHandler"),
)
_LOGGING = ("hydra_logging", "job_logging")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")

#: Texts that a config may set: nothing that names a command, a file or a host, and nothing with the quotes or line
#: breaks that a batch script would fall for.
_TEXTS = {
    re.compile(key): re.compile(value)
    for key, value in {
        r"mode": r"RUN|MULTIRUN",
        r"verbose(\.\d+)?": r"[\w.]+",
        r"job\.name": r"[A-Za-z0-9_][\w.-]*",
        r"help\.\w+": r"(?s).*",
        # Checked by check_search_path before anything is read from there.
        r"searchpath\.\d+": r"(?s).*",
        r"launcher\.(backend|prefer)": r"[a-z_]+",
        r"launcher\.require": r"sharedmem",
        r"launcher\.batch_size": r"auto|\d+",
        # joblib evaluates it.
        r"launcher\.pre_dispatch": r"all|\d+|\d+(\.\d+)? ?\* ?n_jobs",
        r"launcher\.(qos|comment|constraint|gres|exclude|nodelist|mem_per_[cg]pu)": r"[\w.,:=+@%/&|*()\[\] -]*",
        r"launcher\.ray\.(init|remote)\.num_[cg]pus": r"\d+(\.\d+)?",
        r"sweeper\.study_name": r"[\w. -]+",
        r"sweeper\.direction(\.\d+)?": r"minimize|maximize",
        # The keys are the user's: overrides, which are checked in each job.
        r"(?s)sweeper\.(params|search_space)\..*": r"(?s)((?!\$\{).)*",
    }.items()
}
#: Where a config may set a number, true, false or null, besides where Hydra or a plugin has one.
_NUMBERS = re.compile(
    r"mode|verbose|job\.(chdir|name)|(launcher|sweeper)\.[a-z]\w*|sweeper\.sampler\.[a-z]\w*"
    r"|launcher\.ray\.(init|remote)\.num_[cg]pus|(?s:sweeper\.(params|search_space)\..*)"
)
#: What a cluster accounts for.
_ACCOUNTED = (("timeout_min",), ("partition",), ("account",))
#: What neither a config nor the command line may set.
_NEVER = re.compile(r"(runtime|overrides|aliases|job\.env_set|job\.env_copy|sweeper\.custom_search_space)(\..*)?", re.S)

_ABSENT = object()


def check_files(found: Any, reference: Mapping[str, Any]) -> None:
    """Refuse a ``hydra`` node that differs from Hydra's own where it may not.

    Args:
        found: what config files make, in plain containers, unresolved.
        reference: what those of Hydra and its plugins make, for the same launcher, sweeper and logging.

    Raises:
        ConfigError: names each value that differs with its full dotted key, and what was found.
    """
    if not isinstance(found, Mapping):
        refuse([f"hydra should be a mapping, written out; found {found!r}."])
    own = dict(_leaves(_node_of_config_yaml()))
    expected = dict(_leaves(_for_targets(reference, found)))
    differing = (
        (path, value)
        for path, value in _leaves(found)
        if value != expected.get(path, _ABSENT) and value != own.get(path, _ABSENT)
    )
    refuse(
        _target_problem(path, value)
        or f"{_key(path)} should be {_wanted(path, expected)}; found {value!r} in a config."
        for path, value in differing
        if not _may_differ(path, value, expected.get(path))
    )


def check_command_line(overrides: Iterable[Override]) -> None:
    """Refuse what would make Hydra call what the command line names.

    Raises:
        ConfigError: with the full dotted key and what was found.
    """
    given = OmegaConf.create()
    for override in overrides:
        if re.match(r"hydra\b(?!/)", override.key_or_group) and not override.is_delete():
            if override.is_sweep_override():
                refuse([f"A sweep should not change the hydra node; found {override.input_line!r}."])
            if override.package is None:
                OmegaConf.update(given, override.key_or_group, override.value(), merge=True, force_add=True)
    node = raw(given).get("hydra", {})
    leaves = _leaves(node) if isinstance(node, Mapping) else [((), node)]
    refuse(problem for path, value in leaves if (problem := _problem_of_command_line(path, value)))


def check_search_path(primary: Any) -> None:
    """Refuse a primary config whose ``hydra.searchpath`` holds anything but folders, written out.

    Raises:
        ConfigError: an entry could make Hydra import a package.
    """
    node = primary.get("hydra") if isinstance(primary, Mapping) else None
    if node is None:
        return
    if not isinstance(node, Mapping):
        refuse([f"hydra should be a mapping, written out; found {node!r}."])
    entries = node.get("searchpath") or []
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        refuse([f"hydra.searchpath should be a list of folders, written out; found {entries!r}."])
    refuse(
        f"hydra.searchpath[{index}] should be the path of a folder, written out (only the command line may name a "
        f"package); found {entry!r}."
        for index, entry in enumerate(entries)
        if not isinstance(entry, str) or "${" in entry or ("://" in entry and not entry.startswith("file://"))
    )


def _leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the path and the value of every scalar and every empty container."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(tree, Mapping):
        items = tree.items()
    elif isinstance(tree, list | tuple):
        items = list(enumerate(tree))
    if not items and path:
        yield path, tree
    for name, value in items:
        yield from _leaves(value, (*path, name if isinstance(tree, list | tuple) else str(name)))


def _key(path: Path) -> str:
    return "hydra" + "".join(
        f".{part}" if isinstance(part, str) and part.isprintable() else f"[{part!r}]" for part in path
    )


@lru_cache(maxsize=1)
def _node_of_config_yaml() -> Mapping[str, Any]:
    node: Mapping[str, Any] = yaml.safe_load((conf_dir() / "config.yaml").read_text(encoding="utf-8"))["hydra"]
    return node


# -- a config ----------------------------------------------------------------------------------------------------------


def _may_differ(path: Path, value: Any, expected: Any) -> bool:
    name = ".".join(map(str, path))
    if path[-1] == "_target_" or path[0] == "callbacks":
        return _target_problem(path, value) is None and not any(map(_controls, path[:-1]))
    if any(map(_controls, path)) or _NEVER.fullmatch(name) or (path[0] == "launcher" and path[1:2] in _ACCOUNTED):
        return False
    if isinstance(value, str):
        return any(key.fullmatch(name) and text.fullmatch(value) for key, text in _TEXTS.items())
    if not isinstance(value, int | float | None):
        return path == ("searchpath",)  # An empty list.
    plugin = path[0] in ("launcher", "sweeper") and isinstance(expected, int | float)
    return plugin or _NUMBERS.fullmatch(name) is not None


def _controls(part: str | int) -> bool:
    """Whether a key is one of those that steer Hydra's ``instantiate``."""
    return isinstance(part, str) and part.startswith("_") and part.endswith("_")


def _wanted(path: Path, expected: Mapping[Path, Any]) -> str:
    if _NEVER.fullmatch(".".join(map(str, path))):
        return "left to Hydra"
    if path in expected:
        return f"{expected[path]!r} or stand on the command line"
    return "absent, as in Hydra's own configs, or stand on the command line"


def _for_targets(reference: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reference with the defaults of the launcher and the sweeper whose class the config names."""
    result = dict(reference)
    for role in ("launcher", "sweeper"):
        target, known = (
            node.get("_target_") if isinstance(node, Mapping) else None
            for node in (found.get(role), reference.get(role))
        )
        if target == known:
            continue
        entries = ConfigStore.instance().repo["hydra"].get(role, {}).values()
        registered = (raw(getattr(entry, "node", None)) for entry in entries)
        defaults = (node for node in registered if isinstance(node, Mapping) and node.get("_target_") == target)
        result[role] = next(defaults, {})
    return result


# -- what Hydra calls --------------------------------------------------------------------------------------------------


def _discovered(kind: Any) -> list[str]:
    return sorted(f"{cls.__module__}.{cls.__name__}" for cls in Plugins.instance().discover(kind))


def _samplers() -> list[str]:
    try:
        from optuna import samplers  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return []
    found = ((name, getattr(samplers, name)) for name in samplers.__all__)
    return [
        f"optuna.samplers.{name}"
        for name, cls in found
        if isinstance(cls, type)
        and issubclass(cls, samplers.BaseSampler)
        and cls.__module__.startswith("optuna.samplers")
    ]


#: What may be named as the ``_target_`` at a path; all others are refused.
_TARGETS: dict[Path, Callable[[], list[str]]] = {
    ("launcher", "_target_"): lambda: _discovered(Launcher),
    ("sweeper", "_target_"): lambda: _discovered(Sweeper),
    ("sweeper", "sampler", "_target_"): _samplers,
}


def _target_problem(path: Path, value: Any) -> str | None:
    """Return the sentence for what Hydra may not call: a ``_target_``, or a callback that is not written out."""
    callback = path[0] == "callbacks" and len(path) <= 3
    if path[-1] != "_target_":
        what = "a mapping, written out" if callback and len(path) < 3 and value else None
    elif callback:
        what = None if value in extra_names() else "allowed by fusionkit.config.allow(...)"
    elif path in _TARGETS:
        known = _TARGETS[path]()
        what = None if value in known else f"one of {', '.join(known) or 'those of an installed plugin'}"
    else:
        what = "absent"
    return what and f"{_key(path)} should be {what}; found {value!r}."


# -- the command line --------------------------------------------------------------------------------------------------


def _problem_of_command_line(path: Path, value: Any) -> str | None:
    """Return the sentence for a value that the command line may not set, or None."""
    if not path:
        return None if value is None else f"hydra should be a mapping, written out; found {value!r}."
    what = None
    if _NEVER.fullmatch(".".join(map(str, path))) and value:
        what = "left to Hydra"
    elif path[0] in _LOGGING:
        what = _wanted_of_logging(path, value)
    elif path[0] in ("launcher", "sweeper"):
        if len(path) == 1 and value:
            what = "a mapping, written out"
        elif any(map(_controls, path)) and path[-1] != "_target_":
            what = "absent"
    return f"{_key(path)} should be {what}; found {value!r}." if what else _target_problem(path, value)


def _wanted_of_logging(path: Path, value: Any) -> str | None:
    if path[-1] == "()":
        return "absent"
    if path[-1] == "class" and value not in (*HANDLERS, "logging.Formatter"):
        return f"one of {', '.join(HANDLERS)}"
    if isinstance(value, str) and path[-1] != "filename":
        if "${" in value:
            return "written out, without an interpolation"
        if re.match(r"[a-z]+://", value) and value not in _STREAMS:
            return f"{' or '.join(_STREAMS)} if it refers to an object"
    return None
