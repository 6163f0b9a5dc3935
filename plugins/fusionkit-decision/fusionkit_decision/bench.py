"""Compares speed and memory of the operators with straightforward implementations of their formulas.

    python -m fusionkit_decision.bench [NAME ...] [--rows 4096] [--views 6] [--width 100] [--json FILE] (see --help)

The references follow the formulas as they stand.  ``dempster, pairs`` is measured against the published rule for two
views, k - 1 times.  Operator and reference are timed in turn in one run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from fusionkit.bench import references
from fusionkit.bench.references import Job, Reference, References, Row
from torch import Tensor

from fusionkit_decision.plugin import OPERATORS


def log_pool(x: Sequence[Tensor]) -> Tensor:
    """The normalized product."""
    return F.log_softmax(torch.stack(list(x)).sum(0), -1)


def linear_pool(x: Sequence[Tensor]) -> Tensor:
    """The mean of the probabilities, by their logarithms."""
    logs = torch.stack([F.log_softmax(view, -1) for view in x])
    return torch.logsumexp(logs + math.log(1 / len(x)), 0)


def dempster(x: Sequence[Tensor]) -> Tensor:
    """The closed formula."""
    c = x[0].shape[-1]
    s = torch.stack([torch.log1p(F.softplus(view) / c) for view in x]).sum(0)
    return s + torch.log1p(-(c - 1) * torch.expm1(-s))


def dempster_pairs(x: Sequence[Tensor]) -> Tensor:
    """The combination of two opinions, with the matrix of all products of their beliefs, for one view after another."""
    c = x[0].shape[-1]
    evidence = F.softplus(x[0])
    for view in x[1:]:
        beliefs, doubts = [], []
        for one in (evidence, F.softplus(view)):
            strength = (one + 1).sum(-1, keepdim=True)
            beliefs.append(one / strength)
            doubts.append(c / strength)
        products = torch.bmm(beliefs[0].unsqueeze(2), beliefs[1].unsqueeze(1))
        conflict = products.sum((1, 2)) - products.diagonal(dim1=1, dim2=2).sum(-1)
        rest = (1 - conflict).unsqueeze(-1)
        belief = (beliefs[0] * beliefs[1] + beliefs[0] * doubts[1] + beliefs[1] * doubts[0]) / rest
        evidence = belief * (c / (doubts[0] * doubts[1] / rest))
    return torch.log(evidence + 1)


def confidence_pool(x: Sequence[Tensor]) -> Tensor:
    """The sum, weighted by minus the entropies."""
    scores = [(view.softmax(-1) * view).sum(-1) - view.logsumexp(-1) for view in x]
    weights = torch.stack(scores).softmax(0).unsqueeze(-1)
    return (weights * torch.stack(list(x))).sum(0)


def gaussian_product(x: Sequence[Tensor]) -> Tensor:
    """A softmax and a logsumexp of the negative logarithms of variances."""
    mus, lvs = torch.stack(list(x)).chunk(2, -1)
    return torch.cat([((-lvs).softmax(0) * mus).sum(0), -torch.logsumexp(-lvs, 0)], -1)


def gaussian_mixture(x: Sequence[Tensor]) -> Tensor:
    """The moments."""
    mus, lvs = torch.stack(list(x)).chunk(2, -1)
    mu = mus.mean(0)
    return torch.cat([mu, torch.log((lvs.exp() + (mus - mu) ** 2).mean(0))], -1)


def comparison(x: Sequence[Tensor]) -> Tensor:
    """Four parts of every pair."""
    pieces = []
    for one, other in combinations(x, 2):
        dot, cos = (one * other).sum(-1, keepdim=True), F.cosine_similarity(one, other, dim=-1).unsqueeze(-1)
        pieces += [(one - other).abs(), one * other, dot, cos]
    return torch.cat(pieces, -1)


FORMULAS: dict[str, Callable[[Sequence[Tensor]], Tensor]] = {
    "log_pool": log_pool,
    "linear_pool": linear_pool,
    "dempster": dempster,
    "confidence_pool": confidence_pool,
    "gaussian_product": gaussian_product,
    "gaussian_mixture": gaussian_mixture,
    "comparison": comparison,
}


def reference(formula: Callable[[Sequence[Tensor]], Tensor]) -> Callable[[Any], Reference]:
    """Return what makes the reference of an operator without parameters."""
    return lambda op: Reference(lambda ref, x: formula(x))


REFERENCES: References = {name: reference(formula) for name, formula in FORMULAS.items()}


@dataclass(frozen=True)
class Pairs(Job):
    """The comparison of dempster with the rule for two views."""

    def measure(self, references: References, seconds: float = 2.0) -> Row:
        """Compare the operator with ``dempster_pairs``."""
        row = super().measure({"dempster": reference(dempster_pairs)}, seconds)
        return replace(row, name="dempster, pairs")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison of the operators that are named, or of all."""
    parser = references.parser("python -m fusionkit_decision.bench", __doc__ or "", list(OPERATORS))
    parser.add_argument("--rows", type=int, default=4096, metavar="M", help="rows of the views (default 4096)")
    parser.add_argument("--views", type=int, default=6, metavar="K", help="number of views (default 6)")
    parser.add_argument("--width", type=int, default=100, metavar="C", help="width of the views (default 100)")
    options = parser.parse_args(argv)
    jobs: list[Job] = []
    for name in options.names or OPERATORS:
        jobs.append(Job(name, options.rows, [options.width] * options.views))
        if name == "dempster":
            jobs.append(Pairs(name, options.rows, [options.width] * options.views))
    return references.compare(jobs, REFERENCES, options)


if __name__ == "__main__":
    raise SystemExit(main())
