"""The comparison with the formulas as they stand runs, and they are the operators' formulas."""

from __future__ import annotations

import json
from pathlib import Path

import fusionkit
import pytest
import torch

from fusionkit_decision.bench import FORMULAS, REFERENCES, Pairs, dempster_pairs, main
from fusionkit_decision.plugin import OPERATORS


def test_every_operator_has_a_reference() -> None:
    assert list(REFERENCES) == list(FORMULAS) == list(OPERATORS)


@pytest.mark.parametrize("name", OPERATORS)
def test_same_values(name: str) -> None:
    torch.manual_seed(0)
    op = fusionkit.create(name, dims=[6] * 4)
    views = [torch.randn(7, 6, dtype=torch.float64) for _ in range(4)]
    torch.testing.assert_close(REFERENCES[name](op)(views), op(views))
    if name == "dempster":
        torch.testing.assert_close(dempster_pairs(views), op(views))


def test_main(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    small = ["--rows", "4", "--views", "3", "--width", "6", "--seconds", "0.01"]
    try:
        assert main(["dempster", "log_pool", *small, "--json", str(tmp_path / "bench.json")]) == 0
    finally:
        torch.set_num_threads(threads)
    rows = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["rows"]
    assert [row["name"] for row in rows] == ["dempster", "dempster, pairs", "log_pool"]
    assert {(row["m"], *row["dims"], row["n"], row["l"]) for row in rows} == {(4, 6, 6, 6, 6, 0)}
    assert "dempster, pairs" in capsys.readouterr().out


def test_dempster_holds_less_than_the_pairs() -> None:
    # Bytes, not seconds: the rule for two views holds a matrix of c² products for every row.

    torch.manual_seed(0)
    assert Pairs("dempster", 256, [50] * 4).measure(REFERENCES, seconds=0.01).memory_ratio < 0.2
