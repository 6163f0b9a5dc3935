"""Writes files atomically, completely or not at all, and digests them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any

from fusionkit._util.trees import to_json

#: Prefix of the name of a file that is still being written.
TEMPORARY = ".partial-"

#: A file is not read if it stands for more bytes than both this number and this multiple of what it takes on disk.
MAX_UNPACKED, MAX_RATIO = 2**30, 100

#: A file of more bytes than the first number is digested by its first bytes and by this number of blocks of this size.
_WHOLE, _HEADER, _BLOCKS, _BLOCK = 2**30, 2**12, 64, 2**20


def size_on_disk(status: os.stat_result) -> int:
    """Return the bytes that a file occupies, which are few in a sparse file; its size where that is unknown."""
    return min(status.st_size, status.st_blocks * 512 or status.st_size)


def npy_files(folder: Path) -> dict[str, Path]:
    """Return the ``.npy`` files of a folder by name without ending, sorted; hidden files are none.

    Raises:
        OSError: it cannot be read.
    """
    files = {path.stem: path for path in folder.iterdir() if path.suffix == ".npy" and not path.name.startswith(".")}
    return {name: files[name] for name in sorted(files)}


def content_files(path: Path) -> dict[str, os.stat_result]:
    """Return the status of each file that ``content_digest`` would read, by name.

    Raises:
        OSError: one of them cannot be read.
    """
    files = [*npy_files(path).values()] if path.is_dir() else [path]
    return {file.name: file.stat() for file in files}


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder that of the sorted names and digests of its ``.npy`` files.

    Raises:
        OSError: a file cannot be read.
    """
    if path.is_dir():
        lines = (f"{name} {content_digest(file)}\n" for name, file in npy_files(path).items())
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
    with path.open("rb") as file:
        return file_digest(file)


def file_digest(file: BufferedReader) -> str:
    """Return the SHA-256 of an open file.

    Above 1 GiB it is that of the first 4096 bytes (where the header of an array is), the size as text, and 64 evenly
    spaced blocks of 1 MiB, the last of which ends at the end of the file: a change between them goes unnoticed.
    """
    size = os.fstat(file.fileno()).st_size
    if size <= _WHOLE:
        return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256(file.read(_HEADER) + str(size).encode())
    for i in range(_BLOCKS):
        file.seek((size - _BLOCK) * i // (_BLOCKS - 1))
        digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file beside ``path`` (same suffix), then rename it to ``path``."""
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}{path.suffix}")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically; surrogates are escaped.  A device or a pipe is written to directly."""
    content = text.encode(errors="backslashreplace")
    if path.exists() and not path.is_file():
        path.write_bytes(content)
    else:
        write_atomic(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, atomically; ``to_json`` converts what JSON has no type for."""
    write_text(path, json.dumps(to_json(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
