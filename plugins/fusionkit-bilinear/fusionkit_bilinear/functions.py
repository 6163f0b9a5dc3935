"""Functions that several operators use: activations and their moments, normalization, chunks, tensor contraction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
import torch.nn.functional as F
from fusionkit import FusionError
from fusionkit.fusion import in_place_ok
from torch import Tensor

__all__ = [
    "ACTIVATIONS",
    "IN_PLACE",
    "activation",
    "chunk_sizes",
    "contract",
    "greatest_base",
    "leveled",
    "moments",
    "pooled",
    "pooled_products",
    "power_normalized",
    "present",
    "product",
    "without_views",
]

#: The activations for ``activ_input`` and ``activ_output``.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
#: In-place versions of those whose backward needs only their result.
IN_PLACE: dict[str | None, Callable[[Tensor], Tensor]] = {
    "relu": Tensor.relu_,
    "sigmoid": Tensor.sigmoid_,
    "tanh": Tensor.tanh_,
}
#: Odd functions: their mean is zero if the sign of a bias is drawn at random.
ODD = (None, "tanh")
#: From this height on, the matrices in a sum of products are multiplied one by one.
RANK_BY_RANK = 256


def activation(name: str | None) -> Callable[[Tensor], Tensor]:
    """Return the function called ``name``; the identity for None."""
    return _identity if name is None else ACTIVATIONS[name]


def _identity(x: Tensor) -> Tensor:
    return x


def moments(name: str | None, mean: float = 0.0, deviation: float = 1.0) -> tuple[float, float]:
    """Return the mean of f(u) and of f(u)^2 for a normal u, by summation over a fine grid."""
    if name is None:
        return mean, mean * mean + deviation * deviation
    u = torch.linspace(-8, 8, 1601, dtype=torch.float64, device="cpu")
    weight = torch.softmax(-u.square() / 2, 0)
    value = activation(name)(mean + deviation * u)
    return float(weight @ value), float(weight @ value.square())


def power_normalized(z: Tensor) -> Tensor:
    """Return ``sign(z) sqrt(|z|)`` divided by its Euclidean norm, along the last dimension; zeros stay zeros.

    Where z is 0 the gradient is 0, not the NaN of ``sqrt(relu(z)) - sqrt(relu(-z))``.  Half precision is computed in
    float32.
    """
    wide = z.to(torch.promote_types(z.dtype, torch.float32))
    total = wide.abs().sum(-1, keepdim=True)
    # sign(z) sqrt(|z|) / sqrt(sum |z|)  =  p / sqrt(|p|), where p = z / sum |z| neither overflows nor underflows
    part = wide / total.where(total != 0, 1.0)
    size = part.abs()
    return (part * size.where(size != 0, torch.inf).rsqrt()).to(z.dtype)


def leveled(factors: Sequence[Tensor], bounds: Sequence[Tensor]) -> tuple[list[Tensor], Tensor | float]:
    """Return the factors of a product that is normalized afterwards so that it does not overflow in half precision.

    Each is in float32 then, and divided by the largest entry of its row of ``bounds``, if that is above 1; the
    normalization undoes this.  Other dtypes stay as they are.

    Args:
        factors: k tensors (..., width).
        bounds: the factors themselves, or the views of which they are affine functions, which parts of a factor share.

    Returns:
        The factors, and what a term of 1 beside their product becomes.
    """
    if all(tensor.dtype.itemsize > 2 for tensor in (*factors, *bounds)):
        return list(factors), 1.0
    shares = [1 / bound.detach().float().abs().amax(-1, keepdim=True).clamp_min(1) for bound in bounds]
    return [factor.float() * share for factor, share in zip(factors, shares, strict=True)], product(shares)


def present(factors: Sequence[Tensor], mask: Tensor | None) -> list[Tensor]:
    """Return the factors (..., width) of a product, with 1 where the mask (..., k) says that their view is absent."""
    if mask is None:
        return list(factors)
    return [torch.where(column, factor, 1.0) for column, factor in zip(mask.split(1, -1), factors, strict=True)]


def product(factors: Sequence[Tensor], *, fresh: bool = False) -> Tensor:
    """Return the elementwise product of one or more factors.

    ``fresh`` states that no other code uses the factors; without gradients the product is then computed in place.
    """
    out, *others = factors
    in_place = fresh and not torch.is_grad_enabled() and in_place_ok(factors)
    for factor in others:
        out = out.mul_(factor) if in_place and out.dtype == factor.dtype else out * factor
    return out


def pooled(
    factors: Sequence[Tensor], rank: int, views: Sequence[Tensor] | None = None, mask: Tensor | None = None
) -> Tensor:
    """Return ``sum_r prod_i f_i^r``, f_i^r the entries r*n to (r+1)*n of a fresh factor, (..., rank*n) -> (..., n).

    With ``views`` the sum will be normalized, and the factors are ``leveled``.  ``mask``: see ``present``.
    """
    factors = present(factors, mask)
    factors = factors if views is None else leveled(factors, views)[0]
    terms = product(factors, fresh=True)
    return terms.view(*terms.shape[:-1], rank, terms.shape[-1] // rank).sum(-2)


#: W (rank*n, d), c (rank*n,) and the view (..., d) that they are for.
Affine = tuple[Tensor, Tensor, Tensor]


def pooled_products(
    parts: Sequence[Affine], rank: int, views: Sequence[Tensor] | None = None, mask: Tensor | None = None
) -> Tensor:
    """Return ``sum_r prod_i (W_i^r x_i + c_i^r)``, W_i^r and c_i^r the rows r*n to (r+1)*n, (..., d) -> (..., n).

    Without gradients, large matrices are multiplied one r at a time, which avoids rank*n entries per row.  With
    ``views`` the sum will be normalized, and the factors are ``leveled``.  ``mask``: see ``present``.
    """
    n = parts[0][0].shape[0] // rank
    if n < RANK_BY_RANK or torch.is_grad_enabled():
        return pooled([F.linear(x, W, c) for W, c, x in parts], rank, views, mask)
    out: Tensor | None = None
    cut = [(W.view(rank, n, -1).unbind(0), c.view(rank, n).unbind(0), x) for W, c, x in parts]
    for r in range(rank):
        factors = present([F.linear(x, W[r], c[r]) for W, c, x in cut], mask)
        *factors, last = factors if views is None else leveled(factors, views)[0]
        if out is None:
            out = product([*factors, last], fresh=True)
        else:
            out = torch.addcmul(out, product(factors, fresh=True), last) if factors else out + last
    assert out is not None
    return out


def chunk_sizes(width: int, chunks: int) -> tuple[int, ...]:
    """Return the sizes of ``chunks`` parts of ``width``: equal, but for a smaller last one; else they differ by one.

    Raises:
        FusionError: more chunks than entries.
    """
    if chunks > width:
        raise FusionError(
            f"chunks should be from 1 to mm_dim = {width}; found {chunks}: take fewer chunks, or a larger mm_dim."
        )
    whole = -(-width // chunks)
    last = width - whole * (chunks - 1)
    if last > 0:
        return (whole,) * (chunks - 1) + (last,)
    small, larger = divmod(width, chunks)
    return (small + 1,) * larger + (small,) * (chunks - larger)


def greatest_base(bound: int, exponent: int) -> int:
    """Return the greatest s >= 1 with ``s^exponent <= bound``, for a bound of at least 1 and an exponent above 2."""
    s = 1
    while (s + 1) ** exponent <= bound:
        s += 1
    return s


#: Without gradients, a contraction with more than HELD intermediate numbers is computed in blocks of BLOCK numbers.
HELD, BLOCK = 2**23, 2**20


def split_point(n: int, dims: Sequence[int], least: int = 0) -> int:
    """Return the s for which ``contract`` needs the least memory."""
    return min(range(least, len(dims)), key=lambda s: prod(dims[s:]) + n * prod(dims[:s]))


def contract(W: Tensor, x: Sequence[Tensor], bias: Tensor | None = None) -> Tensor:
    """Return ``W (x_1 ⊗ ... ⊗ x_k) + bias`` of each row, W: (n, d_1 * ... * d_k), x: k tensors (m, d_i) -> (m, n).

    The outer product of the views from s on is contracted with W in one matrix product; then the first s views follow
    one by one.  This takes m * (d_{s+1} ... d_k  +  n d_1 ... d_s) intermediate numbers instead of m * d_1 ... d_k.
    Without gradients, if these are too many, it is done for blocks of the n rows of W.
    """
    n, dims, x = W.shape[0], [view.shape[-1] for view in x], [view.to(W.dtype) for view in x]
    s, step = split_point(n, dims), n
    # Not while compiling: a choice that depends on the batch size would break an export with a dynamic batch.
    if len(x) > 1 and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
        m = x[0].shape[0]
        if m * max(prod(dims[s:]), n * prod(dims[:s])) > HELD:
            s = split_point(n, dims, least=1)
            step = max(1, BLOCK // (m * prod(dims[:s])))
    outer = x[s]
    for view in x[s + 1 :]:
        # As a batched product: its backward builds no second outer product.
        outer = torch.bmm(outer.unsqueeze(-1), view.unsqueeze(-2)).flatten(1)
    if step < n:
        out = torch.cat([_contracted(rows, outer, x[:s]) for rows in W.split(step)], -1)
    else:
        out = _contracted(W, outer, x[:s])
    return out if bias is None else out + bias


def without_views(T: Tensor, vectors: Sequence[Tensor], kept: Sequence[int]) -> Tensor:
    """Return the core T (n, d_1 * ... * d_k) for some of its views, in this order; the others are fixed vectors."""
    T = T.view(T.shape[0], *(len(vector) for vector in vectors))
    for i in reversed(range(len(vectors))):
        T = T if i in kept else torch.tensordot(T, vectors[i], ([i + 1], [0]))
    return T.permute(0, *(1 + sorted(kept).index(i) for i in kept)).flatten(1)


def _contracted(W: Tensor, outer: Tensor, x: Sequence[Tensor]) -> Tensor:
    """Return W (n, d_1 * ... * d_s * d) times ``outer`` (m, d), then times each of the s views in ``x``, (m, n)."""
    n, dims = W.shape[0], [view.shape[-1] for view in x]
    out = F.linear(outer, W.reshape(n * prod(dims), outer.shape[-1]))
    for i in reversed(range(len(x))):
        # Not -1, which is ambiguous for an empty batch.
        out = torch.bmm(out.view(out.shape[0], n * prod(dims[:i]), dims[i]), x[i].unsqueeze(-1)).squeeze(-1)
    return out
