"""Compares speed and memory of the operators with straightforward implementations of their formulas.

    python -m fusionkit_attention.bench [NAME ...] [--rows 512] [--dims 216 240] [--n 64] [--json FILE] (see --help)

The references follow the formulas layer by layer, as modules of torch; operator and reference are timed in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fusionkit.bench import references
from fusionkit.bench.references import Job, Reference, References
from torch import Tensor, nn

#: The views of mfeat.
SIX_VIEWS = [76, 216, 64, 240, 47, 6]


def projections(op: Any, width: int) -> nn.ModuleList:
    """Return a linear layer per view."""
    return nn.ModuleList(nn.Linear(view, width) for view in op.dims)


def projected(layers: Any, x: Sequence[Tensor]) -> Tensor:
    """Return the views behind these layers, stacked: (m, k, width)."""
    return torch.stack([layer(view) for layer, view in zip(layers, x, strict=True)], 1)


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

    return Reference(compute, inputs=projections(op, op.n))


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

    ref = Reference(compute, inputs=projections(op, op.width), encoder=encoder(op), output=nn.Linear(op.width, op.n))
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
        inputs=projections(op, d),
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
    "mixture_of_experts": mixture_of_experts,
    "embracenet": embracenet,
    "transformer": transformer,
    "perceiver": perceiver,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a line per operator.  Returns 0."""
    parser = references.parser("python -m fusionkit_attention.bench", str(__doc__), list(REFERENCES))
    parser.add_argument("--rows", type=int, default=512, metavar="M", help="rows (default 512)")
    parser.add_argument("--dims", type=int, nargs="+", metavar="N", help="widths of the views (default 216 240)")
    parser.add_argument("--n", type=int, default=64, metavar="N", help="output width (default 64)")
    options = parser.parse_args(argv)
    jobs = [
        Job(name, options.rows, dims, options.n)
        for dims in ([options.dims] if options.dims else ([216, 240], SIX_VIEWS))
        for name in options.names or REFERENCES
    ]
    return references.compare(jobs, REFERENCES, options)


if __name__ == "__main__":
    raise SystemExit(main())
