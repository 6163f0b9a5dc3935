"""Compares speed and memory of the operators with a straightforward implementation of each paper, on two views.

    python -m fusionkit_bilinear.bench [NAME ...] [--rows 512] [--dims 216 240] [--n 10] [--json FILE] (see --help)

The references follow the formulas of the papers layer by layer: a matrix per view, the outer or elementwise product,
the sum, the normalization, the last matrix.  Operator and reference are timed in turn in one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from fusionkit.bench import references
from fusionkit.bench.references import Job, Reference, References
from torch import Tensor, nn

from fusionkit_bilinear.plugin import OPERATORS

#: Three views with a large n, for the memory of the outer product.
THREE_VIEWS = Job("tensor_fusion", 512, [32, 32, 32], 64)


def with_one(x: Tensor) -> Tensor:
    """Return [1; x] of each row."""
    return torch.cat([x.new_ones(x.shape[0], 1), x], 1)


def signed_root(z: Tensor) -> Tensor:
    """Return the power and l2 normalization as it is usually written."""
    return F.normalize(torch.sqrt(F.relu(z)) - torch.sqrt(F.relu(-z)), dim=-1)


def tensor_fusion(op: Any) -> Reference:
    """The outer product of all views, flattened, and one linear layer."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        outer = with_one(x[0])
        for view in x[1:]:
            outer = torch.bmm(outer.unsqueeze(2), with_one(view).unsqueeze(1)).flatten(1)
        out: Tensor = ref.linear(outer)
        return out

    width = 1
    for view in op.dims:
        width *= view + 1
    return Reference(compute, linear=nn.Linear(width, op.n, bias=False))


def lowrank_tensor_fusion(op: Any) -> Reference:
    """A stack of factors per view, the product, and a weighted sum over the rank."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        out: Any = 1
        for view, factor in zip(x, ref.factors, strict=True):
            out = out * torch.matmul(with_one(view), factor)
        fused: Tensor = torch.matmul(ref.weights, out.permute(1, 0, 2)).squeeze(1) + ref.bias
        return fused

    ref = Reference(compute)
    ref.factors = nn.ParameterList([torch.randn(op.rank, width + 1, op.n) for width in op.dims])
    ref.weights = nn.Parameter(torch.randn(1, op.rank))
    ref.bias = nn.Parameter(torch.zeros(1, op.n))
    return ref


def multiplicative_interaction(op: Any) -> Reference:
    """A bilinear layer and a linear layer per view."""
    a, b = op.dims
    return Reference(
        lambda ref, x: ref.pair(x[0], x[1]) + ref.first(x[0]) + ref.second(x[1]),
        pair=nn.Bilinear(a, b, op.n, bias=False),
        first=nn.Linear(a, op.n, bias=False),
        second=nn.Linear(b, op.n),
    )


def mlb(op: Any) -> Reference:
    """Two hidden layers, multiplied, and a last one."""
    return Reference(
        lambda ref, x: ref.last(torch.tanh(ref.first(x[0])) * torch.tanh(ref.second(x[1]))),
        first=nn.Linear(op.dims[0], op.mm_dim),
        second=nn.Linear(op.dims[1], op.mm_dim),
        last=nn.Linear(op.mm_dim, op.n),
    )


def mfb(op: Any) -> Reference:
    """Two layers, multiplied, neighbours summed, normalized, and a final layer."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        z = ref.first(x[0]) * ref.second(x[1])
        out: Tensor = ref.last(signed_root(z.view(-1, op.mm_dim, op.factor).sum(2)))
        return out

    wide = op.mm_dim * op.factor
    return Reference(
        compute, first=nn.Linear(op.dims[0], wide), second=nn.Linear(op.dims[1], wide), last=nn.Linear(op.mm_dim, op.n)
    )


def mfh(op: Any) -> Reference:
    """Two mfb, the second multiplied by the products of the first."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        first = ref.first_0(x[0]) * ref.second_0(x[1])
        second = ref.first_1(x[0]) * ref.second_1(x[1]) * first
        pooled = [signed_root(z.view(-1, op.mm_dim, op.factor).sum(2)) for z in (first, second)]
        out: Tensor = ref.last(torch.cat(pooled, 1))
        return out

    wide = op.mm_dim * op.factor
    return Reference(
        compute,
        first_0=nn.Linear(op.dims[0], wide),
        second_0=nn.Linear(op.dims[1], wide),
        first_1=nn.Linear(op.dims[0], wide),
        second_1=nn.Linear(op.dims[1], wide),
        last=nn.Linear(2 * op.mm_dim, op.n),
    )


def mutan(op: Any) -> Reference:
    """A projection per view, one to rank * mm_dim, the product, and the sum over the rank."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        m = ref.merge_0(ref.first(x[0])) * ref.merge_1(ref.second(x[1]))
        return ref.last(m.view(-1, op.rank, op.mm_dim).sum(1))  # type: ignore[no-any-return]

    return Reference(
        compute,
        first=nn.Linear(op.dims[0], op.mm_dim),
        second=nn.Linear(op.dims[1], op.mm_dim),
        merge_0=nn.Linear(op.mm_dim, op.rank * op.mm_dim),
        merge_1=nn.Linear(op.mm_dim, op.rank * op.mm_dim),
        last=nn.Linear(op.mm_dim, op.n),
    )


