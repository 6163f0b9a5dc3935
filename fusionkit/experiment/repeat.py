"""``fusionkit run --from RUN_DIR``: repeats a run and compares the results number by number."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from fusionkit._util.distribution import unprefixed
from fusionkit._util.tables import print_table
from fusionkit._util.text import one_line
from fusionkit._util.trees import flatten
from fusionkit.config.fits import preflight
from fusionkit.config.interpolations import MAX_NODES
from fusionkit.config.keys import walk
from fusionkit.config.options import RunConfig, validate
from fusionkit.config.safe import check_tree
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment.job import directory_lock, run_recorded
from fusionkit.experiment.load import read_tensors
from fusionkit.experiment.results import MODEL, RESULT, read_result, resumable_after, save_configs, shown
from fusionkit.experiment.run import takes_group

#: The keys of a record that are results; the others describe the circumstances.
_FOUND = (
    *("status", "error", "config_hash", "data", "dims", "n", "l", "parameters", "task", "metric", "classes", "targets"),
    *("metrics", "validation", "baseline", "best_epoch", "confusion", "robustness", "weights", "views", "history"),
)
#: An error names at most this many runs of a directory.
_LISTED = 12


def repeat(source: Path, run_dir: Path) -> int:
    """Repeat the run in ``source``, in ``run_dir``, and print the comparison.

    The config is that of the record and is checked like any other, so a hostile directory runs nothing.

    Args:
        source: the directory of a run, completed or failed.
        run_dir: the directory of the repetition.

    Returns:
        0: all results are the same, bit for bit; or ``source`` had failed, and the repetition completed.

    Raises:
        FusionError: the repetition differs from ``source``, or fails.
        ConfigError: ``source`` is no run, holds several, or its config is not permitted.
    """
    _check_directories(source, run_dir)
    first = read_result(source / RESULT)
    config = checked_config(first.get("config"), source / RESULT)
    if first["status"] != "completed":
        _repeat_failed(first, source, config, run_dir)
        return 0
    second = _run(config, run_dir)
    found = differences(first, _comparable(first, second))
    kept = (source / MODEL).exists()  # A study keeps records only.
    if kept and second["status"] == "completed":
        found.update(_tensors(source / MODEL, run_dir / MODEL))
    provenance = differences(first, second, ("provenance",))
    changed = {re.sub(r"^provenance\.(versions\.)?", "", key): pair for key, pair in provenance.items()}
    if found or changed:
        rows = [(key, *_texts(*pair)) for key, pair in (*found.items(), *changed.items())]
        print_table(("what", "then", "now"), rows)
    since = f" Since then {', '.join(changed)} changed." if changed else ""
    if second["status"] != "completed":
        raise FusionError(f"The repetition of {shown(source)} failed: {second['error']}")
    if "data.digest" in found:
        what = f"another content of {second['data'].get('label')}"
        raise FusionError(f"The repetition of {shown(source)} should have the same data; found {what}.{since}")
    if found:
        raise FusionError(
            f"The repetition of {shown(source)} should give the same; found another {', '.join(found)}.{since}"
        )
    same = [*measured(second), "curves"]
    same += [what for what, there in (("confusion", second.get("confusion")), ("every weight", kept)) if there]
    *others, last = same
    text = f"{', '.join(others)} and {last}" if others else last
    print(f"the same as {shown(source)}, bit for bit: {text}{'' if kept else '; it has kept no weights'}.{since}")
    return 0


def _check_directories(source: Path, run_dir: Path) -> None:
    if not source.is_dir():
        raise ConfigError(f"--from should be the directory of a run; found no directory {source}.")
    if source.resolve() == run_dir.resolve():
        raise ConfigError(f"The repetition should be written elsewhere; found {source} as hydra.run.dir too.")
    if (source / RESULT).exists():
        return
    if runs := sorted(source.glob(f"*/{RESULT}")):
        names = ", ".join(shown(run.parent) for run in runs[:_LISTED])
        more = f" and {len(runs) - _LISTED} more" if len(runs) > _LISTED else ""
        raise ConfigError(f"--from should be the directory of one run; found {source} with the runs {names}{more}.")
    why = "; that run was killed or is still running" if (source / ".hydra").is_dir() else ""
    if place := resumable_after(source):
        why = f"; that run was stopped after {place}, from where --resume goes on, or is still running"
    raise ConfigError(f"--from should be the directory of a run; found no {RESULT} in {source}{why}.")


def _repeat_failed(first: Mapping[str, Any], source: Path, config: RunConfig, run_dir: Path) -> None:
    """Repeat a run that failed or was interrupted."""
    place = shown(source)
    after = resumable_after(source)
    other = f"; `fusionkit run --resume {place}` goes on after {after}" if after else ""
    why = f"did not complete ({first.get('error')}), so there is nothing to compare with"
    print(f"note: {place} {why}{other}", file=sys.stderr)
    second = _run(config, run_dir)
    if second["status"] != "completed":
        how = "as the run did" if second["error"] == first.get("error") else "too, in another way"
        raise FusionError(f"The repetition of {place} failed {how}: {second['error']}")
    print(f"completed, which {place} had not{''.join(f': {text}' for text in measured(second))}.")


def measured(result: Mapping[str, Any]) -> list[str]:
    """Return the metric that ranks with its value on the test part, or on the validation part if that is the only one;
    nothing for a run that has neither.
    """
    metric = result.get("metric", "accuracy")  # Records of version 0.1 have none.
    if result["metrics"]:
        return [f"{metric} {result['metrics'].get(metric)}"]
    return [f"validation {metric} {result['validation'].get(metric)}"] if result.get("validation") else []


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any], keys: Sequence[str] = _FOUND
) -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys that differ between two records, at and below ``keys``, with both values.

    The versions of distributions are keys, and one that got a prefix since the first record is not another.
    """
    then, now = (
        {".".join(map(unprefixed, path)): value for path, value in flatten({key: record.get(key) for key in keys})}
        for record in (first, second)
    )
    return {key: (then.get(key), now.get(key)) for key in then | now if then.get(key) != now.get(key)}


