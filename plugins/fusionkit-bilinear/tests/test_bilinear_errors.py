"""What is refused: one sentence, with the numbers and the alternative."""

from __future__ import annotations

from typing import Any

import fusionkit
import pytest
import torch

from fusionkit_bilinear.plugin import OPERATORS


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mutan", {"rank": 0}, "rank, the number of products, should be an integer of at least 1; found 0."),
        (
            "block",
            {"rank": -1},
            "rank, the number of products in a block, should be an integer of at least 1; found -1.",
        ),
        (
            "block",
            {"mm_dim": 4, "chunks": 5},
            "chunks should be from 1 to mm_dim = 4; found 5: take fewer chunks, or a larger mm_dim.",
        ),
        (
            "block_tucker",
            {"mm_dim": 4, "chunks": 5},
            "chunks should be from 1 to mm_dim = 4; found 5: take fewer chunks, or a larger mm_dim.",
        ),
        ("mlb", {"mm_dim": 0}, "mm_dim, the width of the product, should be an integer of at least 1; found 0."),
        (
            "mfb",
            {"factor": 2.5},
            "factor, the number of products in a sum, should be an integer of at least 1; found 2.5.",
        ),
        ("mfh", {"order": 0}, "order, the number of pooled products, should be an integer of at least 1; found 0."),
        (
            "mlb",
            {"activ_input": "rely"},
            "activ_input should be None or one of relu, leaky_relu, elu, gelu, silu, softplus, sigmoid, tanh; found "
            "'rely'. Did you mean 'relu'?",
        ),
        ("mlb", {"dropout_input": 1.0}, "dropout_input should be a number from 0 to below 1; found 1.0."),
        ("block", {"pos_norm": "before"}, "pos_norm should be 'before_cat', 'after_cat' or None; found 'before'."),
        (
            "multiplicative_interaction",
            {"form": "vectors"},
            "form should be one of matrix, vector, scalar; found 'vectors'. Did you mean 'vector'?",
        ),
        (
            "multiplicative_interaction",
            {"form": "vector"},
            "View 0 should have the width n = 3, since the form 'vector' scales it; found 4: take form='matrix', which "
            "admits all widths.",
        ),
        (
            "tensor_fusion",
            {"max_bytes": "1 GB"},
            "max_bytes, the most that parameters may take, should be an integer of at least 1; found '1 GB'.",
        ),
        ("mutan", {"normalize": "false"}, "normalize should be True or False; found 'false'."),
        ("mlb", {"dropout_output": True}, "dropout_output should be a number from 0 to below 1; found True."),
        ("mcb", {"seed": -1}, "seed, of the sketches, should be an integer of at least 0; found -1."),
    ],
)
def test_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(fusionkit.FusionError) as caught:
        fusionkit.create(name, dims=[4, 5], n=3, **options)
    assert str(caught.value) == message


def test_a_middle_view_of_another_width() -> None:
    with pytest.raises(
        fusionkit.DimsError, match=r"^View 1 should have the width n = 4, .* found 3: take form='matrix'"
    ):
        fusionkit.create("multiplicative_interaction", dims=[4, 3, 4], form="scalar")


def test_guard_of_tensor_fusion() -> None:
    l = 64 * 77 * 217 * 65 * 241 * 48 * 7
    with pytest.raises(fusionkit.FusionError) as caught:
        fusionkit.create("tensor_fusion", dims=[76, 216, 64, 240, 47, 6], n=64)
    assert str(caught.value) == (
        f"tensor_fusion should take at most max_bytes = 1073741824 bytes; found {4 * l} bytes, for l = {l} with dims "
        "[76, 216, 64, 240, 47, 6] and n = 64: take lowrank_tensor_fusion, whose l is about rank * 41920, or narrower "
        "views."
    )


def test_guard_counts_bytes() -> None:
    # l = 5 * 5 * 4 = 100 entries.
    fusionkit.create("tensor_fusion", dims=[4, 4], n=4, max_bytes=400)
    for options in ({"max_bytes": 399}, {"max_bytes": 400, "dtype": "float64"}):
        with pytest.raises(fusionkit.FusionError, match=r"bytes, for l = 100 with"):
            fusionkit.create("tensor_fusion", dims=[4, 4], n=4, **options)
    fusionkit.create("tensor_fusion", dims=[4, 4], n=4, max_bytes=None)


def test_guard_counts_a_fabricated_matrix() -> None:
    message = r"found 400 bytes, for l = 58 and a W of 100 entries with dims"
    with pytest.raises(fusionkit.FusionError, match=message):
        fusionkit.create(
            "tensor_fusion", dims=[4, 4], n=4, max_bytes=399, parameter_fabrication={"name": "lowrank", "r": 2}
        )


