"""The formulas as loops over numbers, in float64; they share no code with the operators.

Each takes the operator, for its parameters and options only, and one row: a list of numbers for each view that is
present, and the indices of these views.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

Vector = list[float]


def probabilities(x: Vector, tau: float = 1.0) -> Vector:
    """The softmax, shifted by the greatest number."""
    top = max(x)
    powers = [math.exp((value - top) / tau) for value in x]
    return [power / sum(powers) for power in powers]


def softplus(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def log_weights(op: Any, views: Sequence[int]) -> Vector:
    """The w_i of a log_pool."""
    if op.weighting == "learned":
        return [softplus(op.weight[i].item()) for i in views]
    return [1.0 if op.weighting == "one" else 1 / len(views) for _ in views]


def log_pool(op: Any, x: Sequence[Vector], views: Sequence[int]) -> Vector:
    if not x:
        return [-math.log(op.n)] * op.n
    weights = log_weights(op, views)
    sums = [sum(w * view[j] for w, view in zip(weights, x, strict=True)) / op.tau for j in range(op.n)]
    return [math.log(p) for p in probabilities(sums)]


def linear_weights(op: Any, views: Sequence[int]) -> Vector:
    """The w_i of a linear_pool."""
    if op.weighting == "learned":
        return probabilities([op.weight[i].item() for i in views])
    return [1 / len(views) for _ in views]


def linear_pool(op: Any, x: Sequence[Vector], views: Sequence[int]) -> Vector:
    if not x:
        return [-math.log(op.n)] * op.n
    ps = [probabilities(view, op.tau) for view in x]
    weights = linear_weights(op, views)
    return [math.log(sum(w * p[j] for w, p in zip(weights, ps, strict=True))) for j in range(op.n)]


def evidence_of(op: Any, view: Vector) -> Vector:
    kinds: dict[str, Callable[[float], float]] = {
        "softplus": softplus,
        "relu": lambda value: max(value, 0.0),
        "given": lambda value: value,
    }
    return [kinds[op.evidence](value) for value in view]


def combined(one: Vector, other: Vector) -> Vector:
    """Dempster's rule for the opinions of two Dirichlet distributions: masses of all pairs of focal sets."""
    c = len(one)
    masses = []
    for evidence in (one, other):
        strength = sum(evidence) + c
        masses.append({frozenset([j]): e / strength for j, e in enumerate(evidence)})
        masses[-1][frozenset(range(c))] = c / strength
    joint = dict.fromkeys(masses[0], 0.0)
    for (a, mass_a), (b, mass_b) in itertools.product(masses[0].items(), masses[1].items()):
        if a & b:  # What remains is the conflict.
            joint[a & b] += mass_a * mass_b
    total = sum(joint.values())
    doubt = joint[frozenset(range(c))] / total
    return [joint[frozenset([j])] / total * c / doubt for j in range(c)]


def fused_evidence(op: Any, x: Sequence[Vector]) -> Vector:
    """The evidence of all views, by the rule for two."""
    e = [0.0] * op.n
    for view in x:
        e = combined(e, evidence_of(op, view))
    return e


def dempster(op: Any, x: Sequence[Vector], views: Sequence[int]) -> Vector:
    e = fused_evidence(op, x)
    return [math.log(value + 1) for value in e] if op.output == "log" else e


def confidence_weights(op: Any, x: Sequence[Vector]) -> Vector:
    """The w_i of a confidence_pool."""
    scores = []
    for view in x:
        p = probabilities(view)
        if op.score == "entropy":
            scores.append(sum(value * math.log(value) for value in p))
        elif op.score == "margin":
            first, second, *_ = sorted(p, reverse=True)
            scores.append(first - second)
        else:
            scores.append(math.log(sum(math.exp(value) for value in view)))
    return probabilities(scores, op.tau)


def confidence_pool(op: Any, x: Sequence[Vector], views: Sequence[int]) -> Vector:
    if not x:
        return [0.0] * op.n
    weights = confidence_weights(op, x)
    return [sum(w * view[j] for w, view in zip(weights, x, strict=True)) for j in range(op.n)]


def precisions(op: Any, x: Sequence[Vector], views: Sequence[int], j: int) -> Vector:
    """The precisions a_i / exp(lv_i) of coordinate j."""
    d = op.n // 2
    factors = [math.exp(op.weight[i].item()) if op.weighting == "learned" else 1.0 for i in views]
    return [a / math.exp(view[d + j]) for a, view in zip(factors, x, strict=True)]


