"""The files of a run: written under a temporary name and renamed when complete, ``result.json`` last."""

from __future__ import annotations

import contextlib
import json
import math
import platform
import re
import stat
import subprocess
import traceback
import warnings
from collections.abc import Mapping
from functools import lru_cache, partial
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from fusionkit import registry
from fusionkit._util.distribution import DISTRIBUTION, version
from fusionkit._util.files import TEMPORARY, write_atomic, write_json
from fusionkit._util.machine import cpu_count
from fusionkit._util.text import error_message, one_line, short_repr
from fusionkit.config.hashing import config_hash
from fusionkit.config.keys import MAX_DEPTH
from fusionkit.config.sentences import mistakes
from fusionkit.config.types import Text
from fusionkit.errors import FusionError, RegistryError
from fusionkit.registry.catalogue import KINDS

SCHEMA_VERSION: Final = 1
RESULT, MODEL, CURVE, ROWS = "result.json", "model.safetensors", "curve.png", "rows.npz"
#: Only of a fusion that says how much each view counts.
WEIGHTS = "weights.png"
#: Unless `train.importance=false`.
VIEWS = "views.png"

_CHECKPOINT = re.compile(r"checkpoint-(refit-)?(\d{6,9})\.safetensors")

#: The distributions that every run uses besides those of its operators.
_DISTRIBUTIONS = (
    *("torch", "numpy", "scikit-learn", "scipy", "lightning-fabric", "safetensors"),
    *("hydra-core", "omegaconf", "pluggy", "matplotlib", "rich"),
)

#: A record that is larger is not read.
_MAX_BYTES: Final = 64_000_000

#: JSON promises no greater integers.
Natural = Annotated[int, Field(ge=0, le=2**53)]
Integer = Annotated[int, Field(ge=-(2**53), le=2**53)]
Name = Annotated[Text, Field(max_length=255)]


class Data(BaseModel):
    """``data`` of a result: what is known of the data of a run."""

    model_config = ConfigDict(strict=True, extra="allow")

    name: Name | None = Field(None, description="mfeat, npz, ...")
    label: Name | None = Field(None, description="That name, or the name of the file.")
    digest: Name | None = Field(None, description="SHA-256 of the file, or of the arrays.")
    training_rows: Natural | None = Field(None, description="The rows of the training part.")
    validation_rows: Natural | None = Field(None, description="The rows of the validation part; 0: there is none.")
    test_rows: Natural | None = Field(None, description="The rows of the test part.")
    missing: dict[str, Natural] | None = Field(None, description="Where views are absent: by view, from how many rows.")
    rows_without_views: Natural | None = Field(None, description="Likewise: the rows without any view.")


