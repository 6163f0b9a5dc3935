"""What the page about exported files shows works: its commands and its code, one after the other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fusionkit
from fusionkit import cli

PAGE = (Path(__file__).parents[1] / "docs/export.md").read_text(encoding="utf-8")
#: The language and the text of each block.
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.usefixtures("empty_directory")
def test_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    table, encode, program = (text for language, text in BLOCKS if language == "python")
    training, written, predicted, exporting = (text for language, text in BLOCKS if not language)
    exec(table, {})
    for line in [*training.splitlines(), *exporting.splitlines()]:
        quick = ["train.epochs=1"] if line.startswith("fusionkit run") else []
        assert cli.main([*shlex.split(line)[1:], *quick]) == 0, line
        out = capsys.readouterr().out
        if line == "fusionkit export first model.onnx":
            # All but the version and the difference.
            assert out.splitlines()[:5] == written.splitlines()[:5]
            assert out.splitlines()[-1] == written.splitlines()[-1]
            assert out.splitlines()[5].split()[:2] == written.splitlines()[5].split()[:2]
    scope: dict[str, Any] = {}
    exec(encode, scope)
    lines, shown = capsys.readouterr().out.splitlines(), predicted.splitlines()
    assert [line.split()[0] for line in lines] == [line.split()[0] for line in shown]
    model, new = fusionkit.load("first"), pd.read_csv("new.csv")
    assert new["scan__0"].isna().any()
    np.testing.assert_allclose(scope["probabilities"], model.predict_proba(new), atol=1e-6)
    assert [line.split()[1] for line in lines] == model.predict(new)
    exec(program, {})
    assert capsys.readouterr().out == program.rpartition("# ")[2]
