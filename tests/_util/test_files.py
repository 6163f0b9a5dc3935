"""Files that are written completely or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Thread

import pytest

from fusionkit._util.files import write_atomic, write_json, write_text


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
