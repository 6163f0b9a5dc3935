"""Composition by Hydra, with every config checked while it is loaded and once it is composed, before Hydra acts on it.

The checks are in the config loader, because every configuration passes through it in Hydra 1.3 and 1.4: single runs,
the master config of a sweep, each of its jobs (also in the workers of a launcher, to which the loader is sent),
``--cfg``, ``--info`` and completion.
"""

from __future__ import annotations

import codecs
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped, unused-ignore]
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException
from hydra.plugins.config_source import ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from fusionkit._util.text import value_text
from fusionkit.config import hydra_bridge, hydra_node, interpolations, source
from fusionkit.config.explain import explain
from fusionkit.config.folders import conf_dir, plugin_folders
from fusionkit.config.hashing import config_hash, registered
from fusionkit.config.hydra_bridge import raw
from fusionkit.config.keys import refuse, walk
from fusionkit.config.nodes import find_record
from fusionkit.config.options import RunConfig, check, validate
from fusionkit.config.safe import check_tree
from fusionkit.core.allowed import extra_names
from fusionkit.errors import ConfigError
from fusionkit.registry.catalogue import words

#: The greatest size of a file, and the number of its values with aliases expanded: a limit on memory.
MAX_BYTES, MAX_VALUES = 1_000_000, 100_000
#: Hydra loads each config of a defaults list three times, and an empty one takes as long as hundreds of values.
_LOADS, _LEAST_VALUES = 4, 400
#: The default name of a job's directory, and the one where the jobs differ in their device.
RUN_NAME = "${fusionkit.run_name:}"
RUN_NAME_AND_DEVICE = "${fusionkit.run_name:device}"

#: What is checked: safety alone (completion); also options, without importing operators (``--cfg``); also options of
#: operators (``conf check``); or also that no value is missing (runs).
Level = Literal["safety", "keys", "options", "all"]


class CompositionError(ConfigError, ConfigCompositionException):
    """A configuration that is refused; a kind of error that Hydra's own code expects of a loader."""


class CheckingRepository(hydra_bridge.InspectingRepository):
    """Hydra's repository, which checks each file before anything in it is resolved."""

    def before_reading(self, config_path: str, source: ConfigSource) -> None:
        """Refuse a file whose aliases expand to too many values."""
        if source.scheme() == "file":
            name = config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"
            refuse_large(Path(source.path, name), config_path)

    def after_reading(self, config_path: str, tree: Any) -> None:
        """Refuse interpolations that are not permitted."""
        try:
            interpolations.check(tree)
        except ConfigError:
            # Finding the package of a file is slow, so it is done only for the message.
            interpolations.check(tree, self._package(config_path))
            raise
        defaults = tree.get("defaults") if isinstance(tree, dict) else None
        if isinstance(defaults, str):
            raise ConfigError(f"defaults of {config_path} should be a list; found {defaults!r}.")

    def _package(self, config_path: str) -> str:
        group = config_path.rpartition("/")[0].strip("/").replace("/", ".")
        found = hydra_bridge.source_of(self, config_path)
        header = found.load_config(config_path).header["package"] if found is not None else None
        return group if header in (None, "_group_") else "" if header == "_global_" else str(header)