def tucker(op: Any) -> Reference:
    """A projection per view and a bilinear layer."""
    return Reference(
        lambda ref, x: ref.last(ref.core(ref.first(x[0]), ref.second(x[1]))),
        first=nn.Linear(op.dims[0], op.mm_dim),
        second=nn.Linear(op.dims[1], op.mm_dim),
        core=nn.Bilinear(op.mm_dim, op.mm_dim, op.mm_dim),
        last=nn.Linear(op.mm_dim, op.n),
    )


def block_tucker(op: Any) -> Reference:
    """A projection per view and a bilinear layer per chunk, normalized."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        chunks = zip(ref.cores, ref.first(x[0]).split(op.sizes, 1), ref.second(x[1]).split(op.sizes, 1), strict=True)
        return ref.last(torch.cat([signed_root(core(a, b)) for core, a, b in chunks], 1))  # type: ignore[no-any-return]

    return Reference(
        compute,
        first=nn.Linear(op.dims[0], op.mm_dim),
        second=nn.Linear(op.dims[1], op.mm_dim),
        cores=nn.ModuleList(nn.Bilinear(size, size, size) for size in op.sizes),
        last=nn.Linear(op.mm_dim, op.n),
    )


def block(op: Any) -> Reference:
    """A projection per view; per chunk two layers to rank * size, their product, the sum over the rank, normalized."""

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        chunks = zip(ref.first(x[0]).split(op.sizes, 1), ref.second(x[1]).split(op.sizes, 1), strict=True)
        blocks = []
        for (a, b), merge_0, merge_1 in zip(chunks, ref.merges_0, ref.merges_1, strict=True):
            m = merge_0(a) * merge_1(b)
            blocks.append(signed_root(m.view(m.shape[0], op.rank, -1).sum(1)))
        return ref.last(torch.cat(blocks, 1))  # type: ignore[no-any-return]

    return Reference(
        compute,
        first=nn.Linear(op.dims[0], op.mm_dim),
        second=nn.Linear(op.dims[1], op.mm_dim),
        merges_0=nn.ModuleList(nn.Linear(size, size * op.rank) for size in op.sizes),
        merges_1=nn.ModuleList(nn.Linear(size, size * op.rank) for size in op.sizes),
        last=nn.Linear(op.mm_dim, op.n),
    )


def mcb(op: Any) -> Reference:
    """A count sketch per view by scatter_add, the product of the transforms, the inverse, normalized, and a layer."""
    h = [torch.randint(op.mm_dim, (width,)) for width in op.dims]
    s = [torch.randint(2, (width,)) * 2.0 - 1 for width in op.dims]

    def compute(ref: Any, x: Sequence[Tensor]) -> Tensor:
        spectrum: Any = 1
        for view, where, sign in zip(x, h, s, strict=True):
            sketch = view.new_zeros(view.shape[0], op.mm_dim)
            spectrum = spectrum * torch.fft.rfft(sketch.scatter_add(1, where.expand_as(view), view * sign))
        out: Tensor = ref.last(signed_root(torch.fft.irfft(spectrum, op.mm_dim)))
        return out

    return Reference(compute, last=nn.Linear(op.mm_dim, op.n))


def hadamard_projection(op: Any) -> Reference:
    """Two layers multiplied, and two added."""
    a, b = op.dims
    return Reference(
        lambda ref, x: ref.first(x[0]) * ref.second(x[1]) + ref.third(x[0]) + ref.fourth(x[1]),
        first=nn.Linear(a, op.n, bias=False),
        second=nn.Linear(b, op.n, bias=False),
        third=nn.Linear(a, op.n, bias=False),
        fourth=nn.Linear(b, op.n, bias=False),
    )


REFERENCES: References = {
    "tensor_fusion": tensor_fusion,
    "lowrank_tensor_fusion": lowrank_tensor_fusion,
    "multiplicative_interaction": multiplicative_interaction,
    "mlb": mlb,
    "mfb": mfb,
    "mfh": mfh,
    "mutan": mutan,
    "tucker": tucker,
    "block_tucker": block_tucker,
    "block": block,
    "mcb": mcb,
    "hadamard_projection": hadamard_projection,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison of the operators that are named, or of all, and of tensor_fusion with three views."""
    parser = references.parser("python -m fusionkit_bilinear.bench", __doc__ or "", list(OPERATORS))
    parser.add_argument("--rows", type=int, default=512, metavar="M", help="rows of the views (default 512)")
    parser.add_argument("--dims", type=int, nargs=2, default=[216, 240], metavar="N_I", help="default 216 240")
    parser.add_argument("--n", type=int, default=10, help="width of the output (default 10)")
    options = parser.parse_args(argv)
    names = options.names or list(OPERATORS)
    jobs = [Job(name, options.rows, options.dims, options.n) for name in names]
    if "tensor_fusion" in names:
        jobs.insert(names.index("tensor_fusion") + 1, THREE_VIEWS)
    return references.compare(jobs, REFERENCES, options)


if __name__ == "__main__":
    raise SystemExit(main())
