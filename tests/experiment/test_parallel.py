"""Plans that share W out: two processes run every case one after the other, and the tests look at what they found."""

from __future__ import annotations

import copy
import itertools
import random
import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import parallelize_module
from torch.multiprocessing.spawn import spawn

import fusionkit
from fusionkit.config.options import ModelOptions
from fusionkit.errors import FusionError
from fusionkit.experiment.model import Network
from fusionkit.experiment.parallel import by_output, by_view, views_by_process
from tests.messages import like

PLANS: dict[str, Callable[[], Any]] = {"by_output": by_output, "by_view": by_view}
FULL = StateDictOptions(full_state_dict=True)
LOWRANK = {"name": "lowrank", "r": 3}
PROCESSES = 2

Found = dict[str, Any]


def create(seed: int, **options: Any) -> Any:
    """Return an operator whose parameters, those of the steps included, are drawn from a seed."""
    torch.manual_seed(seed)
    made = fusionkit.create("parameterized_concatenation", dtype="float64", **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made


def far(found: Tensor, expected: Tensor) -> float:
    """Return the greatest difference, relative to the greatest entry."""
    if not expected.numel():
        return 0.0 if found.shape == expected.shape else torch.inf
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-300))


def gathered(tensor: Tensor, widths: list[int] | None) -> Tensor:
    """Return a gradient from all processes, without the columns behind those of each process."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    if widths is None or whole.shape[1] == sum(widths):
        return whole
    pieces = whole.split(max(widths), 1)
    return torch.cat([piece[:, :width] for piece, width in zip(pieces, widths, strict=True)], 1)


def local(parameter: Tensor) -> Tensor:
    """Return what this process has of a parameter."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def equal(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether two state_dicts of plain tensors have the same names, in the same order, and the same bits."""
    plain = all(type(tensor) is Tensor for tensor in found.values())
    same = all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    return plain and list(found) == list(expected) and same


def compared(
    plan: str,
    mesh: DeviceMesh,
    *,
    rows: tuple[int, ...] = (5,),
    absent: tuple[int, ...] = (),
    masked: bool = False,
    all_given: bool = False,
    **options: Any,
) -> Found:
    """Compare an operator that is shared out with one that is whole, of which each process has a copy."""
    rank, dims = mesh.get_local_rank(), options["dims"]
    whole, shared = create(0, **options), create(rank, **options)  # The first process gives the values.
    assert parallelize_module(shared, mesh, PLANS[plan]()) is shared
    generator = torch.Generator().manual_seed(2)
    views: list[Any] = [torch.randn(*rows, width, generator=generator, dtype=torch.float64) for width in dims]
    mask = torch.rand(*rows, len(dims), generator=generator) < 0.6 if masked else None
    weights = torch.randn(*rows, whole.n, generator=generator, dtype=torch.float64)
    views = [None if i in absent else view.requires_grad_() for i, view in enumerate(views)]
    own = views_by_process(dims, PROCESSES)[rank] if plan == "by_view" else range(len(dims))
    given: list[Any] = [None if view is None else view.detach().clone().requires_grad_() for view in views]
    if not all_given:
        given = [view if i in own else None for i, view in enumerate(given)]
    expected = whole(views, mask=mask)
    with CommDebugMode() as communication:
        found = shared(given, mask=mask)
    (expected * weights).sum().backward()
    with CommDebugMode() as backward:
        (found * weights).sum().backward()
    return {
        "plain": type(found) is Tensor,
        "output": far(found, expected),
        "views": max([far(given[i].grad, views[i].grad) for i in own if views[i] is not None], default=0.0),
        "collectives": (communication.get_total_counts(), backward.get_total_counts()),
        **states(plan, mesh, whole, shared, dims),
        "again": far(shared(given, mask=mask), expected),
        "elements": sum(local(parameter).numel() for parameter in shared.parameters()),
    }


def states(plan: str, mesh: DeviceMesh, whole: nn.Module, shared: nn.Module, dims: list[int]) -> Found:
    """Compare gradients and state_dicts; load the latter into operators that are shared out and whole."""
    widths = [sum(dims[i] for i in own) for own in views_by_process(dims, PROCESSES)] if plan == "by_view" else None
    named: dict[str, Any] = dict(shared.named_parameters())
    gradients = {
        name: far(gathered(named[name].grad, widths if name in ("weight", "B") else None), parameter.grad)
        for name, parameter in whole.named_parameters()
        if parameter.grad is not None
    }
    state, expected = copy.deepcopy(get_model_state_dict(shared, options=FULL)), whole.state_dict()
    with torch.no_grad():
        for parameter in shared.parameters():
            parameter.mul_(0)
    set_model_state_dict(shared, dict(state), options=FULL)
    return {
        "gradients": max(gradients.values()),
        "state": equal(state, expected),
        "loaded": equal(get_model_state_dict(shared, options=FULL), expected),
    }


