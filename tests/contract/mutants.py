"""Operators that are wrong in one way each, and the check that has to catch it.

Each mutant changes one thing in a right operator (``Mix``, ``Total`` or ``Thin``), so that few other checks object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fusionkit.fabrication import Fabrication
from fusionkit.fusion import Fusion, Traits

T = TypeVar("T", bound=type)

#: check -> the mutants that it has to catch.
MUTANTS: dict[str, list[type]] = {}


def caught_by(check: str) -> Callable[[T], T]:
    def mark(cls: T) -> T:
        MUTANTS.setdefault(check, []).append(cls)
        return cls

    return mark


# ---------------------------------------------------------------------- right operators


class Total(Fusion):
    """``A_1 + ... + A_k``; l = 0."""

    traits = Traits(permutation_invariant=True, linear=True, batch_independent=True, monotone=True)

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return self.resolve_equal_dims(dims)

    def calculate_l(self) -> int:
        return 0

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack(tuple(x)).sum(0)


class Mix(Fusion):
    """``sum_i weight_i * A_i`` with a vector of weights per view; l = D."""

    traits = Traits(linear=True, batch_independent=True)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        name: str | None = None,
        require_parameters: bool = True,
        *,
        preprocess: Any = None,
        postprocess: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            n,
            dims,
            name,
            require_parameters,
            preprocess=preprocess,
            postprocess=postprocess,
            device=device,
            dtype=dtype,
        )
        if self.dims is not None:
            self.create()
            self.reset_parameters()

    def create(self) -> None:
        shape = (len(self.resolve_dims()), self.calculate_n())
        self.weight = nn.Parameter(torch.empty(shape, **self._factory))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        for _, parameter in self._own_parameters():
            with torch.no_grad():
                parameter.normal_(std=len(self.resolve_dims()) ** -0.5, generator=generator)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        yield {"dims": [4, 4, 4]}

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return self.resolve_equal_dims(dims)

    def calculate_l(self) -> int:
        return sum(self.resolve_dims())

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack([view * weight for view, weight in zip(x, self.weight, strict=True)]).sum(0)


class Thin(Fabrication):
    """``W = u v^T``; blocks u (n), v (D)."""

    degree = 2

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        return {"u": (n,), "v": (D,)}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return torch.outer(blocks["u"], blocks["v"])


RIGHT: tuple[type, ...] = (Total, Mix, Thin)


# ---------------------------------------------------------------------- sizes


@caught_by("n_matches_output")
class WideN(Mix):
    """States the width of all views together."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return sum(self.resolve_dims(dims))

    def create(self) -> None:
        widths = self.resolve_dims()
        self.weight = nn.Parameter(torch.empty(len(widths), widths[0], **self._factory))


@caught_by("l_matches_parameters")
class ListedFactors(Mix):
    """Keeps its parameters in a list, where torch does not see them."""

    def create(self) -> None:
        self.factors = [torch.ones(width, **self._factory).requires_grad_() for width in self.resolve_dims()]

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack([view * factor for view, factor in zip(x, self.factors, strict=True)]).sum(0)


@caught_by("l_matches_parameters")
class CountsTrainable(Mix):
    """Forgets the parameters that are frozen."""

    def calculate_l(self) -> int:
        return sum(parameter.numel() for _, parameter in self._own_parameters() if parameter.requires_grad)


@caught_by("l_matches_parameters")
class CountsEverything(Mix):
    """Counts the parameters of the pre- and postprocessing as its own."""

    def calculate_l(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


@caught_by("l_matches_parameters")
class MiscountedBlocks(Thin):
    """States one parameter too few."""

    def calculate_l(self, n: int, D: int) -> int:
        return n + D - 1


# ---------------------------------------------------------------------- shapes


@caught_by("forward_shape")
class Squeezes(Mix):
    """Loses the leading dimension of a batch of one row."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out.squeeze(0) if out.dim() > 1 else out


@caught_by("leading_dims")
class SecondDimension(Mix):
    """Takes the second dimension for the last one."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out - out.mean(min(1, out.dim() - 1), keepdim=True)


@caught_by("empty_batch")
class NeedsRows(Mix):
    """Takes a maximum over the batch."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out + 0 * out.detach().abs().max()


@caught_by("zero_views")
class NothingIsZero(Mix):
    """Returns zeros for no views."""

    def forward(self, x: Sequence[Tensor], w: Tensor | None = None, device: Any = None) -> Tensor:
        return super().forward(x, w, device) if x else torch.zeros(1, self.calculate_n())


# ---------------------------------------------------------------------- inputs


@caught_by("wrong_dims")
class IgnoresThirdView(Mix):
    """Silently drops views beyond the ones it knows."""

    def forward(self, x: Sequence[Tensor], w: Tensor | None = None, device: Any = None) -> Tensor:
        return super().forward(x[: len(self.resolve_dims())], w, device)


@caught_by("wrong_dims")
class RawShapeError(Mix):
    """Lets torch complain about the widths."""

    def _views(self, x: Sequence[Tensor]) -> list[Tensor]:
        return list(x) if x and len(x) == len(self.resolve_dims()) else super()._views(x)


@caught_by("no_input_mutation")
class WritesViews(Mix):
    """Writes to a view, though not another value."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        x[0].detach().mul_(1)
        return super()._fuse([x[0].clone(), *x[1:]])


# ---------------------------------------------------------------------- numerics


@caught_by("dtype_preserved")
class HalfInFloat(Mix):
    """Computes half precision in float32 and does not cast back."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out.float() if out.dtype in (torch.float16, torch.bfloat16) else out


@caught_by("dtype_preserved")
class TakesIntegers(Total):
    """Accepts integer views."""

    def _views(self, x: Sequence[Tensor]) -> list[Tensor]:
        return super()._views([view if view.is_floating_point() else view.double() for view in x])


# ---------------------------------------------------------------------- parameters


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

    def forward(self, x: Sequence[Tensor], w: Tensor | None = None, device: Any = None) -> Tensor:
        return super().forward(x, None, device)


@caught_by("external_w")
class KeepsW(Mix):
    """Stores the given w as its own parameters."""

    def forward(self, x: Sequence[Tensor], w: Tensor | None = None, device: Any = None) -> Tensor:
        out = super().forward(x, w, device)
        if w is not None and isinstance(self.weight, nn.Parameter):
            with torch.no_grad():
                self.weight.copy_(w.view(self.weight.shape))
        return out


@caught_by("external_w")
class CallsTwice(Mix):
    """Calls itself, so that hooks fire twice."""

    def forward(self, x: Sequence[Tensor], w: Tensor | None = None, device: Any = None) -> Tensor:
        if w is not None and self._forward_hooks:
            self(x)
        return super().forward(x, w, device)


# ---------------------------------------------------------------------- gradients, state, storage


@caught_by("gradcheck")
class Detached(Mix):
    """Cuts the gradient of the last view by half."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        last = 0.5 * x[-1] + 0.5 * x[-1].detach()
        return super()._fuse([*x[:-1], last])


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
