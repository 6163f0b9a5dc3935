"""What only the machine or the combination of options can tell, asked before a job starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusionkit.errors import ConfigError, FusionError

__all__ = ["preflight"]


def preflight(cfg: Mapping[str, Any], fabrication_of_group: bool = True) -> None:
    """Check the device and that fusion and fabrication go together.

    Args:
        cfg: checked, resolved, plain.
        fabrication_of_group: whether the fusion takes its fabrication from the group, by reference.

    Raises:
        FusionError: there is no such device.
        ConfigError: a fabrication was chosen for a fusion that does not take one, or that fixes its own.
    """
    _check_device(str(cfg["device"]))
    _check_fabrication(cfg, fabrication_of_group)


def _check_device(name: str) -> None:
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "cpu" and device.index:  # Which torch takes for the CPU too.
            raise RuntimeError(f"there is no {name}")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise FusionError(f"device should be one of this machine: {', '.join(there)}; found {name!r}.") from error
    if device.type == "meta":
        raise FusionError("device should be one that computes; found 'meta'.")


def _check_fabrication(cfg: Mapping[str, Any], fabrication_of_group: bool) -> None:
    chosen = cfg["fabrication"]
    if chosen["name"] == "dense":
        return
    fusion = cfg["fusion"]
    if "parameter_fabrication" not in fusion:
        raise ConfigError(
            f"fabrication should be dense, because the fusion {fusion['name']!r} takes none; found {chosen['name']!r}."
        )
    if not fabrication_of_group:
        own = fusion["parameter_fabrication"]
        name = own.get("name") if isinstance(own, Mapping) else own
        raise ConfigError(
            f"fabrication should be left at dense, because this fusion fixes its own, {name!r}; "
            f"found {chosen['name']!r}.  fusion=parameterized_concatenation takes any."
        )
