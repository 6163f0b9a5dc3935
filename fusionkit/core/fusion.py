"""The base class of every fusion operator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypedDict, TypeVar

import torch
from torch import Tensor, nn

from fusionkit.core import masking, restriction
from fusionkit.core.construction import ConstructMeta, inherit_options, registered_key, writable
from fusionkit.core.external_w import size_of_w, with_parameters
from fusionkit.core.processing import Processing, reset_all
from fusionkit.core.traits import Traits
from fusionkit.core.validation import DTYPE_NAMES, DTYPES, check_device, check_dims, check_dtype, check_size
from fusionkit.errors import DimsError, FusionError
from fusionkit.kernels.modes import autocasting
from fusionkit.registry import lookup


class FusionOptions(TypedDict, total=False):
    """The options that every fusion accepts besides ``n`` and ``dims``; ``Fusion`` describes each.

    A subclass declares only its own options and passes these on, so that type checkers and editors know them::

        def __init__(self, n=None, dims=None, *, rank: int = 4, **common: Unpack[FusionOptions]) -> None:
            super().__init__(n, dims, **common)
            self.rank = rank

    At run time the signature of the subclass lists them one by one, in place of ``**common``.
    """

    name: str | None
    require_parameters: bool
    preprocess: Any
    postprocess: Any
    device: Any
    dtype: Any


Reset = TypeVar("Reset", bound=Callable[..., None])


def _with_missing(calculate: Callable[[Any], int]) -> Callable[[Any], int]:
    """Wrap the ``calculate_l`` of a subclass, so that it counts the parameters of the option ``missing``."""

    @functools.wraps(calculate)
    def calculate_l(self: Fusion) -> int:
        l = calculate(self)
        # Counted once: not where a subclass calls it by super().
        return l + self._size_of_missing() if type(self).calculate_l is calculate_l else l

    return calculate_l


def _with_processing(reset: Reset) -> Reset:
    """Wrap the ``reset_parameters`` of a subclass, so that it also resets pre- and postprocess.

    An operator with ``require_parameters=False`` has no own parameters, only frozen parts, which are reset instead.
    """

    @functools.wraps(reset)
    def reset_parameters(self: Fusion, *args: Any, **kwargs: Any) -> None:
        if self.require_parameters:
            reset(self, *args, **kwargs)
        else:
            for module in self.modules():
                refill = getattr(module, "reset_frozen", None)
                if callable(refill):
                    refill()
        for processing in (self.preprocess, self.postprocess):
            if processing is not None:
                processing.reset_parameters(args[0] if args else kwargs.get("generator"))
        if self.stand_in is not None and self.require_parameters:
            self.stand_in.reset_parameters()

    return reset_parameters  # type: ignore[return-value]


class Fusion(nn.Module, metaclass=ConstructMeta):
    """Combine k views ``A_i`` of shape (..., n_i) into one tensor of shape (..., n).

    A subclass must write ``calculate_n``, ``calculate_l`` and ``_fuse``.  If it has parameters, it also writes
    ``__init__``, which creates them and ends with ``self.reset_parameters()``, and ``reset_parameters``.  It may
    declare ``traits`` and ``examples``.  ``FusionOptions`` shows how a constructor declares its own options.

    Args:
        n: width of the output; None where it follows from ``dims``.
        dims: widths of the views; None makes an operator without parameters, which can only calculate sizes.
        name: a label; defaults to the registry key.
        require_parameters: False makes an operator that owns no parameters; every call must then pass ``w``.
        preprocess: applied to each view: a module, a callable, a config such as ``{"name": "layer_norm"}``, or a list
            of them.  It must keep the width.
        postprocess: the same for the result.
        device: of parameters and buffers.
        dtype: of parameters and buffers; a ``torch.dtype`` or its name.

    Raises:
        DimsError: a width is not a positive integer, ``n`` is missing where it does not follow from ``dims``, or
            ``n`` contradicts ``dims``.
        OptionError: an unknown option.
    """

    traits: ClassVar[Traits] = Traits()
    #: What stands for an absent view behind the preprocess.
    fill: float = 0.0
    #: Names of the ModuleLists, tensors and options that have an entry per view, from which ``restrict`` picks.
    per_view: ClassVar[tuple[str, ...]] = ()

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
        super().__init__()
        self.n = None if n is None else check_size("n, the width of the output,", n)
        self.dims = None if dims is None else check_dims(dims)
        self.require_parameters = bool(require_parameters)
        self._name = name
        self._n_given = self.n is not None
        self._factory: dict[str, Any] = {"device": check_device(device), "dtype": check_dtype(dtype)}
        self._layout: dict[str, tuple[int, ...]] = {}  # Names and shapes of the own parameters, in the order of w.
        self._key: str | None = None
        self._arguments: dict[str, Any] = {}
        self._specs = (preprocess, postprocess)
        self.preprocess: Processing | None = None
        self.postprocess: Processing | None = None
        self.stand_in: masking.Missing | None = None

    # ------------------------------------------------------------------ what a subclass writes

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the width n of the output for ``dims`` (default: the operator's own).  Stores nothing.

        Raises:
            DimsError: ``dims`` do not fit, or neither they nor n are known.
        """
        raise NotImplementedError(f"{type(self).__name__} should define calculate_n.")

    def calculate_l(self) -> int:
        """Return l, the number of learnable parameters of the operator itself.  Stores nothing.

        Raises:
            DimsError: the operator was created without ``dims``.
        """
        raise NotImplementedError(f"{type(self).__name__} should define calculate_l.")

    def _fuse(self, x: Sequence[Tensor]) -> Tensor:
        """Combine validated views, x: k tensors (..., n_i) -> (..., n)."""
        raise NotImplementedError(f"{type(self).__name__} should define _fuse.")

    def _fuse_masked(self, x: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Combine views filled with ``fill`` where the mask (..., k) is False, x: k tensors (..., n_i) -> (..., n)."""
        return self._fuse(x)

    def declare_traits(self, **changes: Any) -> None:
        """Change traits of this instance, where they depend on options; for the constructor of a subclass."""
        object.__setattr__(self, "traits", replace(self.traits, **changes))

    def _explain(self, x: Sequence[Tensor], mask: Tensor | None) -> dict[str, Tensor]:
        """Return what ``explain`` does, with ``output`` as ``_fuse`` computes it, or for a mask ``_fuse_masked``."""
        return {}

    @_with_processing
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialize the parameters again, also those of pre- and postprocess that were built from configs.

        With ``require_parameters=False`` only those of pre- and postprocess exist.
        """
        own = [child for name, child in self.named_children() if name not in ("preprocess", "postprocess", "stand_in")]
        resets = [reset for child in own if callable(reset := getattr(child, "reset_parameters", None))]
        reset_all(resets, self, generator)

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        """Return keyword sets with which the conformance kit builds the operator."""
        return [{"dims": [4, 4, 4], **({"n": 5} if cls.traits.free_n else {})}]

    # ------------------------------------------------------------------ what a subclass may use

    def resolve_dims(self, dims: Sequence[int] | None = None) -> tuple[int, ...]:
        """Return ``dims``, or the operator's own, as a tuple.

        Raises:
            DimsError: both are None, or a width is not a positive integer.
        """
        if dims is not None:
            return check_dims(dims)
        if self.dims is None:
            raise DimsError(f"{self.name} should be created with dims, the widths of its views; found None.")
        return self.dims

    def resolve_equal_dims(self, dims: Sequence[int] | None = None) -> int:
        """Return the one width that all views share.

        Raises:
            DimsError: they differ; the message names the first view that does.
        """
        widths = self.resolve_dims(dims)
        for i, width in enumerate(widths):
            if width != widths[0]:
                found = f"dims {list(widths)}, where view {i} has width {width} and view 0 has {widths[0]}"
                raise DimsError(f"{self.name} should get views of equal width; found {found}.")
        return widths[0]

    def resolve_free_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the given n, or else the width that all views share; ``calculate_n`` of operators with a free n.

        Raises:
            DimsError: n was not given, and the widths differ or are unknown.
        """
        widths = None if dims is None and self.dims is None else self.resolve_dims(dims)
        if self._n_given and self.n is not None:
            return self.n
        if widths is None or len(set(widths)) > 1:
            found = "neither n nor dims" if widths is None else f"dims {list(widths)}"
            raise DimsError(f"{self.name} should get n, or views of equal width; found {found}.")
        return widths[0]

    # ------------------------------------------------------------------ what a user calls

    def forward(
        self,
        x: Sequence[Tensor | None],
        w: Tensor | None = None,
        device: torch.device | str | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Fuse the views.

        Args:
            x: list or tuple of k floating-point tensors (..., n_i) with the same leading dimensions, dtype and device;
                None stands for a view that is absent in every row.
            w: external parameters (l,) or (1, l), in the order of ``flat_w``, used instead of the module's own.
            device: where to move ``x``, ``w`` and ``mask``; None moves nothing.
            mask: bool (..., k), True where a view of a row is present (the opposite of ``key_padding_mask``); what it
                says is absent may hold anything.  None: every view that is not None is present.

        Returns:
            A tensor (..., n) of the views' dtype.

        Raises:
            DimsError: the number of views or a width is wrong.
            FusionError: another input does not fit, ``w`` is missing where one is needed, or the operator refuses
                masks.
        """
        if device is not None:
            x, w, mask = _moved(x, w, mask, check_device(device))
        views = self._views(x) if mask is None else None
        if views is None:
            return self._masked(x, w, mask)
        if self.preprocess is not None:
            views = self.preprocess(views)
        out = self._with(w, views[0])._fuse(views)
        if self.postprocess is not None:
            out = self.postprocess([out])[0]
        return out

    def explain(
        self, x: Sequence[Tensor | None], w: Tensor | None = None, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return how the operator came to its result, by the computation of ``forward``; {} where it has no such parts.

        Args:
            x: as for ``forward``.
            w: as for ``forward``.
            mask: as for ``forward``.

        Returns:
            A dict of tensors whose keys are the same for every call, in training and in evaluation.

            - ``output`` (..., n): what ``forward`` returns;
            - ``weights`` (..., k): how much each view counts, 0 where it is absent and no placeholder stands for it; of
              an operator with ``gates`` for every coordinate, the mean over those of the view;
            - ``loss`` (): to be added to the loss of the training, with its factor;
            - others that the docstring of the operator names.

        Raises:
            DimsError, FusionError: as ``forward``.
        """
        if not self.explains():
            return {}
        said: dict[str, Tensor] = {}
        views = self._views(x) if mask is None else None
        if views is None:
            out = self._masked(x, w, mask, said)
        else:
            views = views if self.preprocess is None else self.preprocess(views)
            out = self._with(w, views[0]).combine(views, None, said)
            out = out if self.postprocess is None else self.postprocess([out])[0]
        return {**said, "output": out}

    @classmethod
    def explains(cls) -> bool:
        """Whether ``explain`` returns anything."""
        return cls._explain is not Fusion._explain

    def restrict(self, views: Sequence[int]) -> Fusion:
        """Return the operator on these views, in this order, with copies of what belongs to them.

        The base class builds the operator with fewer ``dims`` and copies parameters and buffers by their names;
        ``per_view`` names those with an entry per view.  Where more changes, the class writes its own.

        Args:
            views: different indices of views, at least one.

        Raises:
            FusionError: other indices, or a parameter whose shape depends on the views and is not in ``per_view``.
        """
        return self.restricted(views)

    @property
    def takes_masks(self) -> bool:
        """Whether views may be absent, by the trait ``missing`` or by the option of that name."""
        return self.traits.missing != "refuse" or self.stand_in is not None

    @classmethod
    def absent_view(cls) -> str:
        """Return in words what an absent view means, and what a row without any view gives at the first example."""
        if cls.traits.missing == "refuse":
            return "refused; missing=placeholder and missing=indicator admit it"
        try:
            op = cls(**next(iter(cls.examples()))).eval()
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            return cls.traits.missing  # It cannot be built, as `fusionkit check` says.
        x = [torch.zeros(1, width) for width in op.resolve_dims()]
        values = op(x, mask=torch.zeros(1, len(x), dtype=torch.bool)).unique().tolist()
        empty = f"{values[0]:g}" if len(values) == 1 else "a value that depends on the parameters"
        means = "left out (skip)" if cls.traits.missing == "skip" else f"as if filled with {op.fill:g} (neutral)"
        return f"{means}; a row without any view gives {empty}"

    def flat_w(self) -> Tensor:
        """Return the own parameters as one vector (l,), in the order of ``named_parameters()``; differentiable.

        Raises:
            FusionError: the operator was created with ``require_parameters=False``.
        """
        owned = [parameter.reshape(-1) for _, parameter in self._own_parameters()]
        if len(owned) < len(self._layout):
            raise FusionError(f"{self.name} should own its parameters; found require_parameters=False.")
        return torch.cat(owned) if owned else torch.empty(0, **self._factory)

    def to_config(self) -> dict[str, Any]:
        """Return JSON types with which ``fusionkit.create(**config)`` builds an equal operator.

        Raises:
            ConfigError: the class is not registered, or an argument has no JSON form.
        """
        config = writable(self.name, self._arguments) | {"name": registered_key(self)}
        dtypes = {tensor.dtype for _, tensor in self._own_parameters() if tensor.is_floating_point()}
        dtypes = dtypes or {tensor.dtype for tensor in self.parameters() if tensor.is_floating_point()}
        if len(dtypes) == 1 and (dtype := dtypes.pop()) != (self._factory["dtype"] or torch.float32):
            config["dtype"] = str(dtype).removeprefix("torch.")
        return config

    @property
    def name(self) -> str:
        """The given label, else the registry key, else the name of the class."""
        return self._name or self._key or lookup.key_of(type(self)) or type(self).__name__

    @name.setter
    def name(self, value: str) -> None:
        self._name = value

    def extra_repr(self) -> str:
        """Return the given arguments, dims and n."""
        sizes = {"dims": self.dims, "n": self.n}
        return ", ".join(f"{key}={value!r}" for key, value in (self._arguments | sizes).items() if key != "name")

    # ------------------------------------------------------------------ construction

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = inherit_options(cls.__init__, super(cls, cls).__init__)  # type: ignore[method-assign]
        definer = next(base for base in cls.__mro__ if "calculate_l" in vars(base))
        if definer is cls or not issubclass(definer, Fusion):  # That of a mixin is not wrapped yet.
            cls.calculate_l = _with_missing(cls.calculate_l)  # type: ignore[assignment, method-assign]
        if "reset_parameters" in cls.__dict__:
            cls.reset_parameters = _with_processing(cls.reset_parameters)  # type: ignore[method-assign]

    def _constructed(self, key: str | None, arguments: dict[str, Any]) -> None:
        """Finish the construction: check n, build pre- and postprocess, remove parameters that come from outside."""
        self._key, self._arguments = key, arguments
        if self.dims is not None:
            width = self.calculate_n()
            if self.n is not None and self.n != width:
                should = f"be {width} for {self.name} with dims {list(self.dims)}"
                raise DimsError(f"n, the width of the output, should {should}; found {self.n}.")
            self.n = width
            preprocess, postprocess = self._specs
            self.preprocess = Processing.of("preprocess", preprocess, self.dims, self._factory)
            self.postprocess = Processing.of("postprocess", postprocess, (width,), self._factory)
        self._specs = (None, None)
        self._layout = {name: tuple(parameter.shape) for name, parameter in self._own_parameters()}
        if not self.require_parameters:
            for module, _ in self._own_modules():
                for name in module._parameters:
                    module._parameters[name] = None

    def _own_modules(self) -> Iterator[tuple[nn.Module, str]]:
        """Yield this module and its descendants, without pre- and postprocess, each once with its name prefix."""
        yield self, ""
        memo: set[nn.Module] = set()
        for name, child in self._modules.items():
            if child is not None and name not in ("preprocess", "postprocess"):
                for path, module in child.named_modules(memo, prefix=name):
                    yield module, path + "."

    def _own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the own parameters in the order of ``named_parameters()``; a tied one at each of its entries."""
        for module, prefix in self._own_modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    yield prefix + name, parameter

    # ------------------------------------------------------------------ a call

    def _masked(
        self, x: Sequence[Tensor | None], w: Tensor | None, mask: Tensor | None, said: dict[str, Tensor] | None = None
    ) -> Tensor:
        """Fuse views of which some are absent; ``said``: see ``combine``."""
        views, checked = self._masked_views(x, mask)
        own = self._with(w, next(view for view in views if view is not None))
        out = own.fuse_present(views, checked, said, by_row=mask is not None)
        return out if self.postprocess is None else self.postprocess([out])[0]

    def combine(self, x: Sequence[Tensor], mask: Tensor | None, said: dict[str, Tensor] | None) -> Tensor:
        """Return the output of ``_fuse`` or ``_fuse_masked``; a given ``said`` gets all that ``_explain`` returns."""
        if said is None:
            return self._fuse(x) if mask is None else self._fuse_masked(x, mask)
        said.update(self._explain(x, mask))
        return said["output"]

    _masked_views, fuse_present = masking.masked_views, masking.fuse_present
    add_missing, attach, _size_of_missing = masking.add_missing, masking.attach, masking.size_of_missing
    restricted, check_views, surround = restriction.restricted, restriction.check_views, restriction.surround
    adopt, _with_views = restriction.adopt, restriction.with_views

    def _with(self, w: Tensor | None, view: Tensor) -> Fusion:
        """Return the operator with its own parameters, or a copy with those cut from ``w``."""
        if w is not None:
            return with_parameters(self, w, view)
        if self._layout:
            # The first parameter is enough: modules are moved and cast as a whole.
            parameter = self._parameters.get(next(iter(self._layout)))
            if parameter is None or parameter.dtype is not view.dtype or parameter.device != view.device:
                self._check_owned(view)
        return self

    def _views(self, x: Sequence[Tensor | None]) -> list[Tensor] | None:
        """Return the checked views; None where one of them is.

        Valid views take one loop without function calls, whose cost would show with one row or many views; all others
        go to ``_checked_views``.
        """
        dims = self.dims
        # A tuple of types: a union would be created at each call.
        if isinstance(x, (list, tuple)) and x and dims is not None and len(x) == len(dims):
            try:
                shape, dtype, device = x[0].shape, x[0].dtype, x[0].device
                if shape and dtype in DTYPES:
                    last = shape[-1]
                    for i, view in enumerate(x):
                        width = dims[i]
                        if width != last:
                            shape, last = torch.Size((*shape[:-1], width)), width
                        if view.shape != shape or view.dtype is not dtype or view.device != device:
                            break
                    else:
                        return list(x)
            except AttributeError:
                pass
        if isinstance(x, (list, tuple)) and any(view is None for view in x):
            return None
        return self._checked_views(x)  # type: ignore[return-value]

    def _checked_views(self, x: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Validate the views that are not None one by one; under autocast, promote different dtypes.

        Raises:
            FusionError: names the view and what is wrong with it.
        """
        if not isinstance(x, list | tuple):
            raise FusionError(f"x should be a list or tuple of tensors, one per view; found {type(x).__name__}.")
        if not x:
            raise FusionError("x should contain at least one view; found none.")
        dims = self.resolve_dims()
        if len(x) != len(dims):
            raise DimsError(f"x should contain {len(dims)} views, of widths {list(dims)}; found {len(x)}.")
        number, first = next((i, view) for i, view in enumerate(x) if view is not None)
        for i, (view, width) in enumerate(zip(x, dims, strict=True)):
            if view is None:
                continue
            if not isinstance(view, Tensor):
                raise FusionError(f"View {i} should be a tensor; found {type(view).__name__}.")
            shape = view.shape
            if not shape or shape[-1] != width:
                found = shape[-1] if shape else "no dimension"
                raise DimsError(f"View {i} should have width {width}; found {found} (shape {tuple(shape)}).")
            if shape[:-1] != first.shape[:-1]:
                leading = f"the leading dimensions of view {number}, {tuple(first.shape[:-1])}"
                raise FusionError(f"View {i} should have {leading}; found {tuple(shape[:-1])}.")
            if view.device != first.device:
                raise FusionError(f"View {i} should be on {first.device}, as view {number} is; found {view.device}.")
        return _common_dtype(x)

    def _check_owned(self, view: Tensor) -> None:
        """Raise an error if the operator should own parameters and does not, or if they do not fit the views."""
        if not self.require_parameters:
            raise FusionError(
                f"{self.name} has require_parameters=False and should get w with {size_of_w(self)} elements; "
                "found None."
            )
        parameter = next((owned for _, owned in self._own_parameters()), None)
        if parameter is None:
            return
        reason = f"as the parameters of {self.name} are"
        if parameter.device != view.device:
            raise FusionError(f"The views should be on {parameter.device}, {reason}; found {view.device}.")
        if parameter.dtype != view.dtype and not autocasting(view.device):
            raise FusionError(f"The views should be of dtype {parameter.dtype}, {reason}; found {view.dtype}.")


class ElementwiseFusion(Fusion):
    """Combine k views of one width n, (..., n) each -> (..., n), without parameters unless a subclass adds some.

    A subclass writes ``_fuse``.
    """

    def calculate_n(self, dims: Sequence[int] | None = None) -> int:
        """Return the common width of the views; widths that differ are a ``DimsError``."""
        return self.resolve_equal_dims(dims)

    def calculate_l(self) -> int:
        """Return 0."""
        return 0


def _moved(x: Any, w: Any, mask: Any, device: torch.device | None) -> tuple[Any, Any, Any]:
    """Return views, w and mask on ``device``; what is not a tensor is left for the validation."""

    def move(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    return ([move(view) for view in x] if isinstance(x, list | tuple) else x), move(w), move(mask)


def _common_dtype(x: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the views in one floating dtype; different dtypes are promoted under autocast, else an error."""
    present = [(i, view) for i, view in enumerate(x) if view is not None]
    for i, view in present:
        if view.dtype not in DTYPES:
            raise FusionError(f"View {i} should have one of the dtypes {', '.join(DTYPE_NAMES)}; found {view.dtype}.")
    number, first = present[0]
    if autocasting(first.device):
        dtype = functools.reduce(torch.promote_types, (view.dtype for _, view in present))
        return [None if view is None else view.to(dtype) for view in x]
    for i, view in present:
        if view.dtype != first.dtype:
            raise FusionError(f"View {i} should be of dtype {first.dtype}, as view {number} is; found {view.dtype}.")
    return list(x)


lookup.BASES["fusion"] = Fusion