def gaussian_product(op: Any, x: Sequence[Vector], views: Sequence[int]) -> Vector:
    mus, lvs = [], []
    for j in range(op.n // 2):
        parts = precisions(op, x, views, j)
        total = sum(parts) + (1.0 if op.prior or not x else 0.0)
        mus.append(sum(part * view[j] for part, view in zip(parts, x, strict=True)) / total)
        lvs.append(-math.log(total))
    return mus + lvs


def gaussian_mixture(op: Any, x: Sequence[Vector], views: Sequence[int]) -> Vector:
    if not x:
        return [0.0] * op.n
    d = op.n // 2
    mus, lvs = [], []
    for j in range(d):
        experts = []
        sizes = range(1, len(x) + 1) if op.subsets else [1]
        for chosen in itertools.chain.from_iterable(itertools.combinations(x, size) for size in sizes):
            parts = [1 / math.exp(view[d + j]) for view in chosen]
            mean = sum(part * view[j] for part, view in zip(parts, chosen, strict=True)) / sum(parts)
            experts.append((mean, 1 / sum(parts)))
        mu = sum(mean for mean, _ in experts) / len(experts)
        # The second moment minus the square of the first one.
        second = sum(variance + mean * mean for mean, variance in experts) / len(experts)
        mus.append(mu)
        lvs.append(math.log(second - mu * mu))
    return mus + lvs


def comparison(op: Any, x: Sequence[Vector], views: Sequence[int]) -> Vector:
    present = dict(zip(views, x, strict=True))
    width = op.dims[0]
    out: Vector = []
    for i in range(len(op.dims)):
        for j in range(i + 1, len(op.dims)):
            if i not in present or j not in present:
                out += [0.0] * (2 * width + 2)
                continue
            one, other = present[i], present[j]
            dot = sum(a * b for a, b in zip(one, other, strict=True))
            norms = math.sqrt(sum(a * a for a in one)) * math.sqrt(sum(b * b for b in other))
            out += [abs(a - b) for a, b in zip(one, other, strict=True)]
            out += [a * b for a, b in zip(one, other, strict=True)]
            out += [dot, dot / norms if norms else 0.0]
    return out


ORACLES: dict[str, Callable[[Any, Sequence[Vector], Sequence[int]], Vector]] = {
    "log_pool": log_pool,
    "linear_pool": linear_pool,
    "dempster": dempster,
    "confidence_pool": confidence_pool,
    "gaussian_product": gaussian_product,
    "gaussian_mixture": gaussian_mixture,
    "comparison": comparison,
}


def padded(values: Sequence[float], views: Sequence[int], k: int) -> Vector:
    """Values of the present views, 0 for the others."""
    out = [0.0] * k
    for i, value in zip(views, values, strict=True):
        out[i] = value
    return out


def said(op: Any, x: Sequence[Vector], views: Sequence[int]) -> dict[str, Any]:
    """What ``explain`` adds to the output."""
    k = len(op.dims)
    if op.name == "dempster":
        view_uncertainty = [1.0] * k
        for i, view in zip(views, x, strict=True):
            view_uncertainty[i] = op.n / (sum(evidence_of(op, view)) + op.n)
        return {"uncertainty": op.n / (sum(fused_evidence(op, x)) + op.n), "view_uncertainty": view_uncertainty}
    if op.name == "gaussian_product":
        gates = [[0.0] * (op.n // 2) for _ in range(k)]
        for j in range(op.n // 2):
            parts = precisions(op, x, views, j)
            total = sum(parts) + (1.0 if op.prior else 0.0)
            for i, part in zip(views, parts, strict=True):
                gates[i][j] = part / total
        return {"gates": gates, "weights": [sum(gate) / len(gate) for gate in gates]}
    if op.name in ("gaussian_mixture", "comparison"):
        return {}
    if not x:
        return {"weights": [0.0] * k}
    if op.name == "log_pool":
        weights = log_weights(op, views)
        return {"weights": padded([w / sum(weights) for w in weights], views, k)}
    weights = linear_weights(op, views) if op.name == "linear_pool" else confidence_weights(op, x)
    return {"weights": padded(weights, views, k)}
