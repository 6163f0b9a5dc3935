"""The name of an experiment: a hash of everything that decides its result."""

from __future__ import annotations

import contextlib
import hashlib
import json
import stat
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from fusionkit import registry
from fusionkit._util.distribution import DISTRIBUTION, unprefixed
from fusionkit._util.files import content_digest, content_files
from fusionkit._util.trees import mapped
from fusionkit.config.keys import walk
from fusionkit.config.nodes import find_record
from fusionkit.errors import RegistryError
from fusionkit.hookspecs import PROJECT
from fusionkit.registry import Kind, Record
from fusionkit.registry.catalogue import OPERATORS
from fusionkit.registry.loading import FORMS, target_name


def config_hash(cfg: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that name the experiment ``cfg`` describes.

    The order of keys, the device, the ``hydra`` node, the epochs between checkpoints, the number of machines, the time
    that processes wait and a distribution's prefix ``tensor-`` do not matter.  A data file counts by its content; the
    versions of the distributions of operators and of a data set count, and of what does not belong to fusionkit also
    its source.
    """
    from fusionkit.config.interpolations import resolve

    plain = resolve({name: value for name, value in cfg.items() if name != "hydra"} if type(cfg) is dict else cfg)
    plain = _without(plain, "hydra", "device")
    plain |= {kind: mapped(plain[kind], _unprefixed, lambda key: key) for kind in OPERATORS if kind in plain}
    if isinstance(plain.get("fusion"), Mapping):
        plain["fusion"] = _without(plain["fusion"], "device")
    if isinstance(plain.get("train"), Mapping):
        plain["train"] = _without(plain["train"], "checkpoint_every", "num_nodes", "timeout")
        if plain["train"].get("strategy") == "auto":  # As before there was a choice.
            del plain["train"]["strategy"]
    if isinstance(data := plain.get("data"), Mapping):
        plain["data"] = _with_digests(data)
    records = (find_record(kind, name) for kind, name in registered(plain))
    versions = {text for record in records if record is not None for text in _causes(record)}
    content = {"config": plain, "versions": sorted(versions)}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _with_digests(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the node ``data`` with the digest of each file in place of its path, of those that exist."""
    found = dict(data)
    for key, name in (("path", "digest"), ("test_path", "test_digest")):
        path = found.get(key)
        files = path if isinstance(path, Mapping) else {key: path}
        digests = {one: file_digest(file) for one, file in files.items()}
        if digests and None not in digests.values():
            del found[key]
            found[name] = digests if isinstance(path, Mapping) else digests[key]
    return found


def _causes(record: Record) -> Iterator[str]:
    """Yield the version of what is registered; of a plugin's also the digests of the files of its function, or of its
    class and their bases.
    """
    yield f"{unprefixed(record.distribution)}=={record.version}"
    if record.distribution == DISTRIBUTION:
        return
    with contextlib.suppress(RegistryError):
        for module in _modules(record):
            file = getattr(sys.modules.get(module), "__file__", None)
            if file is not None and module.partition(".")[0] not in (PROJECT, "torch"):
                yield f"{module} {file_digest(file)}"


def _modules(record: Record) -> list[str]:
    if record.kind == "dataset":
        return [target_name(registry.dataset(record.key)).partition(":")[0]]
    return [cls.__module__ for cls in registry.load(record.kind, record.key).__mro__]


def _unprefixed(value: Any) -> Any:
    return unprefixed(value) if isinstance(value, str) else value


def _without(node: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name not in names}


def file_digest(path: object) -> str | None:
    """Return the digest of a file, or of a folder of ``.npy`` files; None if there is no such, a pipe or a device."""
    if not isinstance(path, str):
        return None
    try:
        files = content_files(Path(path))
        if not files or not all(stat.S_ISREG(status.st_mode) for status in files.values()):
            return None
        stamps = ((name, one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) for name, one in files.items())
        return _digest(path, tuple(stamps))
    except (OSError, ValueError):  # A path with a NUL character.
        return None


@lru_cache(maxsize=64)
def _digest(path: str, _stamps: tuple[tuple[str | int, ...], ...]) -> str:
    return content_digest(Path(path))


def registered(cfg: Mapping[str, Any]) -> Iterator[tuple[Kind, str]]:
    """Yield kind and name of every operator, and of the data set, that a configuration names."""
    for group in ("fusion", "fabrication"):
        for key, _, node in walk(cfg.get(group)):
            if isinstance(node, Mapping) and isinstance(node.get("name"), str):
                fusion = (group == "fusion" and not key) or node.get("_target_") == "fusionkit.create"
                yield ("fusion" if fusion else "fabrication"), node["name"]
    data = cfg.get("data")
    if isinstance(data, Mapping) and isinstance(name := data.get("name"), str) and name not in FORMS:
        yield "dataset", name
