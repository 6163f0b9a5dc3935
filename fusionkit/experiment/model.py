"""The model of a run: scaler -> encoders -> fusion -> activation -> linear head; its description in JSON types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fusionkit.config.options import ModelOptions
from fusionkit.core import factory
from fusionkit.errors import DimsError, FusionError
from fusionkit.fusion import Fusion, check_dims, check_dtype

__all__ = ["ACTIVATIONS", "ENCODERS", "FusionModel", "Network", "Scaler", "encoder"]

ENCODERS = get_args(ModelOptions.model_fields["encoder"].annotation)
ACTIVATIONS: dict[str, type[nn.Module]] = {"none": nn.Identity, "gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}


class Scaler(nn.Module):
    """Standardize each view: ``(x_i - mean_i) / scale_i``, x_i (..., n_i).

    The buffers are float64, so that large offsets do not cancel; the result has the dtype of the network behind it.

    Args:
        names: of the views, for messages.
        dims: widths of the views.
    """

    def __init__(self, names: Sequence[str], dims: Sequence[int]) -> None:
        super().__init__()
        self.names, self.dims = tuple(names), tuple(dims)
        for i, width in enumerate(dims):
            self.register_buffer(f"mean_{i}", torch.zeros(width, dtype=torch.float64))
            self.register_buffer(f"scale_{i}", torch.ones(width, dtype=torch.float64))

    @torch.no_grad()
    def fit(self, views: Sequence[np.ndarray[Any, Any]]) -> None:
        """Take mean and scale from arrays (m, n_i); a constant column keeps scale 1.

        Raises:
            FusionError: values so large that their variance overflows.
        """
        for i, view in enumerate(views):
            # Halves and integers would overflow in the sums; what overflows in float64 too is refused below.
            with np.errstate(over="ignore", invalid="ignore"):
                mean, variance = _moments(view.astype(np.float64))
            if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
                raise FusionError(
                    f"View {i} ({self.names[i]}) should have columns of finite mean and variance; "
                    f"found values up to {np.abs(view).max():.3g}."
                )
            m, eps = len(view), np.finfo(np.float64).eps
            constant = variance <= m * eps * variance + (m * mean * eps) ** 2  # But for the error of the computation.
            self.get_buffer(f"mean_{i}").copy_(torch.from_numpy(mean))
            self.get_buffer(f"scale_{i}").copy_(torch.from_numpy(np.where(constant, 1.0, np.sqrt(variance))))

    def forward(self, x: Sequence[Any], dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """Return the standardized views.

        Args:
            x: list or tuple of k raw views, tensors or arrays (..., n_i) of any real dtype.
            dtype: of the result.

        Raises:
            DimsError: a wrong number of views or a wrong width.
            FusionError: something else than numbers.
        """
        if not isinstance(x, list | tuple):
            raise FusionError(f"x should be a list or tuple of views; found {type(x).__name__}.")
        if len(x) != len(self.dims):
            raise DimsError(
                f"x should hold {len(self.dims)} views ({', '.join(self.names)}), of widths {list(self.dims)}; "
                f"found {len(x)}."
            )
        out = []
        for i, (value, width) in enumerate(zip(x, self.dims, strict=True)):
            mean = self.get_buffer(f"mean_{i}")
            try:
                view = torch.as_tensor(value)
            except (TypeError, ValueError, RuntimeError):
                raise FusionError(
                    f"View {i} ({self.names[i]}) should be a tensor or an array of numbers; "
                    f"found {type(value).__name__}."
                ) from None
            if not view.ndim or view.shape[-1] != width:
                found = f"shape {tuple(view.shape)}"
                raise DimsError(f"View {i} ({self.names[i]}) should have width {width}; found {found}.")
            if view.is_complex():
                raise FusionError(f"View {i} ({self.names[i]}) should be real; found {view.dtype}.")
            if view.device != mean.device:
                raise FusionError(f"View {i} ({self.names[i]}) should be on {mean.device}; found {view.device}.")
            out.append(((view.to(mean.dtype) - mean) / self.get_buffer(f"scale_{i}")).to(dtype))
        return out


def _moments(view: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and variance of the columns of (m, n_i): the numbers of scikit-learn's ``StandardScaler``."""
    mean = view.sum(0) / len(view)
    centred = view - mean
    # What rounding of the mean leaves is taken from the variance.
    rest = centred.sum(0)
    return mean, ((centred**2).sum(0) - rest**2 / len(view)) / len(view)


def encoder(kind: str, width_in: int, width_out: int) -> nn.Module:
    """Return the encoder of one view, (..., width_in) -> (..., width_out); ``none`` is the identity."""
    if kind == "linear":
        return nn.Linear(width_in, width_out)
    if kind == "mlp":
        hidden = 2 * width_out
        return nn.Sequential(nn.Linear(width_in, hidden), nn.GELU(), nn.Linear(hidden, width_out))
    return nn.Identity()


