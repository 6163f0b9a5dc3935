"""Compares speed and memory of the operators with a straightforward implementation of each formula.

    python -m fusionkit_attention.bench [NAME ...] [--rows 512] [--n 64] [--json FILE] (see --help)

The references follow the formulas layer by layer, for two views and for the six of mfeat.  Operator and reference are
timed in turn in one run, in processor time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from fusionkit.bench import references
from fusionkit.bench.references import Job, Reference, References
from torch import Tensor, nn

#: Two views, and those of mfeat.
VIEWS = ((216, 240), (76, 216, 64, 240, 47, 6))


def linears(dims: Sequence[int], n: int, bias: bool = True) -> nn.ModuleList:
    """Return a layer per view."""
    return nn.ModuleList(nn.Linear(width, n, bias=bias) for width in dims)


def projected(layers: Any, x: Sequence[Tensor]) -> Tensor:
    """Return the views behind these layers, stacked: (m, k, width)."""
    return torch.stack([layer(view) for layer, view in zip(layers, x, strict=True)], 1)


def gated(op: Any) -> Reference:
    """A tanh unit and a gate per view, their products added."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        joined, out = torch.cat(tuple(x), -1), torch.zeros(())
        for view, unit, gate in zip(x, ref.units, ref.gates, strict=True):
            out = out + torch.sigmoid(gate(joined)) * torch.tanh(unit(view))
        return out

    gates = nn.ModuleList(nn.Linear(sum(op.dims), op.n, bias=False) for _ in op.dims)
    return Reference(compute, units=linears(op.dims, op.n, bias=False), gates=gates)


