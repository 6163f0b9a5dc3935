"""Composition by Hydra, with every config checked while it is loaded and once it is composed, before Hydra acts on it.

The checks sit in the config loader, because everything passes through it on both lines of Hydra: single runs, the
master config of a sweep, each of its jobs (also in the workers of a launcher, to which the loader is sent),
``--cfg``, ``--info`` and completion.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from fusionkit.config import interpolations, source
from fusionkit.config.explain import explain
from fusionkit.config.folders import conf_dir, plugin_folders
from fusionkit.config.hashing import config_hash
from fusionkit.config.hydra_node import check_hydra, check_search_path
from fusionkit.config.safe import check_tree
from fusionkit.errors import ConfigError

if TYPE_CHECKING:
    from fusionkit.config.options import RunConfig

#: Larger configs are taken for an attack on the memory.
MAX_BYTES, MAX_VALUES = 1_000_000, 100_000
#: The default name of a job's directory, and the one where the jobs differ in their device.
RUN_NAME = "${fusionkit.run_name:}"
RUN_NAME_AND_DEVICE = "${fusionkit.run_name:device}"

__all__ = ["CheckingLoader", "CompositionError", "Level", "compose", "plain_config", "prepare", "search_path"]

#: How much is checked beyond safety: nothing (completion), what needs no operator's class (``--cfg``), all but whether
#: values are missing (``conf check``), or all (runs).
Level = Literal["safety", "keys", "options", "all"]


class CompositionError(ConfigError, ConfigCompositionException):
    """A configuration that is refused; a kind of error that Hydra's own code expects of a loader."""


class CheckingRepository(ConfigRepository):
    """Reads configs and refuses what may not be resolved, before anything of a config is resolved."""

    def load_config(self, config_path: str) -> Any:
        """Read one config; refuse a file that aliases would blow up."""
        found = self._find_object_source(config_path, ObjectType.CONFIG)
        if found is not None and found.scheme() == "file":
            file = Path(found.path, config_path if config_path.endswith(".yaml") else f"{config_path}.yaml")
            refuse_large(file, config_path)
        return super().load_config(config_path)

    def _extract_defaults_list(self, config_path: str, cfg: Any) -> ListConfig:
        tree = interpolations.raw(cfg)
        try:
            interpolations.check(tree)
        except ConfigError:
            # Only now is it worth finding out where in the whole the file belongs.
            package = self._package(config_path)
            interpolations.check(tree, package)
            raise
        defaults = tree.get("defaults") if isinstance(tree, dict) else None
        if isinstance(defaults, str):
            raise ConfigError(f"defaults of {config_path} should be a list; found {defaults!r}.")
        return super()._extract_defaults_list(config_path, cfg)

    def _package(self, config_path: str) -> str:
        group = config_path.rpartition("/")[0].strip("/").replace("/", ".")
        found = self._find_object_source(config_path, ObjectType.CONFIG)
        header = found.load_config(config_path).header["package"] if found is not None else None
        return group if header in (None, "_group_") else "" if header == "_global_" else str(header)


def refuse_large(file: Path, name: str) -> None:
    """Refuse a file that OmegaConf, which copies what an alias stands for, would turn into more than 100 000 values.

    Raises:
        ConfigError: it would.
    """
    import yaml  # type: ignore[import-untyped, unused-ignore]

    text = file.read_bytes()
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{name} should be at most {MAX_BYTES} bytes long; found {len(text)}.")
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
        raise ConfigError(f"{name} should stand for at most {MAX_VALUES} values; found aliases that multiply to more.")