class Network(nn.Module):
    """What is trained: input dropout -> encoder per view -> fusion -> activation -> linear head.

    Args:
        fusion: built for what ``RunConfig.seen`` returns for ``dims``.
        dims: widths of the standardized views.
        classes: number of classes.
        encoder_kind: ``none``, ``linear`` or ``mlp``.
        input_dropout: part of the standardized inputs that is zeroed while training.
        activation: ``none``, ``gelu``, ``relu`` or ``tanh``, elementwise on the fused views.
    """

    def __init__(
        self,
        fusion: Fusion,
        dims: Sequence[int],
        classes: int,
        encoder_kind: str = "none",
        input_dropout: float = 0.0,
        activation: str = "none",
    ) -> None:
        super().__init__()
        if fusion.dims is None or fusion.n is None:
            raise DimsError(f"{fusion.name} should know dims and n to be trained; found {fusion.dims}, {fusion.n}.")
        self.encoder_kind = encoder_kind
        self.encoders = nn.ModuleList(
            encoder(encoder_kind, width, seen) for width, seen in zip(dims, fusion.dims, strict=True)
        )
        self.fusion = fusion
        self.dropout = nn.Dropout(input_dropout)
        self.activation_kind = activation
        self.activation = ACTIVATIONS[activation]()
        self.head = nn.Linear(fusion.n, classes)

    def forward(self, x: Sequence[Tensor], rows: slice | None = None) -> Tensor:
        """Return logits (..., classes) for standardized views (..., n_i), or for some of their rows.

        Inputs are dropped in all rows, so that processes which share out a batch drop what a single one would.
        """
        kept = [self.dropout(view) for view in x]
        if rows is not None:
            kept = [view[rows] for view in kept]
        seen = [encode(view) for encode, view in zip(self.encoders, kept, strict=True)]
        logits: Tensor = self.head(self.activation(self.fusion(seen)))
        return logits


class FusionModel(nn.Module):
    """A scaler and a network: raw views in, logits out.

    Attributes:
        classes: the label values, in the order of the logits.
    """

    def __init__(self, scaler: Scaler, network: Network, classes: Sequence[Any]) -> None:
        super().__init__()
        self.scaler, self.network, self.classes = scaler, network, list(classes)

    @property
    def fusion(self) -> Fusion:
        """The operator."""
        return self.network.fusion

    def forward(self, x: Sequence[Any]) -> Tensor:
        """Return logits (..., classes).

        Args:
            x: list or tuple of k raw views (..., n_i), as they stand in the data.

        Raises:
            DimsError: a wrong number of views or a wrong width.
            FusionError: views that do not fit otherwise.
        """
        logits: Tensor = self.network(self.scaler(x, self.network.head.weight.dtype))
        return logits

    @torch.no_grad()
    def predict(self, x: Sequence[Any]) -> list[Any]:
        """Return the label value of every row, for raw views (m, n_i)."""
        return [self.classes[i] for i in self(x).argmax(-1).tolist()]

    def describe(self) -> dict[str, Any]:
        """Return plain JSON types from which ``from_description`` builds the same model, but for its tensors.

        Raises:
            ConfigError: the operator cannot be written to a config.
        """
        return {
            "views": list(self.scaler.names),
            "dims": list(self.scaler.dims),
            "classes": self.classes,
            "encoder": self.network.encoder_kind,
            "input_dropout": self.network.dropout.p,
            "activation": self.network.activation_kind,
            "dtype": str(self.network.head.weight.dtype).removeprefix("torch."),
            "fusion": self.fusion.to_config(),
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> FusionModel:
        """Build the model that ``describe`` describes, in evaluation mode.  Operators come from the registry only.

        Raises:
            RegistryError: the operator is not installed.
            ValueError, KeyError, TypeError: not such a description.
        """
        views, classes, dims = (_list(description, key) for key in ("views", "classes", "dims"))
        kind, dropout = description["encoder"], float(description["input_dropout"])
        if kind not in ENCODERS or len(views) != len(check_dims(dims)):
            raise ValueError(f"the encoder {kind!r}, the views {views!r}, the dims {dims!r}")
        config = dict(description["fusion"])
        fusion = factory.create(config.pop("name"), **config)
        # Models of before there was a choice have none.
        activation = str(description.get("activation", "none"))
        network = Network(fusion, dims, len(classes), kind, dropout, activation)
        network.to(check_dtype(str(description["dtype"])))
        return cls(Scaler(views, dims), network, classes).eval()


def _list(description: Mapping[str, Any], key: str) -> list[Any]:
    found = description[key]
    if not isinstance(found, list) or not found:
        raise TypeError(f"{key} should be a list that is not empty; found {found!r}")
    return found
