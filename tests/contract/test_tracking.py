from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fusionkit.contract.tracking import Allocations, LargestOnCpu, attributes, stray_tensors


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("scale", torch.ones(1))
        self.child = nn.Linear(2, 2)
        self.options: dict[str, Any] = {"a": [1, 2]}


def test_attributes_notice_values_writes_and_new_names() -> None:
    holder = Holder()
    before = attributes(holder)
    assert attributes(holder) == before
    holder.options["a"].append(3)
    assert {name for name in before if attributes(holder)[name] != before[name]} == {"options"}
    holder.options["a"].pop()
    with torch.no_grad():
        holder.child.weight.add_(1)
    assert {name for name in before if attributes(holder)[name] != before[name]} == {"child._parameters.weight"}
    holder.late = 1  # type: ignore[assignment]
    assert set(attributes(holder)) - set(before) == {"late"}


def test_stray_tensors() -> None:
    holder = Holder()
    assert stray_tensors(holder) == []
    holder.alias = [holder.scale]  # type: ignore[assignment]
    assert stray_tensors(holder) == []
    holder.options["late"] = (torch.ones(1),)
    holder.child.mine = torch.ones(1)
    assert stray_tensors(holder) == ["options", "child.mine"]


def test_allocations_count_what_is_alive() -> None:
    x = torch.ones(256)
    with Allocations([x]) as counter:
        y = x + 1
        z = y[:10]
        assert counter.alive() == 1024
        del y
        assert counter.alive() == 1024
        del z
        assert counter.alive() == 0
        x.add_(1)
        x.view(16, 16)
    assert counter.peak == 1024
    assert counter.shapes == [(256,)]


def test_largest_on_cpu() -> None:
    with LargestOnCpu() as largest:
        torch.empty(1000, device="meta")
        torch.empty(7).normal_()
    assert largest.elements == 7
    assert "aten" in largest.by
