"""What the hostile configs share: how they are shown to fire elsewhere, and how they are refused here."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import omegaconf
import pytest
from omegaconf import OmegaConf

from fusionkit.errors import ConfigError
from tests import tripwire
from tests.config import application as app

MARK = "${oc.env:TRIPWIRE}"
OPEN = {"_target_": "builtins.open", "file": MARK, "mode": "w"}
FIRE = {"_target_": "tests.tripwire.fire"}
EVIL = ["+experiment=evil"]
CALL = "{_target_: tests.tripwire.Fire}"


def instantiate(node: Any) -> Any:
    """Call Hydra's own function, which warns since 1.4 that it is not safe."""
    from hydra.utils import instantiate as plain

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return plain(node)


def arm_resolver() -> None:
    """Register a resolver that fires, as some plugin might."""
    old = omegaconf.__version__.startswith("2.3")
    register: Any = OmegaConf.register_new_resolver if old else OmegaConf.register_resolver
    register("tripwire", tripwire.fire)


def fired() -> bool:
    return bool(tripwire.fired) or Path(os.environ["TRIPWIRE"]).exists()


def disarm() -> None:
    tripwire.fired.clear()
    Path(os.environ["TRIPWIRE"]).unlink(missing_ok=True)


def refused(argv: list[str], key: str, found: str) -> None:
    """``fusionkit run`` refuses the config with its key and what was found, and runs and writes nothing."""
    disarm()
    with pytest.raises(ConfigError) as error:
        app.main(argv)
    message = str(error.value)
    assert key in message, message
    assert found in message, message
    assert "\n" not in message
    assert not fired()
    assert list(Path.cwd().iterdir()) == []


def experiment(text: str) -> dict[str, str]:
    return {"experiment/evil.yaml": "# @package _global_\n" + text}


class Evil:
    """Its pickle fires when it is read."""

    def __reduce__(self) -> Any:
        return tripwire.fire, ()
