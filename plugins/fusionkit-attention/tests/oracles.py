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
    """W x + b, entry by entry, of a dense matrix."""
    out = []
    for o in range(module.weight.shape[0]):
        total = 0.0 if module.bias is None else module.bias[o].item()
        for j, value in enumerate(x):
            total += module.weight[o, j].item() * value
        out.append(total)
    return out


def sigmoid(u: float) -> float:
    return 1 / (1 + math.exp(-u))


def joined(x: Sequence[Vector]) -> Vector:
    return [value for view in x for value in view]


def mean(values: Vector) -> float:
    return sum(values) / len(values)


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
    inner = [u * 0.5 * (1 + math.erf(u / math.sqrt(2))) for u in affine(op.branch[0], joined(parts))]
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


ORACLES: dict[str, Callable[[Any, Sequence[Vector], Sequence[bool]], Said]] = {
    "gated": gated,
    "attention_pool": attention_pool,
    "film": film,
    "adaptation_gate": adaptation_gate,
    "squeeze_excite": squeeze_excite,
    "residual_gate": residual_gate,
}
