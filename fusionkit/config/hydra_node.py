"""What may stand in the ``hydra`` node of a configuration.

Hydra itself calls what stands there: callbacks, launchers, sweepers and the factories of Python's logging; it writes
where its paths point, and sets environment variables.  The node is checked as it is written, unresolved, before Hydra
looks at it: in its dangerous parts nothing may be interpolated, so what was checked is what is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from fusionkit.config.folders import conf_dir
from fusionkit.config.interpolations import leaves
from fusionkit.config.keys import join
from fusionkit.core.allowed import extra_names
from fusionkit.errors import ConfigError

__all__ = ["check_hydra", "check_search_path"]

#: Output paths, with Hydra's defaults: those, or as in fusionkit's own config.yaml, or from the command line.
PATHS = {
    "hydra.run.dir": "outputs/${now:%Y-%m-%d}/${now:%H-%M-%S}",
    "hydra.sweep.dir": "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}",
    "hydra.sweep.subdir": "${hydra.job.num}",
    "hydra.output_subdir": ".hydra",
}
_LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"
_INSIDE = re.compile(r"\$\{hydra\.runtime\.output_dir\}/[A-Za-z0-9_][\w.-]*")
_SIMPLE = re.compile(r"[A-Za-z0-9_][\w.-]*")

_FILE = frozenset({"filename", "mode", "encoding", "delay", "errors"})
_HANDLER = frozenset({"class", "level", "formatter", "filters"})
#: The handlers that a config may choose, with their arguments: none that imports, calls, or opens a connection.
HANDLERS: dict[str, frozenset[str]] = {
    "logging.StreamHandler": frozenset({"stream"}),
    "logging.NullHandler": frozenset(),
    "logging.FileHandler": _FILE,
    "logging.handlers.WatchedFileHandler": _FILE,
    "logging.handlers.RotatingFileHandler": _FILE | {"maxBytes", "backupCount"},
    "logging.handlers.TimedRotatingFileHandler": _FILE | {"when", "interval", "backupCount", "utc"},
}
_SECTIONS = frozenset(
    {"version", "formatters", "handlers", "filters", "loggers", "root", "disable_existing_loggers", "incremental"}
)
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_NOTHING = object()

#: What a config may set for a launcher or a sweeper although it is text or no option of the plugin's own: nothing that
#: names a command, a file or a host, and nothing with the quotes or line breaks that a batch script would fall for.
_FREE: dict[str, re.Pattern[str]] = {
    **dict.fromkeys(("hydra.launcher.backend", "hydra.launcher.prefer"), re.compile(r"[a-z_]+")),
    "hydra.launcher.require": re.compile("sharedmem"),
    "hydra.launcher.batch_size": re.compile(r"auto|\d+"),
    # joblib evaluates it.
    "hydra.launcher.pre_dispatch": re.compile(r"all|\d+|\d+(\.\d+)? ?\* ?n_jobs"),
    **dict.fromkeys(
        [
            f"hydra.launcher.{name}"
            for name in (
                *("partition", "qos", "account", "comment", "constraint", "gres", "exclude", "nodelist"),
                *("mem_per_gpu", "mem_per_cpu"),
            )
        ],
        re.compile(r"[\w.,:=+@%/&|*()\[\] -]*"),
    ),
    **dict.fromkeys(
        [f"hydra.launcher.ray.{call}.{name}" for call in ("init", "remote") for name in ("num_cpus", "num_gpus")],
        re.compile(r"\d+(\.\d+)?"),
    ),
    "hydra.sweeper.study_name": re.compile(r"[\w. -]+"),
    "hydra.sweeper.direction": re.compile("minimize|maximize"),
}
#: Below these the keys are the user's: overrides, which are checked in each job.
_SWEPT = ("hydra.sweeper.params", "hydra.sweeper.search_space", "hydra.sweeper.direction")
_SAMPLER = "hydra.sweeper.sampler"


def check_hydra(node: object, command_line: Sequence[str]) -> None:
    """Refuse everything in an unresolved ``hydra`` node by which Hydra would run, import or write what a config names.

    Args:
        node: the node in plain containers, interpolations as text.
        command_line: the keys that the command line sets, such as ``hydra.run.dir``.

    Raises:
        ConfigError: with the full dotted key and what was found.
    """
    if not isinstance(node, Mapping):
        raise ConfigError(f"hydra should be a mapping, written out; found {node!r}.")
    _check_paths(node, command_line)
    _check_job(node.get("job"))
    _check_callbacks(node.get("callbacks"))
    for section in ("hydra_logging", "job_logging"):
        _check_logging(node.get(section), f"hydra.{section}", command_line)
    _check_plugin(node.get("launcher"), "launcher", command_line)
    _check_plugin(node.get("sweeper"), "sweeper", command_line)
    if node.get("aliases"):
        raise ConfigError(f"hydra.aliases should be empty; found {node['aliases']!r}.")
    for name, value in node.items():
        if name not in ("callbacks", "launcher", "sweeper"):
            _refuse_targets(value, f"hydra.{name}")


def check_search_path(entries: object) -> None:
    """Refuse entries of ``hydra.searchpath`` in a config file by which Hydra would import a package.

    Raises:
        ConfigError: an entry is not the path of a folder.
    """
    if entries is None:
        return
    if not isinstance(entries, list | tuple):
        raise ConfigError(f"hydra.searchpath should be a list of folders, written out; found {entries!r}.")
    for index, entry in enumerate(entries):
        key = f"hydra.searchpath[{index}]"
        if not isinstance(entry, str) or "${" in entry:
            raise ConfigError(f"{key} should be the path of a folder, written out; found {entry!r}.")
        if "://" in entry and not entry.startswith("file://"):
            raise ConfigError(
                f"{key} should be the path of a folder (only the command line may name a package); found {entry!r}."
            )


def covered(key: str, above: Sequence[str]) -> bool:
    """Whether ``key`` or something that contains it is among the keys ``above``, such as those of the command line."""
    return any(key == given or key.startswith((f"{given}.", f"{given}[")) for given in above)


@lru_cache(maxsize=1)
def _own() -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped, unused-ignore]

    text = (conf_dir() / "config.yaml").read_text(encoding="utf-8")
    own: dict[str, Any] = yaml.safe_load(text)["hydra"]
    return own


def _select(node: Mapping[str, Any], key: str) -> Any:
    value: Any = node
    for part in key.split(".")[1:]:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key.rpartition('.')[0]} should be a mapping, written out; found {value!r}.")
        value = value.get(part)
    return value


def _check_paths(node: Mapping[str, Any], command_line: Sequence[str]) -> None:
    for key, default in PATHS.items():
        found = _select(node, key)
        trusted = _select(_own(), key) or default
        if found not in (None, "???", trusted, default) and not covered(key, command_line):
            raise ConfigError(f"{key} should be {trusted!r} or stand on the command line; found {found!r} in a config.")


def _check_job(job: object) -> None:
    if not isinstance(job, Mapping):
        raise ConfigError(f"hydra.job should be a mapping, written out; found {job!r}.")
    # What was to be copied is in env_set by now; the values are no business of a message.
    for name in ("env_copy", "env_set"):
        if job.get(name):
            raise ConfigError(f"hydra.job.{name} should be empty; found {', '.join(map(str, job[name]))}.")
    found = job.get("name")
    if found not in (None, "???") and not (isinstance(found, str) and _SIMPLE.fullmatch(found)):
        raise ConfigError(f"hydra.job.name should consist of letters, digits, '_', '-' and '.'; found {found!r}.")


def _check_callbacks(callbacks: object) -> None:
    if not callbacks:
        return
    if not isinstance(callbacks, Mapping):
        raise ConfigError(f"hydra.callbacks should be empty; found {callbacks!r}.")
    allowed = extra_names()
    for name, callback in callbacks.items():
        target = callback.get("_target_") if isinstance(callback, Mapping) else None
        if not isinstance(target, str) or target not in allowed:
            key = f"hydra.callbacks.{name}"
            raise ConfigError(
                f"{key + '._target_' if target is not None else key} should be allowed by fusionkit.config.allow(...); "
                f"found {target if target is not None else callback!r}."
            )
        for option, value in callback.items():
            _refuse_targets(value, f"hydra.callbacks.{name}.{option}", skip=option == "_target_")


def _refuse_targets(tree: object, key: str, *, skip: bool = False) -> None:
    """Refuse every ``_target_`` below a part of the node in which nothing is built."""
    if skip:
        return
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            if name == "_target_":
                raise ConfigError(f"{key}._target_ should not be in the hydra node; found {value!r}.")
            _refuse_targets(value, join(key, name))
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            _refuse_targets(value, f"{key}[{index}]")


def _check_logging(section: object, key: str, command_line: Sequence[str]) -> None:
    if section is None or section == "???":
        return
    if not isinstance(section, Mapping):
        raise ConfigError(f"{key} should be a mapping, written out; found {section!r}.")
    _only(section, _SECTIONS, key)
    for name, formatter in _members(section, "formatters", key):
        here = f"{key}.formatters.{name}"
        _only(formatter, {"format", "datefmt", "style", "validate", "defaults", "class"}, here)
        if formatter.get("class", "logging.Formatter") != "logging.Formatter":
            raise ConfigError(f"{here}.class should be logging.Formatter; found {formatter['class']!r}.")
        if formatter.get("style", "%") not in ("%", "$"):
            raise ConfigError(f"{here}.style should be '%' or '$'; found {formatter['style']!r}.")
    for name, entry in _members(section, "filters", key):
        _only(entry, {"name"}, f"{key}.filters.{name}")
    for name, handler in _members(section, "handlers", key):
        _check_handler(handler, f"{key}.handlers.{name}", command_line)
    for name, logger in (
        *_members(section, "loggers", key),
        *_members({"root": {"": section.get("root")}}, "root", key),
    ):
        _only(logger, {"level", "propagate", "handlers", "filters"}, f"{key}.loggers.{name}" if name else f"{key}.root")
    for here, text in leaves(section, key):
        name = here.rpartition(".")[2]
        if name == "filename" and ".handlers." in here:
            continue
        if "${" in text:
            raise ConfigError(f"{here} should be written out, without an interpolation; found {text!r}.")
        if "://" in text and not (name == "stream" and text in _STREAMS) and re.match(r"[a-z]+://", text):
            raise ConfigError(f"{here} should be {' or '.join(_STREAMS)} if it refers to an object; found {text!r}.")


def _check_handler(handler: Mapping[str, Any], key: str, command_line: Sequence[str]) -> None:
    name = handler.get("class")
    if "()" in handler:
        raise ConfigError(f"{key}.() should not be in a config; found {handler['()']!r}.")
    if not isinstance(name, str) or name not in HANDLERS:
        raise ConfigError(f"{key}.class should be one of {', '.join(HANDLERS)}; found {name!r}.")
    _only(handler, _HANDLER | HANDLERS[name], key)
    if "stream" in handler and handler["stream"] not in _STREAMS:
        raise ConfigError(f"{key}.stream should be {' or '.join(_STREAMS)}; found {handler['stream']!r}.")
    file = handler.get("filename")
    if file is None or covered(f"{key}.filename", command_line):
        return
    if not isinstance(file, str) or not (file == _LOG_FILE or _INSIDE.fullmatch(file)):
        raise ConfigError(
            f"{key}.filename should be inside ${{hydra.runtime.output_dir}} or stand on the command line; "
            f"found {file!r}."
        )


def _members(section: Mapping[str, Any], name: str, key: str) -> list[tuple[str, Mapping[str, Any]]]:
    members = section.get(name)
    if members is None:
        return []
    if not isinstance(members, Mapping):
        raise ConfigError(f"{key}.{name} should be a mapping, written out; found {members!r}.")
    for member, value in members.items():
        if value is not None and not isinstance(value, Mapping):
            raise ConfigError(f"{key}.{name}.{member} should be a mapping, written out; found {value!r}.")
    return [(str(member), value) for member, value in members.items() if value is not None]


def _only(node: Mapping[str, Any], known: frozenset[str] | set[str], key: str) -> None:
    for name, value in node.items():
        if name not in known:
            raise ConfigError(
                f"{join(key, name)} should not be in a config, only {', '.join(sorted(known))}; found {value!r}."
            )


def _check_plugin(node: object, role: str, command_line: Sequence[str]) -> None:
    """Check a launcher or a sweeper: a class that Hydra discovers, and no option that may name something to run."""
    key = f"hydra.{role}"
    if node is None or node == "???":
        return
    if not isinstance(node, Mapping):
        raise ConfigError(f"{key} should be a mapping, written out; found {node!r}.")
    known = _plugin_classes(role)
    target = node.get("_target_")
    if target not in known:
        raise ConfigError(f"{key}._target_ should be one of {', '.join(sorted(known))}; found {target!r}.")
    if role == "launcher" and extra_names() and not str(target).endswith(".BasicLauncher"):
        raise ConfigError(
            f"{key}._target_ should be the basic launcher, because what fusionkit.config.allow permits in this process "
            f"does not reach other processes; found {target!r}."
        )
    _check_nested(node, key)
    _check_options(node, key, _plugin_default(role, str(target)), command_line)


def _check_options(node: object, key: str, default: object, command_line: Sequence[str]) -> None:
    """Refuse every option that is neither the plugin's default, nor harmless, nor from the command line."""
    if covered(key, command_line) or (default is not _NOTHING and node == default):
        return
    if isinstance(node, Mapping):
        for name, value in node.items():
            if not isinstance(name, str) or not (key in _SWEPT or re.fullmatch(r"[\w./@+~-]+", name)):
                raise ConfigError(f"{key} should have plain names as its keys; found {name!r}.")
            if join(key, name) not in ("hydra.launcher._target_", "hydra.sweeper._target_"):
                below = default.get(name, _NOTHING) if isinstance(default, Mapping) else _NOTHING
                _check_options(value, join(key, name), below, command_line)
        return
    if isinstance(node, list | tuple):
        for index, value in enumerate(node):
            below = default[index] if isinstance(default, list) and index < len(default) else _NOTHING
            _check_options(value, f"{key}[{index}]", below, command_line)
        return
    if covered(key, _SWEPT):
        allowed = isinstance(node, str | int | float | None) and "${" not in str(node)
    elif isinstance(node, int | float | None):
        # A number for an option that the plugin does not have could still name something: a package, a port.
        allowed = default is not _NOTHING or key in _FREE or key.count(".") == 2 or covered(key, [_SAMPLER])
    elif key == f"{_SAMPLER}._target_":
        allowed = True  # Checked before.
    else:
        allowed = isinstance(node, str) and key in _FREE and _FREE[key].fullmatch(node) is not None
    if not allowed:
        raise ConfigError(
            f"{key} should be the plugin's default or stand on the command line; found {node!r} in a config."
        )


