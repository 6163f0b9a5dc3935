"""Keep state, or lose it when they are stored or copied."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.contract.mutants.right import Drops, Mix
from tests.contract.mutants.table import caught_by


@caught_by("gradcheck")
class Detached(Mix):
    """Cuts the gradient of the last view by half."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        last = 0.5 * x[-1] + 0.5 * x[-1].detach()
        return super()._fuse([*x[:-1], last])


@caught_by("gradcheck")
class HidesBehindDropout(Drops):
    """Loses a part of a gradient, and is stochastic, in training."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([0.5 * x[0] + 0.5 * x[0].detach(), *x[1:]])


@caught_by("deterministic")
class Noisy(Mix):
    """Adds a little noise, also in evaluation mode."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out + 1e-12 * torch.randn_like(out)


@caught_by("state_dict")
class HiddenOffset(Mix):
    """Draws a part of its result that the state_dict does not hold."""

    def create(self) -> None:
        super().create()
        self.register_buffer("offset", torch.randn(self.calculate_n(), **self._factory), persistent=False)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) + self.get_buffer("offset")


@caught_by("rng_isolation")
class DrawsForNothing(Mix):
    """Draws a number that it does not use."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if not x[0].is_meta and torch._C._functorch.peek_interpreter_stack() is None:
            torch.rand(1)
        return super()._fuse(x)


@caught_by("idempotent_calls")
class CountsCalls(Mix):
    """Counts its calls."""

    calls = 0

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        self.calls += 1
        return super()._fuse(x)


@caught_by("idempotent_calls")
class CountsOnTheClass(Mix):
    """Counts the calls of all instances."""

    calls = 0

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        type(self).calls += 1
        return super()._fuse(x)


@caught_by("idempotent_calls")
class SetsTheDefaultDtype(Mix):
    """Changes a setting of the process."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        torch.set_default_dtype(torch.float64)
        return super()._fuse(x)


@caught_by("no_grad")
class InsistsOnGradients(Mix):
    """Turns gradients on."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        with torch.enable_grad():
            return super()._fuse(x)


@caught_by("safetensors")
class OverlappingBuffers(Mix):
    """Keeps two halves of one tensor as buffers, which overlap."""

    def create(self) -> None:
        super().create()
        whole = torch.zeros(3, **self._factory)
        self.register_buffer("left", whole[:2])
        self.register_buffer("right", whole[1:])


class _Note:
    """Something that a state_dict should not contain."""


@caught_by("weights_only")
class KeepsAnObject(Mix):
    """Puts an object of its own into the state_dict."""

    def get_extra_state(self) -> Any:
        return _Note()

    def set_extra_state(self, state: Any) -> None:
        pass


@caught_by("pickle_deepcopy")
class KeepsALambda(Mix):
    """Keeps a function that cannot be pickled."""

    def create(self) -> None:
        super().create()
        self.act = lambda view: view


@caught_by("pickle_deepcopy")
class ForgetsItsMode(Mix):
    """Comes back in training mode."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "training": True}


@caught_by("pickle_deepcopy")
class CopiesWithOtherDims(Mix):
    """Has other dims after a deep copy."""

    def __deepcopy__(self, memo: dict[int, Any]) -> CopiesWithOtherDims:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        twin.dims = (*self.resolve_dims()[:-1], 9)
        return twin


@caught_by("factory_kwargs")
class IgnoresFactory(Mix):
    """Creates a buffer without device and dtype."""

    def create(self) -> None:
        super().create()
        self.register_buffer("scale", torch.ones(1, device="cpu"))


@caught_by("meta_to_empty")
class FillsBufferOnce(Mix):
    """Fills a buffer in the constructor only."""

    def create(self) -> None:
        super().create()
        self.register_buffer("scale", torch.full((1,), 2.0, **self._factory))

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) * self.get_buffer("scale")


@caught_by("to_moves_everything")
class KeepsATensor(Mix):
    """Keeps a constant as a plain attribute."""

    def create(self) -> None:
        super().create()
        self.scale = torch.ones(1, **self._factory)