def _comparable(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the second record without the results that the first one's release did not record."""
    found = {**second, "robustness": _robustness(first, second)}
    found |= {key: second.get(key) if key in first else None for key in ("weights", "views")}
    if "task" in first:
        return found
    found = {key: value for key, value in found.items() if key in first}
    for key in ("data", "metrics", "history"):
        then, now = first.get(key), found.get(key)
        if isinstance(then, Mapping) and isinstance(now, Mapping):
            found[key] = {name: value for name, value in now.items() if name in then}
    return found


def _robustness(first: Mapping[str, Any], second: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the robustness in the second record; what the first one's release did not measure in this way counts as
    equal.
    """
    then, now = first.get("robustness"), second.get("robustness")
    if not then or not now:
        return now
    # Before masks came, with `missing_rate`, training means stood for missing views.
    others = () if "missing_rate" in then else ("missing", "only")
    return {kind: then[kind] if kind in others else now[kind] for kind in now if kind in then}


def _tensors(first: Path, second: Path) -> dict[str, tuple[Any, Any]]:
    """Return the name of the model file, and both descriptions, if its tensors are not equal, bit for bit."""
    then, now = read_tensors(first), read_tensors(second)
    if then.keys() != now.keys():
        return {MODEL: (f"{len(then)} tensors", f"{len(now)} tensors")}
    other = [name for name in then if then[name].shape != now[name].shape or not torch.equal(then[name], now[name])]
    same_shape = [name for name in other if then[name].shape == now[name].shape]
    gap = max((float((then[name].double() - now[name].double()).abs().max()) for name in same_shape), default=math.nan)
    return {MODEL: ("", f"{len(other)} tensors differ, by up to {gap:.3g}")} if other else {}


def checked_config(cfg: Mapping[str, Any] | None, path: Path) -> RunConfig:
    """Return the config of a run from its file ``path``, checked like any other.

    Raises:
        FusionError, ConfigError: there is none, or it is not permitted, or does not fit this machine.
    """
    if not cfg:
        raise FusionError(f"{path} should contain the config of its run; found {cfg!r}.")
    if sum(1 for _ in walk(cfg)) > MAX_NODES:
        raise ConfigError(f"The config in {path} should have at most {MAX_NODES} values; found more.")
    check_tree(cfg)
    config = validate(cfg)
    preflight(config, takes_group(config))
    return config


def _run(config: RunConfig, run_dir: Path) -> Mapping[str, Any]:
    """Run the config and return its record, also of a failed run."""
    try:
        with directory_lock(run_dir, wait=False):
            save_configs(run_dir / ".hydra", run_dir, {"config": OmegaConf.create(config.tree)})
            return run_recorded(config.tree, run_dir)
    except OSError as error:
        raise FusionError(f"The run directory should be writable; found {error}.") from error


def _texts(first: Any, second: Any) -> tuple[str, str]:
    """Return both values, short; of lists, the first entries that differ."""
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        index = next(i for i, (one, other) in enumerate(zip(first, second, strict=True)) if one != other)
        then, now = _texts(first[index], second[index])
        return f"[{index}] {then}", f"[{index}] {now}"
    then, now = ("-" if value is None else one_line(str(value), 40) for value in (first, second))
    return then, now
