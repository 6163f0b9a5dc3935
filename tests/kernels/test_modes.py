"""Which of torch's modes is on, also where a private name of torch is missing."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
import torch
from torch import Tensor

from fusionkit.kernels import modes
from fusionkit.kernels.modes import in_place_ok, in_transform, supports_out_kernels

X = [torch.ones(2, 3), torch.ones(2, 3)]


class Subclass(Tensor):
    pass


def test_where_out_kernels_are_safe() -> None:
    assert supports_out_kernels(X)
    assert not supports_out_kernels([X[0], X[1].as_subclass(Subclass)])
    seen = []

    def look(x: Tensor) -> Tensor:
        seen.append((in_transform(), in_place_ok([x]), supports_out_kernels([x])))
        return x

    torch.vmap(look)(X[0])
    with torch.autograd.forward_ad.dual_level():
        look(X[0])
    look(X[0])
    assert seen == [(True, False, False), (False, True, False), (False, True, True)]


def reloaded() -> ModuleType:
    """Return a second copy of the module, made with the names that torch has now."""
    spec = importlib.util.spec_from_file_location("modes_again", modes.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (torch._C._functorch, "peek_interpreter_stack"),
        (torch._C._functorch, "is_legacy_batchedtensor"),
        (torch._C, "_get_privateuse1_backend_name"),
        (torch._C, "_DisableFuncTorch"),
        (torch.autograd.forward_ad, "_current_level"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_without_a_private_name_the_answer_is_the_safe_one(
    owner: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reloaded().supports_out_kernels(X)
    monkeypatch.delattr(owner, name)
    again = reloaded()
    batch = name in ("_get_privateuse1_backend_name", "_DisableFuncTorch")
    assert again.supports_out_kernels(X) == batch
    assert again.in_place_ok(X) == (batch or name == "_current_level")
    assert again.autocasting(torch.device("cpu")) is False
    with again.outside_transforms():
        assert torch.rand(2).shape == (2,)
