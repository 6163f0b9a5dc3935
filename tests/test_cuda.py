"""What the core promises, on a CUDA device; skipped where there is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fusionkit
from fusionkit import registry
from fusionkit.bench.cases import Case, Size
from fusionkit.bench.measure import measure
from fusionkit.cli import main
from fusionkit.fusion import Fusion
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

pytestmark = [
    # In the first backward of a process, by torch itself.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
]

FUSIONS = sorted(r.name for r in registry.records("fusion") if r.distribution == "tensor-fusionkit")
FABRICATIONS = sorted(r.name for r in registry.records("fabrication") if r.distribution == "tensor-fusionkit")
#: Few and many rows, a batch of none, leading dimensions, one view.
LEADS = [(0,), (1,), (3, 5), (3000,)]
DIMS = [[7], [8, 1, 7, 16]]


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def on(device: str, tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.detach().to(device).requires_grad_() for tensor in tensors]


def agrees(op: Fusion, twin: Fusion, lead: tuple[int, ...], dims: list[int]) -> None:
    """``op`` on the device, and its ``twin`` on the CPU in float64, which the other tests compare with oracles."""
    host = [torch.randn(*lead, width, dtype=torch.float64).float() for width in dims]
    there, here = on("cuda", host), on("cpu", [view.double() for view in host])
    out, wanted = op(there), twin(here)
    assert out.is_cuda
    torch.testing.assert_close(out.cpu().double(), wanted, rtol=1e-4, atol=1e-4)
    if not out.requires_grad:
        return
    upstream = torch.randn(out.shape)
    leaves, twins = [*there, *op.parameters()], [*here, *twin.parameters()]
    found = torch.autograd.grad(out, leaves, upstream.cuda(), allow_unused=True)
    expected = torch.autograd.grad(wanted, twins, upstream.double(), allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.is_cuda
            scale = max(1.0, float(other.abs().max())) if other.numel() else 1.0
            torch.testing.assert_close(one.cpu().double() / scale, other / scale, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lead", LEADS, ids=str)
@pytest.mark.parametrize("name", FUSIONS)
def test_fusions(name: str, lead: tuple[int, ...]) -> None:
    for options in registry.load("fusion", name).examples():  # type: ignore[attr-defined]
        if "dims" not in options:
            continue
        op = fusionkit.create(name, **options)
        twin = fusionkit.create(name, **options).double()
        twin.load_state_dict(op.state_dict())
        agrees(op.cuda(), twin, lead, list(options["dims"]))


@pytest.mark.parametrize("lead", LEADS, ids=str)
@pytest.mark.parametrize("name", FABRICATIONS)
def test_fabrications_by_both_ways_and_the_chosen_one(name: str, lead: tuple[int, ...]) -> None:
    for dims in DIMS:
        for own in (True, False, None):
            op = ParameterizedConcatenation(11, dims, parameter_fabrication=name)
            twin = ParameterizedConcatenation(11, dims, parameter_fabrication=name, dtype="float64")
            twin.load_state_dict(op.state_dict())
            for made in (op, twin) if own is not None else ():
                vars(made.fabrication)["_break_even"] = None
                if not own:
                    vars(made.fabrication)["multiply"] = made.fabrication.multiply_built
            agrees(op.cuda(), twin, lead, dims)


@pytest.mark.parametrize("name", FABRICATIONS)
def test_built_on_the_device_or_moved_there(name: str) -> None:
    """Frozen parts are the same; and a state goes from one to the other."""
    moved = ParameterizedConcatenation(11, [5, 8], parameter_fabrication=name).cuda()
    built = ParameterizedConcatenation(11, [5, 8], parameter_fabrication=name, device="cuda")
    for one, other in zip(moved.buffers(), built.buffers(), strict=True):
        assert other.is_cuda
        assert torch.equal(one, other)
    built.load_state_dict(moved.state_dict())
    x = [torch.randn(4, 5, device="cuda"), torch.randn(4, 8, device="cuda")]
    torch.testing.assert_close(built(x), moved(x))
    torch.testing.assert_close(built.fold()(x), moved(x), rtol=1e-4, atol=1e-5)


@contextmanager
def never_waiting() -> Iterator[None]:
    """Make an error of whatever waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", FABRICATIONS)
