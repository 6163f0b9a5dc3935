"""How the ``hydra`` node of a configuration may differ from the one that Hydra, its plugins and config.yaml make.

Through this node Hydra instantiates classes (callbacks, launchers, sweepers, logging handlers), writes to folders and
sets environment variables.  A config file may therefore change only the keys that ``_TEXTS`` and ``_NUMBERS`` list; the
command line may change all but the names of classes and functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf

from fusionkit._util.machine import cpu_count
from fusionkit.config.folders import conf_dir
from fusionkit.config.hydra_bridge import raw
from fusionkit.config.keys import refuse, walk
from fusionkit.core.allowed import extra_names

#: The handlers that the command line may choose: none that imports, calls, or opens a connection.
HANDLERS = (
    *(f"logging.{name}Handler" for name in ("Stream", "Null", "File")),
    *(f"logging.handlers.{name}Handler" for name in ("WatchedFile", "RotatingFile", "TimedRotatingFile")),
)
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")

#: Texts that a config may set, by key below ``hydra``: nothing that names a command, a file or a host, and nothing with
#: quotes or line breaks, which could change a batch script.
_TEXTS = {
    r"mode": r"RUN|MULTIRUN",
    r"verbose(\[\d+\])?": r"[\w.]+",
    r"job\.name": r"[A-Za-z0-9_][\w.-]*",
    r"help\.\w+": r"(?s).*",
    # Checked by check_search_path before anything is read from there.
    r"searchpath\[\d+\]": r"(?s).*",
    r"launcher\.(backend|prefer)": r"[a-z_]+",
    r"launcher\.require": r"sharedmem",
    r"launcher\.batch_size": r"auto|\d+",
    # joblib evaluates it.
    r"launcher\.pre_dispatch": r"all|\d+|\d+(\.\d+)? ?\* ?n_jobs",
    r"launcher\.(qos|comment|constraint|gres|exclude|nodelist|mem_per_[cg]pu)": r"[\w.,:=+@%/&|*()\[\] -]*",
    r"launcher\.ray\.(init|remote)\.num_[cg]pus": r"\d+(\.\d+)?",
    r"sweeper\.study_name": r"[\w. -]+",
    r"sweeper\.direction(\[\d+\])?": r"minimize|maximize",
    # The keys are overrides, which are checked in each job.
    r"(?s)sweeper\.(params|search_space)\..*": r"(?s)((?!\$\{).)*",
}
#: Where a config may set a number, true, false or null, besides where Hydra or a plugin has one.
_NUMBERS = re.compile(
    r"mode|verbose|job\.(chdir|name)|(launcher|sweeper)\.[a-z]\w*|sweeper\.sampler\.[a-z]\w*"
    r"|launcher\.ray\.(init|remote)\.num_[cg]pus|(?s:sweeper\.(params|search_space)\..*)"
)
#: Keys for which a cluster charges, and keys that control Hydra's ``instantiate``.
_NOT_IN_FILES = re.compile(r"launcher\.(timeout_min|partition|account)|(?s:(.*\.)?_\w+_([.\[].*)?)")
#: Keys that neither a config nor the command line may set.
_NEVER = re.compile(r"(?s)(runtime|overrides|aliases|job\.env_(set|copy)|sweeper\.custom_search_space)([.\[].*)?")

_ABSENT = object()


def check_files(found: Any, reference: Mapping[str, Any]) -> None:
    """Refuse a ``hydra`` node that differs from Hydra's own in a key that a config file may not set.

    Args:
        found: what config files make, in plain containers, unresolved.
        reference: what those of Hydra and its plugins make, for the same launcher, sweeper and logging.

    Raises:
        ConfigError: names each value that differs with its full dotted key, and what was found.
    """
    if not isinstance(found, Mapping):
        refuse([f"hydra should be a mapping, written out; found {found!r}."])
    own, expected = _leaves(_node_of_config_yaml()), _leaves(_for_targets(reference, found))
    refuse(
        f"{_shown(key)} should be {wanted}; found {value!r} in a config."
        for key, value in _leaves(found).items()
        if value not in (expected.get(key, _ABSENT), own.get(key, _ABSENT))
        and (wanted := _wanted_of_file(key, value, expected))
    )


def check_command_line(overrides: Iterable[Override]) -> None:
    """Refuse overrides that would make Hydra call a function or class that the command line names.

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
    refuse(
        f"{_shown(key)} should be {wanted}; found {value!r}.{_group_meant(key, value)}"
        for key, value in _leaves(raw(given).get("hydra", {})).items()
        if (wanted := _wanted_of_command_line(key, value))
    )


