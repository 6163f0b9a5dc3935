"""The comparison with the straightforward implementations runs, and compares operators of one size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fusionkit
import pytest
import torch

from fusionkit_bilinear.bench import REFERENCES, THREE_VIEWS, main
from fusionkit_bilinear.plugin import OPERATORS

SMALL: dict[str, dict[str, Any]] = {
    **{name: {"mm_dim": 6} for name in ("mlb", "mfb", "mfh", "mutan", "tucker", "mcb")},
    **{name: {"mm_dim": 6, "chunks": 2} for name in ("block", "block_tucker")},
}


def test_every_operator_has_a_reference() -> None:
    assert list(REFERENCES) == list(OPERATORS)


@pytest.mark.parametrize("name", OPERATORS)
def test_same_size(name: str) -> None:
    torch.manual_seed(0)
    op: Any = fusionkit.create(name, dims=[5, 4], n=3, **SMALL.get(name, {}))
    reference = REFERENCES[name](op)
    assert sum(parameter.numel() for parameter in reference.parameters()) == op.calculate_l()
    assert reference([torch.randn(7, 5), torch.randn(7, 4)]).shape == (7, 3)


def test_memory_of_tensor_fusion() -> None:
    torch.manual_seed(0)
    assert THREE_VIEWS.measure(REFERENCES, seconds=0.01).memory_ratio < 0.2


def test_main(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert main(["mlb", "--rows", "4", "--seconds", "0.01", "--json", str(tmp_path / "bench.json")]) == 0
    finally:
        torch.set_num_threads(threads)
    (row,) = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["rows"]
    assert (row["name"], row["m"], row["dims"], row["n"]) == ("mlb", 4, [216, 240], 10)
    assert "mlb" in capsys.readouterr().out
