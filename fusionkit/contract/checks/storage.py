"""Saving, loading, copying, moving."""

from __future__ import annotations

import copy
import io
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrize import is_parametrized

from fusionkit.contract.checks._common import expect_value, same_output, tensors_of
from fusionkit.contract.rules import equal, expect, no_error, rule
from fusionkit.contract.subject import Subject
from fusionkit.contract.tracking import stray_tensors
from fusionkit.fusion import Fusion

META = torch.device("meta")


@rule()
def check_state_dict(subject: Subject) -> None:
    """A state_dict loads strictly into a second operator, which then computes the same; its keys never change.

    Keep everything that the output depends on in parameters and persistent buffers.
    """
    op, second = subject.operator(), subject.operator()
    x = subject.views(3)
    state = op.state_dict()
    expect_value("the keys of a second operator", list(second.state_dict()), list(state))
    before = subject.forward(op, x)
    expect_value("the keys after a call", list(op.state_dict()), list(state))
    subject.forward(second, x)
    with no_error("load_state_dict(strict=True) should accept the state_dict"):
        second.load_state_dict(copy.deepcopy(state), strict=True)
    if not subject.promises(op).stochastic:
        equal("the output after loading the state_dict", subject.forward(second, x), before, exact=True)


@rule()
def check_safetensors(subject: Subject) -> None:
    """The operator survives a safetensors file, shared tensors too.

    Keep everything in parameters and buffers; let two of them share a whole tensor or nothing.
    """
    op, second = subject.operator(), subject.operator()
    # Two branches of a model may share the operator, and so its tensors.
    branches: tuple[str, ...] = ("one", "two")
    if any(isinstance(module, _NormBase) for module in op.modules()):
        branches = branches[:1]  # Batch normalization adds a key in loading, which safetensors does not expect.
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "operator.safetensors"))
        with no_error("safetensors should save and load the operator"):
            save_model(nn.ModuleDict(dict.fromkeys(branches, op)), file)
            load_model(nn.ModuleDict(dict.fromkeys(branches, second)), file)
    same_output(subject, "the output after a safetensors file", second, op, exact=True)


@rule()
def check_weights_only(subject: Subject) -> None:
    """`torch.load(weights_only=True)` suffices for the state_dict.

    Return nothing but tensors from `state_dict`, and no other objects from `get_extra_state`.
    """
    op, second = subject.operator(), subject.operator()
    buffer = io.BytesIO()
    torch.save(op.state_dict(), buffer)
    buffer.seek(0)
    with no_error("the state_dict should load with weights_only=True"):
        state = torch.load(buffer, weights_only=True)
    second.load_state_dict(state)
    same_output(subject, "the output after torch.load", second, op, exact=True)


@rule()
def check_pickle_deepcopy(subject: Subject) -> None:
    """A pickled or deep-copied operator computes the same, from storage of its own.

    Keep no lambdas, locks, generators or open files in attributes.
    """
    op = subject.operator()
    ways: list[tuple[str, Callable[[Fusion], Fusion]]] = [
        ("pickled", lambda op: pickle.loads(pickle.dumps(op))),
        ("deep-copied", copy.deepcopy),
    ]
    # torch refuses to pickle what is parametrized.
    for what, duplicate in ways[any(is_parametrized(module) for module in op.modules()) :]:
        with no_error(f"the operator should be {what}"), torch.set_grad_enabled(what == "pickled"):
            copied = duplicate(op)
        for name in ("dims", "n", "name", "require_parameters", "training", "traits"):
            expect_value(f"{name} of the {what} operator", getattr(copied, name, None), getattr(op, name))
        same_output(subject, f"the output of the {what} operator", copied, op, exact=True)
        mine = {tensor.data_ptr() for tensor in tensors_of(op).values() if tensor.numel()}
        shared = [name for name, tensor in tensors_of(copied).items() if tensor.numel() and tensor.data_ptr() in mine]
        expect(not shared, f"the {what} operator should have storage of its own", f"the shared {shared}")


@rule(basic=True)
def check_factory_kwargs(subject: Subject) -> None:
    """`device` and `dtype`, and `with torch.device(...)`, reach every parameter and floating-point buffer.

    Create every tensor of the constructor with `**self._factory`.
    """
    for given, dtype in ((torch.float64, torch.float64), (torch.bfloat16, torch.bfloat16), ("float64", torch.float64)):
        _all(subject.build(fresh=True, dtype=given), "dtype", dtype)
    _all(subject.build(device="meta"), "device", META)
    with no_error("the constructor should work under torch.device('meta')"), META:
        op = subject.construct(fresh=True)
    _all(op, "device", META)


def _all(op: Fusion, attribute: str, wanted: Any) -> None:
    for name, tensor in tensors_of(op).items():
        if attribute == "device" or tensor.is_floating_point():
            expect_value(f"the {attribute} of {name}", getattr(tensor, attribute), wanted)


@rule()
def check_meta_to_empty(subject: Subject) -> None:
    """An operator that is built on meta works after `to_empty` and `reset_parameters`.

    Let `reset_parameters` fill every parameter, and every buffer with the value that the constructor gives it.
    """
    op = subject.operator()
    late = subject.build(device="meta", dtype=torch.float64)
    with no_error("to_empty and reset_parameters should work after building on meta"):
        late = late.to_empty(device="cpu").eval()
        with torch.no_grad():
            for tensor in tensors_of(late).values():
                tensor.fill_(float("nan") if tensor.is_floating_point() else 0)  # Empty memory may hold good values.
        late.reset_parameters()
    empty = [name for name, tensor in tensors_of(late).items() if not tensor.isfinite().all()]
    expect(not empty, "reset_parameters should fill every parameter and buffer", f"{empty} unfilled")
    # The parameters are drawn; the buffers have to be those of a normal build.
    late.load_state_dict(dict(op.named_parameters()), strict=False)
    same_output(subject, "the output after meta, to_empty, reset_parameters", late, op, exact=True)


@rule()
def check_to_moves_everything(subject: Subject) -> None:
    """`.to`, `.half` and `.double` leave no tensor behind: none lives outside parameters and buffers.

    Register tensors with `register_buffer`; a list or another attribute does not move.
    """
    op = subject.operator()
    subject.forward(op, subject.views(2))
    stray = stray_tensors(op)
    expect(not stray, "every tensor should be a parameter or a buffer", f"tensors in {stray}")
    for what, dtype in (("half", torch.float16), ("double", torch.float64), ("float", torch.float32)):
        moved = getattr(copy.deepcopy(op), what)()
        _all(moved, "dtype", dtype)
        out = subject.forward(moved, subject.views(2, dtype=dtype))
        expect_value(f"the dtype of the output after .{what}()", out.dtype, dtype)
    moved = copy.deepcopy(op).to("meta")
    _all(moved, "device", META)
    out = subject.forward(moved, subject.views(2, device="meta"))
    expect_value("the device of the output after .to('meta')", out.device, META)