TWO: dict[str, Any] = {
    "dims": [4, 3, 6],
    "n": 5,
}  # Neither the views nor n divide by two, and the parts of by_view differ in width.
EVEN: dict[str, Any] = {"dims": [3, 2, 5], "n": 4}
MODULES = ["layer_norm", "linear"]
#: What both plans take.
BOTH: dict[str, dict[str, Any]] = {
    "dense": TWO,
    "lowrank": {**TWO, "parameter_fabrication": LOWRANK},
    "even": EVEN,
    "even lowrank": {**EVEN, "parameter_fabrication": {"name": "lowrank", "r": 2}},
    "several leading dimensions": {**TWO, "rows": (2, 3)},
    "no leading dimension": {**TWO, "rows": ()},
    "no rows": {**TWO, "rows": (0,)},
    "no rows, lowrank": {**TWO, "rows": (0,), "parameter_fabrication": LOWRANK},
    "view by view": {"dims": [300, 400, 350], "n": 3, "rows": (200,)},  # Too large to be concatenated.
    "postprocess": {**TWO, "postprocess": MODULES},
    "preprocess": {**TWO, "preprocess": ["tanh", "softplus"], "all_given": True},
    "an absent view": {**TWO, "absent": (1,)},
    "mask": {**TWO, "masked": True},
    "mask, lowrank": {**TWO, "masked": True, "absent": (0,), "parameter_fabrication": LOWRANK},
    "one output": {**TWO, "n": 1},
    "rank 1": {**TWO, "parameter_fabrication": {"name": "lowrank", "r": 1}},
}
#: What by_output takes too.
OUTPUT: dict[str, dict[str, Any]] = {
    "one view": {"dims": [7], "n": 5},
    "one view, lowrank": {"dims": [7], "n": 5, "parameter_fabrication": LOWRANK},
    "modules": {**TWO, "preprocess": MODULES, "postprocess": MODULES},
    "placeholder": {**TWO, "missing": "placeholder", "absent": (2,), "masked": True},
    "indicator": {**TWO, "missing": "indicator", "absent": (2,)},
    "rescale": {**TWO, "missing": "rescale", "masked": True},
}


