"""The config source ``fusionkit://``: a node for all that is registered and has no YAML, made on demand."""

from __future__ import annotations

from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from fusionkit import registry
from fusionkit.config.nodes import GROUPS, find_record, kind_and_name, node_text


class RegistryConfigSource(ConfigSource):
    """Serves the groups ``fusion``, ``fabrication`` and ``data``.

    Listing imports no operator, loading only the one selected; no data are read.
    """

    @staticmethod
    def scheme() -> str:
        """Return the scheme of the search path."""
        return "fusionkit"

    def available(self) -> bool:
        """Return True: the registry is always there."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether ``config_path`` is the group of a kind."""
        return config_path.strip("/") in ("", *GROUPS)

    def is_config(self, config_path: str) -> bool:
        """Whether the registry has the name; aliases and qualified names count."""
        place = kind_and_name(config_path)
        return place is not None and find_record(*place) is not None

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the node of one operator or data set."""
        place = kind_and_name(config_path)
        text = node_text(*place) if place is not None else None
        if place is None or text is None:
            raise ConfigLoadError(f"Config not found : {config_path}")
        # A qualified name contains a slash, which Hydra would take for a sub-group.
        package = config_path.strip("/").partition("/")[0] if "/" in place[1] else None
        return ConfigResult(
            config=OmegaConf.create(text),
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header={"package": package},
        )

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """List what is registered, from names alone."""
        group = config_path.strip("/")
        if group == "":
            return [] if results_filter == ObjectType.CONFIG else [*GROUPS]
        if group not in GROUPS or results_filter == ObjectType.GROUP:
            return []
        return registry.names(GROUPS[group])


def register() -> None:
    """Make Hydra know the scheme; safe to call often."""
    Plugins.instance().register(RegistryConfigSource)
