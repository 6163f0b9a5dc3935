from __future__ import annotations

from typing import Any

import pytest
import torch

import fusionkit
from fusionkit.errors import DimsError, FusionError
from tests.allocations import largest


@pytest.mark.parametrize(("n", "D", "r"), [(5, 7, 2), (1, 1, 1), (4, 3, 3), (11, 2, 1)])
def test_against_loops(n: int, D: int, r: int) -> None:
    made = fusionkit.create_fabrication("vera", r=r, seed=3)
    generator = torch.Generator().manual_seed(3)
    A = torch.randn(n, r, generator=generator) / r**0.5
    B = torch.randn(r, D, generator=generator) / D**0.5
    w = torch.randn(n + r, dtype=torch.float64)
    expected = torch.zeros(n, D, dtype=torch.float64)
    for i in range(n):
        for j in range(D):
            for c in range(r):
                expected[i, j] += w[i] * float(A[i, c]) * w[n + c] * float(B[c, j])
    torch.testing.assert_close(made.materialize(w, n, D), expected, rtol=1e-5, atol=1e-6)
    assert made.calculate_l(n, D) == len(w)
    assert made.shapes(n, D) == {"u": (n,), "v": (r,)}


def operator(**options: Any) -> Any:
    return fusionkit.create(
        "parameterized_concatenation",
        n=6,
        dims=[5, 4],
        parameter_fabrication={"name": "random_matrix_adaption", **options},
    )


def test_the_frozen_parts_are_buffers_from_the_seed() -> None:
    """Seen elsewhere: drawn at the first forward from the global generator, absent from the state_dict."""
    torch.manual_seed(1)
    first = operator(seed=5)
    torch.manual_seed(2)
    second = operator(seed=5)
    assert set(first.state_dict()) == {"u", "v", "fabrication.A", "fabrication.B"}
    for name in ("fabrication.A", "fabrication.B"):
        assert torch.equal(first.state_dict()[name], second.state_dict()[name])
        assert not torch.equal(first.state_dict()[name], operator(seed=6).state_dict()[name])
    x = [torch.randn(3, 5), torch.randn(3, 4)]
    reloaded = operator(seed=6)
    reloaded.load_state_dict(first.state_dict())
    assert torch.equal(reloaded(x), first(x))
    assert [name for name, _ in first.named_parameters()] == ["u", "v"]
    state = torch.get_rng_state()
    first(x)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("n", "D", "r"), [(64, 649, 64), (1024, 4096, 64), (3, 50, 3), (50, 2, 2)])
def test_default_rank(n: int, D: int, r: int) -> None:
    assert fusionkit.create_fabrication("random_matrix_adaption").shapes(n, D)["v"] == (r,)


def test_the_vectors_start_near_one() -> None:
    op = fusionkit.create(
        "parameterized_concatenation", n=256, dims=[300, 500], parameter_fabrication="random_matrix_adaption"
    )
    assert 0.7 < op.get_parameter("u").square().mean().sqrt() < 1.4
    assert 0.7 < op.get_parameter("v").square().mean().sqrt() < 1.4


def test_W_is_never_built() -> None:
    n, dims = 1024, [1024] * 4
    op = fusionkit.create("parameterized_concatenation", n=n, dims=dims, parameter_fabrication="random_matrix_adaption")
    x = [torch.randn(512, width, requires_grad=True) for width in dims]
    assert largest(lambda: op(x).sum().backward()) <= 512 * 1024 * x[0].element_size()


def test_bad_options() -> None:
    with pytest.raises(FusionError) as caught:
        operator(r=7)
    assert str(caught.value) == (
        "r, the rank of random_matrix_adaption, should be from 1 to min(n, D) = 6 for n = 6 and D = 9; found 7."
    )
    with pytest.raises(DimsError, match=r"^r, the rank of random_matrix_adaption, should "):
        operator(r=0)
    with pytest.raises(DimsError, match=r"^seed, of the frozen parts of random_matrix_adaption, should .*found -1\.$"):
        operator(seed=-1)
