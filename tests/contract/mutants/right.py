"""Operators that are right, some of them in unusual ways: no check may object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from fusionkit.errors import DimsError
from fusionkit.fabrication import Fabrication
from fusionkit.fusion import Fusion, Traits, masked_softmax, present_count


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


class Sorted(Total):
    """``sort(A_1 + ... + A_k)``, which moves NaN to the last entries; l = 0."""

    traits = Traits(permutation_invariant=True, batch_independent=True)

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return super()._fuse(x).sort(-1).values


class Passes(Total):
    """``A_1 + ... + A_k``, the view itself where there is one; l = 0."""

    traits = Traits(permutation_invariant=True, linear=True, batch_independent=True, monotone=True, aliases_input=True)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        yield {"dims": [4]}
        yield {"dims": [4, 4]}

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return x[0] if len(x) == 1 else super()._fuse(x)


class GatedUnit(Mix):
    """``sum_i sigmoid(w_i A_i) tanh(w_i A_i)``, which is small whatever the parameters are; l = D."""

    traits = Traits(batch_independent=True, init_gain=(0.01, 0.5))

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        inner = [view * weight for view, weight in zip(x, self.weight, strict=True)]
        return torch.stack([torch.sigmoid(view) * torch.tanh(view) for view in inner]).sum(0)


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


class Mean(Total):
    """The mean of the present views; l = 0."""

    traits = Traits(
        permutation_invariant=True,
        linear=True,
        batch_independent=True,
        idempotent=True,
        convex=True,
        monotone=True,
        missing="skip",
    )

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return torch.stack(tuple(x)).mean(0)

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return torch.stack(tuple(x)).sum(0) / present_count(mask).to(x[0].dtype)


class WeightedSum(Mix):
    """``sum_i weight_i * A_i`` over the present views; l = D."""

    traits = Traits(linear=True, batch_independent=True, missing="neutral")
    per_view = ("weight",)


class Pool(Mix):
    """``sum_i softmax_i(<weight_i, A_i>) A_i`` over the present views; l = D."""

    traits = Traits(batch_independent=True, missing="skip", init_gain=(0.1, 10.0))
    per_view = ("weight",)

    def _scores(self, x: Sequence[Tensor]) -> Tensor:
        return (torch.stack(tuple(x), -2) * self.weight).sum(-1)

    def _weighted(self, x: Sequence[Tensor], weights: Tensor) -> Tensor:
        return (weights.unsqueeze(-1) * torch.stack(tuple(x), -2)).sum(-2)

    def _pooled(self, x: Sequence[Tensor], scores: Tensor, mask: Tensor) -> Tensor:
        # In a row without any view all scores are 0, and so are the views.
        return self._weighted(x, scores.masked_fill(~mask.any(-1, keepdim=True), 0.0).softmax(-1))

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return self._weighted(x, self._scores(x).softmax(-1))

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return self._pooled(x, self._scores(x).masked_fill(~mask, -torch.inf), mask)


class Says(Pool):
    """``sum_i softmax_i(<weight_i, A_i>) A_i`` over the present views; l = D.

    ``explain``: ``weights`` (..., k), and ``largest`` (...), the greatest of them.
    """

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        weights = masked_softmax(self._scores(x), mask)
        return {"output": self._weighted(x, weights), "weights": weights, "largest": weights.amax(-1)}

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        return self._explain(x, None)["output"]

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        return self._explain(x, mask)["output"]


class SaysLoss(Says):
    """Says a `loss` () of the views alone, which trains encoders, and 0 in evaluation; `others` (..., k - 1)."""

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        said = super()._explain(x, mask)
        spread = torch.stack([view.square().mean() for view in x]).mean()
        loss = spread if self.training else torch.zeros_like(spread.detach())
        return {**said, "loss": loss, "others": said["weights"][..., 1:]}


RIGHT: tuple[type, ...] = (Total, Mix, Thin)
#: Right too, in ways that checks may take for wrong.
UNUSUAL: tuple[type, ...] = (
    *(Drops, Jitters, Sines, Gated, Pair, Spectral, Scales, Dot, Tied, Parametrized, BatchNormed, LayerNormed),
    *(Shares, Frozen, Sorted, Passes, GatedUnit, Mean, WeightedSum, Pool, Says, SaysLoss),
)