def refuse_large(file: Path, name: str) -> None:
    """Refuse a file of more than 100 000 values once its aliases are expanded, as OmegaConf does by copying.

    Raises:
        ConfigError: it is larger, or not in UTF-8.
    """
    if (length := file.stat().st_size) > MAX_BYTES:
        raise ConfigError(f"{name} should be at most {MAX_BYTES} bytes long; found {length}.")
    text = file.read_bytes()
    if text.startswith(codecs.BOM_UTF8):  # Hydra would not see the package in the line that it begins.
        raise ConfigError(f"{name} should be in UTF-8 without a byte order mark; found one.")
    try:
        text.decode()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name} should be in UTF-8; found the byte {text[error.start]:#x} in line {line}.") from None
    if b"*" not in text or b"&" not in text:
        return
    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = 1  # What contains itself is refused by OmegaConf.
            children = node.value if isinstance(node.value, list) else []
            flat = [one for child in children for one in (child if isinstance(child, tuple) else (child,))]
            sizes[id(node)] = 1 + sum(map(size, flat))
        return sizes[id(node)]

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None and size(root) > MAX_VALUES:
        raise ConfigError(f"{name} should have at most {MAX_VALUES} values; found aliases that expand to more.")


class CheckingLoader(hydra_bridge.InspectingLoader):
    """Hydra's config loader, which checks every configuration that it composes.

    Args:
        config_search_path: where configs are looked for.
        level: how much is checked beyond safety.

    Attributes:
        config: the last configuration of a run, validated; only at the level ``all``.
    """

    config: RunConfig

    def __init__(self, config_search_path: ConfigSearchPath, level: Level = "all") -> None:
        source.register()
        own = {str(entry.path) for entry in _installed().get_path()}
        super().__init__(config_search_path, CheckingRepository(config_search_path), own)
        self.level = level
        self._sweeping = False
        self._loaded, self._sizes = 0, dict[str, int]()
        self._jobs: dict[str, tuple[Any, str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_jobs": {}}  # It grows with every job.

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The worker process of a launcher has not called prepare yet.
        prepare()
        self.__dict__.update(state)

    @contextmanager
    def explaining_errors(self, overrides: Sequence[str]) -> Iterator[None]:
        """Return a context in which every error becomes a ``CompositionError`` of one sentence."""
        try:
            yield
        except CompositionError:
            raise
        except Exception as error:
            raise CompositionError(explain(error, self, list(overrides))) from error

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Compose and check the config of one job."""
        for override in sweep_overrides:
            if override.lstrip("+~").startswith(("hydra.", "hydra/", "hydra=", "hydra@")):
                raise CompositionError(f"A sweep should not change the hydra node; found {override!r}.")
        self._sweeping = True
        try:
            cfg: DictConfig = super().load_sweep_config(master_config, sweep_overrides)
        finally:
            self._sweeping = False
        if raw(cfg)["hydra"]["sweep"]["subdir"] == RUN_NAME and _sweeps_device(master_config):
            cfg.hydra.sweep.subdir = RUN_NAME_AND_DEVICE
        self._check_directory(cfg, " ".join(sweep_overrides))
        return cfg

    def _check_directory(self, cfg: DictConfig, job: str) -> None:
        """Refuse a job in the directory of another job with another config, whose files it would replace."""
        try:
            with hydra_bridge.current_config(cfg):
                directory = str(cfg.hydra.sweep.subdir)
        except OmegaConfBaseException:  # It contains the number of the job, which the launcher will fill in.
            return
        identity = config_hash(self.config.tree), self.config.device
        other, title = self._jobs.setdefault(directory, (identity, job))
        if other != identity:
            raise CompositionError(
                f"hydra.sweep.subdir should be another for each job; found {directory!r} for {title} and for {job}."
            )

    def inspect_overrides(self, overrides: list[Override], primary: Any) -> None:
        """Check the command line, and the folders of configs that the primary config names."""
        for override in overrides:
            swept = override.is_sweep_override()
            value = (override.input_line or "").partition("=")[2] if swept else override.value()
            for text in (value, str(override.package or "")):
                interpolations.check(text, override.key_or_group)
        self._loaded = 0
        hydra_node.check_command_line(overrides)
        hydra_node.check_search_path(primary)

    def inspect_loaded(self, config_path: str, config: Any) -> None:
        """Refuse defaults lists that choose too many configs, or the same ones too often."""
        if config_path not in self._sizes:
            self._sizes[config_path] = max(_LEAST_VALUES, sum(1 for _ in walk(raw(config))))
        self._loaded += self._sizes[config_path]
        if self._loaded > _LOADS * MAX_VALUES:
            raise ConfigError(f"The defaults lists should choose at most {MAX_VALUES} values; found more.")

    def inspect_hydra_node(self, found: Any, reference: Any) -> None:
        """Refuse a ``hydra`` node that differs from Hydra's own where it may not."""
        hydra_node.check_files(found, reference)

    def inspect_whole(self, cfg: DictConfig, run_mode: RunMode) -> None:
        """Check that the composed configuration is safe and, as far as ``level`` says, that its options are right."""
        tree = raw(cfg)
        interpolations.check(tree)
        prepare()  # An operator that was imported meanwhile may have replaced a resolver.
        hydra = tree.pop("hydra")
        if self.level != "safety":
            # Said here, because references would lead to what is absent.
            needed = [name for name, field in RunConfig.model_fields.items() if field.is_required()]
            absent = [name for name in needed if name not in tree]
            refuse(f"{name} should be in the configuration; found nothing." for name in absent)
            chosen = {str(group): option for group, option in hydra["runtime"]["choices"].items()}
            refuse(
                f"The config {group}/{option} should begin with the line '# @package _global_', because "
                f"{group.partition('/')[0]!r} is no key of a run; found its values below it."
                for group, option in chosen.items()
                if group.partition("/")[0] in tree.keys() - RunConfig.model_fields.keys()
            )
        with hydra_bridge.current_config(cfg):
            plain = plain_config(cfg)
        hydra_node.delay_log_files(cfg)
        multirun = hydra.get("mode") == "MULTIRUN"
        if self.level != "safety" and run_mode == RunMode.RUN and (self._sweeping or not multirun):
            if self.level == "all":
                self.config = validate(plain)
            else:
                check(plain, deep=self.level != "keys", complete=False)
        _check_workers(plain, str(hydra["launcher"]["_target_"]), multirun and run_mode == RunMode.RUN)


def _check_workers(plain: dict[str, Any], launcher: str, sweep: bool) -> None:
    """Refuse a launcher with worker processes if the config uses targets or operators that only this process has."""
    if launcher == hydra_bridge.BASIC_LAUNCHER:
        return
    if extra_names():
        raise ConfigError(
            f"hydra.launcher._target_ should be the basic launcher, because what fusionkit.config.allow permits in "
            f"this process does not reach other processes; found {launcher!r}."
        )
    for kind, name in registered(plain):
        record = find_record(kind, name)
        if sweep and record is not None and record.local:
            raise ConfigError(
                f"A sweep by {launcher} should use what installed distributions register, because its workers know "
                f"nothing else; found the {words(kind)} {name!r}, which was registered in this process."
            )


def _sweeps_device(master_config: DictConfig) -> bool:
    """Whether the jobs of a sweep differ in their device, which the hash in the name of a job leaves out."""
    hydra = raw(master_config)["hydra"]
    params = (hydra.get("sweeper") or {}).get("params") or {}
    lines = [*hydra["overrides"]["task"], *(f"{key}={value}" for key, value in params.items())]
    device = [line for line in lines if line.lstrip("+").startswith("device=")]
    return any(override.is_sweep_override() for override in OverridesParser.create().parse_overrides(device))


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """Return a composed configuration without its ``hydra`` node: resolved once, in plain containers, targets checked.

    Raises:
        ConfigError: an interpolation or a target that is not permitted.
    """
    # Key by key from the whole, so that references into the hydra node work and errors name the key; single values
    # first, because groups refer to them.
    tree = {key: value for key, value in raw(cfg).items() if key != "hydra"}
    keys = sorted(tree, key=lambda key: isinstance(tree[key], dict | list))
    plain = {key: tree[key] if tree[key] in (None, "???") else _resolved(cfg, key) for key in keys}
    train = plain.get("train")
    if isinstance(train, dict) and isinstance(weights := train.get("class_weight"), dict):
        # JSON has keys of text alone.
        train["class_weight"] = {value_text(one): weight for one, weight in weights.items()}
    check_tree(plain)
    data = plain.get("data")
    if isinstance(data, dict):
        # A job may run in another folder, and a record be repeated from one.
        data |= {key: _absolute(data[key]) for key in ("path", "test_path") if key in data}
        if isinstance(missing := data.get("missing"), float) and math.isnan(missing):
            data["missing"] = "nan"  # In Hydra's grammar of overrides this word is a number.
    return {str(key): plain[key] for key in tree}


def _absolute(path: Any) -> Any:
    """Return the absolute path of a file, or of each of a mapping; what is no path is refused later."""
    if isinstance(path, dict):
        return {name: _absolute(one) for name, one in path.items()}
    return to_absolute_path(os.path.expanduser(path)) if isinstance(path, str) and path not in ("", "???") else path


def _resolved(cfg: DictConfig, key: Any) -> Any:
    try:
        value = cfg[key]
    except InterpolationToMissingValueError:
        return "???"
    except OmegaConfBaseException as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"{key} should lead to a value; found: {first}.") from error
    return interpolations.to_plain(value, str(key))


# -- where configs are -------------------------------------------------------------------------------------------------


def search_path(config_path: str | None = None, config_dir: str | None = None) -> ConfigSearchPath:
    """Return where configs are looked for, first match first: Hydra, fusionkit, plugins, ``config_dir``, the registry.

    Args:
        config_path: searched before fusionkit's own folder, as with ``--config-path``.
        config_dir: searched after the plugins' folders, as with ``--config-dir``.

    Raises:
        ConfigError: a folder does not exist.
    """
    config_path, config_dir = (folder and os.path.expanduser(folder) for folder in (config_path, config_dir))
    for option, folder in (("--config-path", config_path), ("--config-dir", config_dir)):
        if folder is not None and "://" not in folder and not Path(folder).is_dir():
            raise ConfigError(f"{option} should be an existing folder; found {folder!r}.")
    others = plugin_folders()
    if config_dir is not None:
        others.append(("command-line", f"file://{os.path.abspath(config_dir)}"))
    if config_path is not None and "://" not in config_path:
        config_path = os.path.abspath(config_path)
    return _installed(config_path, others)


def _installed(first: str | None = None, others: Sequence[tuple[str, str]] = ()) -> ConfigSearchPath:
    """Return the search path of Hydra, its plugins and fusionkit, with another folder before and others behind it."""
    path = hydra_bridge.search_path()
    path.append("hydra", "pkg://hydra.conf")
    if first is not None:
        path.append("main", first)
    path.append("main" if first is None else "fusionkit", str(conf_dir()))
    for plugin in Plugins.instance().discover(SearchPathPlugin):
        plugin().manipulate_search_path(path)  # type: ignore[attr-defined]
    for provider, folder in others:
        path.append(provider, folder)
    path.append("registry", "fusionkit://")
    path.append("schema", "structured://")
    return path


def prepare() -> None:
    """Set up in this process what composition needs: version base (Hydra 1.3), resolvers, the config source."""
    hydra_bridge.setup()

    def run_name(with_device: str = "", *, _root_: Any) -> str:
        """Return the hash of the whole configuration, followed by its device if ``with_device`` is not empty."""
        plain = plain_config(_root_)
        name = config_hash(plain)
        return f"{name}-{re.sub(r'[^A-Za-z0-9]+', '', str(plain.get('device')))}" if with_device else name

    def before_head(name: str, *, _root_: Any) -> dict[str, str] | None:
        """Return the ``postprocess`` of this name; None where ``model.head`` is none and the output is the result."""
        return None if OmegaConf.select(_root_, "model.head") == "none" else {"name": name}

    hydra_bridge.register_resolver("fusionkit.run_name", run_name)
    hydra_bridge.register_resolver("fusionkit.before_head", before_head)
    source.register()


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the checked, resolved, plain configuration; see ``fusionkit.config.compose``."""
    return compose_twice(overrides)[0]


def compose_twice(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what ``compose`` does, and the same configuration with its interpolations as text."""
    prepare()
    loader = CheckingLoader(search_path())
    cfg = loader.load_configuration("config", [*overrides, "hydra.mode=RUN"], RunMode.RUN, from_shell=False)
    return loader.config.tree, {key: value for key, value in raw(cfg).items() if key != "hydra"}