def test_nothing_waits_for_the_device(name: str) -> None:
    """Neither a fusion nor its derivative brings a number to the host: launches of the next layers go on."""
    dims = [8, 1, 7, 16]
    op = ParameterizedConcatenation(16, dims, parameter_fabrication=name, device="cuda")
    x = [torch.randn(5, width, device="cuda", requires_grad=True) for width in dims]
    if op(x).requires_grad:
        torch.autograd.grad(op(x).sum(), x, allow_unused=True)
    with never_waiting():
        out = op(x)
        if out.requires_grad:
            torch.autograd.grad(out, [*x, *op.parameters()], torch.ones_like(out), allow_unused=True)


@pytest.mark.parametrize("name", FUSIONS)
def test_fusions_do_not_wait_either(name: str) -> None:
    options = next(iter(registry.load("fusion", name).examples()))  # type: ignore[attr-defined]
    op = fusionkit.create(name, **options, device="cuda")
    x = [torch.randn(5, width, device="cuda", requires_grad=True) for width in options["dims"]]
    torch.autograd.grad(op(x), x, torch.ones_like(op(x)), allow_unused=True)
    with never_waiting():
        out = op(x)
        torch.autograd.grad(out, x, torch.ones_like(out), allow_unused=True)


def test_hashed_is_the_same_everywhere() -> None:
    op = ParameterizedConcatenation(300, [300, 400], parameter_fabrication="hashed")
    W = op.fabrication.materialize(op.flat_w(), 300, 700)
    assert torch.equal(W, op.cuda().fabrication.materialize(op.flat_w(), 300, 700).cpu())


@pytest.mark.parametrize("name", FABRICATIONS)
def test_a_captured_graph_computes_the_same(name: str) -> None:
    op = ParameterizedConcatenation(16, [8, 8, 16], parameter_fabrication=name, device="cuda")
    x = [torch.randn(64, width, device="cuda") for width in (8, 8, 16)]
    with torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            op(x)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = op(x)
        for view in x:
            view.normal_()
        graph.replay()
        torch.testing.assert_close(out, op(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_thousand_views_in_half_precision(dtype: str, positive: bool) -> None:
    op = ParameterizedConcatenation(64, [8] * 1000, dtype=dtype, device="cuda")
    draw = torch.rand if positive else torch.randn
    x = [draw(256, 8, device="cuda", dtype=getattr(torch, dtype)) for _ in range(1000)]
    with torch.no_grad():
        if positive:
            for parameter in op.parameters():
                parameter.abs_()
        exact = op.reference(x)
        error = (op(x).double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert float(error) < 0.01


@pytest.mark.parametrize("name", ["dense", "lowrank", "kronecker", "block_circulant"])
def test_autocast(name: str) -> None:
    op = ParameterizedConcatenation(64, [128] * 4, parameter_fabrication=name, device="cuda")
    x = [torch.randn(3000, 128, device="cuda", requires_grad=True) for _ in range(4)]
    exact = op(x)
    with torch.autocast("cuda", torch.bfloat16):
        out = op(x)
    with torch.no_grad():
        assert float((out - exact).square().mean().sqrt() / exact.square().mean().sqrt()) < 0.02
    out.sum().backward()
    assert all(view.grad is not None and view.grad.dtype == torch.float32 for view in x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:TensorFloat32 tensor cores")
@pytest.mark.parametrize("name", ["dense", "monarch", "kronecker", "block_circulant"])
def test_compiled(name: str) -> None:
    op = ParameterizedConcatenation(64, [128, 32], parameter_fabrication=name, device="cuda")
    x = [torch.randn(100, width, device="cuda") for width in (128, 32)]
    torch.testing.assert_close(torch.compile(op, fullgraph=True)(x), op(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["dense", "kronecker", "median"])
def test_bench(name: str) -> None:
    row = measure(Case(name, Size(64, (16, 16), 16), backward=True), seconds=0.01, device="cuda")
    assert row is not None
    assert row.milliseconds > 0
    assert row.ratios["limit"] is not None
    assert row.extra_bytes > 0


def test_bench_command(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    assert main(["bench", "lowrank", "m=64", "dims=[16,16]", "n=16", "--device", "cuda", "--json", str(file)]) == 0
    record = json.loads(file.read_text())
    assert record["machine"]["device"] == "cuda"
    assert record["machine"]["processor"] == torch.cuda.get_device_name()


def test_run_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "device=cuda", "train.epochs=2", "hydra.run.dir=out"]) == 0
    summary = json.loads((tmp_path / "out" / "result.json").read_text())
    assert summary


def test_views_on_two_devices_are_refused() -> None:
    op = fusionkit.create("summation", dims=[3, 3])
    with pytest.raises(fusionkit.FusionError, match=r"View 1 should .*found cuda:0"):
        op([torch.randn(2, 3), torch.randn(2, 3, device="cuda")])
