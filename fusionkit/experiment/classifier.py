"""A classifier with scikit-learn's interface: fusion of views that are groups of columns, behind encoders if wanted."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_random_state, check_X_y
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from fusionkit import registry
from fusionkit._util.trees import to_python
from fusionkit.config.options import G, ModelOptions, TrainOptions, validate_group
from fusionkit.core import factory
from fusionkit.errors import ConfigError, DimsError, FusionError
from fusionkit.experiment.inputs import REAL, Names, check_order, check_values, check_views
from fusionkit.experiment.missing import presence
from fusionkit.experiment.model import FusionModel, Network, Scaler
from fusionkit.experiment.source import check_unmasked
from fusionkit.experiment.state import exclusive
from fusionkit.experiment.tasks.classification import Classification
from fusionkit.experiment.training import Part, Training, seeded, threads, train
from fusionkit.fusion import Fusion, check_dims


@dataclass(eq=False, repr=False)  # BaseEstimator has its own.
class FusionClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Standardize k views, fuse them, classify linearly: what ``fusionkit run`` trains, as an estimator.

    ``X`` is either one array of shape (m, D), whose columns ``views`` splits, or a list of k views of shape (m, n_i).
    Row by row they are of the same samples.  Data frames have to keep the names and the order of their columns.
    A view is absent from a row whose numbers are all NaN, or where ``mask`` (m, k) is False, whatever the numbers are.
    scikit-learn passes a mask on where its metadata routing is on and the method requests it (``set_fit_request``).
    Fits in several threads of a process wait for each other, because PyTorch's random generator is the process's.

    Args:
        views: widths of the views in one array, in the order of its columns; or the number of views, for nearly equal
            widths; None is one view.  For a list of views: None, their widths, or their number.
        fusion: name of the operator, as ``fusionkit list`` shows it, or a dict with its name and options.
        fabrication: the same for the operators that take one.
        n: width of the output, for the operators with a free choice of it.
        encoder: none, linear or mlp: one per view; encoders make the widths equal.
        encoder_width: output width of the encoders; None takes n.
        activation: none, gelu, relu or tanh, in front of the classifier.
        epochs: passes over the data.
        batch_size: rows per step.
        lr: peak learning rate.
        optimizer: adamw, adam or sgd.
        weight_decay: of the matrices, relative to the learning rate.
        scheduler: onecycle or constant.
        label_smoothing: part of the probability that is spread over the other classes.
        input_dropout: part of the standardized inputs that is zeroed while training.
        view_dropout: part of the views that is dropped while training, row by row; one that is present stays.
        precision: as train.precision of ``fusionkit run``.
        device: where to train; predictions are made on the CPU.
        devices: number of processes.
        random_state: of the initial values, of the order of the batches, of dropout.
        verbose: show the progress.

    Attributes:
        classes_: (c,) the classes, sorted.
        n_features_in_: the number of columns D.
        views_: widths of the views.
        model_: the trained ``FusionModel``: takes raw views, returns logits.
        history_: learning curves.

    Example:
        >>> from sklearn.model_selection import GridSearchCV
        >>> search = GridSearchCV(
        ...     FusionClassifier(views=[76, 216, 64, 240, 47, 6]),
        ...     {"fabrication": ["dense", {"name": "lowrank", "r": 2}], "n": [16, 64]},
        ... )
    """

    views: Any = None
    _: KW_ONLY
    fusion: str | Mapping[str, Any] = "parameterized_concatenation"
    fabrication: str | Mapping[str, Any] = "dense"
    n: int = 64
    encoder: str = "none"
    encoder_width: int | None = None
    activation: str = "gelu"
    epochs: int = 60
    batch_size: int = 128
    lr: float = 1e-2
    optimizer: str = "adamw"
    weight_decay: float = 1e-2
    scheduler: str = "onecycle"
    label_smoothing: float = 0.1
    input_dropout: float = 0.2
    view_dropout: float = 0.0
    precision: str = "32-true"
    device: str = "cpu"
    devices: int = 1
    random_state: int | np.random.RandomState | None = None
    verbose: bool = False

    @exclusive()
    def fit(self, X: Any, y: Any, mask: Any = None) -> Self:
        """Train on ``X`` and the classes ``y`` (m,).

        Args:
            X: the views.
            y: the classes.
            mask: bool (m, k), True where a view of a row is present; None: where it is not all NaN.

        Raises:
            FusionError, ConfigError, RegistryError: options that do not fit, or a loss that is not finite.
            ValueError: data that cannot be used.
        """
        before: dict[str, Any] = self.__dict__
        try:
            self.__dict__ = {name: value for name, value in before.items() if not name.endswith("_")}
            self._fit(X, y, mask)
        except BaseException:  # Also an interruption.
            self.__dict__ = before
            raise
        return self

    def _fit(self, X: Any, y: Any, mask: Any) -> None:
        if y is None:
            raise FusionError("fit requires y to be passed, but the target y is None.")
        views, y, mask = self._checked(X, y, mask)
        present = presence([f"View {i} of X" for i in range(len(views))], views, mask)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        _check_classes(self.classes_, len(y))
        settings = self._settings = self._group(TrainOptions, "train")
        model = self._group(ModelOptions, "model")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with seeded(seed, torch.device("cpu")):
            network = Network(self._fusion(), self.views_, len(self.classes_), model, settings.input_dropout)
        scaler = Scaler([str(i) for i in range(len(views))], self.views_)
        scaler.fit(views, present)
        standardized = [view for view in scaler(views) if view is not None]
        shown = None if present is None else torch.from_numpy(present)
        task, index = Classification(to_python(self.classes_.tolist())), index.astype(np.int64)
        part = Part(standardized, task.tensor(index), shown)
        training = Training(task, part, index, None, settings, seed, progress="" if self.verbose else None)
        self.history_ = train(network, training, self.device)
        # Predictions in double precision do not depend on which rows are predicted together.
        self.model_ = FusionModel(scaler, network, task).double().eval()
        self.n_iter_ = settings.epochs

    def predict_proba(self, X: Any, mask: Any = None) -> npt.NDArray[np.float64]:
        """Return the probabilities of the classes, (m, c); ``mask`` as in ``fit``."""
        return np.asarray(self._logits(X, mask).softmax(-1, dtype=torch.float64))

    def predict(self, X: Any, mask: Any = None) -> npt.NDArray[Any]:
        """Return the class of every row, (m,); ``mask`` as in ``fit``."""
        logits = self._logits(X, mask)
        return np.asarray(self.classes_[logits.argmax(-1).numpy()])

    def score(self, X: Any, y: Any, sample_weight: Any = None, mask: Any = None) -> float:
        """Return the accuracy; ``mask`` as in ``fit``."""
        return float(accuracy_score(y, self.predict(X, mask), sample_weight=sample_weight))

    @exclusive()
    def _logits(self, X: Any, mask: Any) -> Tensor:
        check_is_fitted(self)
        views, _, mask = self._checked(X, mask=mask)
        with threads(self.model_.network, self._settings, torch.device("cpu")):
            return self.model_.evaluate(views, mask)

    def _group(self, group: type[G], prefix: str) -> G:
        """Return the options of a group of the config, checked."""
        return validate_group(group, {k: v for k, v in vars(self).items() if k in group.model_fields}, prefix)

    def _fusion(self) -> Fusion:
        """Build the operator for the widths of the views, or of the encoders."""
        options, fabrication = _named(self.fusion, "fusion"), _named(self.fabrication, "fabrication")
        name = options.pop("name")
        cls = registry.load("fusion", name)
        known = inspect.signature(cls).parameters
        if cls.traits.free_n:  # type: ignore[attr-defined]
            options.setdefault("n", self.n)
        if "parameter_fabrication" in known:
            options.setdefault("parameter_fabrication", fabrication)
        elif fabrication["name"] != "dense":
            what = f"fabrication should be dense, because the fusion {name!r} takes none"
            raise ConfigError(f"{what}; found {fabrication['name']!r}.")
        dims = self.views_
        if self.encoder != "none":
            dims = [self.encoder_width or self.n] * len(dims)
        return factory.create(name, dims=dims, **options)

    def _checked(self, X: Any, y: Any = None, mask: Any = None) -> tuple[list[npt.NDArray[Any]], Any, Any]:
        """Return the views, y and the mask, checked; y is given when fitting, and X then sets the widths."""
        check_unmasked("y", y)
        if isinstance(y, list | tuple) and len({isinstance(label, str) for label in y}) > 1:
            raise FusionError("y should contain either texts or numbers; found both, which NumPy makes texts.")
        check_unmasked("mask", mask)
        parts = isinstance(X, list | tuple) and X and all(getattr(view, "ndim", None) == 2 for view in X)
        for view in X if parts else [X]:
            check_order("X and mask", view, mask)
        views, y = self._checked_list(X, y) if parts else self._checked_matrix(X, y)
        return views, y, None if mask is None else np.asarray(mask)

    def _checked_matrix(self, X: Any, y: Any) -> tuple[list[npt.NDArray[Any]], Any]:
        """Return the views of one matrix and y, checked by scikit-learn, but for NaN and infinite values."""
        check_values("X", X)
        if y is not None:
            X, y = validate_data(self, X, y, dtype=REAL, ensure_all_finite=False)
            self.views_ = self._widths(X.shape[1])
            names = getattr(self, "feature_names_in_", None)
            ends = np.cumsum(self.views_)[:-1]
            self._names: list[Names] = [None] * len(self.views_) if names is None else np.split(names, ends)
        else:
            X = validate_data(self, X, reset=False, dtype=REAL, ensure_all_finite=False)
        # In one layout, because the order of sums depends on it.
        return [np.ascontiguousarray(view) for view in np.split(X, np.cumsum(self.views_)[:-1], axis=1)], y

    def _checked_list(self, X: Sequence[Any], y: Any) -> tuple[list[npt.NDArray[Any]], Any]:
        """Return the views of a list and y, as ``_checked_matrix`` does."""
        fitting, widths = y is not None, [view.shape[1] for view in X]
        wanted = self.views if fitting else self.views_
        if isinstance(wanted, Integral):
            if wanted != len(widths):
                raise DimsError(f"X should contain {wanted} views; found {len(widths)}.")
        elif wanted is not None and list(wanted) != widths:
            raise DimsError(f"X should contain views of the widths {list(wanted)}; found {widths}.")
        views, names = check_views(X, None if fitting else self._names)
        if fitting:
            _, y = check_X_y(views[0], y, ensure_all_finite=False)
            self.views_, self._names, self.n_features_in_ = widths, names, sum(widths)
            known = [one for one in names if one is not None]
            if len(known) == len(names):
                self.feature_names_in_: npt.NDArray[np.object_] = np.concatenate(known)
        return views, y

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


def _check_classes(classes: npt.NDArray[Any], rows: int) -> None:
    """Refuse a single class; warn where the numbers are rather measurements than classes."""
    if len(classes) < 2:
        raise FusionError(f"y should contain at least two classes; found one class, {classes.tolist()[0]!r}.")
    if classes.dtype.kind in "fiu" and len(classes) > 20 and 3 * len(classes) > rows:
        found = f"found {len(classes)} different numbers in {rows} rows, which may be the target of a regression"
        warnings.warn(f"y should contain classes; {found}.", UserWarning, stacklevel=5)


def _named(value: Any, key: str) -> dict[str, Any]:
    """Return the name and the options of an operator, from its name alone or from a dict of both."""
    value = to_python(value)
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return dict(value)
    raise ConfigError(f"{key} should be a name, or a dict with a name and options; found {value!r}.")
