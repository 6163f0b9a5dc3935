"""``fusionkit run --resume RUN_DIR``: goes on with a run that was stopped, from its last checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from fusionkit.config.hashing import config_hash
from fusionkit.config.options import RunConfig
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment import run
from fusionkit.experiment.checkpoint import Checkpoint, newest
from fusionkit.experiment.job import directory_lock, recorded
from fusionkit.experiment.repeat import checked_config, measured
from fusionkit.experiment.results import RESULT, read_result, shown, versions


def resume(run_dir: Path) -> int:
    """Go on with the run in ``run_dir``; it ends with the numbers of a run that was never stopped.

    The config is that of the checkpoint and is checked like any other, so a hostile directory runs nothing.

    Returns:
        0: the run is completed, maybe since before.

    Raises:
        FusionError: no checkpoint, other data than then, or the run fails.
        ConfigError: no directory, or a config that is not permitted.
    """
    if not run_dir.is_dir():
        raise ConfigError(f"--resume should be the directory of a run; found no directory {shown(run_dir)}.")
    try:
        with directory_lock(run_dir, wait=False):
            if not _is_complete(run_dir):
                _go_on(run_dir, _found(run_dir))
    except OSError as error:
        raise FusionError(f"The run directory should be writable; found {error}.") from error
    return 0


def _is_complete(run_dir: Path) -> bool:
    """Whether the run is completed, which is then printed."""
    if not (run_dir / RESULT).is_file():
        return False
    result = read_result(run_dir / RESULT)
    if result["status"] != "completed":
        return False
    print(f"{shown(run_dir)} is completed{''.join(f': {text}' for text in measured(result))}; nothing is left to do.")
    return True


def _found(run_dir: Path) -> Checkpoint:
    """Return the newest checkpoint; notes name newer ones that are damaged."""
    found, problems = newest(run_dir)
    if found is None and problems:
        raise FusionError(f"{shown(run_dir)} should contain a complete checkpoint; found none: {problems[0]}")
    if found is None:
        again = f"fusionkit run --from {shown(run_dir)}" if (run_dir / RESULT).is_file() else "the same command"
        advice = f"train.checkpoint_every=5 writes one every 5 epochs; {again} runs it from the beginning."
        raise FusionError(f"{shown(run_dir)} should contain a checkpoint; found none.  {advice}")
    for problem in problems:
        print(f"note: {problem}  The checkpoint of {found.place} is used.", file=sys.stderr)
    return found


def _go_on(run_dir: Path, found: Checkpoint) -> None:
    config = checked_config(found.facts.config, found.path)
    given = run.read(config)
    data, digest = given[0], found.facts.data
    if data.digest != digest:
        what = f"The data of {shown(run_dir)} should be those of its checkpoint, with the digest {digest[:8]}"
        raise FusionError(f"{what}; found another content of {data.label}, {data.digest[:8]}.")
    for note in _changes(found, config):
        print(f"note: {note}, so the numbers may differ from those of a run that was not stopped", file=sys.stderr)
    with recorded(config.tree, run_dir):
        run.run_job(config, run_dir, given=given, found=found)


def _changes(found: Checkpoint, config: RunConfig) -> Iterator[str]:
    """Yield what has changed since the checkpoint and may change the result."""
    then, now = found.facts.versions, versions(config.tree)
    changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    for name in changed:
        yield f"the checkpoint is of {name} {then.get(name, '(none)')}, and {now.get(name, 'none')} is installed"
    if not changed and found.facts.config_hash != config_hash(config.tree):
        yield "the source of an operator has changed since the checkpoint"
