"""What the page about a user's own data shows works: its code, and its commands one after the other."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fusionkit import cli

PAGE = (Path(__file__).parents[1] / "docs/your-own-data.md").read_text(encoding="utf-8")
#: The language and the text of each block.
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
#: What does not depend on the training starts like this.
STABLE = ("data:", "note:", "task:", "rows:", "missing ", "predict ")


def python_blocks() -> list[str]:
    return [text for language, text in BLOCKS if language == "python"]


def commands() -> Iterator[tuple[list[str], list[str]]]:
    """Yield each command of the page, and the lines of the block behind it if that is its output."""
    for i, (language, text) in enumerate(BLOCKS):
        behind = BLOCKS[i + 1][1] if i + 1 < len(BLOCKS) and not BLOCKS[i + 1][0] else ""
        for line in text.splitlines() if not language else ():
            if line.startswith("fusionkit "):
                yield shlex.split(line)[1:], [] if "fusionkit run" in behind else behind.splitlines()


@pytest.mark.exhaustive
@pytest.mark.usefixtures("empty_directory")
def test_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    first, *folders, last = python_blocks()
    exec(first, {})
    scope: dict[str, object] = {}
    for block in folders:
        exec(block, scope)
    np.testing.assert_array_equal(np.load("rewritten.npy"), np.load("large/audio.npy"))
    vectors = np.random.default_rng(0).standard_normal((60, 3))
    savez = re.search(r"^numpy.savez\(.*\)$", PAGE, re.MULTILINE)
    assert savez is not None
    arrays = {"text_vectors": vectors, "image_vectors": vectors, "labels": np.arange(60) % 3}
    exec(savez[0], {"numpy": np, "names": np.arange(60), "patients": np.arange(60) // 3, **arrays})
    shown = next(text for _, text in BLOCKS if text.startswith("visit,patient,")).splitlines()
    for line, written in zip(shown, Path("visits.csv").read_text().splitlines(), strict=False):
        assert re.fullmatch(re.escape(line).replace(r"\.\.\.", ".*"), written)
    found = 0
    for command, shown in commands():
        quick = ["train.epochs=1"] if command[0] == "run" else []
        assert cli.main([*command, *quick]) == 0, command
        out, err = capsys.readouterr()
        stable = [line for line in shown if line.startswith(STABLE)]
        assert not {*stable} - {*out.splitlines(), *err.splitlines()}, command
        found += len(stable)
        if command[0] == "predict" and command[-1].endswith(".npz"):
            with np.load(command[-1]) as archive:
                assert archive.files == ["row", "prediction", *(f"probability_{i}" for i in range(3))]
        elif command[0] == "predict":
            predictions = Path(command[-1]).read_text().splitlines()
            assert [line.split(",")[0] for line in predictions[:3]] == [line.split(",")[0] for line in shown]
            assert predictions[0] == shown[0]
    assert found >= 6
    exec(last.replace("epochs=20", "epochs=1"), {})
    score, record, labels = capsys.readouterr().out.splitlines()
    assert float(score) < 1
    assert record.startswith("classification 0.")
    assert labels.startswith("['")