def pooled(ref: Any, x: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the layers of the views (m, k, n), and their attention weights (m, k, 1)."""
    h = projected(ref.inputs, x)
    return h, torch.softmax(ref.v(torch.tanh(ref.V(h))), 1)


def pool_layers(op: Any) -> dict[str, nn.Module]:
    """Return the layers that ``pooled`` uses."""
    hidden = min(op.n, 128)
    return {"inputs": linears(op.dims, op.n), "V": nn.Linear(op.n, hidden), "v": nn.Linear(hidden, 1, bias=False)}


def attention_pool(op: Any) -> Reference:
    """A layer per view, stacked; two layers for the scores; the weighted sum."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        h, weights = pooled(ref, x)
        return (weights * h).sum(1)

    return Reference(compute, **pool_layers(op))


def film(op: Any) -> Reference:
    """A layer on the first view, another on the rest for scale and shift."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        g, b = ref.changes(torch.cat(tuple(x[1:]), -1)).chunk(2, -1)
        out: Tensor = (1 + g) * ref.main(x[0]) + b
        return out

    return Reference(
        compute, main=nn.Linear(op.dims[0], op.n, bias=False), changes=nn.Linear(sum(op.dims[1:]), 2 * op.n)
    )


def adaptation_gate(op: Any) -> Reference:
    """A gate and a layer per other view, their products added, and the norm of the sum bounded."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        H = ref.bias
        for view, gate, layer in zip(x[1:], ref.gates, ref.inputs, strict=True):
            H = H + torch.relu(gate(torch.cat((x[0], view), -1))) * layer(view)
        factor = op.beta * x[0].norm(dim=-1, keepdim=True) / (H.norm(dim=-1, keepdim=True) + 1e-6)
        out: Tensor = x[0] + factor.clamp(max=1) * H
        return out

    n, others = op.dims[0], op.dims[1:]
    gates = nn.ModuleList(nn.Linear(n + width, n) for width in others)
    ref = Reference(compute, gates=gates, inputs=linears(others, n, bias=False))
    ref.bias = nn.Parameter(torch.zeros(n))
    return ref


def squeeze_excite(op: Any) -> Reference:
    """Two layers on all views, joined, and their product with these."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        joined = torch.cat(tuple(x), -1)
        return 2 * torch.sigmoid(ref.excite(torch.relu(ref.squeeze(joined)))) * joined

    D = sum(op.dims)
    return Reference(compute, squeeze=nn.Linear(D, D // 2), excite=nn.Linear(D // 2, D))


def residual_gate(op: Any) -> Reference:
    """The attention pool, and a network with one hidden layer on its terms."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        h, weights = pooled(ref, x)
        parts = weights * h
        out: Tensor = parts.sum(1) + ref.R(F.gelu(ref.Q(parts.flatten(1))))
        return out

    hidden = min(op.n, 128)
    return Reference(compute, **pool_layers(op), Q=nn.Linear(len(op.dims) * op.n, hidden), R=nn.Linear(hidden, op.n))


def encoder(op: Any) -> nn.Module:
    """Return torch's transformer of the sizes of the operator, with a last norm."""
    layer = nn.TransformerEncoderLayer(
        op.width, op.heads, op.ff_width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    last = nn.LayerNorm(op.width)
    return nn.TransformerEncoder(layer, op.depth, last, enable_nested_tensor=False) if op.depth else last


def embracenet(op: Any) -> Reference:
    """A layer and relu per view, stacked, and one view per coordinate, drawn."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        h = torch.relu(projected(ref.inputs, x))
        chosen = torch.randint(len(x), (h.shape[0], 1, h.shape[2]))
        return h.gather(1, chosen).squeeze(1)

    return Reference(compute, inputs=linears(op.dims, op.n))


def mixture_of_experts(op: Any) -> Reference:
    """A gate and the experts on the joined views, stacked, and their weighted sum."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        joined = torch.cat(tuple(x), 1)
        g = ref.gate(joined).softmax(-1)
        outs = torch.stack([expert(joined) for expert in ref.experts], 1)
        mixed: Tensor = (g.unsqueeze(-1) * outs).sum(1)
        return mixed

    D = sum(op.dims)
    experts = nn.ModuleList(nn.Linear(D, op.n) for _ in range(op.experts))
    return Reference(compute, gate=nn.Linear(D, op.experts), experts=experts)


def transformer(op: Any) -> Reference:
    """The transformer of torch on cls and a token per view, and a layer on cls."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        tokens = projected(ref.inputs, x)
        z = ref.encoder(torch.cat([ref.cls.expand(len(tokens), 1, -1), tokens], 1))
        out: Tensor = ref.output(z[:, 0])
        return out

    ref = Reference(compute, inputs=linears(op.dims, op.width), encoder=encoder(op), output=nn.Linear(op.width, op.n))
    ref.cls = nn.Parameter(torch.randn(op.width))
    return ref


def perceiver(op: Any) -> Reference:
    """Attention of the latents to a token per view, a feed-forward network, the transformer of torch, the mean."""
    d = op.width

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        tokens = ref.of_tokens(projected(ref.inputs, x))
        z = ref.latents.expand(len(tokens), -1, -1)
        z = z + ref.attention(ref.of_latents(z), tokens, tokens, need_weights=False)[0]
        out: Tensor = ref.output(ref.encoder(z + ref.feed(z)).mean(1))
        return out

    ref = Reference(
        compute,
        inputs=linears(op.dims, d),
        of_tokens=nn.LayerNorm(d),
        of_latents=nn.LayerNorm(d),
        attention=nn.MultiheadAttention(d, op.heads, add_zero_attn=True, batch_first=True),
        feed=nn.Sequential(nn.LayerNorm(d), nn.Linear(d, op.ff_width), nn.GELU(), nn.Linear(op.ff_width, d)),
        encoder=encoder(op),
        output=nn.Linear(d, op.n),
    )
    ref.latents = nn.Parameter(torch.randn(op.count, d))
    return ref


REFERENCES: References = {
    "gated": gated,
    "attention_pool": attention_pool,
    "film": film,
    "adaptation_gate": adaptation_gate,
    "squeeze_excite": squeeze_excite,
    "mixture_of_experts": mixture_of_experts,
    "embracenet": embracenet,
    "residual_gate": residual_gate,
    "transformer": transformer,
    "perceiver": perceiver,
}
#: Operators whose n follows from the views.
FIXED_N = ("adaptation_gate", "squeeze_excite")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison of the operators that are named, or of all, for two views and for six."""
    parser = references.parser("python -m fusionkit_attention.bench", __doc__ or "", list(REFERENCES))
    parser.add_argument("--rows", type=int, default=512, metavar="M", help="rows of the views (default 512)")
    parser.add_argument("--n", type=int, default=64, help="width of the output, where it is free (default 64)")
    options = parser.parse_args(argv)
    jobs = [
        Job(name, options.rows, dims, None if name in FIXED_N else options.n)
        for name in options.names or list(REFERENCES)
        for dims in VIEWS
    ]
    return references.compare(jobs, REFERENCES, options)


if __name__ == "__main__":
    raise SystemExit(main())
