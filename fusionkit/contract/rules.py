"""The parts of a check: the decorator with its tier and needs, and functions that report a broken rule."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any, Literal, NoReturn, TypeVar

import torch
from torch import Tensor

from fusionkit._util.text import error_line
from fusionkit.errors import FusionError

__all__ = [
    "Check",
    "Kind",
    "Rule",
    "Skip",
    "Violation",
    "any_attempt",
    "describe",
    "equal",
    "expect",
    "has_shape",
    "located",
    "no_error",
    "outcome",
    "refuses",
    "rule",
    "rule_of",
    "skip",
]

Kind = Literal["fusion", "fabrication"]
#: A check may return a remark, which becomes the reason of its result.
Check = Callable[[Any], str | None]
#: The cases on which a check runs: all, those of ``examples()``, the first, or once without a case.
Scope = Literal["all", "examples", "first", "none"]

C = TypeVar("C", bound=Callable[..., str | None])
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rule:
    """The description of a check.

    Attributes:
        name: the function's name without ``check_``.
        summary: the rule in one sentence, the docstring's first line.
        mend: how to mend a violation, the rest of the docstring.
        tier: 1 always, 2 by default, 3 on request.
        kinds: the kinds of subjects that it applies to.
        scope: the cases on which it runs.
        needs: its requirements on the machine; see ``fusionkit.contract.needs``.
        basic: whether it runs before the others, as its failure is the likely cause of theirs.
    """

    name: str
    summary: str
    mend: str
    tier: int = 1
    kinds: tuple[Kind, ...] = ("fusion", "fabrication")
    scope: Scope = "all"
    needs: tuple[str, ...] = ()
    basic: bool = False


def rule(
    *,
    tier: int = 1,
    kinds: tuple[Kind, ...] = ("fusion", "fabrication"),
    scope: Scope = "all",
    needs: tuple[str, ...] = (),
    basic: bool = False,
) -> Callable[[C], C]:
    """Mark a function ``check_<name>(subject)`` as a check."""

    def mark(function: C) -> C:
        function.__dict__["rule"] = _rule(function, tier, kinds, scope, needs, basic)
        return function

    return mark


def rule_of(function: Callable[..., Any]) -> Rule:
    """Return the rule of a check; one without the decorator is of tier 1 and runs on every case of every subject."""
    found = getattr(function, "rule", None)
    return found if isinstance(found, Rule) else _rule(function)


def _rule(function: Any, *options: Any) -> Rule:
    name = str(getattr(function, "__name__", type(function).__name__)).removeprefix("check_")
    summary, _, rest = (inspect.getdoc(function) or name).partition("\n")
    return Rule(name, summary.strip(), " ".join(rest.split()), *options)


class Violation(AssertionError):
    """A broken rule: what should be, and what was found."""

    def __init__(self, should: str, found: str) -> None:
        super().__init__(should, found)
        self.should = should
        self.found = found

    def __str__(self) -> str:
        return f"{self.should}; found {self.found}"


class Skip(BaseException):
    """A check that does not apply to this subject, with the reason.

    A BaseException, so that a check that expects an error of the operator does not catch it.
    """


def skip(reason: str) -> NoReturn:
    """Leave a check that does not apply."""
    raise Skip(reason)


def expect(holds: Any, should: str, found: object) -> None:
    """Raise a ``Violation`` unless ``holds``."""
    if not holds:
        raise Violation(should, found if isinstance(found, str) else repr(found))


def any_attempt(compare: Callable[[], None], tries: int = 3) -> None:
    """Pass if any attempt passes: numbers agree badly near a singular point; a real bug fails every attempt."""
    for _ in range(tries - 1):
        with contextlib.suppress(Violation):
            compare()
            return
    compare()


# ---------------------------------------------------------------------- calling operator code


def outcome(call: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """Call operator code; return its result, or the error that it raised."""
    try:
        return call(), None
    except (Exception, SystemExit) as error:
        return None, error


@contextlib.contextmanager
def no_error(should: str) -> Iterator[None]:
    """Turn an exception of operator code within into a ``Violation``."""
    try:
        yield
    except Violation:
        raise
    except Exception as error:
        raise Violation(should, located(error)) from error


def refuses(
    call: Callable[[], Any], what: str, errors: type[Exception] = FusionError, names: Sequence[object] = ()
) -> None:
    """Expect operator code to refuse ``what`` with an error of this class, whose message has all of ``names``."""
    wanted = list(map(str, names))
    should = f"{what} should be refused with a {errors.__name__}"
    if wanted:
        should += f" that names {', '.join(wanted)}"
    found, error = outcome(call)
    if error is None:
        raise Violation(should, f"no error, but {type(found).__name__} {found!r}"[:200])
    named = all(re.search(rf"\b{re.escape(name)}\b", str(error), re.IGNORECASE) for name in wanted)
    expect(isinstance(error, errors) and named, should, describe(error))


def describe(error: BaseException, limit: int = 300) -> str:
    """Return an exception of the operator in one line: ``ValueError: text``."""
    return error_line(error, limit)


def located(error: BaseException) -> str:
    """Return the exception in one line, with the place in the operator's code where it arose."""
    places = [(frame.f_code.co_filename.replace("\\", "/"), line) for frame, line in walk_tb(error.__traceback__)]
    own = [(file, line) for file, line in places if "/torch/" not in file and "/fusionkit/contract/" not in file]
    return describe(error) + (f" (at {own[-1][0].rsplit('/', 1)[-1]}:{own[-1][1]})" if own else "")


# ---------------------------------------------------------------------- comparing tensors

#: dtype -> (relative, absolute) tolerance: the rounding of sums over the few terms of a case.
TOLERANCE: dict[torch.dtype, tuple[float, float]] = {
    torch.float64: (1e-8, 1e-9),
    torch.float32: (1e-4, 1e-4),
    torch.bfloat16: (0.06, 0.06),
    torch.float16: (0.01, 0.01),
}


def has_shape(what: str, found: Tensor, wanted: Sequence[int]) -> None:
    """Expect a tensor of this shape."""
    expect(tuple(found.shape) == tuple(wanted), f"{what} should have shape {tuple(wanted)}", str(tuple(found.shape)))


def equal(
    what: str, found: Tensor, wanted: Tensor, *, exact: bool = False, as_dtype: torch.dtype | None = None
) -> None:
    """Expect two tensors of one shape to be equal, up to rounding of ``as_dtype`` unless ``exact``; NaN equals NaN."""
    has_shape(what, found, wanted.shape)
    a, b = found.detach().cpu(), wanted.detach().cpu()
    if exact:
        same = torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())
    else:
        relative, absolute = TOLERANCE[as_dtype or min(a.dtype, b.dtype, key=lambda d: torch.finfo(d).bits)]
        a, b = a.double(), b.double()
        scale = max(1.0, float(b.abs().nan_to_num(0.0, 0.0).amax())) if b.numel() else 1.0
        same = torch.allclose(a, b, rtol=relative, atol=absolute * scale, equal_nan=True)
    if not same:
        a, b = a.double(), b.double()
        gap = torch.where(a.isnan() & b.isnan() | (a == b), 0.0, (a - b).abs().nan_to_num(float("inf"), float("inf")))
        at = tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
        word = "be bitwise equal" if exact else "agree"
        raise Violation(
            f"{what} should {word} with the expected values, {float(b[at]):.6g} at {list(at)}",
            f"{float(a[at]):.6g} there; {int((gap > 0).sum())} of {gap.numel()} entries differ, by up to "
            f"{float(gap.max()):.3g}",
        )