def test_guard_is_for_memory() -> None:
    op = fusionkit.create("tensor_fusion", dims=[99] * 4, n=64, device="meta")
    assert op.calculate_l() == 64 * 100**4
    with torch.device("meta"):
        fusionkit.create("tensor_fusion", dims=[99] * 4, n=64)


@pytest.mark.parametrize(
    ("name", "options", "alternative"),
    [
        (
            "tucker",
            {"mm_dim": 235},
            "take a smaller mm_dim, or block_tucker, block or mutan, whose cores have structure.",
        ),
        ("block_tucker", {"mm_dim": 1600}, "take a smaller mm_dim, more chunks, or block, whose blocks have low rank."),
    ],
)
def test_guard_of_the_cores(name: str, options: dict[str, Any], alternative: str) -> None:
    with pytest.raises(fusionkit.FusionError) as caught:
        fusionkit.create(name, dims=[8] * 6, n=4, **options)
    assert str(caught.value).startswith(f"{name} should take at most max_bytes = 1073741824 bytes; found ")
    assert str(caught.value).endswith(f" and n = 4: {alternative}")


@pytest.mark.parametrize("made", [None, {"name": "lowrank", "r": 1}])
def test_guard_of_pairs(made: Any) -> None:
    options = {"dims": [100, 200, 50], "n": 10, "parameter_fabrication": made}
    # Dense: 10 * (20000 + 5000 + 10000 + 350 + 1) entries; of rank 1: W_01 has 200000.
    most = 4 * (353510 if made is None else 200000)
    fusionkit.create("multiplicative_interaction", max_bytes=most, **options)
    with pytest.raises(fusionkit.FusionError) as caught:
        fusionkit.create("multiplicative_interaction", max_bytes=most - 1, **options)
    assert f"found {most} bytes, for l = " in str(caught.value)
    assert ("and a W_ij of 200000 entries" in str(caught.value)) == (made is not None)
    assert str(caught.value).endswith(
        "take mlb or lowrank_tensor_fusion, whose l grows with the sum of the widths, or narrower views."
    )


@pytest.mark.parametrize(
    ("name", "options"), [("tensor_fusion", {}), ("tucker", {"mm_dim": 9}), ("block_tucker", {"mm_dim": 180})]
)
def test_guard_of_thousands_of_views(name: str, options: dict[str, Any]) -> None:
    # More digits than Python writes.
    with pytest.raises(fusionkit.FusionError, match=r"found about 10\^\d+ bytes, for l = .* with 5000 views and n = 4"):
        fusionkit.create(name, dims=[9] * 5000, n=4, **options)


def test_more_chunks_than_entries() -> None:
    chunks = 20 * 80**3 + 1
    options = {"n": 2, "chunks": chunks, "device": "meta"}
    with pytest.raises(fusionkit.FusionError) as caught:
        fusionkit.create("block_tucker", dims=[4, 5, 6], **options)
    message = "chunks should be at most 10240000 without mm_dim; found 10240001: take fewer chunks, or give mm_dim."
    assert str(caught.value) == message
    with pytest.raises(fusionkit.FusionError, match=r"^chunks should be from 1 to mm_dim = 1600; found 1601: "):
        fusionkit.create("block_tucker", dims=[4, 5], n=2, chunks=1601)


@pytest.mark.parametrize("name", OPERATORS)
def test_n_is_needed(name: str) -> None:
    with pytest.raises(fusionkit.DimsError, match=r"should get n, or views of equal width; found dims \[4, 5\]\.$"):
        fusionkit.create(name, dims=[4, 5])


@pytest.mark.parametrize("name", OPERATORS)
def test_restrict_without_own_parameters(name: str) -> None:
    options: dict[str, Any] = {"tucker": {"mm_dim": 3}, "block_tucker": {"mm_dim": 4, "chunks": 2}}.get(name, {})
    if name == "hadamard_projection":
        options = {"bias": True}
    op = fusionkit.create(name, dims=[4, 5, 6], n=4, require_parameters=False, **options)
    if name in ("tensor_fusion", "lowrank_tensor_fusion", "multiplicative_interaction", "tucker", "block_tucker"):
        with pytest.raises(fusionkit.FusionError, match=r"should own its parameters; found"):
            op.restrict([2, 0])
    else:
        less = op.restrict([2, 0])
        assert less.dims == (6, 4)
        assert less([torch.ones(2, 6), torch.ones(2, 4)], torch.ones(less.calculate_l())).shape == (2, 4)