def trained(plan: str, folder: Path, mesh: DeviceMesh) -> Found:
    """Train a network whose fusion is shared out by three steps of AdamW, and one that is whole; save the first."""
    options = ModelOptions(head="linear")

    def network(seed: int) -> Network:
        return Network(create(seed, **TWO), TWO["dims"], 3, options).double()

    whole, shared = network(0), network(0)
    parallelize_module(shared, mesh, {"fusion": PLANS[plan]()})
    generator = torch.Generator().manual_seed(3)
    views = [torch.randn(8, width, generator=generator, dtype=torch.float64) for width in TWO["dims"]]
    label = torch.randint(3, (8,), generator=generator)
    for one in (whole, shared):
        optimizer = torch.optim.AdamW(one.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(one(views), label).backward()
            optimizer.step()
    state: dict[str, Any] = get_model_state_dict(shared, options=FULL)
    expected = whole.state_dict()
    save(get_model_state_dict(shared), checkpoint_id=folder / plan)
    torch.save(state, folder / f"{plan}.pt")
    # What one plan wrote, the other one reads.
    other = network(1)
    parallelize_module(other, mesh, {"fusion": PLANS["by_view" if plan == "by_output" else "by_output"]()})
    sharded = get_model_state_dict(other)
    load(sharded, checkpoint_id=folder / plan)
    set_model_state_dict(other, sharded)
    return {
        "distances": {name: far(state[name], expected[name]) for name in expected},
        "read": equal(get_model_state_dict(other, options=FULL), state),
    }


def started_on_meta(plan: str, mesh: DeviceMesh) -> Found:
    """Share out an operator that has no memory, give its parts memory, and load values."""
    whole, shared = create(0, **TWO), fusionkit.create("parameterized_concatenation", device="meta", **TWO).double()
    parallelize_module(shared, mesh, PLANS[plan]())
    shared.to_empty(device="cpu")
    set_model_state_dict(shared, whole.state_dict(), options=FULL)
    return {"equal": equal(get_model_state_dict(shared, options=FULL), whole.state_dict())}


def refused(mesh: DeviceMesh) -> Found:
    """Collect messages."""
    whole, shared = create(0, **TWO), create(0, **TWO)
    lone = create(0, dims=[4], n=2)
    square = init_device_mesh("cpu", (1, PROCESSES), mesh_dim_names=("a", "b"))
    even = create(0, **EVEN)
    for one in (shared, even):
        parallelize_module(one, mesh, by_output())
    kronecker = create(0, **TWO, parameter_fabrication="kronecker")
    callable_ = create(0, **TWO, parameter_fabrication=Doubled())
    bare = create(0, **TWO, require_parameters=False)
    views = [torch.zeros(2, width, dtype=torch.float64) for width in TWO["dims"]]
    calls: dict[str, Callable[[], Any]] = {
        "class": lambda: parallelize_module(nn.Linear(2, 2), mesh, by_output()),
        "fusion": lambda: parallelize_module(fusionkit.create("average", dims=[2, 2]), mesh, by_view()),
        "mesh": lambda: parallelize_module(whole, square, by_output()),
        "fabrication": lambda: parallelize_module(kronecker, mesh, by_output()),
        "callable": lambda: parallelize_module(callable_, mesh, by_view()),
        "bare": lambda: parallelize_module(bare, mesh, by_output()),
        "twice": lambda: parallelize_module(shared, mesh, by_view()),
        "missing": lambda: parallelize_module(create(0, **TWO, missing="placeholder"), mesh, by_view()),
        "preprocess": lambda: parallelize_module(create(0, **TWO, preprocess="layer_norm"), mesh, by_view()),
        "views": lambda: parallelize_module(lone, mesh, by_view()),
        "w": lambda: shared(views, w=torch.zeros(65, dtype=torch.float64)),
        "reset": shared.reset_parameters,
        "fold": even.fold,
        "no view": lambda: shared([None, None, None]),
    }
    return {name: message(call) for name, call in calls.items()}


class Doubled:
    """W of which each parameter is two entries."""

    def calculate_l(self, n: int, D: int) -> int:
        return -(-n * D // 2)

    def __call__(self, n: int, D: int, w: Tensor, device: Any = None) -> Tensor:
        return w.repeat(2, 1).flatten()[: n * D].view(n, D)


def message(call: Callable[[], Any]) -> str:
    """Return the message of a FusionError."""
    try:
        call()
    except FusionError as error:
        return str(error)
    return "nothing"


def cases(folder: Path) -> dict[str, Callable[[DeviceMesh], Found]]:
    """Return the functions that both processes call, by name."""
    return {
        **{f"{plan}: {name}": partial(compared, plan, **case) for plan in PLANS for name, case in BOTH.items()},
        **{f"by_output: {name}": partial(compared, "by_output", **case) for name, case in OUTPUT.items()},
        **{f"trained {plan}": partial(trained, plan, folder) for plan in PLANS},
        **{f"meta {plan}": partial(started_on_meta, plan) for plan in PLANS},
        "refused": refused,
    }


def work(rank: int, folder: Path) -> None:
    """Run every case in one of the processes, and save what it found."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=PROCESSES, timeout=timedelta(seconds=30))
    mesh = init_device_mesh("cpu", (PROCESSES,))
    torch.save({name: case(mesh) for name, case in cases(folder).items()}, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both processes have written what they found."""
    folder = tmp_path_factory.mktemp("processes")
    spawn(work, args=(folder,), nprocs=PROCESSES)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, list[Found]]:
    """What each process found, by case."""
    each = [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]
    return {name: [one[name] for one in each] for name in each[0]}


@pytest.mark.parametrize("name", [name for name in cases(Path()) if name.startswith("by_")])
def test_as_one_process(name: str, found: dict[str, list[Found]]) -> None:
    for one in found[name]:
        distances = {key: one[key] for key in ("output", "gradients", "views", "again")}
        assert max(distances.values()) < 1e-12, distances
        assert (one["plain"], one["state"], one["loaded"]) == (True, True, True)
        assert one["collectives"][0] == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("by_output: dense", [3 * 13, 2 * 13]),  # of n = 5 rows
        ("by_output: lowrank", [2 * (5 + 13), 1 * (5 + 13)]),  # of r = 3 ranks
        ("by_output: one output", [13, 0]),
        ("by_view: dense", [5 * 7, 5 * 7]),  # views of 4 + 3 and 6 columns
        ("by_view: lowrank", [3 * 5 + 3 * 7, 3 * 5 + 3 * 7]),
        ("by_view: even lowrank", [2 * 4 + 2 * 5, 2 * 4 + 2 * 5]),
    ],
)
def test_parameters_of_each_process(name: str, expected: list[int], found: dict[str, list[Found]]) -> None:
    assert [one["elements"] for one in found[name]] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("by_output: dense", 3),  # one for each view with a gradient
        ("by_output: even lowrank", 3),
        ("by_view: dense", 0),
        ("by_view: lowrank", 0),
    ],
)
def test_collectives_backward(name: str, expected: int, found: dict[str, list[Found]]) -> None:
    assert [one["collectives"][1] for one in found[name]] == [expected, expected]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("plan", PLANS)
