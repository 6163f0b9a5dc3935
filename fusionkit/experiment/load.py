"""Save a trained model in one file of tensors and JSON, and load it again."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fusionkit._util.files import MAX_RATIO, MAX_UNPACKED, size_on_disk, write_atomic
from fusionkit._util.text import error_line, error_message
from fusionkit.config.safe import check_tree
from fusionkit.errors import ConfigError, FusionError, RegistryError
from fusionkit.experiment import results
from fusionkit.experiment.model import FusionModel
from fusionkit.experiment.state import exclusive
from fusionkit.fusion import check_device

#: The one key of the safetensors metadata: with several their order in the file would vary from run to run.
_KEY = "fusionkit"
_VERSION = 1


def save(model: FusionModel, path: Path) -> None:
    """Write the tensors of ``model`` and, as metadata, its description, atomically.

    Raises:
        ConfigError: the operator cannot be written to a config.
    """
    description = {"schema_version": _VERSION, **model.describe()}
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    metadata = {_KEY: json.dumps(description, sort_keys=True, ensure_ascii=False, allow_nan=False)}
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


@exclusive()
def load(run_dir: str | Path, device: Any = None) -> FusionModel:
    """Rebuild the trained model of a run.

    The model takes the list of raw views, (..., n_i) each, and returns logits (..., classes); it includes the scaler,
    and ``classes`` has the label value of each logit.  Only tensors and JSON are read, and operators come from the
    registry by name, so a hostile directory cannot run code.

    Args:
        run_dir: the directory of a completed run.
        device: where to put the model; None is the CPU.

    Returns:
        The model, in evaluation mode.

    Raises:
        FusionError: not a completed run, or a damaged one; or a device that does not exist.
        RegistryError: the operator is not installed.
        ConfigError: the description names a class or function that is not allowed.
    """
    target, run_dir = check_device(device), Path(run_dir)
    if not run_dir.is_dir():
        raise FusionError(f"A run directory should exist; found no directory {run_dir}.")
    if not (run_dir / results.RESULT).exists():
        raise FusionError(f"{run_dir} should be the directory of a completed run; found no {results.RESULT} in it.")
    result = results.read_result(run_dir / results.RESULT)
    if result["status"] != "completed":
        found = f"a failed one: {result.get('error')}"
        raise FusionError(f"{run_dir} should be the directory of a completed run; found {found}")
    model = _read(run_dir / results.MODEL)
    if target is not None and target.type == "mps":  # It has no float64.
        for name, buffer in model.scaler.named_buffers():
            setattr(model.scaler, name, buffer.float())
    return model.to(target)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file of tensors, whose header is then checked against its length.

    Raises:
        FusionError: it is missing, damaged, no regular file, or far greater than what it takes on disk.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # Opening a pipe would wait for a writer.
            raise FusionError(f"{path} should be a complete safetensors file; found a folder, a pipe or a device.")
        if status.st_size > max(MAX_UNPACKED, MAX_RATIO * size_on_disk(status)):
            found = f"{status.st_size} bytes in {size_on_disk(status)}"
            raise FusionError(f"{path} should take at least a part in {MAX_RATIO} of its size on disk; found {found}.")
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise FusionError(f"{path.parent} should contain {path.name}; found no such file.") from None
    except (SafetensorError, OSError) as error:
        raise FusionError(f"{path} should be a complete safetensors file; found it damaged ({error}).") from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by name.

    Raises:
        FusionError: as ``opened``.
    """
    with opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)


def is_complete(path: Path) -> bool:
    """Whether a file of tensors is as long as its header says."""
    try:
        with opened(path):
            return True
    except FusionError:
        return False


def _read(path: Path) -> FusionModel:
    """Return the model in a file, after one on the meta device has shown that its tensors have the shapes of those in
    the file: a description of a few bytes may stand for a model of any size.
    """
    with opened(path) as file:
        metadata = file.metadata() or {}
        shapes = {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118
    description = _description(path, metadata)
    _fill(path, _build(path, description, "meta"), shapes)
    model = _build(path, description)
    _fill(path, model, read_tensors(path))
    return model


def _fill(path: Path, model: FusionModel, tensors: dict[str, torch.Tensor]) -> None:
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        found = error_message(error, limit=400)
        raise FusionError(f"{path} should contain the tensors of its model; found: {found}") from error


def _description(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        description: dict[str, Any] = json.loads(metadata[_KEY])
        version = description["schema_version"]
    except (KeyError, ValueError, TypeError, RecursionError):
        raise FusionError(f"{path} should describe its model in the metadata {_KEY!r}; found no description.") from None
    if version != _VERSION:
        raise FusionError(f"{path} should describe its model in version {_VERSION}; found {version!r}.")
    return description


def _build(path: Path, description: dict[str, Any], device: str | None = None) -> FusionModel:
    try:
        # Operators build configs nested in their own, such as those of preprocess and of fabrications.
        check_tree(description["fusion"], "fusion")
        return FusionModel.from_description(description, device)
    except RegistryError as error:
        raise RegistryError(f"{path} should describe a model of installed operators; found: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path} should describe a model; found: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise FusionError(f"{path} should describe a model; found {error_line(error)}.") from error
