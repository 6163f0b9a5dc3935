"""The name of an experiment: a hash of everything that decides its result."""

from __future__ import annotations

import contextlib
import hashlib
import json
import stat
import sys
import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from fusionkit import registry
from fusionkit._util.distribution import DISTRIBUTION, unprefixed
from fusionkit._util.files import MAX_RATIO, MAX_UNPACKED, size_on_disk
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

    The order of keys, the device, the ``hydra`` node and a distribution's prefix ``tensor-`` do not matter.  A data
    file counts by its content; the versions of the distributions of operators and of a data set count, and of what does
    not belong to fusionkit also its source.
    """
    from fusionkit.config.interpolations import resolve

    plain = resolve({name: value for name, value in cfg.items() if name != "hydra"} if type(cfg) is dict else cfg)
    plain = _without(plain, "hydra", "device")
    plain |= {kind: mapped(plain[kind], _unprefixed, lambda key: key) for kind in OPERATORS if kind in plain}
    if isinstance(plain.get("fusion"), Mapping):
        plain["fusion"] = _without(plain["fusion"], "device")
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
    """Return the SHA-256 of a file's content; None if there is no such file, a pipe, or more than 1 GiB of nothing."""
    if not isinstance(path, str):
        return None
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            return None
        sparse = status.st_size > MAX_RATIO * size_on_disk(status)
        if status.st_size > MAX_UNPACKED and (sparse or not zipfile.is_zipfile(path)):
            return None
        return _digest(str(Path(path).resolve()), status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):  # A path with a NUL character.
        return None


@lru_cache(maxsize=64)
def _digest(path: str, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
