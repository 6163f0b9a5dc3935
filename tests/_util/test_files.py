"""Files that are written completely or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from threading import Thread

import pytest

from fusionkit._util import files
from fusionkit._util.files import content_digest, write_atomic, write_json, write_text


def test_a_failure_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, write)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "old")]


def test_the_temporary_file_has_the_suffix(tmp_path: Path) -> None:
    names: list[str] = []

    def write(temporary: Path) -> None:
        names.append(temporary.suffix)
        temporary.touch()

    write_atomic(tmp_path / "a.png", write)
    assert names == [".png"]


def test_text(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "ä\udcff")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "ä\\udcff"


def test_text_to_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "text")
    reader.join()
    assert read == ["text"]


def test_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"nan": float("nan"), 1: (2, Path("x"))})
    assert json.loads((tmp_path / "a").read_text()) == {"nan": None, "1": [2, "x"]}


def test_a_small_file_is_digested_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert content_digest(tmp_path / "a") == hashlib.sha256(b"12345").hexdigest()


@pytest.mark.parametrize("size", [1001, 10_007])
def test_a_large_file_is_digested_by_header_size_and_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    for name, value in {"_WHOLE": 1000, "_HEADER": 7, "_BLOCKS": 5, "_BLOCK": 100}.items():
        monkeypatch.setattr(files, name, value)
    content = bytes(i % 251 for i in range(size))
    (tmp_path / "a").write_bytes(content)
    blocks = [content[start : start + 100] for start in [(size - 100) * i // 4 for i in range(5)]]
    assert content.endswith(blocks[-1])
    assert content_digest(tmp_path / "a") == hashlib.sha256(b"".join([content[:7], b"%d" % size, *blocks])).hexdigest()


def test_a_folder_is_digested_by_the_names_and_contents_of_its_arrays(tmp_path: Path) -> None:
    for name in ("b.npy", "a-c.npy", "a.npy", ".hidden.npy", "a.txt"):
        (tmp_path / name).write_text(name)
    names = ("a", "a-c", "b")
    lines = "".join(f"{name} {hashlib.sha256(f'{name}.npy'.encode()).hexdigest()}\n" for name in names)
    assert content_digest(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()
