"""The comparison with the straightforward implementations runs, and compares equal operators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fusionkit
import pytest
import torch

from fusionkit_attention.bench import FIXED_N, REFERENCES, VIEWS, main
from fusionkit_attention.plugin import OPERATORS

SMALL: dict[str, dict[str, Any]] = {
    "transformer": {"width": 8, "heads": 2},
    "perceiver": {"width": 8, "heads": 2, "latents": 3, "depth": 2},
}
#: Key biases of torch's attention, which the operators leave out.
KEY_BIASES = {"transformer": 2 * 8, "perceiver": 3 * 8}
#: operator -> its lists of matrices, each with the layers of the reference that have the same parameters.
LAYERS: dict[str, dict[str, str]] = {
    "gated": {"inputs": "units", "gates": "gates"},
    "attention_pool": {"inputs": "inputs", "inner": "V", "outer": "v"},
    "film": {"inputs": "main", "changes": "changes"},
    "adaptation_gate": {"gates": "gates", "inputs": "inputs"},
    "squeeze_excite": {"squeeze": "squeeze", "excite": "excite"},
    "mixture_of_experts": {"gate": "gate", "experts_on_all": "experts"},
    "embracenet": {"inputs": "inputs"},
    "residual_gate": {"inputs": "inputs", "inner": "V", "outer": "v", "branch": "Q", "output": "R"},
    "transformer": {"inputs": "inputs", "output": "output"},
    "perceiver": {"inputs": "inputs", "output": "output"},
}


def test_every_operator_has_a_reference() -> None:
    assert list(REFERENCES) == list(OPERATORS)


def copy(target: Any, source: Any) -> None:
    target.weight.copy_(source.weight)
    if source.bias is not None:
        target.bias.copy_(source.bias)


def copy_layers(target: Any, sources: list[Any]) -> None:
    """Copy matrices to as many layers, or one matrix to layers that have a group of its rows each."""
    targets: list[Any] = list(target) if isinstance(target, torch.nn.ModuleList) else [target]
    if len(sources) < len(targets):
        for layer, rows in zip(targets, sources[0].weight.chunk(len(targets)), strict=True):
            layer.weight.copy_(rows)
        return
    for layer, source in zip(targets, sources, strict=True):
        copy(layer, source)


def norm(target: Any, op: Any, number: int) -> None:
    target.weight.copy_(op.norm_weights[number])
    target.bias.copy_(op.norm_biases[number])


def attention(target: Any, op: Any, block: int) -> None:
    q, k, v = op.queries[block], op.keys[block], op.values[block]
    target.in_proj_weight.copy_(torch.cat([q.weight, k.weight, v.weight]))
    target.in_proj_bias.copy_(torch.cat([q.bias, torch.zeros_like(q.bias), v.bias]))
    copy(target.out_proj, op.mixers[block])


def encoder(target: Any, op: Any, first: int) -> None:
    """Copy the layers, from block ``first`` on (1: behind three norms), and the last norm."""
    for i, layer in enumerate(target.layers):
        block, number = first + i, 3 * first + 2 * i
        norm(layer.norm1, op, number)
        norm(layer.norm2, op, number + 1)
        attention(layer.self_attn, op, block)
        copy(layer.linear1, op.wide[block])
        copy(layer.linear2, op.narrow[block])
    norm(target.norm, op, 3 * first + 2 * op.depth)


def with_parameters(name: str, op: Any) -> Any:
    """Return the reference with the parameters of the operator."""
    ref: Any = REFERENCES[name](op).double()
    for own, other in LAYERS[name].items():
        copy_layers(getattr(ref, other), list(getattr(op, own)))
    if name == "film":
        ref.changes.bias.copy_(op.g0)
    if name == "adaptation_gate":
        ref.bias.copy_(op.bias)
    if name == "transformer":
        ref.cls.copy_(op.cls)
        encoder(ref.encoder, op, 0)
    if name == "perceiver":
        ref.latents.copy_(op.latents)
        norm(ref.of_tokens, op, 0)
        norm(ref.of_latents, op, 1)
        attention(ref.attention, op, 0)
        norm(ref.feed[0], op, 2)
        copy(ref.feed[1], op.wide[0])
        copy(ref.feed[3], op.narrow[0])
        encoder(ref.encoder, op, 1)
    return ref


@pytest.mark.parametrize("dims", [[5, 4], [3, 1, 2, 4, 2, 3]], ids=str)
@pytest.mark.parametrize("name", REFERENCES)
def test_reference_is_the_same_function(name: str, dims: list[int]) -> None:
    torch.manual_seed(0)
    width: dict[str, Any] = {} if name in FIXED_N else {"n": 3}
    op: Any = fusionkit.create(name, dims=dims, dtype="float64", **width, **SMALL.get(name, {}))
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.normal_().mul_(0.7)
        reference = with_parameters(name, op)
    l = sum(parameter.numel() for parameter in reference.parameters())
    assert l == op.calculate_l() + KEY_BIASES.get(name, 0)
    x = [torch.randn(7, width, dtype=torch.float64) for width in dims]
    if name == "embracenet":
        # Both draw: each coordinate is that of one view.
        h = torch.stack([torch.relu(project([view])) for project, view in zip(op.inputs, x, strict=True)])
        for out in (op(x), reference(x)):
            assert torch.isclose(out, h).any(0).all()
    else:
        # The reference of adaptation_gate has an epsilon.
        torch.testing.assert_close(op(x), reference(x), rtol=1e-5, atol=1e-5)


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
