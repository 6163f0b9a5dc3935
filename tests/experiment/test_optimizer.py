from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import nn

from fusionkit.experiment.optimizer import Optimizer, one_cycle

STEPS, LR = 7, 0.05


def network() -> nn.Sequential:
    torch.manual_seed(0)
    found = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3), nn.Linear(3, 3))
    found[3].weight.requires_grad_(False)
    return found


def theirs(name: str, parameters: list[torch.Tensor], decay: float) -> torch.optim.Optimizer:
    """Return the optimizer of ``torch.optim``."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=LR, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, lr=LR, fused=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scheduler", ["onecycle", "constant"])
@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_the_weights_are_those_of_torch_bit_for_bit(name: str, scheduler: str, dtype: torch.dtype) -> None:
    ours, other = network().to(dtype), network().to(dtype)
    mine = Optimizer((p for p in ours.parameters() if p.requires_grad), name, LR, 0.3)
    reference = theirs(name, [p for p in other.parameters() if p.requires_grad], 0.3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(reference, LR, total_steps=STEPS)
    if scheduler == "constant":
        reference = theirs(name, [p for p in other.parameters() if p.requires_grad], 0.3)
    x = torch.randn(6, 5, dtype=dtype)
    for step in range(STEPS):
        if scheduler == "onecycle":
            mine.lr, mine.momentum = one_cycle(step, STEPS, LR)
        for model, optimizer in ((ours, mine), (other, reference)):
            optimizer.zero_grad()
            # Every other step leaves some parameters without a gradient.
            (model(x) if step % 2 else model[:2](x)).square().sum().backward()
            optimizer.step()
        if scheduler == "onecycle":
            schedule.step()
        for p, q in zip(ours.parameters(), other.parameters(), strict=True):
            assert torch.equal(p, q), step


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10, 60 * 13])
def test_one_cycle_is_that_of_torch_bit_for_bit(steps: int) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.03, total_steps=steps)
    for step in range(steps + 1):
        group = optimizer.param_groups[0]
        assert one_cycle(step, steps, 0.03) == (group["lr"], group["momentum"]), step
        optimizer.step()
        if step < steps:
            schedule.step()


def test_sparse_gradients_are_for_sgd() -> None:
    table = nn.Embedding(4, 3, sparse=True)
    before = copy.deepcopy(table.weight)
    table(torch.tensor([1])).sum().backward()
    Optimizer(table.parameters(), "sgd", 0.1).step()
    changed = (table.weight != before).any(1).tolist()
    assert changed == [False, True, False, False]


def test_a_gradient_scaler_finds_the_parameters() -> None:
    layer = nn.Linear(2, 2)
    optimizer = Optimizer(layer.parameters(), "adamw", 0.1)
    found = list(itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups))
    assert {id(p) for p in found} == {id(p) for p in layer.parameters()}


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_the_state_can_be_copied(name: str) -> None:
    def step(optimizer: Optimizer, module: nn.Module, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in [*module.parameters()][:-1]:  # The last one never has a gradient, so no state.
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()

    first, second = network(), network()
    one, other = (Optimizer(module.parameters(), name, 0.1, 0.01) for module in (first, second))
    for seed in range(3):
        step(one, first, seed)
    second.load_state_dict(first.state_dict())
    other.allocate(one.tensors())
    assert len(one.tensors()) == (1 if name == "sgd" else 3) * (len([*first.parameters()]) - 1)
    assert {key: value.shape for key, value in other.tensors().items()} == {
        key: value.shape for key, value in one.tensors().items()
    }
    for key, value in one.tensors().items():
        other.tensors()[key].copy_(value)
    for optimizer, module in ((one, first), (other, second)):
        step(optimizer, module, 9)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not Optimizer(first.parameters(), name, 0.1).tensors()
