"""The formulas of the papers as loops over numbers, in float64; they share no code with the operators.

Each takes the operator, for its parameters and options only, and one row: k lists of numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

Vector = list[float]


def affine(module: Any, x: Vector) -> Vector:
    """W x + b, entry by entry, of a dense matrix."""
    out = []
    for o in range(module.weight.shape[0]):
        total = 0.0 if module.bias is None else module.bias[o].item()
        for j, value in enumerate(x):
            total += module.weight[o, j].item() * value
        out.append(total)
    return out


def phi(name: str | None, value: float) -> float:
    """An activation of one number."""
    functions: dict[str | None, Callable[[float], float]] = {
        None: lambda u: u,
        "relu": lambda u: u if u > 0 else 0.0,
        "tanh": math.tanh,
        "sigmoid": lambda u: 1 / (1 + math.exp(-u)),
        "silu": lambda u: u / (1 + math.exp(-u)),
        "gelu": lambda u: u * 0.5 * (1 + math.erf(u / math.sqrt(2))),
    }
    return functions[name](value)


def normalized(z: Vector) -> Vector:
    """sign(z) sqrt(|z|), then divided by the Euclidean norm."""
    root = [math.copysign(math.sqrt(abs(value)), value) for value in z]
    norm = math.sqrt(sum(value * value for value in root))
    return [value / norm for value in root]


def outer(x: Sequence[Vector]) -> Vector:
    """The outer product, the last index running fastest."""
    return [math.prod(entries) for entries in itertools.product(*x)]


def tensor_fusion(op: Any, x: Sequence[Vector]) -> Vector:
    return affine(op.core[0], outer([[1.0, *view] for view in x]))


def lowrank_tensor_fusion(op: Any, x: Sequence[Vector]) -> Vector:
    out = []
    for o in range(op.n):
        total = op.bias[o].item()
        for r in range(op.rank):
            term = op.weights[r].item()
            for factor, view in zip(op.factors, x, strict=True):
                row = r * op.n + o
                one = factor.bias[row].item()
                term *= one + sum(factor.weight[row, j].item() * value for j, value in enumerate(view))
            total += term
        out.append(total)
    return out


def multiplicative_interaction(op: Any, x: Sequence[Vector]) -> Vector:
    k, pair = len(x), 0
    if op.form == "matrix":
        out = affine(op.sum[0], [value for view in x for value in view])
    else:
        out = affine(op.sum[0], x[-1])
        for i in range(k - 1):
            for o in range(op.n):
                out[o] += op.scales[i, o if op.form == "vector" else 0].item() * x[i][o]
    for i in range(k):
        for j in range(i + 1, k):
            W = op.pairs[pair].weight
            pair += 1
            for o in range(op.n):
                if op.form == "matrix":
                    out[o] += sum(
                        x[i][a] * W[o, a * len(x[j]) + b].item() * x[j][b]
                        for a in range(len(x[i]))
                        for b in range(len(x[j]))
                    )
                else:
                    row = o if op.form == "vector" else 0
                    out[o] += sum(W[row, b].item() * x[j][b] for b in range(len(x[j]))) * x[i][o]
    return out


def mlb(op: Any, x: Sequence[Vector]) -> Vector:
    factors = [
        [phi(op.activ_input, u) for u in affine(module, view)] for module, view in zip(op.inputs, x, strict=True)
    ]
    z = [math.prod(factor[o] for factor in factors) for o in range(op.mm_dim)]
    if op.normalize:
        z = normalized(z)
    return [phi(op.activ_output, u) for u in affine(op.output[0], z)]


def mfh(op: Any, x: Sequence[Vector]) -> Vector:
    factors = [
        [phi(op.activ_input, u) for u in affine(module, view)] for module, view in zip(op.inputs, x, strict=True)
    ]
    joined: Vector = []
    skip = [1.0] * (op.factor * op.mm_dim)
    for j in range(getattr(op, "order", 1)):
        start = j * op.factor * op.mm_dim
        skip = [value * math.prod(factor[start + i] for factor in factors) for i, value in enumerate(skip)]
        z = [sum(skip[f * op.mm_dim + o] for f in range(op.factor)) for o in range(op.mm_dim)]
        joined += normalized(z) if op.normalize else z
    return [phi(op.activ_output, u) for u in affine(op.output[0], joined)]


def mutan(op: Any, x: Sequence[Vector]) -> Vector:
    merged = []
    for project, merge, view in zip(op.inputs, op.merges, x, strict=True):
        merged.append(affine(merge, affine(project, view)))
    z = [sum(math.prod(m[r * op.mm_dim + o] for m in merged) for r in range(op.rank)) for o in range(op.mm_dim)]
    return affine(op.output[0], normalized(z) if op.normalize else z)


def tucker(op: Any, x: Sequence[Vector]) -> Vector:
    z = affine(op.core[0], outer([affine(project, view) for project, view in zip(op.inputs, x, strict=True)]))
    return affine(op.output[0], normalized(z) if op.normalize else z)


def in_blocks(op: Any, x: Sequence[Vector], of_block: Callable[[int, int, list[Vector]], Vector]) -> Vector:
    projected = [affine(project, view) for project, view in zip(op.inputs, x, strict=True)]
    joined: Vector = []
    start = 0
    for c, size in enumerate(op.sizes):
        z = of_block(c, size, [y[start : start + size] for y in projected])
        joined += normalized(z) if op.pos_norm == "before_cat" else z
        start += size
    assert start == op.mm_dim
    return affine(op.output[0], normalized(joined) if op.pos_norm == "after_cat" else joined)


def block_tucker(op: Any, x: Sequence[Vector]) -> Vector:
    return in_blocks(op, x, lambda c, size, parts: affine(op.cores[c], outer(parts)))


def block(op: Any, x: Sequence[Vector]) -> Vector:
    def of_block(c: int, size: int, parts: list[Vector]) -> Vector:
        merged = [affine(op.merges[i * op.chunks + c], part) for i, part in enumerate(parts)]
        return [sum(math.prod(m[r * size + o] for m in merged) for r in range(op.rank)) for o in range(size)]

    return in_blocks(op, x, of_block)


def mcb(op: Any, x: Sequence[Vector]) -> Vector:
    # The count sketch of the outer product, whose hash is the sum of the hashes: no convolution, no transform.
    z = [0.0] * op.mm_dim
    for entries in itertools.product(*(range(len(view)) for view in x)):
        where, value = 0, 1.0
        for view, sketch, j in zip(x, op.sketches, entries, strict=True):
            where += int(sketch.h[j])
            value *= sketch.s[j].item() * view[j]
        z[where % op.mm_dim] += value
    return [phi(op.activ_output, u) for u in affine(op.output[0], normalized(z) if op.normalize else z)]


def hadamard_projection(op: Any, x: Sequence[Vector]) -> Vector:
    both = [affine(module, view) for module, view in zip(op.inputs, x, strict=True)]
    out = []
    for o in range(op.n):
        bias = [op.biases[i, o].item() if op.bias else 0.0 for i in range(len(x) + 1)]
        factors = [parts[o] + b for parts, b in zip(both, bias[1:], strict=True)]
        out.append(math.prod(factors) + sum(parts[op.n + o] for parts in both) + bias[0])
    return out


ORACLES: dict[str, Callable[[Any, Sequence[Vector]], Vector]] = {
    "tensor_fusion": tensor_fusion,
    "lowrank_tensor_fusion": lowrank_tensor_fusion,
    "multiplicative_interaction": multiplicative_interaction,
    "mlb": mlb,
    "mfb": mfh,  # The first order.
    "mfh": mfh,
    "mutan": mutan,
    "tucker": tucker,
    "block_tucker": block_tucker,
    "block": block,
    "mcb": mcb,
    "hadamard_projection": hadamard_projection,
}
