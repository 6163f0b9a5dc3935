"""The model of a run: scaler -> encoders -> fusion [-> activation -> linear head]; its description in JSON types."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fusionkit.config.fits import check_outputs
from fusionkit.config.keys import walk
from fusionkit.config.options import ModelOptions
from fusionkit.core import factory
from fusionkit.errors import DimsError, FusionError
from fusionkit.experiment.missing import check_mask, present_rows
from fusionkit.experiment.moments import Moments, moments
from fusionkit.experiment.source import Array, check_unmasked, native
from fusionkit.experiment.state import evaluating, exclusive
from fusionkit.experiment.tables.format import TableFormat, unseen_text
from fusionkit.experiment.tasks.base import Task
from fusionkit.experiment.tasks.choice import from_description
from fusionkit.fusion import Fusion, check_dims, check_dtype
from fusionkit.kernels.elementwise import replaced

ACTIVATIONS: dict[str, type[nn.Module]] = {"none": nn.Identity, "gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}


#: The values of a view of which mean and scale are taken at once; a copy takes 64 MiB.
_PIECE = 2**23


class Scaler(nn.Module):
    """Standardize each view: ``(x_i - mean_i) / scale_i``, x_i (..., n_i).

    The buffers are float64, so that large offsets do not cancel; the result has the dtype of the network behind it.

    Args:
        names: of the views, for messages.
        dims: widths of the views.
        impute: ``mean``: where a row has some NaN, the means stand for them; None leaves them.
    """

    def __init__(self, names: Sequence[str], dims: Sequence[int], impute: str | None = None) -> None:
        super().__init__()
        self.names, self.dims, self.impute = tuple(names), tuple(dims), impute
        for i, width in enumerate(dims):
            self.register_buffer(f"mean_{i}", torch.zeros(width, dtype=torch.float64))
            self.register_buffer(f"scale_{i}", torch.ones(width, dtype=torch.float64))

    def fit(self, views: Iterable[np.ndarray[Any, Any]], mask: npt.NDArray[np.bool_] | None = None) -> None:
        """Take mean and scale from the present rows of arrays (m, n_i); a constant column keeps scale 1.

        Args:
            views: the training part.
            mask: (m, k), True where a view of a row is present; None: all are.

        Raises:
            FusionError: a view without a row, or a column without a value; values so large that their differences
                overflow.  Mean and scale are then as before.
        """
        found: dict[str, Tensor] = {}
        for i, view in enumerate(views):
            with np.errstate(over="ignore", invalid="ignore"):  # Refused below.
                view = self._known(i, view if mask is None else view[mask[:, i]])
                # Sums of float16 and of integers would overflow.
                found_pieces = [moments(piece.astype(np.float64)) for piece in _pieces(view)]
                mean, scale = (np.concatenate(pieces) for pieces in zip(*found_pieces, strict=True))
                found |= self._checked(i, mean, scale, view.min(0), view.max(0))
        self.load_state_dict(found)

    def take(self, views: Sequence[Moments]) -> None:
        """Take mean and scale from what was added up for each view over the present rows of the training part.

        Raises:
            FusionError: as ``fit``.
        """
        found: dict[str, Tensor] = {}
        for i, one in enumerate(views):
            self._check_known(i, one.rows, one.known > 0)
            with np.errstate(over="ignore", invalid="ignore"):
                found |= self._checked(i, *one.result(), one.low, one.high)
        self.load_state_dict(found)

    def _checked(self, i: int, mean: Array, scale: Array, low: Array, high: Array) -> dict[str, Tensor]:
        """Return the buffers of view i, whose columns have these means, scales, least and greatest values."""
        if not np.isfinite([mean, scale, np.maximum(high - mean, mean - low)]).all():
            what = f"View {i} ({self.names[i]}) should have columns of finite mean and variance"
            raise FusionError(f"{what}; found values up to {np.maximum(np.abs(low), np.abs(high)).max():.3g}.")
        return {f"mean_{i}": torch.from_numpy(mean), f"scale_{i}": torch.from_numpy(scale)}

    def _known(self, i: int, view: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the present rows of view i, with the means in place of NaN if they are to be imputed."""
        nan = np.isnan(view)
        self._check_known(i, len(view), ~nan.all(0))
        if self.impute is None or not nan.any():
            return view
        return np.where(nan, np.nanmean(view, axis=0, dtype=np.float64), view)

    def _check_known(self, i: int, rows: int, known: Array) -> None:
        """Refuse view i if it has no present rows, or no value in a column that is to be imputed."""
        what = f"View {i} ({self.names[i]})"
        if not rows:
            raise FusionError(f"{what} should be present in one row of the training part at least; found it in none.")
        if self.impute is not None and not known.all():
            should = "have a value in every column of the training part"
            raise FusionError(f"{what} should {should}; found column {int(known.argmin())} without any.")

    def _apply(self, fn: Any, recurse: bool = True) -> Scaler:
        """Move the buffers with the model, but keep their precision where it is cast, as by ``model.bfloat16()``."""
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, exact in before.items():
            moved = self.get_buffer(name)
            if moved.dtype != exact.dtype:
                setattr(self, name, exact.to(moved.device))
        return self

    def forward(self, x: Sequence[Any], dtype: torch.dtype = torch.float32) -> list[Tensor | None]:
        """Return the standardized views.  Rows of NaN stay what they are; some NaN in a row too, unless ``impute``.

        Args:
            x: list or tuple of k raw views, tensors or arrays (..., n_i) of any real dtype; None stays None.
            dtype: of the result.

        Raises:
            DimsError: a wrong number of views or a wrong width.
            FusionError: views that are not real numbers, or on another device.
        """
        if not isinstance(x, list | tuple):
            raise FusionError(f"x should be a list or tuple of views; found {type(x).__name__}.")
        if len(x) != len(self.dims):
            views = f"{len(self.dims)} views ({', '.join(self.names)}), of widths {list(self.dims)}"
            raise DimsError(f"x should contain {views}; found {len(x)}.")
        out: list[Tensor | None] = []
        for i, (value, width) in enumerate(zip(x, self.dims, strict=True)):
            if value is None:
                out.append(None)
                continue
            mean, what = self.get_buffer(f"mean_{i}"), f"View {i} ({self.names[i]})"
            check_unmasked(what, value)
            try:
                view = torch.as_tensor(native(value) if isinstance(value, np.ndarray) else value)
            except (TypeError, ValueError, RuntimeError):
                found = type(value).__name__
                found += f" of dtype {value.dtype}" if isinstance(value, np.ndarray) else ""
                raise FusionError(f"{what} should be a tensor or an array of numbers; found {found}.") from None
            if not view.ndim or view.shape[-1] != width:
                raise DimsError(f"{what} should have width {width}; found shape {tuple(view.shape)}.")
            if view.is_complex():
                raise FusionError(f"{what} should be real; found {view.dtype}.")
            if view.device != mean.device:
                raise FusionError(f"{what} should be on {mean.device}; found {view.device}.")
            standard = ((view.to(mean.dtype) - mean) / self.get_buffer(f"scale_{i}")).to(dtype)
            if self.impute is not None:
                nan = standard.isnan()
                standard = torch.where(nan & ~nan.all(-1, keepdim=True), 0.0, standard)
            out.append(standard)
        return out


