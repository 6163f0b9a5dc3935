"""The formulas as loops over numbers, in float64; they share no code with the operators.

Each takes the operator, for its parameters and options only, one row (k lists of numbers, zeros where a view is
absent) and which views are present.  It returns what ``explain`` should.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

Vector = list[float]
Said = dict[str, Any]


def affine(module: Any, x: Vector) -> Vector:
    """W x + b, entry by entry, of a dense matrix; W x where it has no bias."""
    out = [0.0] * module.weight.shape[0] if module.bias is None else module.bias.tolist()
    for o, row in enumerate(module.weight.tolist()):
        for j, value in enumerate(x):
            out[o] += row[j] * value
    return out


def sigmoid(u: float) -> float:
    return 1 / (1 + math.exp(-u))


def gelu(u: float) -> float:
    return u * 0.5 * (1 + math.erf(u / math.sqrt(2)))


def joined(x: Sequence[Vector]) -> Vector:
    return [value for view in x for value in view]


def mean(values: Vector) -> float:
    return sum(values) / len(values)


def plus(a: Vector, b: Vector) -> Vector:
    return [one + other for one, other in zip(a, b, strict=True)]


def mean_of_rows(rows: Sequence[Vector], width: int) -> Vector:
    """The mean of vectors; zeros of this width where there is none."""
    return [sum(row[j] for row in rows) / len(rows) if rows else 0.0 for j in range(width)]


def softmax(scores: Vector, present: Sequence[bool]) -> Vector:
    """Over the present entries; 0 for the others."""
    total = sum(math.exp(score) for score, there in zip(scores, present, strict=True) if there)
    return [math.exp(score) / total if there else 0.0 for score, there in zip(scores, present, strict=True)]


def gated(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> Said:
    k, n = len(x), op.n
    scores = affine(op.gates[0], joined(x))
    if op.tied:
        gates = [[sigmoid(u) for u in scores], [1 - sigmoid(u) for u in scores]]
    elif op.gate == "sigmoid":
        gates = [[sigmoid(scores[i * n + o]) for o in range(n)] for i in range(k)]
    else:
        columns = [softmax([scores[i * n + o] for i in range(k)], present) for o in range(n)]
        gates = [[columns[o][i] for o in range(n)] for i in range(k)]
    gates = [gate if there else [0.0] * n for gate, there in zip(gates, present, strict=True)]
    units = [[math.tanh(u) for u in affine(module, view)] for module, view in zip(op.inputs, x, strict=True)]
    output = [sum(gates[i][o] * units[i][o] for i in range(k)) for o in range(n)]
    return {"output": output, "gates": gates, "weights": [mean(gate) for gate in gates]}


def plain_score(op: Any, h: Vector) -> float:
    return affine(op.outer[0], [math.tanh(u) for u in affine(op.inner[0], h)])[0]


def attention_pool(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> Said:
    k, n = len(x), op.n
    h = [affine(module, view) for module, view in zip(op.inputs, x, strict=True)]
    if op.scores == "feature":
        scores = [affine(op.outer[0], one) for one in h]
        columns = [softmax([scores[i][o] / op.tau for i in range(k)], present) for o in range(n)]
        gates = [[columns[o][i] for o in range(n)] for i in range(k)]
        output = [sum(gates[i][o] * h[i][o] for i in range(k)) for o in range(n)]
        return {"output": output, "gates": gates, "weights": [mean(gate) for gate in gates]}
    if op.scores == "joint":
        single = affine(op.outer[0], joined(x))
    elif op.scores == "plain":
        single = [plain_score(op, one) for one in h]
    else:
        single = []
        for one in h:
            pairs = zip(affine(op.inner[0], one), affine(op.inner[1], one), strict=True)
            single.append(affine(op.outer[0], [math.tanh(u) * sigmoid(g) for u, g in pairs])[0])
    weights = softmax([score / op.tau for score in single], present)
    return {"output": [sum(weights[i] * h[i][o] for i in range(k)) for o in range(n)], "weights": weights}


def residual_gate(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> Said:
    h = [affine(module, view) for module, view in zip(op.inputs, x, strict=True)]
    weights = softmax([plain_score(op, one) for one in h], present)
    parts = [[weight * u for u in one] for weight, one in zip(weights, h, strict=True)]
    inner = [gelu(u) for u in affine(op.branch[0], joined(parts))]
    rest = affine(op.output[0], inner)
    return {"output": [sum(part[o] for part in parts) + rest[o] for o in range(op.n)], "weights": weights}


def film(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> Said:
    n, others = op.n, [view for i, view in enumerate(x) if i != op.main]
    changes = [op.g0[o].item() for o in range(2 * n)]
    if others:
        changes = [start + u for start, u in zip(changes, affine(op.changes[0], joined(others)), strict=True)]
    main = affine(op.inputs[0], x[op.main])
    gates = [1 + g for g in changes[:n]]
    return {"output": [gates[o] * main[o] + changes[n + o] for o in range(n)], "gates": gates}


def adaptation_gate(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> Said:
    main, H, weights = x[op.main], [op.bias[o].item() for o in range(op.n)], []
    place = 0
    for i, view in enumerate(x):
        if i == op.main:
            weights.append(1.0)
            continue
        gate = [max(u, 0.0) for u in affine(op.gates[place], main + view)]
        part = affine(op.inputs[place], view)
        H = [total + g * u for total, g, u in zip(H, gate, part, strict=True)]
        weights.append(mean(gate))
        place += 1
    length, size = (math.sqrt(sum(u * u for u in vector)) for vector in (main, H))
    scale = 1.0 if size == 0 else min(op.beta * length / size, 1.0)
    weights = [weight if there else 0.0 for weight, there in zip(weights, present, strict=True)]
    return {"output": [u + scale * v for u, v in zip(main, H, strict=True)], "weights": weights, "scale": scale}


def squeeze_excite(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> Said:
    inner = [max(u, 0.0) for u in affine(op.squeeze[0], joined(x))]
    gates = [2 * sigmoid(u) for u in affine(op.excite[0], inner)]
    output = [gate * value for gate, value in zip(gates, joined(x), strict=True)]
    weights, start = [], 0
    for i, view in enumerate(x):
        for o in range(start, start + len(view)):
            gates[o] = gates[o] if present[i] else 0.0
        weights.append(mean(gates[start : start + len(view)]))
        start += len(view)
    return {"output": output, "gates": gates, "weights": weights}


def embracenet(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> Said:
    """The evaluation."""
    h = [[max(0.0, u) for u in affine(module, view)] for module, view in zip(op.inputs, x, strict=True)]
    kept = [row for row, there in zip(h, present, strict=True) if there]
    weights = [1 / len(kept) if there else 0.0 for there in present]
    return {"output": mean_of_rows(kept, op.n), "weights": weights}


def gate(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> tuple[Vector, list[bool]]:
    """The weights of the experts, and which may be taken."""
    by_view = op.experts == "views"
    scores = affine((op.scores if by_view else op.gate)[0], joined(x))
    able = list(present) if by_view else [True] * len(scores)
    if op.top_k is not None:
        best = sorted((e for e, there in enumerate(able) if there), key=lambda e: -scores[e])[: op.top_k]
        able = [e in best for e in range(len(scores))]
    return softmax(scores, able), able


def mixture_of_experts(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> Said:
    by_view = op.experts == "views"
    g, _ = gate(op, x, present)
    y = [0.0] * op.n
    for e, weight in enumerate(g):
        out = affine(op.inputs[e], x[e]) if by_view else affine(op.experts_on_all[e], joined(x))
        y = plus(y, [weight * value for value in out])
    return {"output": y, "weights" if by_view else "experts": g}


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
    """The results, and the weights of the keys for each query, mean over the heads; ``zero``: and a key of zeros."""
    q = [affine(op.queries[block], token) for token in queries]
    k = [affine(op.keys[block], token) for token in keys]
    v = [affine(op.values[block], token) for token in keys]
    assert op.keys[block].bias is None
    e = op.width // op.heads
    results, shares = [], []
    for query in q:
        mixed: Vector = []
        share = [0.0] * len(keys)
        for head in range(op.heads):
            part = range(head * e, (head + 1) * e)
            scores = [sum(query[j] * key[j] for j in part) / math.sqrt(e) for key in k]
            weights = softmax([*scores, 0.0], [*able, zero])[:-1]
            mixed += [sum(weight * value[j] for weight, value in zip(weights, v, strict=True)) for j in part]
            share = plus(share, [weight / op.heads for weight in weights])
        results.append(affine(op.mixers[block], mixed))
        shares.append(share)
    return results, shares


def feed(op: Any, block: int, norm: int, z: Vector) -> Vector:
    wide = affine(op.wide[block], layer_norm(op, norm, z))
    return plus(z, affine(op.narrow[block], [gelu(u) for u in wide]))


def layer(
    op: Any, block: int, norm: int, z: Sequence[Vector], able: Sequence[bool]
) -> tuple[list[Vector], list[Vector]]:
    """A pre-norm layer of all tokens, and its weights."""
    inner = [layer_norm(op, norm, token) for token in z]
    change, shares = attention(op, block, inner, inner, able)
    moved = [plus(token, one) for token, one in zip(z, change, strict=True)]
    return [feed(op, block, norm + 1, token) for token in moved], shares


def transformer(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> Said:
    z = [affine(module, view) for module, view in zip(op.inputs, x, strict=True)]
    able = list(present)
    if op.pool == "cls":
        z, able = [op.cls.tolist(), *z], [True, *able]
    for block in range(op.depth):
        z, shares = layer(op, block, 2 * block, z, able)
    z = [layer_norm(op, 2 * op.depth, token) for token in z]
    if op.pool == "cls":
        return {"output": affine(op.output[0], z[0]), "weights": shares[0][1:]}
    kept = [t for t, there in enumerate(able) if there]
    if op.pool == "mean":
        pooled = mean_of_rows([z[t] for t in kept], op.width)
    else:
        pooled = [value if there else 0.0 for token, there in zip(z, able, strict=True) for value in token]
    return {"output": affine(op.output[0], pooled), "weights": mean_of_rows([shares[t] for t in kept], len(x))}


def perceiver(op: Any, x: Sequence[Vector], present: Sequence[bool]) -> Said:
    tokens = [affine(module, view) for module, view in zip(op.inputs, x, strict=True)]
    latents = op.latents.tolist()
    keys = [layer_norm(op, 0, token) for token in tokens]
    queries = [layer_norm(op, 1, token) for token in latents]
    change, shares = attention(op, 0, queries, keys, present, zero=True)
    z = [feed(op, 0, 2, plus(token, one)) for token, one in zip(latents, change, strict=True)]
    for block in range(1, op.depth + 1):
        z, _ = layer(op, block, 2 * block + 1, z, [True] * len(z))
    z = [layer_norm(op, 2 * op.depth + 3, token) for token in z]
    pooled = mean_of_rows(z, op.width) if op.pool == "mean" else joined(z)
    return {"output": affine(op.output[0], pooled), "weights": mean_of_rows(shares, len(x))}


ORACLES: dict[str, Callable[[Any, Sequence[Vector], Sequence[bool]], Said]] = {
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
