"""Wrong in their parameters, an external w or the initial values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.contract.mutants.right import Mix, Thin
from tests.contract.mutants.table import caught_by


@caught_by("parameters_stable")
class LazyBuffer(Mix):
    """Creates a buffer at the first call."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if not hasattr(self, "offset"):
            self.register_buffer("offset", torch.zeros_like(x[0][..., :1].sum()), persistent=False)
        return super()._fuse(x)


@caught_by("all_parameters_get_grad")
class DeadColumn(Mix):
    """Owns one more weight per view than it uses."""

    def create(self) -> None:
        shape = (len(self.resolve_dims()), self.calculate_n() + 1)
        self.weight = nn.Parameter(torch.empty(shape, **self._factory))

    def calculate_l(self) -> int:
        widths = self.resolve_dims()
        return len(widths) * (widths[0] + 1)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack([view * weight for view, weight in zip(x, self.weight[:, :-1], strict=True)]).sum(0)


@caught_by("all_parameters_get_grad")
class DeadBlock(Thin):
    """Has a parameter that W does not contain."""

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        return {"u": (n,), "v": (D,), "unused": (1,)}


@caught_by("external_w")
class IgnoresW(Mix):
    """Accepts w and computes with its own parameters."""

    def forward(self, x: Any, w: Any = None, device: Any = None, mask: Any = None) -> Tensor:
        return super().forward(x, None, device, mask)


@caught_by("external_w")
class KeepsW(Mix):
    """Stores the given w as its own parameters."""

    def forward(self, x: Any, w: Any = None, device: Any = None, mask: Any = None) -> Tensor:
        out = super().forward(x, w, device, mask)
        if w is not None and isinstance(self.weight, nn.Parameter):
            with torch.no_grad():
                self.weight.copy_(w.view(self.weight.shape))
        return out


@caught_by("external_w")
class CallsTwice(Mix):
    """Calls itself, so that hooks fire twice."""

    def forward(self, x: Any, w: Any = None, device: Any = None, mask: Any = None) -> Tensor:
        if w is not None and self._forward_hooks:
            self(x)
        return super().forward(x, w, device, mask)


@caught_by("external_w")
class IgnoresWInTraining(Mix):
    """Accepts w in training mode, and computes with its own parameters."""

    def forward(self, x: Any, w: Any = None, device: Any = None, mask: Any = None) -> Tensor:
        return super().forward(x, None if self.training and self.require_parameters else w, device, mask)


@caught_by("processing")
class DropsThePostprocess(Mix):
    """Returns the result before the postprocess."""

    def create(self) -> None:
        self._specs = (self._specs[0], None)
        super().create()


@caught_by("processing")
class DropsThePreprocess(Mix):
    """Fuses the views before the preprocess."""

    def create(self) -> None:
        self._specs = (None, self._specs[1])
        super().create()


@caught_by("seeding")
class IgnoresGenerator(Mix):
    """Draws from the global generator."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        super().reset_parameters(None)


@caught_by("seeding")
class ConstantInit(Mix):
    """Starts with ones and does not say so."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        with torch.no_grad():
            self.weight.fill_(len(self.resolve_dims()) ** -0.5)


_SHARED = torch.ones(1)


@caught_by("instances_independent")
class SharesBuffer(Mix):
    """Registers one tensor in all instances."""

    def create(self) -> None:
        super().create()
        self.register_buffer("scale", _SHARED)


@caught_by("instances_independent")
class SharesList(Mix):
    """Keeps a list on the class."""

    history: list[int] = []


@caught_by("init_statistics")
class WideInit(Mix):
    """Starts three times too wide."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        for _, parameter in self._own_parameters():
            with torch.no_grad():
                parameter.normal_(std=3.0, generator=generator)
