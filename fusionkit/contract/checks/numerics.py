"""dtypes, devices and values."""

from __future__ import annotations

import torch

from fusionkit.contract.rules import describe, expect, rule
from fusionkit.contract.subject import Subject
from fusionkit.errors import FusionError

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@rule()
def check_dtype_preserved(subject: Subject) -> None:
    """The output has the dtype of the views; integer views, and views of different dtypes, are a `FusionError`.

    Create constants with the dtype of the views and buffers with `**self._factory`; cast back what was computed in
    float32.
    """
    for dtype in DTYPES:
        built = subject.operator(dtype=dtype)
        cast = subject.operator().to(dtype)
        for how, op in (("built", built), ("cast", cast)):
            out = subject.forward(op, subject.views(3, dtype=dtype))
            expect(out.dtype == dtype, f"an operator {how} as {dtype} should return {dtype}", str(out.dtype))
    op = subject.operator()
    for wrong in (torch.int64, torch.bool):
        x = [torch.ones(2, width).to(wrong) for width in subject.dims]
        _refuses(op, x, f"views of dtype {wrong}")
    if len(subject.dims) > 1:
        x = subject.views(2)
        _refuses(op, [x[0].float(), *x[1:]], "views of dtype float32 and float64")


def _refuses(op: object, x: list[torch.Tensor], what: str) -> None:
    should = f"{what} should be refused with a FusionError"
    try:
        out = op(x)  # type: ignore[operator]
    except FusionError:
        return
    except Exception as error:
        expect(False, should, describe(error))
    expect(False, should, f"an output of dtype {getattr(out, 'dtype', None)}")