def _group_meant(key: str, value: Any) -> str:
    """Return a hint for an option of a group that is given as the value of a key."""
    return f" Did you mean hydra/{key}={value}?" if key in ("launcher", "sweeper") and isinstance(value, str) else ""


def delay_log_files(cfg: Any) -> None:
    """Let log files be opened with the first message, so that a job can look first whether the file is its own."""
    for key, _, value in walk(raw(cfg.hydra.job_logging)):
        if isinstance(value, dict) and "filename" in value:
            OmegaConf.update(cfg.hydra.job_logging, f"{key}.delay", True, force_add=True)


def check_search_path(primary: Any) -> None:
    """Refuse a primary config whose ``hydra.searchpath`` holds anything but folders, written out.

    Raises:
        ConfigError: an entry could make Hydra import a package.
    """
    node = primary.get("hydra") if isinstance(primary, Mapping) else None
    if not isinstance(node, Mapping | None):
        refuse([f"hydra should be a mapping, written out; found {node!r}."])
    entries = (node or {}).get("searchpath") or []
    if not isinstance(entries, list):
        refuse([f"hydra.searchpath should be a list of folders, written out; found {entries!r}."])
    refuse(
        f"hydra.searchpath[{index}] should be the path of a folder, written out (only the command line may name a "
        f"package); found {entry!r}."
        for index, entry in enumerate(entries)
        if not isinstance(entry, str) or "${" in entry or ("://" in entry and not entry.startswith("file://"))
    )


def _leaves(node: Any) -> dict[str, Any]:
    """Return every scalar and every empty container by its dotted key below ``hydra``."""
    # For an empty node, ``walk`` yields the node itself with an empty key.
    empty_or_scalar = {key: value for key, _, value in walk(node) if not (isinstance(value, Mapping | list) and value)}
    return {} if node == {} else empty_or_scalar


def _shown(key: str) -> str:
    whole = f"hydra.{key}" if key else "hydra"
    return whole if whole.isprintable() else ascii(whole)[1:-1]


@lru_cache(maxsize=1)
def _node_of_config_yaml() -> Mapping[str, Any]:
    node: Mapping[str, Any] = yaml.safe_load((conf_dir() / "config.yaml").read_text(encoding="utf-8"))["hydra"]
    return node


