"""Construction: unknown options, the captured arguments, the visible signature."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import pytest
import torch
from torch import Tensor

import fusionkit
from fusionkit import registry
from fusionkit.core.construction import Unwritable, construct, json_form, writable
from fusionkit.errors import ConfigError, DimsError, OptionError
from fusionkit.fabrications.lowrank import LowRank
from fusionkit.fusion import ElementwiseFusion, Fusion, FusionOptions
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation
from fusionkit.fusions.summation import Summation
from fusionkit.registry.catalogue import OPERATORS


def test_unknown_option_names_the_nearest() -> None:
    message = (
        r"^LowRank should get options among r; found 'rank'\. Did you mean 'r'\?$",
        r"^ParameterizedConcatenation should get options among .*; found 'fabrication'\. "
        r"Did you mean 'parameter_fabrication'\?$",
    )
    with pytest.raises(OptionError, match=message[0]):
        LowRank(rank=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=message[1]):
        ParameterizedConcatenation(dims=[2, 2], fabrication="lowrank")  # type: ignore[call-arg]


def test_an_option_where_there_are_none() -> None:
    with pytest.raises(OptionError, match=r"^toeplitz should .*found 'r'\.$"):
        fusionkit.create_fabrication("toeplitz", r=2)


def test_unknown_option_through_the_registry_names_the_key() -> None:
    with pytest.raises(OptionError, match=r"^total should get options among"):
        construct(Summation, "total", {"dim": [2, 2]})


def test_signature_is_that_of_init() -> None:
    assert list(inspect.signature(LowRank).parameters) == ["r"]
    assert list(inspect.signature(Summation).parameters)[:4] == ["n", "dims", "name", "require_parameters"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        ((1, 2), [1, 2]),
        (torch.Size([3]), [3]),
        (torch.float16, "float16"),
        (torch.device("cpu"), "cpu"),
        ({"name": "lowrank", "r": np.int64(8)}, {"name": "lowrank", "r": 8}),
        (np.float32(0.5), 0.5),
        (torch.tensor([0.5, 1.0]), [0.5, 1.0]),
        (LowRank(r=3), {"name": "lowrank", "r": 3}),
    ],
)
def test_json_form(value: Any, expected: Any) -> None:
    found = json_form(value)
    assert found == expected
    assert type(found) is type(expected)


def test_arguments_are_taken_before_the_caller_changes_them() -> None:
    dims = [3, 4]
    op = ParameterizedConcatenation(dims=dims, n=2)
    dims.append(5)
    assert op.to_config() == {"name": "parameterized_concatenation", "dims": [3, 4], "n": 2}


def as_numpy(value: Any) -> Any:
    """Return nested options with each scalar as one of numpy."""
    if isinstance(value, dict):
        return {np.str_(key): as_numpy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(as_numpy, value))
    return value if value is None else np.asarray(value)[()]


def exact(value: Any) -> Any:
    """Return nested JSON with the type of each value."""
    if isinstance(value, dict):
        return {(key, type(key)): exact(item) for key, item in value.items()}
    return list(map(exact, value)) if isinstance(value, list) else (value, type(value))


PROCESSING = {"preprocess": {"name": "dropout", "p": 0.25, "inplace": False}, "postprocess": ["tanh", "softplus"]}


@pytest.mark.parametrize("kind", OPERATORS)
def test_scalars_of_numpy_in_every_option_of_every_operator(kind: registry.Operator) -> None:
    make: Any = {"fusion": fusionkit.create, "fabrication": fusionkit.create_fabrication}[kind]
    for record in registry.records(kind):
        cls: Any = registry.load(kind, record.qualified)
        defaults = {name: one.default for name, one in inspect.signature(cls).parameters.items()}
        given = {name: value for name, value in defaults.items() if isinstance(value, bool | int | float | str)}
        more = PROCESSING if kind == "fusion" else {}
        for options in cls.examples():
            chosen = {**given, **more, **options}
            expected = given | make(record.qualified, **chosen).to_config()
            found = given | make(np.str_(record.qualified), **as_numpy(chosen)).to_config()
            assert exact(found) == exact(expected)


def test_python_has_no_long_double() -> None:
    op = scaled(dims=[2], factor=np.longdouble(0.5))
    assert type(op.factor) is float


class Overflows(ElementwiseFusion):
    """Creates a tensor that there cannot be."""

    def calculate_l(self) -> int:
        return self.resolve_equal_dims() ** 2

    def __init__(
        self, n: int | None = None, dims: Sequence[int] | None = None, **common: Unpack[FusionOptions]
    ) -> None:
        super().__init__(n, dims, **common)
        width = self.resolve_equal_dims()
        self.weight = torch.nn.Parameter(torch.empty(width, width, device="meta"))


@pytest.mark.parametrize("width", [2**40, 2**70])
def test_sizes_that_no_tensor_can_have(width: int) -> None:
    with pytest.raises(DimsError, match=r"^Overflows should have sizes that a tensor can have; found: .*[oO]verflow"):
        Overflows(dims=[width])


def test_writable_names_the_argument() -> None:
    assert isinstance(json_form(torch.tanh), Unwritable)
    with pytest.raises(ConfigError, match=r"^op: the argument a\[1\]\.b should be a name, .* found an object of type"):
        writable("op", {"a": json_form([1, {"b": object()}])})


class Scaled(ElementwiseFusion):
    """Names its own option, and hands on the others."""

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        *,
        factor: float = 2.0,
        **common: Unpack[FusionOptions],
    ) -> None:
        super().__init__(n, dims, **common)
        self.factor = factor

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return x[0] * self.factor


class Shifted(Scaled):
    """Adds another option to those."""

    def __init__(self, *, shift: float = 0.0, **common: Any) -> None:
        super().__init__(**common)
        self.shift = shift


#: Not ``Scaled`` itself, of which type checkers know no options by position.
scaled: Any = Scaled


class Written(Scaled):
    """Writes all options itself, and hands them on by position."""

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        name: str | None = None,
        require_parameters: bool = True,
        *,
        factor: float = 3.0,
        preprocess: Any = None,
        postprocess: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        options: dict[str, Any] = {"factor": factor, "preprocess": preprocess, "dtype": dtype}
        scaled.__init__(self, n, dims, name, require_parameters, **options)


class TestInheritedOptions:
    def test_signature(self) -> None:
        assert list(inspect.signature(Scaled).parameters) == [
            *("n", "dims", "name", "require_parameters", "factor", "preprocess", "postprocess", "device", "dtype")
        ]
        assert inspect.signature(Scaled.__init__).parameters["dtype"] == inspect.signature(Fusion).parameters["dtype"]

    def test_values(self) -> None:
        op = Scaled(dims=[2, 2], factor=5.0, name="five", preprocess="tanh")
        assert (op.n, op.factor, op.name) == (2, 5.0, "five")
        assert op.preprocess is not None

    def test_by_position(self) -> None:
        op = scaled(2, [2, 2], "label", False)
        assert (op.n, op.dims, op.name, op.require_parameters) == (2, (2, 2), "label", False)
        with pytest.raises(TypeError, match="positional"):
            scaled(2, [2, 2], "label", True, 3.0)

    def test_unknown_option(self) -> None:
        with pytest.raises(OptionError, match=r"found 'factr'\. Did you mean 'factor'\?$"):
            scaled(dims=[2, 2], factr=1.0)
        with pytest.raises(OptionError, match=r"found 'preproces'\. Did you mean 'preprocess' or 'postprocess'\?$"):
            scaled(dims=[2, 2], preproces=None)

    def test_a_subclass_that_writes_them_all(self) -> None:
        op = Written(2, [2, 2], "label", False)
        assert (op.name, op.require_parameters, op.factor) == ("label", False, 3.0)

    def test_double_stars_alone_stay(self) -> None:
        kinds = {parameter.kind for parameter in inspect.signature(Shifted).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD in kinds
        assert Shifted(dims=[2, 2], shift=1.0, factor=4.0).factor == 4.0
