"""The comparison with the straightforward implementations runs, and compares equal operators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fusionkit
import pytest
import torch
from oracles import ORACLES

from fusionkit_attention.bench import FIXED_N, REFERENCES, VIEWS, main


def test_every_operator_has_a_reference() -> None:
    assert list(REFERENCES) == list(ORACLES)


def parameters(name: str, op: Any, ref: Any) -> list[tuple[torch.nn.Parameter, list[torch.Tensor]]]:
    """Return the parameters of the operator, each with those of the reference that it joins."""
    modules: dict[str, Any] = {
        "gated": {"inputs": "units", "gates": "gates"},
        "attention_pool": {"inputs": "inputs", "inner": "V", "outer": "v"},
        "film": {"inputs": "main", "changes": "changes"},
        "adaptation_gate": {"gates": "gates", "inputs": "inputs"},
        "squeeze_excite": {"squeeze": "squeeze", "excite": "excite"},
        "residual_gate": {"inputs": "inputs", "inner": "V", "outer": "v", "branch": "Q", "output": "R"},
    }[name]
    pairs = []
    for own, other in modules.items():
        layers = getattr(ref, other)
        layers = list(layers) if isinstance(layers, torch.nn.ModuleList) else [layers]
        projects = list(getattr(op, own))
        if len(projects) < len(layers):  # The gates in one matrix.
            pairs.append((projects[0].weight, [layer.weight for layer in layers]))
            continue
        for project, layer in zip(projects, layers, strict=True):
            pairs.append((project.weight, [layer.weight]))
            if project.bias is not None:
                pairs.append((project.bias, [layer.bias]))
    if name == "film":
        pairs.append((op.g0, [ref.changes.bias]))
    elif name == "adaptation_gate":
        pairs.append((op.bias, [ref.bias]))
    return pairs


@pytest.mark.parametrize("dims", [[5, 4], [5, 4, 3, 2]], ids=str)
@pytest.mark.parametrize("name", REFERENCES)
def test_reference_is_the_same_function(name: str, dims: list[int]) -> None:
    torch.manual_seed(0)
    width: dict[str, Any] = {} if name in FIXED_N else {"n": 3}
    op: Any = fusionkit.create(name, dims=dims, **width)
    ref: Any = REFERENCES[name](op)
    assert sum(parameter.numel() for parameter in ref.parameters()) == op.calculate_l()
    with torch.no_grad():
        for own, others in parameters(name, op, ref):
            own.normal_()
            for other, part in zip(others, own.split(own.shape[0] // len(others)), strict=True):
                other.copy_(part)
    x = [torch.randn(7, width) for width in dims]
    torch.testing.assert_close(op(x), ref(x), rtol=1e-4, atol=1e-4)


def test_main(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert main(["film", "--rows", "4", "--seconds", "0.01", "--json", str(tmp_path / "bench.json")]) == 0
    finally:
        torch.set_num_threads(threads)
    rows = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["name"], row["m"], row["dims"], row["n"]) for row in rows] == [
        ("film", 4, list(dims), 64) for dims in VIEWS
    ]
    assert "film" in capsys.readouterr().out
