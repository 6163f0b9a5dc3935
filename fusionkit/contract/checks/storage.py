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

from fusionkit.contract.rules import equal, expect, no_error, rule
from fusionkit.contract.subject import Subject
from fusionkit.contract.tracking import stray_tensors
from fusionkit.fusion import Fusion


@rule()
def check_state_dict(subject: Subject) -> None:
    """A state_dict loads strictly into a second operator, which then computes the same; its keys never change.

    Keep everything that the output depends on in parameters and persistent buffers.
    """
    op, second = subject.operator(), subject.operator()
    x = subject.views(3)
    state = op.state_dict()
    expect(
        list(second.state_dict()) == list(state),
        f"every operator of the case should have the keys {list(state)}",
        list(second.state_dict()),
    )
    before = subject.forward(op, x)
    expect(
        list(op.state_dict()) == list(state), f"the keys should stay {list(state)} after a call", list(op.state_dict())
    )
    subject.forward(second, x)
    with no_error("load_state_dict(strict=True) should accept the state_dict"):
        second.load_state_dict(copy.deepcopy(state), strict=True)
    if not subject.promises(op).stochastic:
        equal("the output after loading the state_dict", subject.forward(second, x), before, exact=True)


@rule()
def check_safetensors(subject: Subject) -> None:
    """The operator survives a safetensors file, shared tensors too.

    Keep everything in parameters and buffers that are no views of each other, or that the whole shares.
    """
    op, second = subject.operator(), subject.operator()
    # A tensor that hangs in two places, as when two branches of a model share the operator.
    branches: tuple[str, ...] = ("one", "two")
    if any(isinstance(module, _NormBase) for module in op.modules()):
        branches = branches[:1]  # Batch normalization adds a key in loading, which safetensors does not expect.
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "operator.safetensors"))
        with no_error("safetensors should save and load the operator"):
            save_model(nn.ModuleDict(dict.fromkeys(branches, op)), file)
            load_model(nn.ModuleDict(dict.fromkeys(branches, second)), file)
    _same_output(subject, second, op, "the output after a safetensors file")


@rule()
def check_weights_only(subject: Subject) -> None:
    """`torch.load(weights_only=True)` suffices for the state_dict.

    Return nothing but tensors from `state_dict`; no `get_extra_state` with objects of one's own.
    """
    op, second = subject.operator(), subject.operator()
    buffer = io.BytesIO()
    torch.save(op.state_dict(), buffer)
    buffer.seek(0)
    with no_error("the state_dict should load with weights_only=True"):
        state = torch.load(buffer, weights_only=True)
    second.load_state_dict(state)
    _same_output(subject, second, op, "the output after torch.load")


@rule()
def check_pickle_deepcopy(subject: Subject) -> None:
    """A pickled or deep-copied operator computes the same, from storage of its own.

    Keep no lambdas, locks, generators or open files in attributes.
    """
    op = subject.operator()
    ways: list[tuple[str, Callable[[Fusion], Fusion]]] = [("pickled", _pickled), ("deep-copied", copy.deepcopy)]
    # torch refuses to pickle what is parametrized.
    for what, duplicate in ways[any(is_parametrized(module) for module in op.modules()) :]:
        with no_error(f"the operator should be {what}"):
            copied = duplicate(op)
        for name in ("dims", "n", "name", "require_parameters", "training", "traits"):
            found, wanted = getattr(copied, name, None), getattr(op, name)
            expect(found == wanted, f"{name} of the {what} operator should be {wanted!r}", repr(found))
        _same_output(subject, copied, op, f"the output of the {what} operator")
        mine = {tensor.data_ptr() for tensor in (*op.parameters(), *op.buffers()) if tensor.numel()}
        shared = [name for name, tensor in copied.named_parameters() if tensor.numel() and tensor.data_ptr() in mine]
        expect(not shared, f"the {what} operator should have storage of its own", f"the shared {shared}")


def _pickled(op: Fusion) -> Fusion:
    copied: Fusion = pickle.loads(pickle.dumps(op))
    return copied


@rule()
def check_factory_kwargs(subject: Subject) -> None:
    """`device` and `dtype`, and `with torch.device(...)`, reach every parameter and floating-point buffer.

    Create every tensor of the constructor with `**self._factory`.
    """
    for dtype in (torch.float64, torch.bfloat16, "float64"):
        _all(
            subject.build(fresh=True, dtype=dtype), "dtype", getattr(torch, dtype) if isinstance(dtype, str) else dtype
        )
    _all(subject.build(device="meta"), "device", torch.device("meta"))
    with no_error("the constructor should work under torch.device('meta')"), torch.device("meta"):
        op = subject.construct(fresh=True)
    _all(op, "device", torch.device("meta"))


def _all(op: Fusion, attribute: str, wanted: Any) -> None:
    for name, tensor in (*op.named_parameters(), *op.named_buffers()):
        if attribute == "device" or tensor.is_floating_point():
            found = getattr(tensor, attribute)
            expect(
                found == wanted, f"{name} should have the {attribute} {wanted} that the operator was built with", found
            )


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
            for tensor in (*late.parameters(), *late.buffers()):
                tensor.fill_(float("nan") if tensor.is_floating_point() else 0)  # Empty memory may hold good values.
        late.reset_parameters()
    empty = [name for name, tensor in (*late.named_parameters(), *late.named_buffers()) if not tensor.isfinite().all()]
    expect(not empty, "reset_parameters should fill every parameter and buffer", f"{empty} unfilled")
    # The parameters are drawn; the buffers have to be those of a normal build.
    late.load_state_dict(dict(op.named_parameters()), strict=False)
    _same_output(subject, late, op, "the output after meta, to_empty, reset_parameters")


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
        expect(out.dtype == dtype, f"the operator after .{what}() should return {dtype}", out.dtype)
    moved = copy.deepcopy(op).to("meta")
    _all(moved, "device", torch.device("meta"))
    out = subject.forward(moved, subject.views(2, device="meta"))
    expect(out.is_meta, "the operator after .to('meta') should return a meta tensor", str(out.device))


def _same_output(subject: Subject, found: Fusion, wanted: Fusion, what: str) -> None:
    if not subject.promises(wanted).stochastic:
        x = subject.views(3)
        equal(what, subject.forward(found, x), subject.forward(wanted, x), exact=True)