class CheckingLoader(ConfigLoaderImpl):
    """Hydra's config loader, which gives out only what was checked.

    Args:
        config_search_path: where configs are looked for.
        level: how much is checked beyond safety.

    Attributes:
        config: what was made of the last configuration for a run, at the level ``all``.
    """

    config: RunConfig

    def __init__(self, config_search_path: ConfigSearchPath, level: Level = "all") -> None:
        source.register()
        super().__init__(config_search_path)
        self.repository = CheckingRepository(config_search_path)
        self.level = level
        self._parsed: list[Override] = []

    def __setstate__(self, state: dict[str, Any]) -> None:
        # In the worker of a launcher nothing is set up yet.
        prepare()
        self.__dict__.update(state)

    def load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        """Compose and check; every error is one sentence."""
        with self._worded(kwargs.get("overrides", args[1] if len(args) > 1 else [])):
            return super().load_configuration(*args, **kwargs)

    def _load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        # Hydra 1.4 calls this one directly.
        with self._worded(kwargs.get("overrides", args[1] if len(args) > 1 else [])):
            cfg: DictConfig = cast(Any, super())._load_configuration(*args, **kwargs)
            return cfg

    @contextmanager
    def _worded(self, overrides: Sequence[str]) -> Iterator[None]:
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
        with self._worded(sweep_overrides):
            cfg: DictConfig = super().load_sweep_config(master_config, sweep_overrides)
            if _sweeps_device(master_config) and interpolations.raw(cfg)["hydra"]["sweep"]["subdir"] == RUN_NAME:
                cfg.hydra.sweep.subdir = RUN_NAME_AND_DEVICE
            return cfg

    def get_mode(self, config_name: str | None, overrides: list[str], parsed_overrides: Any = None) -> Any:
        """Return the mode that the primary config or the command line sets (Hydra 1.4 only)."""
        if parsed_overrides is None:
            parsed_overrides = cast(Any, self).parse_overrides(config_name, overrides)
        return cast(Any, super()).get_mode(config_name, overrides, parsed_overrides)

    def _process_config_searchpath(self, config_name: str | None, parsed_overrides: list[Override], repo: Any) -> None:
        for override in parsed_overrides:
            if override.is_sweep_override():
                interpolations.check_text((override.input_line or "").partition("=")[2], override.key_or_group)
            else:
                interpolations.check(_plain_value(override.value()), override.key_or_group)
            interpolations.check_text(str(override.package or ""), override.key_or_group)
        self._parsed = list(parsed_overrides)
        if config_name is not None:
            loaded = repo.load_config(config_path=config_name)
            hydra = (
                interpolations.raw(loaded.config).get("hydra") if loaded and OmegaConf.is_dict(loaded.config) else None
            )
            if isinstance(hydra, dict):
                check_search_path(hydra.get("searchpath"))
            elif hydra is not None:
                raise ConfigError(f"hydra should be a mapping, written out; found {hydra!r}.")
        super()._process_config_searchpath(config_name, parsed_overrides, repo)

    def _load_configuration_impl(self, *args: Any, **kwargs: Any) -> DictConfig:
        cfg: DictConfig = super()._load_configuration_impl(*args, **kwargs)
        run_mode = kwargs["run_mode"] if "run_mode" in kwargs else args[2]
        self._check(cfg, run_mode)
        return cfg

    def _check(self, cfg: DictConfig, run_mode: RunMode) -> None:
        tree = interpolations.raw(cfg)
        interpolations.check(tree)
        hydra = tree.pop("hydra", None)
        given = {
            "hydra": [override.input_line for override in self._parsed if override.is_hydra_override()],
            "task": [override.input_line for override in self._parsed if not override.is_hydra_override()],
        }
        found = hydra.get("overrides") if isinstance(hydra, dict) else None
        if found != given:
            # Hydra would apply them to every job of a sweep as if they stood on the command line.
            raise ConfigError(f"hydra.overrides should be left to Hydra; found {found!r} in a config.")
        check_hydra(hydra, [override.key_or_group for override in self._parsed])
        from fusionkit.config.options import check, present, validate

        if self.level != "safety":
            present(tree)
        with _hydra_config(cfg):
            plain = plain_config(cfg)
        if self.level != "safety" and run_mode == RunMode.RUN:
            if self.level == "all":
                self.config = validate(plain)
            else:
                check(plain, deep=self.level != "keys", complete=False)
            if hydra is not None and hydra.get("mode") == "MULTIRUN":
                _check_reach(plain, hydra)


@contextmanager
def _hydra_config(cfg: DictConfig) -> Iterator[None]:
    """Let ``${hydra:...}`` refer to ``cfg``, as it will once the job runs."""
    from hydra.core.hydra_config import HydraConfig

    instance: Any = HydraConfig.instance()
    before = instance.cfg
    instance.cfg = cfg  # Its set_config would make cfg.hydra read-only.
    try:
        yield
    finally:
        instance.cfg = before


def _check_reach(plain: dict[str, Any], hydra: dict[str, Any]) -> None:
    """Refuse a job of a parallel sweep that needs an operator which was registered in this process only."""
    from fusionkit.config.hashing import operators
    from fusionkit.config.nodes import status

    launcher = (hydra.get("launcher") or {}).get("_target_", "")
    if str(launcher).endswith(".BasicLauncher"):
        return
    for kind, name in operators(plain):
        record = status(kind, name)
        if record is not None and record.local:
            raise ConfigError(
                f"A sweep by {launcher} should use operators of installed distributions, because its workers know no "
                f"others; found the {kind} {name!r}, which was registered in this process."
            )


