"""The resolver ``${fusionkit.run_name:}``: the name of a job's directory in a sweep."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["run_name"]


def run_name(with_device: str = "", *, _root_: Any) -> str:
    """Return the hash of the whole configuration, followed by its device if ``with_device`` is not empty."""
    from fusionkit.config.composition import plain_config
    from fusionkit.config.hashing import config_hash

    plain = plain_config(_root_)
    name = config_hash(plain)
    return f"{name}-{re.sub(r'[^A-Za-z0-9]+', '', str(plain.get('device')))}" if with_device else name