def _checked_mask(mask: Any, views: Sequence[Tensor | None]) -> Tensor | None:
    """Return a mask for these views, given as a tensor or as whatever becomes an array, as a tensor.

    Raises:
        FusionError: it is not of bool, has another shape than (..., k), or is on another device than the views.
    """
    like = next((view for view in views if view is not None), None)
    if mask is None or like is None:  # The fusion refuses views that are all None.
        return None
    check_unmasked("mask", mask)
    given = mask if isinstance(mask, Tensor) else np.asarray(mask)
    check_mask("mask", given, (*like.shape[:-1], len(views)))
    tensor = given if isinstance(given, Tensor) else torch.from_numpy(native(given))
    if tensor.device != like.device:
        raise FusionError(f"mask should be on {like.device}, as the views are; found {tensor.device}.")
    return tensor


def _pieces(view: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Return groups of columns whose float64 copies need little memory, but no single column of several: the sums of
    one are rounded in another way.
    """
    return np.array_split(view, max(1, min(view.shape[1] // 2, view.size // _PIECE)), axis=1)


def encoder(kind: str, width_in: int, width_out: int) -> nn.Module:
    """Return the encoder of one view, (..., width_in) -> (..., width_out); ``none`` is the identity."""
    if kind == "linear":
        return nn.Linear(width_in, width_out)
    if kind == "mlp":
        hidden = 2 * width_out
        return nn.Sequential(nn.Linear(width_in, hidden), nn.GELU(), nn.Linear(hidden, width_out))
    return nn.Identity()


class Network(nn.Module):
    """The trained part of a model: input dropout -> encoder per view -> fusion -> activation -> linear head.

    Without a head it ends with the fusion.

    Args:
        fusion: built for the widths behind the encoders, which ``ModelOptions.fusion_dims`` returns for ``dims``.
        dims: widths of the standardized views.
        outputs: width of the output.
        options: which encoders, which activation, whether there is a head.
        input_dropout: part of the standardized inputs that is zeroed while training.

    Raises:
        DimsError: a fusion without widths, or without a head one whose n is not ``outputs``.
    """

    def __init__(
        self, fusion: Fusion, dims: Sequence[int], outputs: int, options: ModelOptions, input_dropout: float = 0.0
    ) -> None:
        super().__init__()
        if fusion.dims is None or fusion.n is None:
            raise DimsError(f"{fusion.name} should know dims and n to be trained; found {fusion.dims}, {fusion.n}.")
        check_outputs(fusion, options, outputs)
        self.options = options
        widths = zip(dims, fusion.dims, strict=True)
        self.encoders = nn.ModuleList(encoder(options.encoder, before, after) for before, after in widths)
        self.fusion = fusion
        self.dropout = nn.Dropout(input_dropout)
        bare = options.head == "none"
        self.activation = ACTIVATIONS["none" if bare else options.activation]()
        self.head: Any = nn.Identity() if bare else nn.Linear(fusion.n, outputs)

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters and the inputs; a quantized head, whose weight is a method, takes float32.

        Without a head that of the first tensor of encoders and fusion; float32 if they have none.
        """
        if self.options.head == "none":
            return next((one.dtype for one in self._tensors() if one.is_floating_point()), torch.float32)
        weight = self.head.weight
        return weight.dtype if isinstance(weight, Tensor) else torch.float32

    def _tensors(self) -> Iterator[Tensor]:
        yield from self.parameters()
        yield from self.buffers()

    def has_loss(self) -> bool:
        """Whether the fusion has a loss of its own: ``explain`` of a row of zeros, in evaluation mode, returns one."""
        if not self.fusion.explains():
            return False
        like = next(self._tensors(), torch.empty(()))
        zeros = [torch.zeros(1, width, dtype=self.dtype, device=like.device) for width in self.fusion.resolve_dims()]
        with evaluating(self), torch.no_grad():
            return "loss" in self.fusion.explain(zeros)

    def explain(self, x: Sequence[Tensor | None], mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return what the fusion says about standardized views (..., n_i); arguments as for ``forward``."""
        encoded, mask = self._encoded(x, None, mask)
        return self.fusion.explain(encoded, mask=mask)

    def forward(
        self,
        x: Sequence[Tensor | None],
        drawn: tuple[int, slice | Tensor] | None = None,
        mask: Tensor | None = None,
        *,
        with_loss: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return outputs (..., c) for standardized views (..., n_i).

        Args:
            x: the views; for None no encoder runs.
            drawn: of a process that shares a batch with others, the number of rows of the batch, and which of them
                these are: dropout is drawn for all, so that the processes together drop the inputs that one would.
            mask: bool (..., k), True where a view is present; encoders get zeros for the others.
            with_loss: return the loss () of the fusion too, which has one; by this way a wrapper for several devices
                sees it.
        """
        encoded, mask = self._encoded(x, drawn, mask)
        if with_loss:
            said = self.fusion.explain(encoded, mask=mask)
            return self.head(self.activation(said["output"])), said["loss"]
        output: Tensor = self.head(self.activation(self.fusion(encoded, mask=mask)))
        return output

    def _encoded(
        self, x: Sequence[Tensor | None], drawn: tuple[int, slice | Tensor] | None, mask: Tensor | None
    ) -> tuple[list[Tensor | None], Tensor | None]:
        """Return what the encoders make of the views, and the mask."""
        views = [None if view is None else self._dropped(view, drawn) for view in x]
        if mask is not None and self.options.encoder != "none":  # The fusion replaces what is absent by itself.
            views = replaced(views, mask, [0.0] * len(views))
        encoded = zip(self.encoders, views, strict=True)
        return [None if view is None else encode(view) for encode, view in encoded], mask

    def _dropped(self, view: Tensor, drawn: tuple[int, slice | Tensor] | None) -> Tensor:
        if drawn is None or not self.training or not self.dropout.p:
            return self.dropout(view)  # type: ignore[no-any-return]
        size, rows = drawn
        kept: Tensor = self.dropout(view.new_ones(size, view.shape[-1]))
        return view * kept[rows]


class FusionModel(nn.Module):
    """A scaler and a network: raw views in; logits, or the numbers of a regression, out.

    Attributes:
        task: what it learnt.
        table: how the columns of a table become views; None for a model of arrays.
    """

    def __init__(self, scaler: Scaler, network: Network, task: Task, table: TableFormat | None = None) -> None:
        super().__init__()
        self.scaler, self.network, self.task, self.table = scaler, network, task, table

    @property
    def fusion(self) -> Fusion:
        """The operator."""
        return self.network.fusion

    @property
    def classes(self) -> list[Any]:
        """The label values, or the labels, in the order of the logits; [] for a regression."""
        return list(self.task.classes)

    def forward(self, x: Sequence[Any], mask: Any = None) -> Tensor:
        """Return logits (..., c), or the numbers (..., t) of a regression in their units.

        NaN is a number like any other here; ``predict`` takes it as absent.

        Args:
            x: list or tuple of k raw views (..., n_i), in the units of the data; None is a view that is absent.
            mask: bool (..., k), True where a view of a row is present; what it calls absent may hold anything.

        Raises:
            DimsError: a wrong number of views or a wrong width.
            FusionError: views or a mask that do not fit in another way, or a fusion that refuses masks.
        """
        views = self.scaler(x, self.network.dtype)
        output: Tensor = self.network(views, mask=_checked_mask(mask, views))
        return self.task.in_units(output)

    @exclusive()
    @torch.no_grad()
    def evaluate(self, x: Any, mask: Any = None, *, empty: bool = False) -> Tensor:
        """Return what ``forward`` does, but always in evaluation mode, finite and in float64.

        Args:
            x: as for ``forward``, or a data frame for a model of a table; without a mask, rows of a view that are all
                NaN are absent.
            mask: as for ``forward``.
            empty: whether there may be rows none of which has a view, as in one batch of many.

        Raises:
            DimsError, FusionError: as ``forward``; also views or outputs that are not finite, or no row with a view.
        """
        views, present = self._standardized(x, mask, empty)
        with evaluating(self):
            output = self.task.in_units(self.network(views, mask=present).double())
        if not output.isfinite().all():
            raise FusionError("The trained model should give finite outputs; found others.")
        return output

    @exclusive()
    @torch.no_grad()
    def explain(self, x: Any, mask: Any = None) -> dict[str, Tensor]:
        """Return what the fusion says about its result, such as ``weights`` (..., k): see ``Fusion.explain``.

        Args:
            x: as for ``evaluate``.
            mask: as for ``forward``.

        Raises:
            DimsError, FusionError: as ``evaluate``.
        """
        views, present = self._standardized(x, mask, empty=False)
        with evaluating(self):
            return self.network.explain(views, present)

    def _standardized(self, x: Any, mask: Any, empty: bool) -> tuple[list[Tensor | None], Tensor | None]:
        """Return the standardized views, and which are present, (..., k); arguments as for ``evaluate``."""
        views = self.scaler(self.encode(x) if hasattr(x, "columns") else x, self.network.dtype)
        return views, self._presence(views, mask, empty)

    def _presence(self, views: Sequence[Tensor | None], mask: Any, empty: bool) -> Tensor | None:
        """Return which standardized views are present, (..., k); None if all are."""
        given = [view for view in views if view is not None]
        if not given:
            raise FusionError("x should contain at least one tensor; found None for every view.")
        leading = given[0].shape[:-1]
        if any(view.shape[:-1] != leading for view in given):  # Which the fusion refuses.
            return None
        mask = _checked_mask(mask, views)
        columns = []
        for i, (view, name) in enumerate(zip(views, self.scaler.names, strict=True)):
            if view is None:
                columns.append(torch.zeros(leading, dtype=torch.bool, device=given[0].device))
                continue
            column = None if mask is None else mask[..., i]
            columns.append(present_rows(f"View {i} ({name})", view, column, impute=self.scaler.impute))
        present = torch.stack(columns, -1)
        if present.numel() and not empty and not present.any():
            raise FusionError(f"At least one row should have a view; found none in {leading.numel()} rows.")
        return None if present.all() and len(given) == len(views) else present

    def predict(self, x: Any, mask: Any = None) -> list[Any]:
        """Return the predicted value of every row: a label; 0 and 1 for each label of a multilabel task; the number of
        a regression, or a list of several.

        Args:
            x: raw views (m, n_i), or a data frame, as for ``evaluate``.
            mask: as for ``forward``.

        Raises:
            DimsError, FusionError: as ``evaluate``.
        """
        return self.task.values(self.task.predicted(self.evaluate(x, mask).cpu()))

    def predict_proba(self, x: Any, mask: Any = None) -> Array:
        """Return the probabilities of the classes, or of the labels, (m, c); arguments as for ``predict``.

        Raises:
            DimsError, FusionError: as ``evaluate``; also for a regression.
        """
        if not self.classes:
            raise FusionError("predict_proba should be called for classes or labels; found a regression.")
        return self.task.predicted(self.evaluate(x, mask).cpu())

    def encode(self, frame: Any) -> list[Array]:
        """Return the views (m, n_i) of a data frame with the columns of the training table; other columns are ignored.

        Raises:
            FusionError: the model was not trained on a table, or a column is missing or holds something else.
        """
        if self.table is None:
            raise FusionError("A data frame should be given to a model of a table; found a model of arrays.")
        views, unseen = self.table.encode(frame, "the data frame")
        if unseen:
            warnings.warn(unseen_text(unseen), UserWarning, stacklevel=2)
        return views

    def describe(self) -> dict[str, Any]:
        """Return JSON types from which ``from_description`` builds the same model, without its trained tensors.

        Raises:
            ConfigError: the operator cannot be written to a config.
        """
        options = self.network.options
        described = {
            "views": list(self.scaler.names),
            "dims": list(self.scaler.dims),
            **self.task.describe(),
            "encoder": options.encoder,
            "input_dropout": self.network.dropout.p,
            "activation": options.activation,
            "dtype": str(self.network.dtype).removeprefix("torch."),
            "fusion": self.fusion.to_config(),
        }
        if options.head != "linear":
            described["head"] = options.head
        if self.scaler.impute is not None:
            described["impute"] = self.scaler.impute
        return described if self.table is None else {**described, "table": self.table.to_json()}

    @classmethod
    def from_description(cls, description: Mapping[str, Any], device: str | None = None) -> FusionModel:
        """Build the model that ``describe`` describes, in evaluation mode.  Operators come from the registry only.

        Args:
            description: in JSON types.
            device: of every tensor, whatever the description says; None leaves it as described.

        Raises:
            RegistryError: the operator is not installed.
            ValueError, KeyError, TypeError: not such a description.
        """
        views, dims, task = description["views"], check_dims(description["dims"]), from_description(description)
        if len(views) != len(dims):
            raise ValueError(f"the views {views!r}, the dims {dims!r}")
        impute = description.get("impute")
        if impute not in (None, "mean"):
            raise ValueError(f"impute {impute!r}")
        # Models of releases without these options have no activation and a head.
        activation, head = description.get("activation", "none"), description.get("head", "linear")
        options = ModelOptions(encoder=description["encoder"], activation=activation, head=head)
        config, dropout = copy.deepcopy(dict(description["fusion"])), float(description["input_dropout"])
        if device is not None:
            config["device"] = device
            for _, _, node in walk(config):  # The steps of preprocess have devices too.
                if isinstance(node, dict) and "device" in node:
                    node["device"] = device
        fusion = factory.create(config.pop("name"), **config)
        if not fusion.require_parameters and fusion.calculate_l():  # Its parameters would be in no file.
            raise ValueError("a fusion with require_parameters=False")
        with nullcontext() if device is None else torch.device(device):
            network = Network(fusion, dims, task.outputs, options, dropout)
            scaler = Scaler(views, dims, impute)
        network.to(check_dtype(str(description["dtype"])))
        table = TableFormat.from_json(description["table"]) if "table" in description else None
        return cls(scaler, network, task, table).eval()
