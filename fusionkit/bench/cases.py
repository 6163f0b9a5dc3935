"""The cases of ``fusionkit bench``: operators, sizes and options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from fusionkit import registry
from fusionkit._util.distribution import DISTRIBUTION
from fusionkit.fusion import check_dims, check_dtype, check_size
from fusionkit.registry.catalogue import OPERATORS


class Size(NamedTuple):
    """Views of m rows and these widths, fused to width n (where that is a free choice).

    Attributes:
        positive: views and parameters have positive entries only, so that rounding errors do not cancel.
    """

    m: int
    dims: tuple[int, ...]
    n: int
    dtype: str = "float32"
    positive: bool = False


DIGITS = (76, 216, 64, 240, 47, 6)

#: Tall, square and tiny products, narrow outputs, a single row; a thousand narrow views.
DENSE = [
    Size(2000, DIGITS, 64),
    Size(4096, (256,) * 4, 256),
    Size(4096, (1024,) * 4, 1024),
    Size(65536, (64,) * 8, 16),
    Size(16384, (768, 512, 256), 32),
    Size(4096, (64,) * 8, 4),
    *(Size(m, (512,) * 4, 512) for m in (1, 16, 64, 256, 4096)),
    *(Size(1024, (width,) * 1000, 64) for width in (4, 8)),
    *(Size(1024, (width,) * 1000, 64, "bfloat16", positive) for width in (4, 8) for positive in (False, True)),
]
#: One size with several numbers of rows, for the picture, and those at which building W costs most and least.
STRUCTURED = [
    *(Size(m, (512,) * 4, 512) for m in (1, 16, 256, 4096)),
    Size(2000, DIGITS, 64),
    Size(256, (1024,) * 4, 1024),
    Size(64, (2048,) * 4, 2048),
]
#: Views of equal width, for all other fusions.
EQUAL = [Size(m, (64,) * 8, 64) for m in (64, 2048, 65536)]
#: The sizes of ``--quick``.
QUICK = [DENSE[0], DENSE[3], STRUCTURED[5], EQUAL[2]]
LARGE = Size(4096, (1024,) * 4, 1024)
KRONECKER = {"p": 8, "q": 8}


#: The checks of the fields of ``Size``.
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "m": partial(check_size, "m, the number of rows,"),
    "dims": check_dims,
    "n": partial(check_size, "n, the width of the output,"),
    "dtype": lambda value: str(check_dtype(value)).removeprefix("torch."),
    "positive": bool,
}


@dataclass(frozen=True)
class Case:
    """One operator at one size, forward alone or with backward."""

    name: str
    size: Size
    backward: bool
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> registry.Operator:
        """Return "fabrication" for the name of one: ``parameterized_concatenation`` with it is measured."""
        fabrication = self.name in registry.names("fabrication")
        found = registry.find(self.name, "fabrication" if fabrication else OPERATORS)
        return "fusion" if found.kind == "fusion" else "fabrication"


def cases(name: str, options: Mapping[str, Any], *, quick: bool = False) -> list[Case]:
    """Return the cases of one operator.

    Args:
        name: of the operator.
        options: its own options, and fields of ``Size``, which replace those of the grid; ``m`` may be a list.
        quick: the sizes of ``QUICK`` only.

    Raises:
        RegistryError: an unknown name.
        FusionError: an impossible size.
    """
    own = {key: value for key, value in options.items() if key not in Size._fields}
    kind = Case(name, EQUAL[0], False).kind
    if registry.find(name, kind).key in ("dense", "parameterized_concatenation"):
        grid = DENSE
    else:
        grid = STRUCTURED if kind == "fabrication" else EQUAL
    if quick:
        grid = [size for size in grid if size in QUICK]
    given = {key: value for key, value in options.items() if key in Size._fields}
    if given:
        m = options.get("m")
        several = [{**given, "m": one} for one in m] if isinstance(m, list) and m else [given]
        checked = [{key: _CHECKS[key](value) for key, value in one.items()} for one in several]
        usual = [size for size in grid if size == size._replace(dtype="float32", positive=False)]
        grid = list(dict.fromkeys(size._replace(**one) for size in usual for one in checked))
    return [Case(name, size, backward, own) for size in grid for backward in (False, True)]


def default_cases(*, quick: bool = False) -> Iterator[Case]:
    """Yield the cases of all operators and fabrications of the core, and a few more with options."""
    for record in (*registry.records("fabrication"), *registry.records("fusion")):
        # The parameterized concatenation is measured with each fabrication.
        if record.distribution == DISTRIBUTION and record.key != "parameterized_concatenation":
            yield from cases(record.key, {}, quick=quick)
            if record.key == "kronecker":
                yield from cases("kronecker", KRONECKER, quick=quick)
    if not quick:
        for backward in (False, True):
            yield from (Case("lowrank", LARGE, backward), Case("kronecker", LARGE, backward, KRONECKER))


def label(name: str, options: Mapping[str, Any]) -> str:
    """Return the name of an operator with its options, "kronecker p=8 q=8"."""
    return " ".join([name, *(f"{key}={value}" for key, value in options.items())])
