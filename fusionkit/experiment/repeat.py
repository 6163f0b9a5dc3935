"""``fusionkit run --from RUN_DIR``: the same run again, compared with the first number by number."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file

from fusionkit._util.tables import print_table
from fusionkit.config.fits import preflight
from fusionkit.config.options import RunConfig, validate
from fusionkit.config.safe import check_tree
from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment import run
from fusionkit.experiment.job import EXPECTED, directory_lock, recorded
from fusionkit.experiment.results import MODEL, RESULT, read_result, shown

__all__ = ["differences", "repeat"]

#: What a run found out; everything else in a record says under which circumstances.
_FOUND = (
    *("status", "error", "config_hash", "data", "dims", "n", "l", "parameters"),
    *("metrics", "confusion", "robustness", "history"),
)
#: At most this many runs of a directory are named.
_LISTED = 12


def repeat(source: Path, run_dir: Path) -> int:
    """Run what ``source`` records again, in ``run_dir``, and print the comparison.

    The config is that of the record and is checked like any other, so a hostile directory runs nothing.

    Args:
        source: the directory of a run, completed or failed.
        run_dir: of the repetition.

    Returns:
        0: everything that was found out is the same, bit for bit; or ``source`` had failed, and now it completed.

    Raises:
        FusionError: the repetition differs from ``source``, or fails.
        ConfigError: ``source`` is no run, holds several, or its config is not permitted.
    """
    if not source.is_dir():
        raise ConfigError(f"--from should be the directory of a run; found no directory {source}.")
    if source.resolve() == run_dir.resolve():
        raise ConfigError(f"The repetition should be written elsewhere; found {source} as hydra.run.dir too.")
    if runs := [] if (source / RESULT).exists() else sorted(source.glob(f"*/{RESULT}")):
        names = ", ".join(shown(run.parent) for run in runs[:_LISTED])
        more = f" and {len(runs) - _LISTED} more" if len(runs) > _LISTED else ""
        raise ConfigError(f"--from should be the directory of one run; found {source} with the runs {names}{more}.")
    if not (source / RESULT).exists():
        why = "; that run was killed, or goes on" if (source / ".hydra").is_dir() else ""
        raise ConfigError(f"--from should be the directory of a run; found no {RESULT} in {source}{why}.")
    first = read_result(source / RESULT)
    config = _config(first, source / RESULT)
    if first["status"] != "completed":
        _again(first, source, config, run_dir)
        return 0
    second = _run(config, run_dir)
    found = dict(differences(first, second))
    kept = (source / MODEL).is_file()  # A study keeps records only.
    if kept and second["status"] == "completed":
        found.update(_tensors(source / MODEL, run_dir / MODEL))
    changed = dict(_circumstances(first, second))
    if found or changed:
        rows = [(key, *_texts(*pair)) for key, pair in (*found.items(), *changed.items())]
        print_table(("what", "then", "now"), rows)
    since = f" Since then {_list(changed)} changed." if changed else ""
    if found:
        raise FusionError(
            f"The repetition of {shown(source)} should give the same; found another {_list(found)}.{since}"
        )
    accuracy = second["metrics"].get("accuracy")
    parts = "curves, confusion and every weight" if kept else "curves and confusion; it has kept no weights"
    print(f"the same as {shown(source)}, bit for bit: accuracy {accuracy}, {parts}.{since}")
    return 0


def _again(first: Mapping[str, Any], source: Path, config: RunConfig, run_dir: Path) -> None:
    """Run anew what had failed or was interrupted."""
    place = shown(source)
    print(
        f"note: {place} did not complete ({first.get('error')}), so there is nothing to compare with", file=sys.stderr
    )
    second = _run(config, run_dir)
    if second["status"] != "completed":
        how = "as the run did" if second["error"] == first.get("error") else "too, in another way"
        raise FusionError(f"The repetition of {place} failed {how}: {second['error']}")
    print(f"completed, which {place} had not: accuracy {second['metrics'].get('accuracy')}.")


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield what two records found out differently: key, dotted, and both values."""
    for key in _FOUND:
        yield from _differences(key, first.get(key), second.get(key))


def _differences(key: str, first: Any, second: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for name in sorted({*first, *second}):
            yield from _differences(f"{key}.{name}", first.get(name), second.get(name))
    elif first != second:
        yield key, (first, second)


def _circumstances(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for key, pair in _differences("provenance", first.get("provenance"), second.get("provenance")):
        yield key.removeprefix("provenance.").removeprefix("versions."), pair


def _tensors(first: Path, second: Path) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yield the model file if the tensors in it are not equal, bit for bit."""
    try:
        then, now = load_file(first), load_file(second)
    except (OSError, SafetensorError) as error:
        raise FusionError(f"{first} should be a complete safetensors file; found it damaged ({error}).") from error
    if then.keys() != now.keys():
        yield MODEL, (f"{len(then)} tensors", f"{len(now)} tensors")
        return
    other = [name for name in then if then[name].shape != now[name].shape or not torch.equal(then[name], now[name])]
    if other:
        gap = max(
            float((then[name].double() - now[name].double()).abs().max())
            for name in other
            if then[name].shape == now[name].shape
        )
        yield MODEL, ("", f"{len(other)} tensors differ, by up to {gap:.3g}")


def _config(record: Mapping[str, Any], path: Path) -> RunConfig:
    cfg = record.get("config")
    if not isinstance(cfg, dict) or not cfg:
        raise FusionError(f"{path} should hold the config of its run; found {cfg!r}.")
    check_tree(cfg)
    return validate(cfg)


def _run(config: RunConfig, run_dir: Path) -> Mapping[str, Any]:
    """Run the config; a failure is a result too."""
    cfg = config.tree
    try:
        (run_dir / ".hydra").mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(cfg), run_dir / ".hydra" / "config.yaml")
    except OSError as error:
        raise FusionError(f"The run directory should be writable; found {error}.") from error
    with directory_lock(run_dir, wait=False):
        try:
            with recorded(cfg, run_dir):
                preflight(config, cfg["fusion"].get("parameter_fabrication") == cfg["fabrication"])
                return run.run_job(config, run_dir)
        except EXPECTED:
            return read_result(run_dir / RESULT)


def _texts(first: Any, second: Any) -> tuple[str, str]:
    """Return both values, short; of lists, the first entries that differ."""
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        index = next(i for i, (one, other) in enumerate(zip(first, second, strict=True)) if one != other)
        then, now = _texts(first[index], second[index])
        return f"[{index}] {then}", f"[{index}] {now}"
    return _short(first), _short(second)


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _list(found: Mapping[str, Any]) -> str:
    return ", ".join(found)
