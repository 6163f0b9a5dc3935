"""Every private name of Hydra 1.3 and 1.4 and of their OmegaConf, behind names that say what they do."""

from __future__ import annotations

import argparse
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import hydra
import omegaconf
from hydra import utils, version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.core.utils import setup_globals
from hydra.plugins.config_source import ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, SCMode

BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
BASIC_SWEEPER = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"

#: The parser of Hydra's own command line.
argument_parser: Callable[[], argparse.ArgumentParser] = get_args_parser
#: An empty search path.
search_path: Callable[[], ConfigSearchPath] = ConfigSearchPathImpl


def setup() -> None:
    """Set up Hydra in this process; its version base exists on 1.3 only."""
    if hydra.__version__.startswith("1.3") and type(version.getbase()).__name__ != "Version":
        version.setbase("1.3")
    setup_globals()


def register_resolver(name: str, function: Callable[..., Any]) -> None:
    """Register a resolver, in the place of an earlier one of that name."""
    # OmegaConf 2.4 renamed it; before, that name belonged to something older.
    old = omegaconf.__version__.startswith("2.3")
    register: Any = OmegaConf.register_new_resolver if old else OmegaConf.register_resolver
    register(name, function, replace=True)


@contextmanager
def application(loader: ConfigLoaderImpl) -> Iterator[Hydra]:
    """Make Hydra's application with this loader, the global one while the context lasts."""
    GlobalHydra.instance().clear()
    app = Hydra(task_name="fusionkit", config_loader=loader)
    GlobalHydra.instance().initialize(app)
    try:
        yield app
    finally:
        GlobalHydra.instance().clear()


def execution_whitelist(names: Iterable[str]) -> AbstractContextManager[Any]:
    """Return a context in which Hydra 1.4 calls nothing but what is listed; on 1.3 it does nothing."""
    whitelist: Any = getattr(utils, "execution_whitelist", None)
    return nullcontext() if whitelist is None else whitelist(list(names))


def number_of_jobs(overrides: list[Override]) -> int:
    """Return how many jobs Hydra's own sweeper makes of parsed overrides; none of them is made."""
    counts = {override.get_key_element(): _number_of_values(override) for override in overrides}
    return math.prod(counts.values())


def _number_of_values(override: Override) -> int:
    value = override.value()
    if isinstance(value, RangeSweep) and value.start is not None and value.stop is not None:
        return max(0, math.ceil((value.stop - value.start) / value.step))
    return sum(map(len, BasicSweeper.split_arguments([override], None)))


@contextmanager
def current_config(cfg: DictConfig) -> Iterator[None]:
    """Let ``${hydra:...}`` refer to ``cfg``, as it will once the job runs."""
    instance: Any = HydraConfig.instance()
    before = instance.cfg
    instance.cfg = cfg  # Its set_config would make cfg.hydra read-only.
    try:
        yield
    finally:
        instance.cfg = before


# -- nodes of OmegaConf ------------------------------------------------------------------------------------------------


def whole(node: Any) -> Any:
    """Return the config of which a node is part."""
    return node._get_root()


def is_root(node: Any) -> bool:
    """Whether a node is no part of a larger config."""
    return node._get_parent() is None


def raw(cfg: Any) -> Any:
    """Return a config as plain containers with its interpolations as text; nothing is resolved."""
    return _containers(cfg, resolve=False) if OmegaConf.is_config(cfg) else cfg


def resolved(cfg: Any) -> Any:
    """Return a config as plain containers with its interpolations resolved; they are not checked here."""
    return _containers(cfg, resolve=True)


def _containers(cfg: Any, *, resolve: bool) -> Any:
    return OmegaConf.to_container(
        cfg, resolve=resolve, throw_on_missing=False, enum_to_str=True, structured_config_mode=SCMode.DICT
    )


# -- loading -----------------------------------------------------------------------------------------------------------


def source_of(repository: Any, config_path: str) -> ConfigSource | None:
    """Return where a repository finds a config, or None."""
    return next((source for source in repository.get_sources() if source.is_config(config_path)), None)


class InspectingRepository(ConfigRepository):
    """Hydra's repository, which lets a subclass look at each config before anything of it is resolved."""

    def before_reading(self, config_path: str, source: ConfigSource) -> None:
        """Look at where a config comes from; raise to refuse it."""

    def after_reading(self, config_path: str, tree: Any) -> None:
        """Look at a config in plain containers, unresolved, its defaults list included; raise to refuse it."""

    def load_config(self, config_path: str) -> Any:
        """Read one config."""
        source = source_of(self, config_path)
        if source is not None:
            self.before_reading(config_path, source)
        return super().load_config(config_path)

    def _extract_defaults_list(self, config_path: str, cfg: Any) -> Any:
        self.after_reading(config_path, raw(cfg))
        return super()._extract_defaults_list(config_path, cfg)


