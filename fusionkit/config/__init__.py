"""Configuration: where the YAML files are, what a config may build, and how it is checked before anything is built.

Importing this package imports neither torch nor hydra; its functions do, when they need them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["allow", "build", "compose", "conf_dir", "config_hash", "node"]


def conf_dir() -> Path:
    """Return the absolute path of fusionkit's own folder of configs, wherever fusionkit is installed.

    Raises:
        ConfigError: the installation has no such folder.
    """
    from fusionkit.config.folders import conf_dir as implementation

    return implementation()


def allow(target: str | type | Callable[..., Any]) -> None:
    """Let configs of this process name ``target`` (a class, a function, or its dotted name) as a ``_target_``.

    It has no counterpart in a config or an environment variable, on purpose.

    Raises:
        ConfigError: the dotted name leads to nothing, or to something that cannot be called.
    """
    from fusionkit.core.allowed import allow as implementation

    implementation(target)


def build(node: Mapping[str, Any], key: str = "") -> Any:
    """Build the object that a node such as ``cfg.fusion`` describes, after checking all of the node.

    Args:
        node: a mapping with ``_target_``; a ``DictConfig`` is resolved first.
        key: the dotted key of the node, for messages.

    Raises:
        ConfigError: a ``_target_`` that is not allowed, a key that controls instantiation, or an unsafe interpolation.
    """
    from fusionkit.config.safe import build as implementation

    return implementation(node, key)


def compose(overrides: list[str] | None = None) -> dict[str, Any]:
    """Return the configuration that ``fusionkit run OVERRIDES`` would use: checked, resolved, in plain containers.

    Raises:
        ConfigError: what is wrong with the configuration, with the dotted key.
    """
    from fusionkit.config.composition import compose as implementation

    return implementation(overrides or [])


def config_hash(cfg: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that name the experiment ``cfg`` describes.

    The order of keys, the device and the ``hydra`` node do not matter.  A data file counts by its content; the
    versions of the operators' distributions count.
    """
    from fusionkit.config.hashing import config_hash as implementation

    return implementation(cfg)


def node(kind: Literal["fusion", "fabrication"], name: str) -> str | None:
    """Return the YAML text of the config node of an operator: its file, or the one generated from its signature.

    None when there is neither.
    """
    from fusionkit.config.nodes import node_text

    return node_text(kind, name)