def test_training_and_checkpoints(plan: str, found: dict[str, list[Found]], folder: Path) -> None:
    for one in found[f"trained {plan}"]:
        assert max(one["distances"].values()) < 1e-12, one["distances"]
        assert one["read"]
    gathered = torch.load(folder / f"{plan}.pt")
    alone = Network(create(1, **TWO), TWO["dims"], 3, ModelOptions(head="linear")).double()
    alone.load_state_dict(gathered)
    state = {name: torch.zeros_like(tensor) for name, tensor in gathered.items()}
    load(state, checkpoint_id=folder / plan)
    assert equal(state, gathered)


@pytest.mark.parametrize("plan", PLANS)
def test_an_operator_without_memory(plan: str, found: dict[str, list[Found]]) -> None:
    assert [one["equal"] for one in found[f"meta {plan}"]] == [True, True]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("class", "by_output … parameterized_concatenation, … {'fusion': by_output()}; found Linear."),
        ("fusion", "by_view … parameterized_concatenation, … found Average."),
        ("mesh", "by_output … one dimension, … found 2 dimensions."),
        ("fabrication", "by_output … dense or lowrank; found kronecker.  Its fold() … fully_shard"),
        ("callable", "by_view … dense or lowrank; found CallableFabrication."),
        ("bare", "by_output … parameters weight; found none."),
        ("twice", "by_view … whole; found one that is shared out."),
        ("missing", "by_view … missing, … found missing='placeholder'."),
        ("preprocess", "by_view … found preprocess.steps.0.weight, … before the call."),
        ("views", "by_view … each of 2 processes; found 1."),
        ("w", "w should be None, … found a tensor."),
        ("reset", "reset_parameters … before W is shared out; found parts"),
        ("fold", "W should be gathered by get_model_state_dict … found parts"),
        ("no view", "x should contain at least one tensor"),
    ],
)
def test_refused(name: str, expected: str, found: dict[str, list[Found]]) -> None:
    for one in found["refused"]:
        assert re.match(like(expected), one[name]), one[name]


@pytest.mark.parametrize(
    ("dims", "processes", "expected"),
    [
        ([4, 3, 6], 2, [[0, 1], [2]]),
        ([4, 3, 6], 3, [[0], [1], [2]]),
        ([4, 3, 6], 1, [[0, 1, 2]]),
        ([9, 1, 1], 2, [[0], [1, 2]]),
        ([9, 1, 1], 3, [[0], [1], [2]]),
        ([1, 1, 9], 2, [[0, 1], [2]]),
        ([1, 1, 9, 1, 1], 2, [[0, 1, 2], [3, 4]]),
        ([5] * 7, 3, [[0, 1, 2], [3, 4, 5], [6]]),
        ([1, 1, 1, 100], 4, [[0], [1], [2], [3]]),
    ],
)
def test_views_by_process(dims: list[int], processes: int, expected: list[list[int]]) -> None:
    assert [list(views) for views in views_by_process(dims, processes)] == expected


def test_no_division_is_narrower() -> None:
    generator = random.Random(0)
    for _ in range(50):
        dims = [generator.randint(1, 9) for _ in range(generator.randint(1, 7))]
        for processes in range(1, len(dims) + 1):
            cuts = itertools.combinations(range(1, len(dims)), processes - 1)
            each = [[sum(dims[i:j]) for i, j in itertools.pairwise([0, *cut, len(dims)])] for cut in cuts]
            groups = views_by_process(dims, processes)
            assert [i for group in groups for i in group] == list(range(len(dims)))
            assert max(sum(dims[i] for i in group) for group in groups) == min(map(max, each))


def test_more_processes_than_views() -> None:
    with pytest.raises(FusionError, match=like("by_view … each of 3 processes; found 2.")):
        views_by_process([4, 3], 3)
