"""What the page about embeddings shows works; without wordllama, with vectors that are drawn."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from fusionkit import cli
from tests.pages import python_blocks

PAGE = (Path(__file__).parents[1] / "docs/embeddings.md").read_text(encoding="utf-8")


class Drawn:
    """Stands for the model: a vector per text, drawn with a seed that follows from the text."""

    @classmethod
    def load(cls, cache_dir: Path, disable_download: bool) -> Drawn:
        assert disable_download
        return cls()

    def embed(self, texts: list[str]) -> np.ndarray[Any, Any]:
        return np.stack([np.random.default_rng(crc32(text.encode())).standard_normal(256) for text in texts])


@pytest.mark.exhaustive
@pytest.mark.usefixtures("empty_directory")
def test_the_page(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("wordllama") is None:
        standing = SimpleNamespace(__file__="wordllama/__init__.py", WordLlama=Drawn)
        monkeypatch.setitem(sys.modules, "wordllama", standing)
    (block,) = python_blocks(PAGE)
    exec(block, {})
    rows = int(capsys.readouterr().out.split()[0])  # It depends on the version of Python.
    commands = re.findall(r"^fusionkit (.*)$", PAGE, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["run", "predict"]
    for command in commands:
        quick = ["train.epochs=1"] if command.startswith("run") else []
        assert cli.main([*shlex.split(command), *quick]) == 0
    out, err = capsys.readouterr()
    assert f"data: {rows} rows of functions; views with their widths: code (256), text (256)\n" in err
    assert f"{rows} rows predicted, in predictions.npz\n" in out
    assert len(np.load("predictions.npz")["prediction"]) == rows
