"""Operators on some of their views."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fusionkit
from fusionkit.errors import FusionError

SPECS: list[tuple[str, dict[str, Any]]] = [
    ("average", {}),
    ("metric", {"metric": "logsumexp"}),
    ("weighted_summation", {"weights": [0.5, -1.0, 2.0]}),
    ("parameterized_weighted_summation", {}),
    ("parameterized_concatenation", {"n": 4}),
    ("parameterized_concatenation", {"n": 4, "parameter_fabrication": {"name": "kronecker"}}),
    ("parameterized_concatenation", {"n": 4, "parameter_fabrication": {"name": "hashed"}}),
]


@pytest.mark.parametrize(("name", "options"), SPECS)
def test_it_is_the_operator_with_the_other_views_absent(name: str, options: dict[str, Any]) -> None:
    op = fusionkit.create(name, dims=[3, 3, 3], dtype="float64", preprocess=["linear"], **options)
    x = [torch.randn(6, 3, dtype=torch.float64) for _ in range(3)]
    for k in (1, 2, 3):
        for views in itertools.permutations(range(3), k):
            less = op.restrict(views)
            mask = torch.tensor([i in views for i in range(3)]).expand(6, 3)
            assert torch.allclose(less([x[i] for i in views]), op(x, mask=mask)), views
            assert less.dims == (3,) * k
            assert less.calculate_l() == sum(parameter.numel() for _, parameter in less._own_parameters())


def test_the_parts_are_copies() -> None:
    op = fusionkit.create("parameterized_weighted_summation", dims=[2, 2, 2], missing="indicator").eval()
    op.name = "mine"
    op.get_parameter("weight").requires_grad_(False)
    with torch.no_grad():
        op.get_parameter("stand_in.indicator").normal_()
    state = torch.random.get_rng_state()
    less = op.restrict([2, 0])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (less.name, less.training) == ("mine", False)
    assert not less.get_parameter("weight").requires_grad
    assert torch.equal(less.get_parameter("stand_in.indicator"), op.get_parameter("stand_in.indicator")[[2, 0]])
    with torch.no_grad():
        less.get_parameter("weight").fill_(7.0)
    assert 7.0 not in op.get_parameter("weight")
    again = fusionkit.create(**less.to_config())
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in less.state_dict().items()
    }


def test_a_module_shared_by_all_views_stays_shared() -> None:
    op = fusionkit.create("average", dims=[2, 2, 2], preprocess=nn.Linear(2, 2))
    less = op.restrict([0, 2])
    assert sum(parameter.numel() for parameter in less.parameters()) == 6


def test_fold_keeps_the_option_missing() -> None:
    op: Any = fusionkit.create(
        "parameterized_concatenation", dims=[2, 3], n=4, missing="placeholder", parameter_fabrication="lowrank"
    )
    with torch.no_grad():
        op.stand_in.placeholder.normal_()
    x, mask = [torch.randn(5, 2), torch.randn(5, 3)], torch.rand(5, 2) < 0.5
    state = torch.random.get_rng_state()
    folded = op.fold()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.allclose(folded(x, mask=mask), op(x, mask=mask), atol=1e-6)
    assert folded.calculate_l() == 4 * 5 + 5


@pytest.mark.parametrize("views", [np.array([2, 0]), [np.int64(2), 0], (2, 0)])
def test_indices_of_numpy(views: Any) -> None:
    assert fusionkit.create("concatenation", dims=[2, 3, 4]).restrict(views).dims == (4, 2)


@pytest.mark.parametrize("views", [[], [0, 0], [3], [-1], [True], "01", 1.5, [[0]], np.zeros((1, 1)), torch.tensor(0)])
def test_bad_indices(views: Any) -> None:
    with pytest.raises(FusionError, match="views should be different indices from 0 to 2, at least one"):
        fusionkit.create("average", dims=[2, 2, 2]).restrict(views)


def test_an_operator_that_does_not_say_what_belongs_to_a_view() -> None:
    class Weighs(fusionkit.Fusion):
        def __init__(self, n: int | None = None, dims: Any = None, **options: Any) -> None:
            super().__init__(n, dims, **options)
            self.gains = nn.Parameter(torch.ones(len(self.resolve_dims())))

        def calculate_n(self, dims: Any = None) -> int:
            return self.resolve_equal_dims(dims)

        def calculate_l(self) -> int:
            return len(self.resolve_dims())

    with pytest.raises(FusionError, match=r"Weighs should declare what has an entry per view in per_view.*gains"):
        Weighs(dims=[2, 2]).restrict([0])