class Result(BaseModel):
    """``result.json``.  Within a schema version records only gain keys, so a reader should accept unknown ones.

    A value copied from the config is null in the record of a failed run if the config is wrong there.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    schema_version: Literal[1] = SCHEMA_VERSION
    status: Literal["completed", "failed"] = Field(description="How the run ended.")
    error: Text | None = Field(None, description="Why it failed.")
    error_type: Text | None = Field(None, description="The class of that error.")
    traceback: Text | None = Field(None, description="Where it was raised.")
    fusion: Name | None = Field(None, description="Name of the operator.")
    fabrication: Name | None = Field(None, description="Name of its fabrication; null where it takes none.")
    dims: list[Integer] | None = Field(None, description="Widths of the views that the fusion sees.")
    data_dims: list[Integer] | None = Field(None, description="Widths of the views of the data.")
    n: Integer | None = Field(None, description="Width of the fusion's output.")
    l: Natural | None = Field(None, description="Learnable parameters of the fusion.")
    parameters: Natural | None = Field(None, description="Trainable parameters of the whole model.")
    seed: Integer | None = Field(
        None, description="Seed of the split, the initial values and the order of the batches."
    )
    # Records of earlier versions lack the task; all their runs were classifications.
    task: Literal["classification", "multilabel", "regression"] = Field(
        "classification", description="What was learnt: classification, multilabel or regression."
    )
    metric: Name = Field("accuracy", description="The metric that ranks the run; rmse, mae, log_loss: less is better.")
    metrics: dict[str, float | None] = Field(
        {}, description="On the test part: accuracy, f1_macro, log_loss, ...; null: undefined there."
    )
    validation: dict[str, float | None] | None = Field(
        None, description="The same on the validation part; null: there is none."
    )
    baseline: dict[str, float | None] | Name | None = Field(
        None,
        description="The same on the test part, for the largest class or the mean of the training part; in the record "
        "of a study's baseline its name.",
    )
    best_epoch: Natural | None = Field(None, description="The epoch of the model that was kept.")
    seconds: Annotated[float, Field(ge=0, le=1e10)] | None = Field(None, description="Duration of the run.")
    config_hash: Name | None = Field(None, description="Hash of the config, its data and the operators' versions.")
    encoder: Name | None = Field(None, description="The encoder in front of the fusion, one per view.")
    data: Data = Field({}, description="Name, digest, rows and views of the data.")  # type: ignore[assignment]
    classes: list[Any] | None = Field(None, description="The label values, in the order of the logits.")
    targets: list[str] | None = Field(None, description="The names of the numbers that a regression predicts.")
    confusion: list[list[int]] | None = Field(None, description="Rows of the test part by true and predicted class.")
    robustness: dict[str, dict[str, float | None]] | None = Field(
        None, description="The task's first metric on the test part with views missing or noisy."
    )
    weights: dict[str, dict[str, float | None]] | None = Field(
        None,
        description="By true class or label, or `all` for a regression: the mean weight of each view in the "
        "fusion, over the test rows that have the view; null: there are none, or the fusion says nothing.",
    )
    views: dict[str, dict[str, float | None]] | None = Field(
        None,
        description="By view: `loss`, by how much the ranking metric gets worse on the test part (without one on the "
        "validation part; at most 10,000 rows) when the view is permuted among the rows that have it, the mean of ten "
        "draws; `low` and `high`, the 95 % interval of that mean over the draws; `without`, the metric with the view "
        "absent from every row, null where the fusion refuses masks.  null: `train.importance=false`, or no such rows.",
    )
    history: dict[str, list[float | None]] | None = Field(None, description="Learning curves, a value per epoch.")
    config: dict[str, Any] = Field({}, description="The whole config, as it was composed.")
    provenance: dict[str, Any] | None = Field(None, description="Versions, interpreter, machine, git commit.")


_RESULT: TypeAdapter[Result] = TypeAdapter(Result)
#: Keys that only the record of a failed run has.
_OF_FAILURES = {"error_type", "traceback"}


def record(cfg: Mapping[str, Any], *, status: Literal["completed", "failed"], **found: Any) -> dict[str, Any]:
    """Return a result record with every key of ``Result``.

    Args:
        cfg: the config of the run; a value that is missing there, or has a wrong type, becomes None.
        status: how the run ended.
        **found: the results of the run; they take precedence over ``cfg``.
    """
    if unknown := sorted(set(found) - set(Result.model_fields)):
        raise TypeError(f"a result record has no {', '.join(unknown)}")
    fusion = _mapping(cfg, "fusion")
    copied: dict[str, Any] = {
        **_operators(cfg),
        "dims": fusion.get("dims"),
        "data_dims": cfg.get("dims"),
        "n": fusion.get("n") or cfg.get("n"),
        "seed": cfg.get("seed"),
        "encoder": _mapping(cfg, "model").get("encoder"),
        "data": {"name": _mapping(cfg, "data").get("name")},
        "config": {key: value for key, value in cfg.items() if key != "hydra"},
    }
    result = {name: field.default for name, field in Result.model_fields.items() if name not in _OF_FAILURES}
    result.update(copied, status=status)
    wrong = {key.partition(".")[0] for key in mistakes(_RESULT, result)}
    result.update({key: Result.model_fields[key].default for key in wrong})
    return {**result, **found}


def check_own(path: Path, directory: Path) -> None:
    """Refuse a path below ``directory`` on which there is a link, which would lead elsewhere, or a pipe or a device.

    Raises:
        FusionError: names it.
    """
    parts = path.relative_to(directory).parts if path.is_relative_to(directory) else ()
    for count in range(1, len(parts) + 1):
        part = directory.joinpath(*parts[:count])
        if part.is_symlink() or (part.exists() and not part.is_dir() and not part.is_file()):
            found = f"a link to {part.readlink()}" if part.is_symlink() else "a pipe or a device"
            raise FusionError(f"{part} should be a plain file or folder, because runs write there; found {found}.")


def save_configs(folder: Path, run_dir: Path, configs: Mapping[str, Any]) -> None:
    """Write configs as YAML to ``folder`` in the directory of a run, as Hydra does, but not through links.

    Args:
        folder: made if it does not exist.
        run_dir: the directory, locked by the caller.
        configs: name of the file, without its suffix -> config of OmegaConf.
    """
    check_own(folder, run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for name, config in configs.items():
        write_atomic(folder / f"{name}.yaml", partial(OmegaConf.save, config))


def start(run_dir: Path, *, keep_checkpoints: bool = False) -> None:
    """Make ``run_dir`` ready for a run: remove the files of an earlier one, ``result.json`` first.

    Args:
        run_dir: made if it does not exist.
        keep_checkpoints: the run goes on from one, or has failed and can go on.

    Raises:
        FusionError: the directory cannot be made or written to.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        for name in (RESULT, MODEL, CURVE, WEIGHTS, VIEWS, ROWS):
            (run_dir / name).unlink(missing_ok=True)
        if not keep_checkpoints:
            remove_checkpoints(run_dir)
        for leftover in run_dir.glob(f"{TEMPORARY}*"):
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise FusionError(f"The run directory should be writable; found {run_dir}: {error.strerror}.") from error


