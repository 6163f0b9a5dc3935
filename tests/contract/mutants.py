"""Operators that are wrong in one way each, and the check that has to catch it.

Each mutant changes one thing in a right operator (``Mix``, ``Total`` or ``Thin``), so that few other checks object.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from fusionkit.errors import DimsError
from fusionkit.fabrication import Fabrication
from fusionkit.fusion import Fusion, Traits
from fusionkit.fusions.parameterized_concatenation import ParameterizedConcatenation

T = TypeVar("T", bound=type)
F = TypeVar("F", bound=Callable[..., object])

#: check -> the mutants that it has to catch.
MUTANTS: dict[str, list[type]] = {}


def caught_by(check: str) -> Callable[[T], T]:
    def mark(cls: T) -> T:
        MUTANTS.setdefault(check, []).append(cls)
        return cls

    return mark


#: check -> the tests that show what it catches, where that is no class.
TESTED: dict[str, list[str]] = {}


def shows(check: str) -> Callable[[F], F]:
    def mark(test: F) -> F:
        TESTED.setdefault(check, []).append(getattr(test, "__name__", repr(test)))
        return test

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


class Drops(Total):
    """``dropout(A_1 + ... + A_k)``; l = 0."""

    traits = Traits(
        permutation_invariant=True, linear=True, batch_independent=True, stochastic=True, train_eval_differ=True
    )

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return nn.functional.dropout(super()._fuse(x), 0.5, self.training)


class Jitters(Total):
    """``A_1 + ... + A_k + noise``, in evaluation mode too; l = 0."""

    traits = Traits(stochastic=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out + 0.01 * torch.randn_like(out)


class _Sine(torch.autograd.Function):
    """The sine, with a backward that has no derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return gradient * torch.cos(x)


