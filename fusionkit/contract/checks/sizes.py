"""What the operator says of its sizes: n, the width of the output, and l, the number of its parameters."""

from __future__ import annotations

from fusionkit.contract.rules import describe, expect, rule
from fusionkit.contract.subject import Subject


@rule()
def check_n_matches_output(subject: Subject) -> None:
    """The output is as wide as `calculate_n()` says.

    Let `calculate_n` return the width that `_fuse` produces for these dims.
    """
    op = subject.operator()
    out = subject.forward(op, subject.views(2))
    try:
        n = op.calculate_n()
    except Exception as error:
        expect(False, "calculate_n() should return the width of the output", describe(error))
    expect(
        out.dim() > 0 and out.shape[-1] == n,
        f"the output should have width calculate_n() = {n!r}",
        str(tuple(out.shape)),
    )
    expect(op.n == n, f"the attribute n should be calculate_n() = {n!r}", op.n)


@rule()
def check_l_matches_parameters(subject: Subject) -> None:
    """`calculate_l()` is the number of elements of the own parameters, frozen or not, without pre- and postprocess.

    Let `calculate_l` add up the sizes of what the constructor registers, and register every parameter, also those
    that are kept in lists.
    """
    op = subject.build()
    own = subject.own(op)
    total = sum(parameter.numel() for _, parameter in own)
    shapes = {name: tuple(parameter.shape) for name, parameter in own}
    expect(_l(op) == total, f"calculate_l() should be {total}, the elements of the own parameters {shapes}", _l(op))
    for parameter in op.parameters():
        parameter.requires_grad_(False)
    expect(_l(op) == total, f"calculate_l() should stay {total} when the parameters are frozen", _l(op))
    extended = subject.build(preprocess={"name": "layer_norm"}, postprocess={"name": "linear"})
    expect(
        _l(extended) == total, f"calculate_l() should stay {total} with a preprocess and a postprocess", _l(extended)
    )


def _l(op: object) -> object:
    try:
        return op.calculate_l()  # type: ignore[attr-defined]
    except Exception as error:
        return describe(error)
