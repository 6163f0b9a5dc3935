"""A single run: composed once, checked before anything is written, then run by Hydra in its directory."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fusionkit.config.fits import check_operator, preflight, uses_n
from fusionkit.config.options import RunConfig
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment import ranks, run
from fusionkit.experiment.job import EXPECTED, check_logs, directory_lock, objective, recorded, save_composed
from fusionkit.experiment.sweep import run_sweep


def run_single(hydra: Any, name: str, overrides: Sequence[str]) -> int:
    """Run the config ``name`` with the overrides; as a sweep, if the config has Hydra's mode MULTIRUN.

    Args:
        hydra: Hydra, with a checking loader of level ``all``.
        name: of the primary config.
        overrides: of the command line.

    Returns:
        0, or 1 if a job of a sweep failed.

    Raises:
        ConfigError: the configuration is wrong, or does not fit this machine or its data; nothing was written.
        FusionError: the run failed; its record is written.
    """
    cfg = _composed(hydra, name, overrides)
    if cfg is None:
        return run_sweep(hydra, name, overrides)
    config = hydra.config_loader.config
    ranks.check(config.train)
    try:
        preflight(config, run.takes_group(config))
        given = run.read(config)
        width = check_operator(config, given[0].dims, given[0].task.outputs)
        _check_given_n(config, overrides, width)
    except FusionError as error:
        raise ConfigError(str(error)) from error
    failures: list[Exception] = []

    def job(task: DictConfig) -> float | None:
        run_dir = Path(HydraConfig.get().runtime.output_dir).absolute()
        try:
            with directory_lock(run_dir, wait=False), recorded(config.tree, run_dir):
                check_logs(run_dir)
                save_composed(task, run_dir, subdir)
                return objective(run.run_job(config, run_dir, given=given))
        except EXPECTED as error:  # Hydra would print a traceback.
            failures.append(error)
            return None

    hydra.compose_config = lambda **options: cfg  # Hydra would compose it once more.
    cfg.hydra.run.dir = os.path.expanduser(cfg.hydra.run.dir)
    subdir, cfg.hydra.output_subdir = cfg.hydra.output_subdir, None  # ``save_composed`` writes it.
    try:
        hydra.run(config_name=name, task_function=job, overrides=list(overrides))
    except OSError as error:
        raise FusionError(f"The run directory should be writable; found {error}.") from error
    if failures:
        raise failures[0]
    return 0


def _check_given_n(config: RunConfig, overrides: Sequence[str], width: int | None) -> None:
    """Print a note if the command line gives an n that changes nothing; ``width`` is that of the output, if known.

    Raises:
        ConfigError: without a head the output has as many entries as the task has outputs, and n is another number.
    """
    values = {"n": config.n, "fusion.n": config.fusion.n}
    given = [values[key] for key in values if any(one.lstrip("+").startswith(f"{key}=") for one in overrides)]
    wrong = [n for n in given if n not in (None, width)]
    if not wrong or width is None or uses_n(config):
        return
    if config.model.head == "none":
        outputs = f"{width}, the number of classes, labels or targets"
        raise ConfigError(f"n should be {outputs}, or not given, because model.head is none; found {wrong[0]}.")
    what = f"the output of the fusion {config.fusion.name!r} has the width {width}, which follows from its views"
    print(f"note: n={config.n} is not used, because {what}.", file=sys.stderr)


def _composed(hydra: Any, name: str, overrides: Sequence[str]) -> DictConfig | None:
    """Return the configuration of a single run, None for a sweep (an experiment's file may choose that mode)."""
    options = {"config_name": name, "overrides": list(overrides)}
    try:
        cfg: DictConfig = hydra.compose_config(**options, run_mode=RunMode.RUN, with_log_configuration=True)
        mode = cfg.hydra.mode
    except ConfigError:  # The values, or the command line, may be those of a sweep.
        with contextlib.suppress(ConfigError):
            cfg = hydra.compose_config(**options, run_mode=RunMode.MULTIRUN, validate_sweep_overrides=False)
            if cfg.hydra.mode == RunMode.MULTIRUN:
                return None
        raise
    return None if mode == RunMode.MULTIRUN else cfg
