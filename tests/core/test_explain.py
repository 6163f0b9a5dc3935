"""What an operator says besides its output, and the softmax over present views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import fusionkit
from fusionkit.fusion import ElementwiseFusion, masked_softmax


class Nearest(ElementwiseFusion):
    """`sum_i w_i A_i`, `w = softmax_i(-|A_i|^2)`; views (..., n) -> (..., n); l = 0.  ``weights`` (..., k)."""

    traits = fusionkit.Traits(permutation_invariant=True, batch_independent=True, missing="skip")

    def _weights(self, x: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        return masked_softmax(-torch.stack([view.square().sum(-1) for view in x], -1), mask)

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        weights = self._weights(x, mask)
        output = sum(view * weight for view, weight in zip(x, weights.split(1, -1), strict=True))
        assert isinstance(output, Tensor)
        return {"output": output, "weights": weights}

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return self._explain(x, None)["output"]

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return self._explain(x, mask)["output"]


def _case(**options: Any) -> tuple[Any, list[Tensor], Tensor]:
    torch.manual_seed(0)
    op = Nearest(dims=[3, 3, 3], **options)
    x = [torch.randn(4, 3) for _ in range(3)]
    mask = torch.tensor([[True, True, True], [True, False, True], [False, False, True], [False, False, False]])
    return op, x, mask


def test_an_operator_says_nothing_by_default() -> None:
    op = fusionkit.create("summation", dims=[2, 2])
    assert not op.explains()
    assert op.explain([torch.ones(1, 2)] * 2) == {}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", [{}, {"preprocess": "layer_norm"}, {"postprocess": "relu"}], ids=str)
def test_the_output_is_that_of_forward(options: dict[str, Any], masked: bool) -> None:
    op, x, mask = _case(**options)
    said = op.explain(x, mask=mask if masked else None)
    assert list(said) == ["output", "weights"]
    assert torch.equal(said["output"], op(x, mask=mask if masked else None))


def test_weights_of_absent_views() -> None:
    op, x, mask = _case()
    weights = op.explain(x, mask=mask)["weights"]
    for row in range(4):
        scores = [math.exp(-float(view[row].square().sum())) * bool(mask[row, i]) for i, view in enumerate(x)]
        wanted = [score / sum(scores) if sum(scores) else 0.0 for score in scores]
        assert weights[row].tolist() == pytest.approx(wanted, abs=1e-6)
    # A view that is None is absent from every row.
    assert not op.explain([x[0], None, x[2]])["weights"][:, 1].any()


@pytest.mark.parametrize("kind", ["placeholder", "indicator"])
def test_with_the_option_missing(kind: str) -> None:
    op, x, mask = _case()
    op.add_missing(kind)
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.fill_(0.5)
    said = op.explain(x, mask=mask)
    assert torch.equal(said["output"], op(x, mask=mask))
    # A placeholder stands for the view, and weighs as one.
    assert bool(said["weights"][~mask].all()) == (kind == "placeholder")


def test_the_views_are_validated() -> None:
    op, x, mask = _case()
    with pytest.raises(fusionkit.DimsError, match="3 views"):
        op.explain(x[:2])
    with pytest.raises(fusionkit.FusionError, match="mask should have shape"):
        op.explain(x, mask=mask[:, :2])


@pytest.mark.parametrize("dim", [-1, 0])
def test_masked_softmax(dim: int) -> None:
    torch.manual_seed(0)
    scores = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(4, 4) < 0.5
    mask[2], mask[:, 2] = False, False
    out = masked_softmax(scores, mask, dim)
    rows = (scores, mask, out) if dim else (scores.T, mask.T, out.T)
    for line, present, found in zip(*(tensor.tolist() for tensor in rows), strict=True):
        parts = [math.exp(score) * there for score, there in zip(line, present, strict=True)]
        assert found == pytest.approx([part / sum(parts) if sum(parts) else 0.0 for part in parts])
    (gradient,) = torch.autograd.grad(out.square().sum(), scores)
    assert gradient.isfinite().all()
    assert not gradient[~mask].any()
    assert torch.equal(masked_softmax(scores, None, dim), scores.softmax(dim))
