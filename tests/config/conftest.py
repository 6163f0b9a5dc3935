"""Hostile configs need Hydra's global state, and logging, as they were."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests import tripwire
from tests.config.hostile.attacks import arm_resolver


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty directory, with the tripwire armed, and leave logging and Hydra's singletons as they were."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    home = tmp_path / "cwd"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("TRIPWIRE", str(tmp_path / "fired"))
    tripwire.fired.clear()
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    config = HydraConfig.instance().cfg
    yield
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    for handler in handlers:
        if handler not in root.handlers:
            root.addHandler(handler)
    root.setLevel(level)
    HydraConfig.instance().cfg = config
    GlobalHydra.instance().clear()


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Write a folder of configs from texts by path, and return it."""

    def write(files: dict[str, str]) -> Path:
        base = tmp_path / "untrusted"
        base.mkdir(exist_ok=True)
        for name, text in files.items():
            file = base / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return base

    return write


@pytest.fixture
def plain_hydra() -> Callable[..., Any]:
    """Run Hydra as it is, without fusionkit's checks, on fusionkit's and an untrusted folder."""

    def run(
        untrusted: Path,
        overrides: list[str],
        *,
        multirun: bool = False,
        config_name: str = "config",
        task: Callable[[Any], Any] = lambda cfg: None,
    ) -> Any:
        from hydra._internal.config_loader_impl import ConfigLoaderImpl

        from fusionkit.config.composition import prepare, search_path
        from fusionkit.config.hydra_bridge import application

        prepare()
        with application(ConfigLoaderImpl(search_path(None, str(untrusted)))) as hydra:
            act = hydra.multirun if multirun else hydra.run
            mode = "hydra.mode=MULTIRUN" if multirun else "hydra.mode=RUN"
            return act(config_name=config_name, task_function=task, overrides=[*overrides, mode])

    return run


@pytest.fixture
def _tripwire_resolver(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SECRET", "swordfish")
    arm_resolver()
    yield
    OmegaConf.clear_resolver("tripwire")
