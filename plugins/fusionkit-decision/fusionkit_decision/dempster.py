"""Evidence of several views, combined by Dempster's rule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from fusionkit.fusion import FusionOptions, Traits, check_choice
from torch import Tensor

from fusionkit_decision.base import ClassFusion, added, wide

#: From here on softplus(x) is x in float64 too; torch's own threshold, 20, is right to 1e-10 only.
LINEAR = 40.0


class Dempster(ClassFusion):
    """`e = c expm1(s)` with `s = sum_i log1p(e_i / c)`, of which log(e + 1) is given, (..., c) each -> (..., c).

    Late fusion: ``model.head=none``, where the encoders give what evidence is made of.  Evidence e_i of view i for each
    of c classes are the parameters e_i + 1 of a Dirichlet distribution and an opinion with the uncertainty c / (sum e_i
    + c); e is what Dempster's rule makes of all opinions, whatever their order.  It is computed as `log(e + 1) = s +
    log1p(-(c-1) expm1(-s))`, which is finite for any evidence.  The softmax of log(e + 1) is the mean of the Dirichlet
    distribution.  l = 0.  One view gives its own evidence.  A row without any view gives 0.  Source: Han et al.,
    "Trusted Multi-View Classification", 2021, section 3.2, the reduced combination rule, here in closed form.

    ``explain`` adds the `uncertainty` (...), c / (sum e + c), and the `view_uncertainty` (..., k) of each view, which
    is 1 for an absent one: it has no evidence.

    Args:
        evidence: what makes evidence of a view: "softplus", "relu", or "given" for views that are evidence already,
            at least 0.
        output: "log" for log(e + 1), or "evidence" for e, which grows as the product of the views' evidence.
        n, dims, name, require_parameters, preprocess, postprocess, device, dtype: as for every fusion.
    """

    traits = Traits(permutation_invariant=True, batch_independent=True, missing="skip")

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        evidence: str = "softplus",
        output: str = "log",
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.evidence = check_choice("evidence", evidence, ("softplus", "relu", "given"))
        self.output = check_choice("output", output, ("log", "evidence"))

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return two kinds of evidence, and both outputs; random views are no evidence of their own."""
        return [{"dims": [4, 4, 4]}, {"dims": [3, 3], "evidence": "relu"}, {"dims": [5, 5], "output": "evidence"}]

    def _evidence(self, x: Sequence[Tensor]) -> list[Tensor]:
        views = wide(x)
        if self.evidence == "given":
            return views
        return [F.softplus(view, 1.0, LINEAR) if self.evidence == "softplus" else F.relu(view) for view in views]

    def _logarithms(self, evidence: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """Return s (..., c)."""
        terms = [torch.log1p(view / view.shape[-1]) for view in evidence]
        if mask is not None:
            terms = [torch.where(column, term, 0.0) for column, term in zip(mask.split(1, -1), terms, strict=True)]
        return added(terms)

    def _combined(self, s: Tensor) -> Tensor:
        """Return log(e + 1)."""
        return s + torch.log1p(torch.expm1(-s) * (1 - s.shape[-1]))

    def _fuse(self, x: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        return self._output(self._logarithms(self._evidence(x), mask)).to(x[0].dtype)

    _fuse_masked = _fuse

    def _output(self, s: Tensor) -> Tensor:
        return self._combined(s) if self.output == "log" else torch.expm1(s) * s.shape[-1]

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        evidence = self._evidence(x)
        s = self._logarithms(evidence, mask)
        of_views = torch.stack([1 / (1 + view.mean(-1)) for view in evidence], -1)
        if mask is not None:
            of_views = torch.where(mask, of_views, 1.0)
        said = {
            "output": self._output(s),
            # sum e + c is the sum of all e + 1, by their logarithms: it may be too large for the dtype.
            "uncertainty": torch.exp(math.log(s.shape[-1]) - self._combined(s).logsumexp(-1)),
            "view_uncertainty": of_views,
        }
        return {key: value.to(x[0].dtype) for key, value in said.items()}
