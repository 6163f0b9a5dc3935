"""Configuration: where the YAML files are, what a config may build, and how it is checked before anything is built.

Importing this package imports neither torch nor hydra; its functions do, when they need them.
"""

from typing import Any

from fusionkit.config.folders import conf_dir
from fusionkit.config.hashing import config_hash
from fusionkit.config.nodes import node_text as node
from fusionkit.config.safe import build
from fusionkit.core.allowed import allow

__all__ = ["allow", "build", "compose", "conf_dir", "config_hash", "node"]


def compose(overrides: list[str] | None = None) -> dict[str, Any]:
    """Return the configuration that ``fusionkit run OVERRIDES`` would use: checked, resolved, in plain containers.

    Args:
        overrides: as on the command line, such as ``["fusion=summation", "train.epochs=5"]``.

    Raises:
        ConfigError: what is wrong with the configuration, with the dotted key.
    """
    from fusionkit.config.composition import compose as implementation  # It imports hydra.

    return implementation(overrides or [])
