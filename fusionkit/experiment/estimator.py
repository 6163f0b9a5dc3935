"""The base of the estimators with scikit-learn's interface: fusion of views that are groups of columns."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state, check_X_y
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from fusionkit import registry
from fusionkit._util.trees import to_python
from fusionkit.config.options import Fraction, G, ModelOptions, Options, TrainOptions, validate_group
from fusionkit.core import factory
from fusionkit.errors import ConfigError, DimsError, FusionError
from fusionkit.experiment.draws import draw_rows
from fusionkit.experiment.inputs import REAL, Names, check_values, check_views, reordered, view_columns
from fusionkit.experiment.missing import presence
from fusionkit.experiment.model import FusionModel, Network, Scaler
from fusionkit.experiment.parameters import named, own_names
from fusionkit.experiment.parts import Part
from fusionkit.experiment.roles import check_role
from fusionkit.experiment.source import Array, check_orders, check_unmasked
from fusionkit.experiment.state import exclusive
from fusionkit.experiment.tasks.choice import Target
from fusionkit.experiment.training import Monitored, Training, seeded, threads, train
from fusionkit.fusion import Fusion, check_dims


class _ValidationOptions(Options):
    validation_fraction: Fraction


@dataclass(eq=False, repr=False)  # BaseEstimator has its own.
class FusionEstimator(BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn has no types
    """Standardize k views, fuse them, predict linearly: what ``fusionkit run`` trains, as an estimator.

    ``X`` is either one array or data frame of shape (m, D), whose columns ``views`` divides, or a list of k views of
    shape (m, n_i).  Row by row they are of the same samples.  Data frames have to keep the names of their columns, and
    unless ``views`` is a mapping their order.
    A view is absent from a row whose numbers are all NaN, or where ``mask`` (m, k) is False, whatever the numbers are.
    scikit-learn passes a mask on where its metadata routing is on and the method requests it (``set_fit_request``).
    Fits in several threads of a process wait for each other, because PyTorch's random generator is the process's.

    Subclasses define ``_target``.

    Args:
        views: the columns of each view, by name: a slice, or a list of integers or of columns of a data frame, such as
            ``{"clinical": ["age", "sex"], "scan": slice(2, 80)}``; each column is in one view.  Or widths of the views,
            in the order of the columns; or the number of views, for nearly equal widths; None is one view.  For a list
            of views: None, their widths, or their number.
        fusion: name of the operator, as ``fusionkit list`` shows it, or a dict with its name and options.
        fabrication: the same for the operators that take one.
        n: width of the output, for the operators with a free choice of it; without a head it is the number of outputs.
        head: linear, or none: what the fusion returns are the logits, or the numbers of a regression.
        encoder: none, linear or mlp: one per view; encoders make the widths equal.
        encoder_width: output width of the encoders; None takes n, without a head the number of outputs.
        activation: none, gelu, relu or tanh, in front of the linear head, so never without one.
        epochs: passes over the data.
        batch_size: rows per step.
        lr: peak learning rate.
        optimizer: adamw, adam or sgd.
        weight_decay: of the matrices, relative to the learning rate.
        scheduler: onecycle or constant.
        loss: None takes the first of the task.
        input_dropout: part of the standardized inputs that is zeroed while training.
        view_dropout: part of the views that is dropped while training, row by row; one that is present stays.
        validation_fraction: part of the rows that is held out; the model of the epoch with the best score on it is
            kept.  0 holds out none and keeps the last.
        patience: stop after this number of epochs without a better one on the rows held out; None never stops.
        precision: as train.precision of ``fusionkit run``.
        device: where to train; predictions are made on the CPU.
        devices: number of processes.
        random_state: of the initial values, of the rows held out, of the order of the batches, of dropout.
        verbose: show the progress.

    Attributes:
        n_features_in_: the number of columns D.
        views_: widths of the views.
        model_: the trained ``FusionModel``: takes raw views.
        history_: learning curves.
        n_iter_: the number of epochs that were trained.
        best_epoch_: the epoch of the model, counted from 1.
    """

    views: Any = None
    _: KW_ONLY
    fusion: str | Mapping[str, Any] = "parameterized_concatenation"
    fabrication: str | Mapping[str, Any] = "dense"
    n: int = 64
    head: str = "linear"
    encoder: str = "none"
    encoder_width: int | None = None
    activation: str = "gelu"
    epochs: int = 60
    batch_size: int = 128
    lr: float = 1e-2
    optimizer: str = "adamw"
    weight_decay: float = 1e-2
    scheduler: str = "onecycle"
    loss: str | None = None
    input_dropout: float = 0.2
    view_dropout: float = 0.0
    validation_fraction: float = 0.0
    patience: int | None = None
    precision: str = "32-true"
    device: str = "cpu"
    devices: int = 1
    random_state: int | np.random.RandomState | None = None
    verbose: bool = False

    #: How scikit-learn checks y.
    _y_options: ClassVar[Mapping[str, Any]] = {}

    @abstractmethod
    def _target(self, y: Array) -> Target:
        """Return the task and the targets, for y as scikit-learn has checked it."""

    @exclusive()
    def fit(self, X: Any, y: Any, mask: Any = None, sample_weight: Any = None) -> Self:
        """Train on ``X`` and ``y``.

        Args:
            X: the views.
            y: what to predict, a row per row of ``X``.
            mask: bool (m, k), True where a view of a row is present; None: where it is not all NaN.
            sample_weight: (m,), multiplies the loss of each row; rows of weight 0 are left out.  None: 1.

        Raises:
            FusionError, ConfigError, RegistryError: options that do not fit, or a loss that is not finite.
            ValueError: data that cannot be used.
        """
        before: dict[str, Any] = self.__dict__
        try:
            self.__dict__ = {name: value for name, value in before.items() if not name.endswith("_")}
            with own_names(self.get_params()):
                self._fit(X, y, mask, sample_weight)
        except BaseException:  # Also an interruption.
            self.__dict__ = before
            raise
        return self

    def _fit(self, X: Any, y: Any, mask: Any, sample_weight: Any) -> None:
        if y is None:
            raise FusionError("fit requires y to be passed, but the target y is None.")
        views, y, mask = self._checked(X, y, mask)
        present = presence([f"View {i} of X" for i in range(len(views))], views, mask)
        weight = None
        if sample_weight is not None:
            check_unmasked("sample_weight", sample_weight)
            weight = check_role("weight", np.asarray(sample_weight), len(y), "sample_weight")
            kept = weight > 0
            views, y, weight = [view[kept] for view in views], y[kept], weight[kept]
            present = None if present is None or present[kept].all() else present[kept]
        target = self._target(y)
        settings = self._settings = self._group(TrainOptions, "train")
        model = self._group(ModelOptions, "model")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        rows, held_out = self._parts(target, seed)
        with seeded(seed, torch.device("cpu")):
            fusion = self._fusion(model, target.task.outputs)
            network = Network(fusion, self.views_, target.task.outputs, model, settings.input_dropout)
        scaler = Scaler(self._view_names, self.views_)
        scaler.fit([view[rows] for view in views], None if present is None else present[rows])
        task = target.task.fitted(target.values[rows])

        def part(rows: Any) -> Part:
            standardized = [view for view in scaler([view[rows] for view in views]) if view is not None]
            shown = None if present is None else torch.from_numpy(present[rows])
            weights = None if weight is None else torch.from_numpy(weight[rows].astype(np.float32))
            return Part(standardized, task.tensor(target.values[rows]), shown, weights)

        shown = None
        if held_out is not None:
            shown = Monitored(part(held_out), target.values[held_out], task.metric(None), chooses=True)
        progress = "" if self.verbose else None
        training = Training(task, part(rows), target.values[rows], shown, settings, seed, progress)
        self.history_ = train(network, training, self.device)
        self.n_iter_, self.best_epoch_ = len(self.history_.loss), self.history_.best_epoch
        # Predictions in double precision do not depend on which rows are predicted together.
        self.model_ = FusionModel(scaler, network, task).double().eval()

    def _parts(self, target: Target, seed: int) -> tuple[Any, Any]:
        """Return the rows to train on, and those held out; None: there are none.

        Raises:
            ConfigError: a fraction that does not fit, or patience without one.
        """
        fraction = validate_group(
            _ValidationOptions, {"validation_fraction": self.validation_fraction}, ""
        ).validation_fraction
        if not fraction:
            if self.patience is not None:
                advice = "validation_fraction=0.2 holds some out."
                should = "patience should be None where no rows are held out"
                raise ConfigError(f"{should}; found {to_python(self.patience)}.  {advice}")
            return slice(None), None
        count = len(target.values)
        strata = target.values if target.task.name == "classification" else None
        rows, held_out = draw_rows(strata, count, int(np.ceil(fraction * count)), seed)
        known = {*np.unique(target.values[rows])} if strata is not None else set()
        missing = [one for i, one in enumerate(target.task.classes) if i not in known]
        if not len(rows) or missing:
            found = f"none of class {missing[0]!r}" if missing else "none"
            should = f"leave rows of {'each class' if missing else 'X'} to train on"
            raise FusionError(f"validation_fraction should {should}; found {found} at {fraction} of {count} rows.")
        return rows, held_out

    @exclusive()
    def _outputs(self, X: Any, mask: Any) -> Tensor:
        """Return logits (m, c), or the numbers (m, t) of a regression."""
        check_is_fitted(self)
        views, _, mask = self._checked(X, mask=mask)
        with threads(self.model_.network, self._settings, torch.device("cpu")):
            return self.model_.evaluate(views, mask)

    def _group(self, group: type[G], prefix: str) -> G:
        """Return the options of a group of the config, checked."""
        return validate_group(group, {k: v for k, v in vars(self).items() if k in group.model_fields}, prefix)

    def _fusion(self, model: ModelOptions, outputs: int) -> Fusion:
        """Build the operator for the widths of the views, or of the encoders."""
        width = model.width(self.n, outputs)
        options, fabrication = named(self.fusion, "fusion"), named(self.fabrication, "fabrication")
        name = options.pop("name")
        cls = registry.load("fusion", name)
        known = inspect.signature(cls).parameters
        if cls.traits.free_n:  # type: ignore[attr-defined]
            options.setdefault("n", width)
        if "parameter_fabrication" in known:
            options.setdefault("parameter_fabrication", fabrication)
        elif fabrication["name"] != "dense":
            what = f"fabrication should be dense, because the fusion {name!r} takes none"
            raise ConfigError(f"{what}; found {fabrication['name']!r}.")
        return factory.create(name, dims=model.fusion_dims(self.views_, width), **options)

    # -- views ---------------------------------------------------------------------------------------------------------

    def _checked(self, X: Any, y: Any = None, mask: Any = None) -> tuple[list[npt.NDArray[Any]], Any, Any]:
        """Return the views, y and the mask, checked; y is given when fitting, and X then sets the widths."""
        check_unmasked("y", y)
        if isinstance(y, list | tuple) and len({isinstance(label, str) for label in y}) > 1:
            raise FusionError("y should contain either texts or numbers; found both, which NumPy makes texts.")
        check_unmasked("mask", mask)
        parts = isinstance(X, list | tuple) and X and all(getattr(view, "ndim", None) == 2 for view in X)
        for view in X if parts else [X]:
            check_orders([("X", view), ("mask", mask)])
        views, y = self._checked_list(X, y) if parts else self._checked_matrix(X, y)
        return views, y, None if mask is None else np.asarray(mask)

    def _checked_matrix(self, X: Any, y: Any) -> tuple[list[npt.NDArray[Any]], Any]:
        """Return the views of one matrix and y, checked by scikit-learn, but for NaN and infinite values."""
        check_values("X", X)
        if y is not None:
            X, y = validate_data(self, X, y, dtype=REAL, ensure_all_finite=False, **self._y_options)
            names = getattr(self, "feature_names_in_", None)
            self._by_name = isinstance(self.views, Mapping) and names is not None
            columns = self._divided(X.shape[1], names)
            self._columns, self._view_names = list(columns.values()), list(columns)
            self.views_ = [len(view) for view in self._columns]
            self._names: list[Names] = [None if names is None else names[view] for view in self._columns]
        else:
            if self._by_name:
                X = reordered(X, self.feature_names_in_)
            X = validate_data(self, X, reset=False, dtype=REAL, ensure_all_finite=False)
        # In one layout, because the order of sums depends on it.
        return [np.ascontiguousarray(X[:, view]) for view in self._columns], y

    def _checked_list(self, X: Sequence[Any], y: Any) -> tuple[list[npt.NDArray[Any]], Any]:
        """Return the views of a list and y, as ``_checked_matrix`` does."""
        fitting, widths = y is not None, [view.shape[1] for view in X]
        wanted = self.views if fitting else self.views_
        if isinstance(wanted, Integral):
            if wanted != len(widths):
                raise DimsError(f"X should contain {wanted} views; found {len(widths)}.")
        elif isinstance(wanted, Mapping):
            raise FusionError("X should be one array or data frame where views is a mapping; found a list of views.")
        elif wanted is not None and list(wanted) != widths:
            raise DimsError(f"X should contain views of the widths {list(wanted)}; found {widths}.")
        views, names = check_views(X, None if fitting else self._names)
        if fitting:
            _, y = check_X_y(views[0], y, ensure_all_finite=False, **self._y_options)
            self.views_, self._names, self.n_features_in_ = widths, names, sum(widths)
            self._by_name, self._view_names = False, [str(i) for i in range(len(widths))]
            self._columns = np.split(np.arange(sum(widths)), np.cumsum(widths)[:-1])
            known = [one for one in names if one is not None]
            if len(known) == len(names):
                self.feature_names_in_: npt.NDArray[np.object_] = np.concatenate(known)
        return views, y

    def _divided(self, count: int, names: Names) -> dict[str, npt.NDArray[np.int64]]:
        """Return the columns of each view, of ``count`` columns of these names."""
        if isinstance(self.views, Mapping):
            return view_columns(self.views, names, count)
        widths = self._widths(count)
        return {str(i): view for i, view in enumerate(np.split(np.arange(count), np.cumsum(widths)[:-1]))}

    def _widths(self, columns: int) -> list[int]:
        """Return the widths into which ``views`` splits ``columns`` columns."""
        if self.views is None:
            return [columns]
        if isinstance(self.views, Integral):
            count = int(self.views)
            if not 1 <= count <= columns:
                what = "views should be at least 1 and at most the number of columns"
                raise DimsError(f"{what}; found views = {count}, n_features = {columns}.")
            return [len(part) for part in np.array_split(np.arange(columns), count)]
        widths = list(check_dims(self.views))
        if sum(widths) != columns:
            what = "views should be widths that add up to the columns of X"
            raise DimsError(f"{what}; found {widths}, which are {sum(widths)}, and n_features = {columns}.")
        return widths