def _sweeps_device(master_config: DictConfig) -> bool:
    """Whether the jobs of a sweep differ in their device, which the hash in the name of a job leaves out."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    hydra = interpolations.raw(master_config)["hydra"]
    params = (hydra.get("sweeper") or {}).get("params") or {}
    lines = [*hydra["overrides"]["task"], *(f"{key}={value}" for key, value in params.items())]
    parsed = OverridesParser.create().parse_overrides(
        [line for line in lines if line.lstrip("+").startswith("device=")]
    )
    return any(override.is_sweep_override() for override in parsed)


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """Return a composed configuration without its ``hydra`` node: resolved once, in plain containers, targets checked.

    Raises:
        ConfigError: an interpolation or a target that is not permitted.
    """
    # Key by key from the whole, so that references into the hydra node work and errors name the key; single values
    # first, because groups refer to them.
    keys = sorted((key for key in cfg if key != "hydra"), key=lambda key: OmegaConf.is_config(cfg._get_node(key)))
    plain = {str(key): _resolved(cfg, key) for key in keys}
    check_tree(plain)
    return {str(key): plain[str(key)] for key in cfg if key != "hydra"}


def _resolved(cfg: DictConfig, key: Any) -> Any:
    node = cfg._get_node(key)
    if node is None or node._is_none():
        return None
    if node._is_missing():
        return "???"
    from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

    try:
        value = cfg[key]
    except InterpolationToMissingValueError:
        return "???"
    except OmegaConfBaseException as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"{key} should lead to a value; found: {first}.") from error
    return interpolations.to_plain(value, str(key))


def _plain_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_value(item) for item in value]
    return value if isinstance(value, bool | int | float | type(None)) else str(value)


def search_path(config_path: str | None = None, config_dir: str | None = None) -> ConfigSearchPath:
    """Return where configs are looked for, first match first: Hydra, fusionkit, plugins, ``config_dir``, the registry.

    Args:
        config_path: stands before fusionkit's own folder, as ``--config-path`` does.
        config_dir: stands behind the plugins' folders, as ``--config-dir`` does.

    Raises:
        ConfigError: a folder does not exist.
    """
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    for option, folder in (("--config-path", config_path), ("--config-dir", config_dir)):
        if folder is not None and "://" not in folder and not Path(folder).is_dir():
            raise ConfigError(f"{option} should be an existing folder; found {folder!r}.")
    path = ConfigSearchPathImpl()
    path.append("hydra", "pkg://hydra.conf")
    if config_path is not None:
        path.append("main", config_path if "://" in config_path else os.path.abspath(config_path))
    path.append("main" if config_path is None else "fusionkit", str(conf_dir()))
    for plugin in Plugins.instance().discover(SearchPathPlugin):
        plugin().manipulate_search_path(path)  # type: ignore[attr-defined]
    for distribution, folder in plugin_folders():
        path.append(distribution, folder)
    if config_dir is not None:
        path.append("command-line", f"file://{os.path.abspath(config_dir)}")
    path.append("registry", "fusionkit://")
    path.append("schema", "structured://")
    return path


def prepare() -> None:
    """Set up in this process what composition needs: version base (Hydra 1.3), resolvers, the config source."""
    import hydra
    import omegaconf
    from hydra import version
    from hydra.core.utils import setup_globals

    if hydra.__version__.startswith("1.3") and type(version.getbase()).__name__ != "Version":
        version.setbase("1.3")
    setup_globals()

    def run_name(with_device: str = "", *, _root_: Any) -> str:
        """Return the hash of the whole configuration, followed by its device if ``with_device`` is not empty."""
        plain = plain_config(_root_)
        name = config_hash(plain)
        return f"{name}-{re.sub(r'[^A-Za-z0-9]+', '', str(plain.get('device')))}" if with_device else name

    if not OmegaConf.has_resolver("fusionkit.run_name"):
        # OmegaConf 2.4 renamed it; before, that name belonged to something older.
        old = omegaconf.__version__.startswith("2.3")
        register: Any = OmegaConf.register_new_resolver if old else OmegaConf.register_resolver
        register("fusionkit.run_name", run_name)
    source.register()


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the checked, resolved, plain configuration; see ``fusionkit.config.compose``."""
    prepare()
    loader = CheckingLoader(search_path())
    loader.load_configuration(config_name="config", overrides=list(overrides), run_mode=RunMode.RUN, from_shell=False)
    return loader.config.tree