def pictures(result: Mapping[str, Any]) -> list[str]:
    """Return the names of the pictures that a completed run has, or can have."""
    return [CURVE, *(name for key, name in (("weights", WEIGHTS), ("views", VIEWS)) if result[key])]


def checkpoint_path(run_dir: Path, epoch: int, *, refit: bool) -> Path:
    """Return the file of a checkpoint; ``refit``: of the second training of ``train.refit``."""
    return run_dir / f"checkpoint-{'refit-' if refit else ''}{epoch:06d}.safetensors"


def checkpoints(run_dir: Path) -> list[Path]:
    """Return the files of the checkpoints in a directory, the oldest first."""
    found = [(match, path) for path in run_dir.glob("checkpoint-*") if (match := _CHECKPOINT.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda pair: (bool(pair[0][1]), int(pair[0][2])))]


def resumable_after(run_dir: Path) -> str | None:
    """Return after which epoch a run can go on, as ``epoch 40``; None without a checkpoint.  No file is read."""
    if not (found := checkpoints(run_dir)) or (match := _CHECKPOINT.fullmatch(found[-1].name)) is None:
        return None
    return f"epoch {int(match[2])}{' of the refit' if match[1] else ''}"


def remove_checkpoints(run_dir: Path) -> None:
    """Remove the checkpoints in a directory."""
    for path in checkpoints(run_dir):
        path.unlink(missing_ok=True)


def write_failed(
    run_dir: Path, cfg: Mapping[str, Any], error: BaseException, seconds: float | None = None
) -> dict[str, Any]:
    """Record that a run has failed, and remove the files it may have written but checkpoints; return the record.

    Args:
        run_dir: made if it does not exist.
        cfg: the config of the run, complete or not.
        error: why it failed.
        seconds: how long it took, if known.
    """
    start(run_dir, keep_checkpoints=True)
    found: dict[str, Any] = {"config_hash": None, "provenance": None}
    # The config or the operator that made the run fail may make these fail too.
    with contextlib.suppress(Exception):
        found["config_hash"] = config_hash(dict(cfg))
    with contextlib.suppress(Exception):
        found["provenance"] = provenance(cfg)
    result = record(
        cfg,
        status="failed",
        error=error_message(error),
        error_type=type(error).__name__,
        traceback="".join(traceback.format_exception(error)),
        seconds=seconds,
        **found,
    )
    write_json(run_dir / RESULT, result)
    return result


