"""The formulas of embracenet, mixture_of_experts, transformer and perceiver as loops over numbers, in float64.

They share no code with the operators.  Each takes the operator, for its parameters and options only, one row, k lists
of numbers, and which of its views are present; it returns y, and a number per view or per expert.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

Vector = list[float]


def affine(module: Any, x: Vector) -> Vector:
    """W x + b, entry by entry, of a dense matrix; without a bias W x."""
    out = []
    for o in range(module.weight.shape[0]):
        total = 0.0 if module.bias is None else module.bias[o].item()
        for j, value in enumerate(x):
            total += module.weight[o, j].item() * value
        out.append(total)
    return out


def softmax(scores: Vector) -> Vector:
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def mean(rows: Sequence[Vector], width: int) -> Vector:
    """The mean of vectors; zeros of this width where there is none."""
    return [sum(row[j] for row in rows) / len(rows) if rows else 0.0 for j in range(width)]


def plus(a: Vector, b: Vector) -> Vector:
    return [one + other for one, other in zip(a, b, strict=True)]


def embracenet(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> tuple[Vector, Vector]:
    """The evaluation."""
    h = [[max(0.0, u) for u in affine(module, view)] for module, view in zip(op.inputs, x, strict=True)]
    count = sum(present)
    kept = [row for row, here in zip(h, present, strict=True) if here]
    return mean(kept, op.n), [1 / count if here else 0.0 for here in present]


def gate(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> tuple[Vector, list[bool]]:
    """The weights of the experts, and which may be taken."""
    joined = [value if here else 0.0 for view, here in zip(x, present, strict=True) for value in view]
    by_view = op.experts == "views"
    scores = affine((op.scores if by_view else op.gate)[0], joined)
    able = [e for e in range(len(scores)) if not by_view or present[e]]
    if op.top_k is not None:
        able = sorted(able, key=lambda e: -scores[e])[: op.top_k]
    g = [0.0] * len(scores)
    if able:
        for e, weight in zip(able, softmax([scores[e] for e in able]), strict=True):
            g[e] = weight
    return g, [e in able for e in range(len(scores))]


def mixture_of_experts(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> tuple[Vector, Vector]:
    g, _ = gate(op, x, present)
    joined = [value if here else 0.0 for view, here in zip(x, present, strict=True) for value in view]
    y = [0.0] * op.n
    for e, weight in enumerate(g):
        out = affine(op.inputs[e], x[e]) if op.experts == "views" else affine(op.experts_on_all[e], joined)
        y = plus(y, [weight * value for value in out])
    return y, g


def balance_loss(op: Any, rows: Sequence[Sequence[Vector]], masks: Sequence[Sequence[bool]]) -> float:
    """Balance E sum_e f_e p_e over rows that have an expert."""
    gates = [gate(op, x, present) for x, present in zip(rows, masks, strict=True)]
    gates = [(g, able) for g, able in gates if any(able)]
    E = len(gates[0][0])
    total = 0.0
    for e in range(E):
        p = sum(g[e] for g, _ in gates) / len(gates)
        f = sum(able[e] for _, able in gates) / sum(sum(able) for _, able in gates)
        total += (p if op.top_k is None else f) * p
    return float(op.balance * E * total)


def layer_norm(op: Any, number: int, z: Vector) -> Vector:
    d = len(z)
    middle = sum(z) / d
    spread = math.sqrt(sum((value - middle) ** 2 for value in z) / d + 1e-5)
    return [
        op.norm_weights[number, j].item() * (z[j] - middle) / spread + op.norm_biases[number, j].item()
        for j in range(d)
    ]


def attention(
    op: Any, block: int, queries: Sequence[Vector], keys: Sequence[Vector], able: Sequence[bool], zero: bool = False
) -> tuple[list[Vector], list[Vector]]:
    """The results, and the weights of the keys for each query, mean over the heads."""
    q = [affine(op.queries[block], token) for token in queries]
    k = [affine(op.keys[block], token) for token in keys]
    v = [affine(op.values[block], token) for token in keys]
    assert op.keys[block].bias is None
    d, heads = op.width, op.heads
    e = d // heads
    used = [t for t in range(len(keys)) if able[t]]
    results, shares = [], []
    for query in q:
        joined: Vector = []
        share = [0.0] * len(keys)
        for head in range(heads):
            part = range(head * e, (head + 1) * e)
            scores = [sum(query[j] * k[t][j] for j in part) / math.sqrt(e) for t in used]
            weights = softmax([*scores, 0.0] if zero else scores) if zero or used else []
            joined += [sum(weights[i] * v[t][j] for i, t in enumerate(used)) for j in part]
            for i, t in enumerate(used):
                share[t] += weights[i] / heads
        results.append(affine(op.mixers[block], joined))
        shares.append(share)
    return results, shares


def feed(op: Any, block: int, norm: int, z: Vector) -> Vector:
    wide = affine(op.wide[block], layer_norm(op, norm, z))
    wide = [u * 0.5 * (1 + math.erf(u / math.sqrt(2))) for u in wide]
    return plus(z, affine(op.narrow[block], wide))


def layer(
    op: Any, block: int, norm: int, z: Sequence[Vector], able: Sequence[bool]
) -> tuple[list[Vector], list[Vector]]:
    """A pre-norm layer of all tokens, and its weights."""
    inner = [layer_norm(op, norm, token) for token in z]
    change, shares = attention(op, block, inner, inner, able)
    moved = [plus(token, one) for token, one in zip(z, change, strict=True)]
    return [feed(op, block, norm + 1, token) for token in moved], shares


def transformer(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> tuple[Vector, Vector]:
    z = [affine(module, view) for module, view in zip(op.inputs, x, strict=True)]
    able = list(present)
    if op.pool == "cls":
        z, able = [op.cls.tolist(), *z], [True, *able]
    for block in range(op.depth):
        z, shares = layer(op, block, 2 * block, z, able)
    z = [layer_norm(op, 2 * op.depth, token) for token in z]
    kept = [t for t in range(len(z)) if able[t]]
    if op.pool == "cls":
        return affine(op.output[0], z[0]), shares[0][1:]
    if op.pool == "mean":
        pooled = mean([z[t] for t in kept], op.width)
    else:
        pooled = [value if t in kept else 0.0 for t, token in enumerate(z) for value in token]
    return affine(op.output[0], pooled), mean([shares[t] for t in kept], len(x))


def perceiver(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> tuple[Vector, Vector]:
    tokens = [affine(module, view) for module, view in zip(op.inputs, x, strict=True)]
    latents = op.latents.tolist()
    keys = [layer_norm(op, 0, token) for token in tokens]
    queries = [layer_norm(op, 1, token) for token in latents]
    change, shares = attention(op, 0, queries, keys, present, zero=True)
    z = [feed(op, 0, 2, plus(token, one)) for token, one in zip(latents, change, strict=True)]
    for block in range(1, op.depth + 1):
        z, _ = layer(op, block, 2 * block + 1, z, [True] * len(z))
    z = [layer_norm(op, 2 * op.depth + 3, token) for token in z]
    pooled = mean(z, op.width) if op.pool == "mean" else [value for token in z for value in token]
    return affine(op.output[0], pooled), mean(shares, len(x))


ORACLES: dict[str, Callable[[Any, Sequence[Vector], Sequence[bool]], tuple[Vector, Vector]]] = {
    "embracenet": embracenet,
    "mixture_of_experts": mixture_of_experts,
    "transformer": transformer,
    "perceiver": perceiver,
}