class InspectingLoader(ConfigLoaderImpl):
    """Hydra's loader, which lets a subclass look at all that makes a configuration, before Hydra acts on it.

    Args:
        path: where configs are looked for.
        repository: made of ``path``.
        own: the entries of search paths that belong to Hydra, its plugins and the application.
    """

    def __init__(self, path: ConfigSearchPath, repository: InspectingRepository, own: Set[str]) -> None:
        super().__init__(path)
        self.repository = repository
        self._own = {entry if "://" in entry else f"file://{entry}" for entry in own}
        self._references: dict[tuple[str, ...], Mapping[str, Any]] = {}

    def inspect_overrides(self, overrides: list[Override], primary: Any) -> None:
        """Look at the command line and the unresolved primary config; raise to refuse them."""

    def inspect_hydra_node(self, found: Any, reference: Mapping[str, Any]) -> None:
        """Look at the unresolved ``hydra`` node that files make, beside what those that belong to Hydra make of it.

        It is called only where a file was read that does not belong to the application; raise to refuse the node.
        """

    def inspect_whole(self, cfg: DictConfig, run_mode: RunMode) -> None:
        """Look at the composed configuration; raise to refuse it."""

    def inspect_loaded(self, config_path: str, config: Any) -> None:
        """Look at a config each time that Hydra loads it, three times for each time that a defaults list has it."""

    @contextmanager
    def explaining_errors(self, overrides: Sequence[str]) -> Iterator[None]:
        """Return a context in which a configuration is composed; it may replace the errors."""
        yield

    def parse_overrides(self, config_name: str | None, overrides: list[str], alias_start: int = 0) -> list[Override]:
        """Parse the command line, as Hydra 1.4 does before it loads a configuration; 1.3 does not call this."""
        with self.explaining_errors(overrides):
            parsed: list[Override] = super().parse_overrides(config_name, overrides, alias_start)  # type: ignore[misc]
            return parsed

    def _load_configuration_impl(self, *args: Any, **kwargs: Any) -> DictConfig:
        given = inspect.signature(ConfigLoaderImpl._load_configuration_impl).bind(self, *args, **kwargs).arguments
        with self.explaining_errors(list(given["overrides"])):
            cfg: DictConfig = super()._load_configuration_impl(*args, **kwargs)
            self.inspect_whole(cfg, given["run_mode"])
            return cfg

    def _process_config_searchpath(self, config_name: str | None, parsed_overrides: list[Override], repo: Any) -> None:
        primary = repo.load_config(config_path=config_name) if config_name is not None else None
        self.inspect_overrides(parsed_overrides, None if primary is None else raw(primary.config))
        super()._process_config_searchpath(config_name, parsed_overrides, repo)
        load = repo.load_config

        def load_config(config_path: str) -> Any:
            if (found := load(config_path)) is not None:
                self.inspect_loaded(config_path, found.config)
            return found

        repo.load_config = load_config

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: Any) -> DictConfig:
        cfg: DictConfig = super()._compose_config_from_defaults_list(defaults, repo)
        belong = [one for one in defaults if self._belongs(one, repo)]
        if len(belong) < len(defaults):
            of_hydra = [one for one in belong if str(one.package).startswith("hydra")]
            self.inspect_hydra_node(raw(cfg).get("hydra"), self._reference(of_hydra))
        return cfg

    def _belongs(self, default: ResultDefault, repo: Any) -> bool:
        """Whether a config is the application's or Hydra's, and in the ``hydra`` node only where Hydra puts it."""
        path, package = str(default.config_path), str(default.package)
        place = "hydra" if path == "hydra/output/default" else path.rpartition("/")[0].replace("/", ".")
        source = source_of(repo, path)
        own = source is not None and f"{source.scheme()}://{source.path}" in self._own
        return own and (package == place or not package.startswith("hydra"))

    def _reference(self, defaults: list[ResultDefault]) -> Mapping[str, Any]:
        """Return the ``hydra`` node that configs of Hydra's own make."""
        key = tuple(str(default.config_path) for default in defaults)
        if key not in self._references:
            # Another repository, because composing changes the configs that one has read.
            composed = super()._compose_config_from_defaults_list(defaults, CachingConfigRepository(self.repository))
            self._references[key] = raw(composed).get("hydra", {})
        return self._references[key]