def read_result(path: Path) -> dict[str, Any]:
    """Read a ``result.json``.

    Raises:
        FusionError: the file is missing, unreadable, truncated, of another schema version, or no result.
    """
    try:
        status = path.stat()
        fits = status.st_size <= _MAX_BYTES and stat.S_ISREG(status.st_mode)
        found = parsed(path.read_bytes()) if fits else None
    except FileNotFoundError:
        raise FusionError(f"{path} should exist; found no such file.") from None
    except OSError as error:
        raise FusionError(f"{path} should be readable; found: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise FusionError(f"{path} should be complete JSON; found {error}.") from None
    if not fits:
        raise FusionError(f"{path}: A record should be a file of at most {_MAX_BYTES} bytes; found another.")
    return checked(found, path)


def parsed(content: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError, RecursionError: it is incomplete, nested too deep, or has a number that is not finite.
    """
    return json.loads(content, parse_float=_finite, parse_constant=_finite)


def checked(found: Any, path: Path) -> dict[str, Any]:
    """Return a parsed value that should be the record of the file ``path``.

    Raises:
        FusionError: it is no record, or one of another schema version.
    """
    if not isinstance(found, dict) or "schema_version" not in found:
        raise FusionError(f"{path} should be the record of a run, with a schema_version; found none.")
    if _is_deeper(found, MAX_DEPTH):
        raise FusionError(f"{path}: A record should be nested at most {MAX_DEPTH} levels deep; found more.")
    if found["schema_version"] != SCHEMA_VERSION:
        raise FusionError(
            f"{path} should have the schema version {SCHEMA_VERSION}; found {short_repr(found['schema_version'])}, "
            "written by another release of fusionkit."
        )
    if wrong := mistakes(_RESULT, found):
        raise FusionError(f"{path} should be the record of a run: {one_line(' '.join(wrong.values()), 400)}")
    return found


def _is_deeper(tree: Any, levels: int) -> bool:
    """Whether plain JSON is nested deeper than this many levels."""
    if levels < 0:
        return True
    for value in tree.values() if type(tree) is dict else tree:
        if type(value) in (dict, list) and _is_deeper(value, levels - 1):
            return True
    return False


def _finite(text: str) -> float:
    """Return a number of JSON; Python's own parser makes infinity of 1e400, and takes NaN.

    Raises:
        ValueError: it is not finite.
    """
    if not math.isfinite(number := float(text)):
        raise ValueError(f"the number {text[:20]}, which is not finite")
    return number


def notify_plugins(result: Mapping[str, Any], run_dir: Path) -> None:
    """Call the plugins' ``fusionkit_run_finished``; an error there becomes a warning."""
    try:
        registry.run_finished(result, run_dir)
    except Exception as error:  # Of a plugin.
        warnings.warn(f"A tracker failed: {error}", RuntimeWarning, stacklevel=2)


def shown(path: Path) -> str:
    """Return the path as a user would type it: relative if it is below the current directory."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def provenance(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return the circumstances that a result may depend on: versions, interpreter, machine, git commit."""
    return {
        "versions": versions(cfg),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": cpu_count(),
        "git": git_commit(),
    }


def versions(cfg: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions of the distributions that a run uses."""
    versions = {DISTRIBUTION: version()}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    names = {**_operators(cfg), "dataset": _mapping(cfg, "data").get("name")}
    for kind in KINDS:
        if isinstance(names[kind], str):
            with contextlib.suppress(RegistryError):
                found = registry.resolve(kind, names[kind])
                versions.setdefault(found.distribution, found.version or "unknown")
    return dict(sorted(versions.items()))


@lru_cache(maxsize=1)
def git_commit() -> dict[str, Any] | None:
    """Return the commit of the current git checkout and whether it is dirty; None outside one."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=5, check=True, stdin=subprocess.DEVNULL
        ).stdout.strip()

    try:
        dirty = bool(git("status", "--porcelain", "--untracked-files=no"))
        return {"commit": git("rev-parse", "HEAD"), "dirty": dirty}
    except (OSError, subprocess.SubprocessError):
        return None


def _operators(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names of the fusion and of its fabrication, by kind."""
    fusion = _mapping(cfg, "fusion")
    fabrication = fusion.get("parameter_fabrication")
    name = fabrication.get("name") if isinstance(fabrication, Mapping) else fabrication
    return {"fusion": fusion.get("name"), "fabrication": name}


def _mapping(cfg: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = cfg.get(key)
    return found if isinstance(found, Mapping) else {}