def _for_targets(reference: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reference with the defaults of the launcher and the sweeper whose class the config names."""
    result = dict(reference)
    for role in ("launcher", "sweeper"):
        entries = ConfigStore.instance().repo["hydra"].get(role, {}).values()
        registered = [raw(getattr(entry, "node", None)) for entry in entries]
        target, known = (_target_of(node.get(role)) for node in (found, reference))
        if target != known:
            result[role] = next((node for node in registered if target and _target_of(node) == target), {})
    return result


def _target_of(node: Any) -> Any:
    return node.get("_target_") if isinstance(node, Mapping) else None


# -- what is permitted -------------------------------------------------------------------------------------------------


def _wanted_of_file(key: str, value: Any, expected: Mapping[str, Any]) -> str | None:
    """Return what a value that differs from Hydra's own should be, or None if a config may set it."""
    if key.rpartition(".")[2] == "_target_" or key.split(".")[0] == "callbacks":
        return _wanted_of_call(key, value)
    if _NEVER.fullmatch(key):
        return "left to Hydra"
    if not _NOT_IN_FILES.fullmatch(key):
        if isinstance(value, str) and any(re.fullmatch(k, key) and re.fullmatch(v, value) for k, v in _TEXTS.items()):
            return None
        plugin = key.startswith(("launcher.", "sweeper.")) and isinstance(expected.get(key), int | float)
        if isinstance(value, int | float | None) and (plugin or _NUMBERS.fullmatch(key)) and not _too_many(key, value):
            return None
    if _too_many(key, value):
        return f"at most {cpu_count()}, the number of processors, or be set on the command line"
    default = repr(expected[key]) if key in expected else "absent, as in Hydra's own configs,"
    return f"{default} or be set on the command line"


def _too_many(key: str, value: Any) -> bool:
    """Whether a value asks for more worker processes than there are processors."""
    return key == "launcher.n_jobs" and isinstance(value, int | float) and value > cpu_count()


def _wanted_of_command_line(key: str, value: Any) -> str | None:
    """Return what a value should be, or None if the command line may set it."""
    section = re.split(r"[.\[]", key)[0]
    if _NEVER.fullmatch(key) and value:
        return "left to Hydra"
    if section in ("job_logging", "hydra_logging"):
        return _wanted_of_logging(key, value)
    if key in ("", "launcher", "sweeper") and value:
        return "a mapping, written out"
    return _wanted_of_call(key, value)


def _wanted_of_logging(key: str, value: Any) -> str | None:
    name = key.rpartition(".")[2]
    if name in ("()", "_target_"):
        return "absent"
    if name == "class" and value not in (*HANDLERS, "logging.Formatter"):
        return f"one of {', '.join(HANDLERS)}"
    if isinstance(value, str) and name != "filename":
        if "${" in value:
            return "written out, without an interpolation"
        if re.match(r"[a-z]+://", value) and value not in _STREAMS:
            return f"{' or '.join(_STREAMS)} if it refers to an object"
    return None


# -- classes and functions that Hydra calls ----------------------------------------------------------------------------


def _discovered(kind: Any) -> list[str]:
    return sorted(f"{cls.__module__}.{cls.__name__}" for cls in Plugins.instance().discover(kind))


def _samplers() -> list[str]:
    try:
        from optuna import samplers  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return []
    classes = {name: cls for name in samplers.__all__ if isinstance(cls := getattr(samplers, name), type)}
    return [f"optuna.samplers.{name}" for name, cls in classes.items() if issubclass(cls, samplers.BaseSampler)]


#: By pattern of the key: what its ``_target_`` may be, in words, and the names allowed.  Other targets are refused.
_TARGETS: dict[str, tuple[str, Callable[[], list[str]]]] = {
    r"launcher\._target_": ("one of {}", lambda: _discovered(Launcher)),
    r"sweeper\._target_": ("one of {}", lambda: _discovered(Sweeper)),
    r"sweeper\.sampler\._target_": ("a class of optuna.samplers", _samplers),
    r"callbacks\.[^.]+\._target_": ("allowed by fusionkit.config.allow(...)", extra_names),
}


def _wanted_of_call(key: str, value: Any) -> str | None:
    """Return what a value that Hydra may call should be, or None if it is right or nothing is called."""
    for pattern, (what, known) in _TARGETS.items():
        if re.fullmatch(pattern, key):
            return None if value in known() else what.format(", ".join(known()))
    if re.fullmatch(r"callbacks(\.[^.]+)?", key) and value:
        return "a mapping, written out"
    instantiated = key.startswith(("callbacks", "launcher", "sweeper"))
    controls = re.search(r"(^|\.)_\w+_([.\[]|$)" if instantiated else r"(^|\.)_target_([.\[]|$)", key)
    return "absent" if controls else None
