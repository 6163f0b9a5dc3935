"""Writes files atomically: completely or not at all."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fusionkit._util.trees import to_json

#: Prefix of the name of a file that is still being written.
TEMPORARY = ".partial-"

#: A file is not read if it stands for more bytes than both this number and this multiple of what it takes on disk.
MAX_UNPACKED, MAX_RATIO = 2**30, 100


def size_on_disk(status: os.stat_result) -> int:
    """Return the bytes that a file occupies, which are few in a sparse file; its size where that is unknown."""
    return min(status.st_size, status.st_blocks * 512 or status.st_size)


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