class Sines(Total):
    """``sin(A_1) + ... + sin(A_k)``, once differentiable; l = 0."""

    traits = Traits(permutation_invariant=True, batch_independent=True, once_differentiable_only=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([_Sine.apply(view) for view in x])  # type: ignore[no-untyped-call]


class Gated(Mix):
    """``sum_i softmax_i(<weight_i, A_i>) A_i``: with one view the weight decides nothing; l = D."""

    traits = Traits(batch_independent=True)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        with torch.no_grad():
            self.weight.normal_(std=4.0, generator=generator)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        views = torch.stack(tuple(x), -2)
        gates = (views * self.weight).sum(-1, keepdim=True).softmax(-2)
        return (gates * views).sum(-2)


class Pair(Fusion):
    """``A_1 * reversed(A_2)``, of exactly two views of one even width; l = 0."""

    traits = Traits(batch_independent=True)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        yield {"dims": [4, 4]}

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        width, k = self.resolve_equal_dims(dims), len(self.resolve_dims(dims))
        if k != 2 or width % 2:
            raise DimsError(f"There should be two views of one even width; found {k} of width {width}.")
        return width

    def calculate_l(self) -> int:
        return 0

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return x[0] * x[1].flip(-1)


class Spectral(Total):
    """``irfft(rfft(A_1) * ... * rfft(A_k))``, the circular convolution; l = 0."""

    traits = Traits(permutation_invariant=True, batch_independent=True, memory_factor=12)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if not x[0].numel():
            return super()._fuse(x)  # The FFT refuses an empty batch.
        wide = torch.float64 if x[0].dtype == torch.float64 else torch.float32
        spectrum = torch.fft.rfft(torch.stack([view.to(wide) for view in x])).prod(0)
        out: Tensor = torch.fft.irfft(spectrum, n=x[0].shape[-1]).to(x[0].dtype)
        return out


class Scales(Fusion):
    """``factor (A_1 + ... + A_k)``, with an integer option, and few options of the base; l = 0."""

    traits = Traits(permutation_invariant=True, linear=True, batch_independent=True)

    def __init__(
        self,
        n: int | None = None,
        dims: Sequence[int] | None = None,
        factor: int = 2,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(n, dims, device=device, dtype=dtype)
        self.factor = factor

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        yield {"dims": [4, 4], "factor": 3}
        yield {"dims": [2, 2, 2]}

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return self.resolve_equal_dims(dims)

    def calculate_l(self) -> int:
        return 0

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return self.factor * torch.stack(tuple(x)).sum(0)


class Dot(Pair):
    """``<A_1, A_2>``, of width 1; l = 0."""

    traits = Traits(permutation_invariant=True, batch_independent=True)

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        super().calculate_n(dims)
        return 1

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return (x[0] * x[1]).sum(-1, keepdim=True)


class Tied(Mix):
    """``(A_1 + ... + A_k) U``, one module in k places; l = n^2."""

    traits = Traits(permutation_invariant=True, linear=True, batch_independent=True)

    def create(self) -> None:
        n = self.calculate_n()
        one = nn.Linear(n, n, bias=False, **self._factory)
        self.maps = nn.ModuleList([one for _ in self.resolve_dims()])

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        for parameter in self.maps.parameters():
            with torch.no_grad():
                parameter.normal_(std=sum(self.resolve_dims()) ** -0.5, generator=generator)

    def calculate_l(self) -> int:
        return self.resolve_equal_dims() ** 2

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack([linear(view) for linear, view in zip(self.maps, x, strict=True)]).sum(0)


class _Symmetric(nn.Module):
    """X -> (X + X^T) / 2."""

    def forward(self, matrix: Tensor) -> Tensor:
        return (matrix + matrix.T) / 2


class Parametrized(Tied):
    """``(A_1 + ... + A_k) (U + U^T) / 2``, with a parametrization of torch; l = n^2."""

    def create(self) -> None:
        super().create()
        register_parametrization(self.maps[0], "weight", _Symmetric())


class BatchNormed(Mix):
    """``batchnorm(A_1 ⊔ ... ⊔ A_k)``, with statistics of its own; l = 2 D."""

    traits = Traits(train_eval_differ=True, constant_init=True)

    def create(self) -> None:
        self.norm = nn.BatchNorm1d(self.calculate_n(), **self._factory)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        self.norm.reset_parameters()

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return sum(self.resolve_dims(dims))

    def calculate_l(self) -> int:
        return 2 * sum(self.resolve_dims())

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        joined = torch.cat(tuple(x), -1)
        out: Tensor = self.norm(joined.reshape(-1, joined.shape[-1])).view(joined.shape)
        return out


class LayerNormed(Mix):
    """``layernorm(A_1 + ... + A_k)``, which leaves nothing of a width of 1; l = 2 n."""

    traits = Traits(permutation_invariant=True, batch_independent=True, constant_init=True)

    def create(self) -> None:
        self.norm = nn.LayerNorm(self.calculate_n(), **self._factory)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        self.norm.reset_parameters()

    def calculate_l(self) -> int:
        return 2 * self.resolve_equal_dims()

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out: Tensor = self.norm(torch.stack(tuple(x)).sum(0))
        return out


class Shares(Mix):
    """``sum_i c * A_i`` with one buffer c under two names; l = 0."""

    traits = Traits(permutation_invariant=True, linear=True, batch_independent=True)

    def create(self) -> None:
        scale = torch.empty(self.calculate_n(), **self._factory)
        self.register_buffer("left", scale)
        self.register_buffer("right", scale)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        if self.dims is not None:
            for name in ("left", "right"):
                self.get_buffer(name).copy_(torch.linspace(1, 2, self.calculate_n()))

    def calculate_l(self) -> int:
        return 0

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return 0.5 * (self.get_buffer("left") + self.get_buffer("right")) * torch.stack(tuple(x)).sum(0)


class Frozen(Fabrication):
    """``W_ij = u_i R_ij`` with frozen R; block u (n)."""

    def __init__(self, seed: int = 0, sharp: bool = False) -> None:
        super().__init__()
        self.seed, self.sharp = seed, sharp

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        yield {}
        yield {"seed": 3, "sharp": True}

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        return {"u": (n,)}

    def frozen_shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        return {"R": (n, D)}

    def _draw_frozen(self, n: int, D: int) -> dict[str, Tensor]:
        drawn = torch.randn(n, D, generator=torch.Generator().manual_seed(self.seed))
        return {"R": drawn.sign() if self.sharp else drawn}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return blocks["u"][:, None] * self.frozen(n, D, blocks["u"])["R"]


RIGHT: tuple[type, ...] = (Total, Mix, Thin)
#: Right too, in ways that checks may take for wrong.
UNUSUAL: tuple[type, ...] = (
    *(Drops, Jitters, Sines, Gated, Pair, Spectral, Scales, Dot, Tied, Parametrized, BatchNormed, LayerNormed),
    *(Shares, Frozen),
)


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


@caught_by("dtype_preserved")
class RoundsInHalf(Mix):
    """Has another result in bfloat16."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out.round() if out.dtype == torch.bfloat16 else out


@caught_by("dtype_preserved")
class ShiftsInSingle(Mix):
    """Has another result in float32, always."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out + 0.01 if out.dtype == torch.float32 else out


@caught_by("dtype_preserved")
class DetachesInSingle(Mix):
    """Loses a part of a gradient in float32 only."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        first = 0.5 * x[0] + 0.5 * x[0].detach() if x[0].dtype == torch.float32 else x[0]
        return super()._fuse([first, *x[1:]])


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


@caught_by("external_w")
class IgnoresWInTraining(Mix):
    """Accepts w in training mode, and computes with its own parameters."""

    def forward(self, x: Sequence[Tensor], w: Tensor | None = None, device: Any = None) -> Tensor:
        return super().forward(x, None if self.training and self.require_parameters else w, device)


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


# ---------------------------------------------------------------------- gradients, state, storage


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


# ---------------------------------------------------------------------- constructor, docs, config


@caught_by("signature")
@caught_by("unknown_option")
class SwallowsOptions(Total):
    """``A_1 + ... + A_k``, with a constructor that takes anything."""

    def __init__(self, n: int | None = None, dims: Sequence[int] | None = None, **kwargs: Any) -> None:
        super().__init__(n, dims, device=kwargs.get("device"), dtype=kwargs.get("dtype"))


@caught_by("signature")
class NeedsDims(Total):
    """``A_1 + ... + A_k``, with dims that have no default."""

    def __init__(self, dims: Sequence[int], n: int | None = None, device: Any = None) -> None:
        super().__init__(n, dims, device=device)


@caught_by("signature")
class ThinWithAnything(Thin):
    """``W = u v^T``, with a constructor that takes anything."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()


@caught_by("documented")
class Undocumented(Total):
    __doc__ = None


@caught_by("documented")
class WithoutFormula(Total):
    """Adds the views."""


@caught_by("documented")
class HidesItsArguments(Total):
    """``A_1 + ... + A_k``"""

    def extra_repr(self) -> str:
        return ""


@caught_by("no_work_in_init")
class WorksInInit(Mix):
    """Draws a matrix in the constructor, whatever the device."""

    def create(self) -> None:
        super().create()
        self.norm = float(torch.randn(100, 100, device="cpu").norm())


@caught_by("config_containers")
class WantsLists(Mix):
    """Takes dims as a list only."""

    def __init__(self, n: int | None = None, dims: Any = None, device: Any = None, dtype: Any = None) -> None:
        super().__init__(n, None if dims is None else dims + [], device=device, dtype=dtype)  # noqa: RUF005


# ---------------------------------------------------------------------- sizes


@caught_by("n_pure")
class StoresN(Mix):
    """Keeps the width that was asked for last."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        self.last = self.resolve_equal_dims(dims)
        return self.last


@caught_by("n_pure")
class FloatN(Mix):
    """Returns the width as another type."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return torch.tensor(self.resolve_equal_dims(dims))  # type: ignore[return-value]


@caught_by("n_explicit_and_inferred")
class BelievesN(Mix):
    """Takes the given n for the width of its output."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return self.n or super().calculate_n(dims)


@caught_by("n_explicit_and_inferred")
class OnlyOneN(Mix):
    """Declares n a free choice, and accepts one."""

    traits = Traits(linear=True, batch_independent=True, free_n=True)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        yield {"dims": [4, 4, 4], "n": 4}


@caught_by("n_invalid_dims")
class TakesAnyDims(Mix):
    """Does not validate the dims that it is asked about."""

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return int((dims or self.resolve_dims())[0])


@caught_by("l_pure")
class StoresL(Mix):
    """Keeps the size that it computed."""

    def calculate_l(self) -> int:
        self.size = super().calculate_l()
        return self.size


@caught_by("l_pure")
class StoresBlockSize(Thin):
    """Keeps the size that was asked for first; the next one is wrong."""

    def shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        self.sizes = getattr(self, "sizes", (n, D))
        return {"u": self.sizes[:1], "v": self.sizes[1:]}


@caught_by("l_zero_iff_parameter_free")
class AlwaysOwns(Mix):
    """Ignores require_parameters."""

    def create(self) -> None:
        self.require_parameters = True
        super().create()


@caught_by("l_every_fabrication")
class ThinksDense(ParameterizedConcatenation):
    """``concat(A) W^T``, with the number of parameters of a dense W."""

    def calculate_l(self) -> int:
        return self.calculate_n() * sum(self.resolve_dims())


@caught_by("l_property")
class WrongFromEight(Mix):
    """Miscounts widths that no example has."""

    def calculate_l(self) -> int:
        return sum(width + (width > 7) for width in self.resolve_dims())


# ---------------------------------------------------------------------- inputs


@caught_by("single_view")
class NeedsTwo(Mix):
    """Reads the second view without looking whether there is one."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) + 0 * x[1]


@caught_by("all_inputs_matter")
class DropsTheLast(Mix):
    """Multiplies the last view by zero."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([*x[:-1], 0 * x[-1]]) if len(x) > 1 else super()._fuse(x)


@caught_by("all_inputs_matter")
class SaysConstantToDrop(DropsTheLast):
    """Multiplies the last view by zero, and calls itself constant."""

    traits = Traits(linear=True, batch_independent=True, constant=True)


@caught_by("all_inputs_matter")
class SumSaysConstant(Total):
    """A sum that declares that it ignores its views."""

    traits = Traits(permutation_invariant=True, linear=True, batch_independent=True, constant=True)


@caught_by("all_inputs_matter")
class ForgetsTheThirdView(Thin):
    """Multiplies two views, and ignores others."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        joined = torch.cat(tuple(x[:2]), -1)
        return (joined @ blocks["v"][: joined.shape[-1]])[..., None] * blocks["u"]


@caught_by("all_inputs_matter")
class SaysConstant(Thin):
    """Has a W that follows from w, and calls itself constant."""

    traits = Traits(constant=True)


@caught_by("batch_mismatch")
class Broadcasts(Mix):
    """Broadcasts the leading dimensions of the views."""

    def _views(self, x: Sequence[Tensor]) -> list[Tensor]:
        try:
            lead = torch.broadcast_shapes(*(view.shape[:-1] for view in x))
        except (RuntimeError, AttributeError):
            return super()._views(x)
        return super()._views([view.expand(*lead, view.shape[-1]) for view in x])


@caught_by("container_types")
class TakesGenerators(Mix):
    """Makes a list of whatever it gets."""

    def forward(self, x: Sequence[Tensor], w: Tensor | None = None, device: Any = None) -> Tensor:
        return super().forward(list(x), w, device)


@caught_by("noncontiguous")
class AssumesStrides(Mix):
    """Reads the memory of a view as if it were contiguous."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        first = x[0]
        if not first.requires_grad and first.dim() == 2 and type(first) is Tensor and first.device.type == "cpu":
            first = torch.as_strided(first, first.shape, (first.shape[1], 1)) if first.stride(1) != 2 else first
        return super()._fuse([first, *x[1:]])


@caught_by("noncontiguous")
class CountsEachTensorOnce(Mix):
    """Takes a tensor that is given as two views for one."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if all(view is x[0] for view in x) and len(x) > 1:
            return x[0] * self.weight[0]
        return super()._fuse(x)


class _Double(torch.autograd.Function):
    """2 x, whose backward reads the gradient as if it were contiguous."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return 2 * gradient if gradient.is_contiguous() else 3 * gradient

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Any:
        return 2 * tangent


@caught_by("noncontiguous")
class AssumesStridesInBackward(Total):
    """Reads the memory of the gradient as if it were contiguous."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out: Tensor = _Double.apply(super()._fuse(x))  # type: ignore[no-untyped-call]
        return out


@caught_by("output_aliasing")
class ReturnsTheFirst(Total):
    """Returns the first view itself."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return x[0]


@caught_by("output_aliasing")
class ReturnsASingleView(Total):
    """Returns a view that is alone as it is."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) if len(x) > 1 else x[0]


@caught_by("output_aliasing")
class SaysThatItAliases(Total):
    """Declares an aliasing that never happens."""

    traits = Traits(permutation_invariant=True, linear=True, aliases_input=True)


# ---------------------------------------------------------------------- values


@caught_by("device_preserved")
class ConstantOnCpu(Mix):
    """Adds a constant that is always on the cpu."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out + torch.zeros(out.shape[-1], dtype=out.dtype, device="cpu")


@caught_by("device_preserved")
class TakesNoDevice(Mix):
    """Has a forward without the argument device."""

    def forward(self, x: Sequence[Tensor], w: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return super().forward(x, w)


@caught_by("device_preserved")
class IgnoresTheDevice(Total):
    """Takes the argument device, and moves nothing there."""

    def forward(self, x: Sequence[Tensor], w: Tensor | None = None, device: Any = None) -> Tensor:
        return super().forward(x, w)


@caught_by("device_preserved")
class LeavesWBehind(Mix):
    """Moves the views to the device, and not w."""

    def forward(self, x: Sequence[Tensor], w: Tensor | None = None, device: Any = None) -> Tensor:
        return super().forward(x if device is None else [view.to(device) for view in x], w)


@caught_by("reference")
class WrongReference(Mix):
    """Has a reference that is the plain sum."""

    def reference(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack([view.double() for view in x]).sum(0)


@caught_by("nonfinite")
class HidesNaN(Mix):
    """Replaces NaN by zero."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([torch.where(view.isnan(), 0, view) for view in x])


@caught_by("extreme_values")
class SquaresFirst(Mix):
    """Squares before it takes the root."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([view.sign() * (view * view).sqrt() for view in x])


@caught_by("autocast")
class MixesDtypes(Mix):
    """Contracts two tensors of which autocast casts only one."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        eye = torch.eye(x[0].shape[-1], dtype=x[0].dtype, device=x[0].device)
        out: Tensor = torch.tensordot(super()._fuse(x) @ eye, eye, 1)
        return out


# ---------------------------------------------------------------------- traits


@caught_by("batch_independence")
class Centers(Mix):
    """Subtracts a mean over the rows and declares them independent."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        rows = out.reshape(-1, out.shape[-1])
        return out - 0.5 * rows.sum(0) / max(1, rows.shape[0])


@caught_by("batch_independence")
class OtherForOneRow(Mix):
    """Treats a single row in another way."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return 2 * out if out.numel() == out.shape[-1] else out


@caught_by("batch_independence")
class OtherForManyRows(Mix):
    """Treats more than forty rows in another way."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out.round() if out.numel() > 40 * out.shape[-1] else out


@caught_by("permutation")
class SaysInvariant(Mix):
    """Declares an invariance that its weights break."""

    traits = Traits(linear=True, batch_independent=True, permutation_invariant=True)


@caught_by("permutation")
class DoesNotSayInvariant(Total):
    """Is invariant and does not say so."""

    traits = Traits(linear=True, batch_independent=True)


@caught_by("stochastic")
class DropsOut(Mix):
    """Drops entries in training mode and does not say so."""

    traits = Traits(linear=True, batch_independent=True, train_eval_differ=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return nn.functional.dropout(super()._fuse(x), 0.5, self.training)


@caught_by("stochastic")
class SaysStochastic(Mix):
    """Declares a randomness that never happens."""

    traits = Traits(stochastic=True)


@caught_by("train_eval")
class DoublesInTraining(Mix):
    """Doubles its output in training mode and does not say so."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) * (2 if self.training else 1)


@caught_by("train_eval")
class OtherGradientInTraining(Mix):
    """Loses a part of a gradient in training mode only."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        first = 0.5 * x[0] + 0.5 * x[0].detach() if self.training else x[0]
        return super()._fuse([first, *x[1:]])


@caught_by("train_eval")
class TrainsNothing(Mix):
    """Loses the gradient of its parameters in training mode only."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        weights = self.weight.detach() if self.training else self.weight
        return torch.stack([view * weight for view, weight in zip(x, weights, strict=True)]).sum(0)


@caught_by("train_eval")
class SaysThatModesDiffer(Mix):
    """Declares a difference that is not there."""

    traits = Traits(linear=True, batch_independent=True, train_eval_differ=True)


@caught_by("linear")
class Biased(Mix):
    """Adds one and declares itself linear."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) + 1


@caught_by("algebraic")
class SaysIdempotent(Total):
    """A sum that declares itself idempotent."""

    traits = Traits(permutation_invariant=True, linear=True, batch_independent=True, idempotent=True)


@caught_by("algebraic")
class SaysConvex(Total):
    """A sum that declares itself convex."""

    traits = Traits(permutation_invariant=True, linear=True, batch_independent=True, convex=True)


@caught_by("algebraic")
class SaysConvexOfUnequalViews(Fusion):
    """Twice the concatenation, which declares itself convex."""

    traits = Traits(linear=True, batch_independent=True, convex=True)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        yield {"dims": [4, 3]}

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        return sum(self.resolve_dims(dims))

    def calculate_l(self) -> int:
        return 0

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return 2 * torch.cat(tuple(x), -1)


@caught_by("algebraic")
class SaysMonotone(Mix):
    """Has negative weights and declares itself monotone."""

    traits = Traits(linear=True, batch_independent=True, monotone=True)


# ---------------------------------------------------------------------- state


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


# ---------------------------------------------------------------------- derivatives


class _Square(torch.autograd.Function):
    """x^2, whose backward cannot be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * x.detach() * gradient


class _Cube(torch.autograd.Function):
    """x^3, without a forward mode."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return 3 * x * x * gradient


@caught_by("gradgradcheck")
class OnceDifferentiable(Total):
    """Has a wrong second derivative."""

    traits = Traits(permutation_invariant=True, batch_independent=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([_Square.apply(view) for view in x])  # type: ignore[no-untyped-call]


@caught_by("gradgradcheck")
class SaysOnceDifferentiable(Total):
    """Has second derivatives, and declares that it has none."""

    traits = Traits(permutation_invariant=True, linear=True, batch_independent=True, once_differentiable_only=True)


@caught_by("forward_ad")
class WithoutForwardMode(Total):
    """Has no forward mode."""

    traits = Traits(permutation_invariant=True, batch_independent=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([_Cube.apply(view) for view in x])  # type: ignore[no-untyped-call]


@caught_by("partial_requires_grad")
class AlwaysRequiresGrad(Mix):
    """Gives its output a graph that nobody asked for."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        if torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and not out.requires_grad:
            out = out.detach().requires_grad_()
        return out


@caught_by("activation_checkpoint")
class FlipsAtEachCall(Mix):
    """Computes every other call differently."""

    flip = False

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        self.flip = not self.flip
        return super()._fuse(x).exp() if self.flip else super()._fuse(x)


@caught_by("functional")
class AsksForValues(Mix):
    """Decides by the value of a parameter."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) * (2 if bool(self.weight.sum() > 1e9) else 1)


@caught_by("functional")
class OtherUnderVmap(Total):
    """Computes something else under vmap."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return 2 * out if torch._C._functorch.is_batchedtensor(out) else out


# ---------------------------------------------------------------------- initialization and instances


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


# ---------------------------------------------------------------------- storage


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


# ---------------------------------------------------------------------- tracing


@caught_by("fake_tensor")
class ReadsAValue(Mix):
    """Reads a value of its output."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out * (1 + 0 * out.detach().sum().item())


@caught_by("compile_fullgraph")
class BreaksTheGraph(Mix):
    """Breaks the graph in two."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        torch._dynamo.graph_break()
        return super()._fuse(x)


@caught_by("compile_dynamic")
class UnrollsRows(Mix):
    """Loops over the rows."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return torch.stack([out[i] for i in range(out.shape[0])]) if out.dim() > 1 and out.shape[0] else out


@caught_by("export")
class SpecialBatch(Mix):
    """Treats a batch of four rows in another way."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        return out.clone() if out.shape[0] == 4 else out


@caught_by("onnx")
class UnknownToOnnx(Mix):
    """Uses a function that ONNX does not have."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) + 0 * torch.lgamma(x[0].abs() + 1)


# ---------------------------------------------------------------------- resources


@caught_by("memory")
class CopiesTheViews(Mix):
    """Stacks forty copies of the views."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack([Mix._fuse(self, x)] * 40).mean(0)


@caught_by("memory")
class PromisesTooLittle(Mix):
    """Promises a peak that it exceeds."""

    traits = Traits(linear=True, batch_independent=True, memory_factor=1)


@caught_by("memory")
class PromisesNothing(Mix):
    """Declares a peak without a bound."""

    traits = Traits(linear=True, batch_independent=True, memory_factor=float("inf"))


@caught_by("memory")
class BuildsW(Thin):
    """Has a project that multiplies by W after all."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        return torch.cat(tuple(x), -1) @ torch.outer(blocks["v"], blocks["u"])


@caught_by("no_leak")
class KeepsOutputs(Mix):
    """Keeps every output."""

    def create(self) -> None:
        super().create()
        self.outputs: list[Tensor] = []

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        self.outputs.append(super()._fuse(x))
        return self.outputs[-1]


@caught_by("scaling")
class PassesPerRow(Mix):
    """Passes over all rows again for every 64 of them."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        for _ in range(x[0].shape[0] // 64 if x[0].dim() > 1 else 0):
            out = out + 0 * super()._fuse(x)
        return out


@caught_by("thread_safety")
class RemembersTheViews(Mix):
    """Keeps the views in an attribute during the call."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        holder = self.__dict__.setdefault("_holder", {})
        holder["x"] = x
        time.sleep(1e-3)
        return super()._fuse(holder["x"])


#: Set by the tests; a fresh process does not have it.
RUNTIME = {"scale": 1.0}


@caught_by("spawn_safety")
class SetUpAtRunTime(Mix):
    """Depends on a global that the program sets."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x) * RUNTIME["scale"]


# ---------------------------------------------------------------------- fabrications


@caught_by("project_equals_materialize")
class ForgetsAView(Thin):
    """Leaves out the last column in project."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        joined = torch.cat(tuple(x), -1)
        return (joined[..., :-1] @ blocks["v"][:-1])[..., None] * blocks["u"]


@caught_by("project_equals_materialize")
class TransposesASquare(Thin):
    """Multiplies by the transpose where W is square."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        u, v = blocks["u"], blocks["v"]
        if len(v) == n:
            u, v = v, u
        return (torch.cat(tuple(x), -1) @ v)[..., None] * u


@caught_by("project_equals_materialize")
class LosesLeadingDims(Thin):
    """Projects a batch of matrices by twice W."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        out = (torch.cat(tuple(x), -1) @ blocks["v"])[..., None] * blocks["u"]
        return 2 * out if out.dim() > 2 else out


@caught_by("project_equals_materialize")
class ReadsASingleViewAsItLies(Thin):
    """Reads the memory of a single view as if it were contiguous."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        rows = x[0] if len(x) == 1 else torch.cat(tuple(x), -1)
        if rows.dim() == 2 and rows.stride(0) == 1 and rows.device.type == "cpu":
            rows = torch.as_strided(rows, rows.shape, (rows.shape[1], 1))
        return (rows @ blocks["v"])[..., None] * blocks["u"]


@caught_by("structure")
class Unreshaped(Thin):
    """Says u v^T and computes the outer product in the other order, reshaped."""

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return torch.outer(blocks["v"], blocks["u"]).reshape(n, D)

    def reference(self, w: Tensor, n: int, D: int) -> Tensor:
        blocks = self.split(w, n, D)
        return torch.tensor(
            [[float(blocks["u"][i] * blocks["v"][j]) for j in range(D)] for i in range(n)], dtype=torch.float64
        )


@caught_by("seeded_buffers")
class DrawsGlobally(Thin):
    """Draws its frozen part from the global generator."""

    def frozen_shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        return {"A": (n, D)}

    def _draw_frozen(self, n: int, D: int) -> dict[str, Tensor]:
        return {"A": torch.randn(n, D)}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return super()._materialize(blocks, n, D) * self.frozen(n, D, blocks["u"])["A"]


@caught_by("spawn_safety")
class DrawsByProcess(Thin):
    """Draws its frozen part from a seed that every process has another of."""

    def frozen_shapes(self, n: int, D: int) -> dict[str, tuple[int, ...]]:
        return {"A": (n, D)}

    def _draw_frozen(self, n: int, D: int) -> dict[str, Tensor]:
        return {"A": torch.randn(n, D, generator=torch.Generator().manual_seed(os.getpid()))}

    def _materialize(self, blocks: Mapping[str, Tensor], n: int, D: int) -> Tensor:
        return super()._materialize(blocks, n, D) * self.frozen(n, D, blocks["u"])["A"]


@caught_by("init_variance")
class FlatFan(Thin):
    """Starts with unit variance, whatever the size of W."""

    def init_(self, w: Tensor, n: int, D: int, generator: torch.Generator | None = None) -> None:
        with torch.no_grad():
            w.normal_(generator=generator)


# ---------------------------------------------------------------------- wrong in a corner


@caught_by("gradcheck")
class LosesAGradientOfTwo(Mix):
    """Loses a part of a gradient where there are two views."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([x[0], 0.5 * (x[1] + x[1].detach())] if len(x) == 2 else x)


@caught_by("gradcheck")
class LosesAGradientOfManyRows(Mix):
    """Loses the gradient of the last view where there are more than two rows."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([*x[:-1], x[-1].detach()] if x[0].dim() > 1 and len(x[0]) > 2 else x)


@caught_by("l_property")
class WrongFromNineViews(Mix):
    """Miscounts more views than any example has."""

    def calculate_l(self) -> int:
        return super().calculate_l() + (len(self.resolve_dims()) > 8)


@caught_by("all_parameters_get_grad")
class DropsAnOddColumn(Mix):
    """Drops the last column of an odd number above eight."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        n = out.shape[-1]
        return nn.functional.pad(out[..., :-1], (0, 1)) if n > 8 and n % 2 else out


@caught_by("rng_isolation")
class DrawsForBatchesOfMatrices(Mix):
    """Draws a number that it does not use, where there are three leading dimensions."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if x[0].dim() > 3:
            torch.rand(1)
        return super()._fuse(x)


@caught_by("external_w")
class CallsTwiceWithoutW(Mix):
    """Calls itself twice unless w is given."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if "w" not in kwargs:
            super().__call__(*args, **kwargs)
        return super().__call__(*args, **kwargs)


@caught_by("external_w")
class LosesAGradientOfWInTraining(Mix):
    """Loses a part of the gradient of a given w in training mode."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        weight: Tensor = self.weight
        if self.training and not isinstance(weight, nn.Parameter):
            weight = 0.5 * (weight + weight.detach())
        return torch.stack([view * row for view, row in zip(x, weight, strict=True)]).sum(0)


@caught_by("noncontiguous")
class AssumesStridesOfTheLast(Mix):
    """Reads the memory of the last view as if it were contiguous, where the others are."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        *others, last = x
        if all(view.is_contiguous() for view in others) and not last.is_contiguous():
            last = last.as_strided(last.shape, last.new_empty(last.shape).stride())
        return super()._fuse([*others, last])


@caught_by("batch_independence")
class LosesRowsOfALargeBatch(Mix):
    """Gives zero for all rows beyond 4096."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        if out.dim() == 2 and out.shape[0] > 4096:
            out = torch.cat([out[:4096], torch.zeros_like(out[4096:])])
        return out


@caught_by("parameters_stable")
class ReplacesParameters(Mix):
    """Puts other objects in the place of its parameters, which an optimizer does not know."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        if isinstance(self.weight, nn.Parameter):
            self.weight = nn.Parameter(self.weight.detach().clone())
        super().reset_parameters(generator)


@caught_by("parameters_stable")
class ClearsGradients(Mix):
    """Clears the gradients at each call in training mode."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if self.training:
            self.weight.grad = None
        return super()._fuse(x)


@caught_by("parameters_stable")
class LeavesTraining(Mix):
    """Goes to evaluation mode at the first call."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        self.training = False
        return super()._fuse(x)


@caught_by("deterministic")
class NoisyInSingle(Mix):
    """Adds a noise of rounding's size in float32, from a generator of its own."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        noise = torch.rand(out.shape, generator=torch.Generator().manual_seed(time.perf_counter_ns()))
        return out * (1 + 1e-6 * noise.to(out)) if out.dtype == torch.float32 else out


@caught_by("no_input_mutation")
class WritesWithoutGraph(Mix):
    """Writes to a view where no gradient is needed."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        out = super()._fuse(x)
        if not torch.is_grad_enabled() and x[0].dtype == torch.float32:
            x[0].zero_()
        return out


@caught_by("seeding")
class BornAlike(Mix):
    """Starts with the same values whenever no generator is given."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().reset_parameters(generator)


@caught_by("empty_batch")
class RefusesEmptyCubes(Mix):
    """Raises for an empty batch of three leading dimensions."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if x[0].dim() > 3 and not x[0].numel():
            raise RuntimeError("There is nothing in it.")
        return super()._fuse(x)


@caught_by("permutation")
class InvariantForThree(Total):
    """Declares an invariance that more than three views break."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([2 * x[0], *x[1:]] if len(x) > 3 else x)


@caught_by("linear")
class Saturates(Mix):
    """Declares itself linear, and clips large values."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse([view.clamp(-50, 50) for view in x])


@caught_by("idempotent_calls")
class SetsTheEnvironmentInTraining(Mix):
    """Sets a variable of the environment in training mode."""

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        if self.training:
            os.environ["FUSIONKIT_TEST_TRACE"] = "1"
        return super()._fuse(x)


@caught_by("project_equals_materialize")
class ForgetsTheFourthView(Thin):
    """Projects the first three views only."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        views = [*x[:3], *(torch.zeros_like(view) for view in x[3:])]
        return (torch.cat(views, -1) @ blocks["v"])[..., None] * blocks["u"]


@caught_by("project_equals_materialize")
class LosesAGradientOfWideViews(Thin):
    """Loses the gradient of a block by more than thirty columns."""

    def _project(self, x: Sequence[Tensor], blocks: Mapping[str, Tensor], n: int) -> Tensor:
        v = blocks["v"].detach() if len(blocks["v"]) > 30 else blocks["v"]
        return (torch.cat(tuple(x), -1) @ v)[..., None] * blocks["u"]


@caught_by("init_variance")
class WideForAPrime(Thin):
    """Starts three times too wide where D is a prime number above twenty."""

    def init_(self, w: Tensor, n: int, D: int, generator: torch.Generator | None = None) -> None:
        super().init_(w, n, D, generator)
        if D > 20 and all(D % q for q in range(2, D)):
            with torch.no_grad():
                w.mul_(3**0.5)
