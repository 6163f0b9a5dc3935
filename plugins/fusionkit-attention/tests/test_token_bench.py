"""The references of the bench have the size of the operator, and with its parameters the same output."""

from __future__ import annotations

from typing import Any

import fusionkit
import pytest
import torch

from fusionkit_attention.bench import REFERENCES

SMALL: dict[str, dict[str, Any]] = {
    "transformer": {"width": 8, "heads": 2},
    "perceiver": {"width": 8, "heads": 2, "latents": 3, "depth": 2},
}
#: Key biases of torch's attention, which the operators leave out.
KEY_BIASES = {"transformer": 2 * 8, "perceiver": 3 * 8}
NAMES = ["embracenet", "mixture_of_experts", "transformer", "perceiver"]


def copy(target: Any, source: Any) -> None:
    target.load_state_dict({key: value for key, value in source.state_dict().items() if key in ("weight", "bias")})


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
    if name == "mixture_of_experts":
        pairs = [(ref.gate, op.gate[0]), *zip(ref.experts, op.experts_on_all, strict=True)]
    else:
        pairs = list(zip(ref.inputs, op.inputs, strict=True))
    for target, source in pairs:
        copy(target, source)
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
    if name in SMALL:
        copy(ref.output, op.output[0])
    return ref


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dims", [[5, 4], [3, 1, 2, 4, 2, 3]], ids=str)
def test_reference(name: str, dims: list[int]) -> None:
    torch.manual_seed(0)
    op: Any = fusionkit.create(name, dims=dims, n=3, dtype="float64", **SMALL.get(name, {}))
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
        torch.testing.assert_close(op(x), reference(x))