def _check_nested(node: Mapping[str, Any], key: str) -> None:
    for name, value in node.items():
        here = join(key, name)
        if name == "custom_search_space" and value:
            raise ConfigError(f"{here} should be empty, because it names a function to import; found {value!r}.")
        if name == "sampler" and isinstance(value, Mapping):
            _check_sampler(value, here)
        elif name == "_target_":
            continue
        else:
            _refuse_targets(value, here)
        if isinstance(name, str) and name.startswith("_") and name.endswith("_"):
            raise ConfigError(f"{here} should not be in a config; found {value!r}.")


def _check_sampler(node: Mapping[str, Any], key: str) -> None:
    target = node.get("_target_")
    module, _, name = str(target).rpartition(".")
    samplers = _optuna_samplers() if module == "optuna.samplers" and name.isidentifier() else {}
    if target is not None and name not in samplers:
        raise ConfigError(f"{key}._target_ should be a class of optuna.samplers; found {target!r}.")
    for option, value in node.items():
        if option == "_target_":
            continue
        if option.startswith("_") and option.endswith("_"):
            raise ConfigError(f"{join(key, option)} should not be in a config; found {value!r}.")
        _refuse_targets(value, join(key, option))


@lru_cache(maxsize=1)
def _optuna_samplers() -> dict[str, type]:
    try:
        from optuna import samplers  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return {}
    return {
        name: obj
        for name in samplers.__all__
        if isinstance(obj := getattr(samplers, name), type)
        and issubclass(obj, samplers.BaseSampler)
        and obj.__module__.startswith("optuna.samplers")
    }


def _plugin_classes(role: str) -> set[str]:
    from hydra.core.plugins import Plugins
    from hydra.plugins.launcher import Launcher
    from hydra.plugins.sweeper import Sweeper

    kind: Any = {"launcher": Launcher, "sweeper": Sweeper}[role]
    return {f"{cls.__module__}.{cls.__name__}" for cls in Plugins.instance().discover(kind)}


def _plugin_default(role: str, target: str) -> object:
    """Return the options with which a plugin registers its class, in plain containers, or nothing."""
    from hydra.core.config_store import ConfigStore

    from fusionkit.config.interpolations import raw

    group = ConfigStore.instance().repo["hydra"].get(role, {})
    for entry in group.values():
        default = raw(getattr(entry, "node", None))
        if isinstance(default, Mapping) and default.get("_target_") == target:
            return default
    return _NOTHING
