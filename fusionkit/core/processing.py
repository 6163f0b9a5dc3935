"""``preprocess`` and ``postprocess``: the steps applied to each view before an operator, and to its result after it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from fusionkit.core.allowed import resolve_target
from fusionkit.errors import ConfigError, FusionError, nearest

#: The names that a config may use: the module, and its positional arguments; ``"{view}"`` is the width of the view.
NAMES: dict[str, tuple[type[nn.Module], tuple[Any, ...]]] = {
    "identity": (nn.Identity, ()),
    "layer_norm": (nn.LayerNorm, ("{view}",)),
    "rms_norm": (nn.RMSNorm, ("{view}",)),
    "linear": (nn.Linear, ("{view}", "{view}")),
    "dropout": (nn.Dropout, ()),
    "relu": (nn.ReLU, ()),
    "leaky_relu": (nn.LeakyReLU, ()),
    "elu": (nn.ELU, ()),
    "gelu": (nn.GELU, ()),
    "silu": (nn.SiLU, ()),
    "softplus": (nn.Softplus, ()),
    "sigmoid": (nn.Sigmoid, ()),
    "tanh": (nn.Tanh, ()),
    "softmax": (nn.Softmax, (-1,)),
}

Step = Callable[[Tensor], Tensor]


class Processing(nn.Module):
    """A chain of steps for each of k tensors; every step keeps the shape.

    A step from a config is built once per tensor, with the width of that tensor.  A step given as a module or a
    callable is shared by all tensors.
    """

    def __init__(self, role: str, chains: Sequence[Sequence[Step]], made: Sequence[Step] = ()) -> None:
        super().__init__()
        self.role = role
        # Each module is registered once, and chains refer to it by index, so that copies and .to() stay consistent.
        modules = {id(step): step for chain in chains for step in chain if isinstance(step, nn.Module)}
        self.steps = nn.ModuleList(modules.values())
        index = {identity: i for i, identity in enumerate(modules)}
        self._chains = tuple(tuple(index.get(id(step), step) for step in chain) for chain in chains)
        self._made = tuple(index[id(step)] for step in made)

    @classmethod
    def of(cls, role: str, spec: Any, widths: Sequence[int], factory: Mapping[str, Any]) -> Processing | None:
        """Return the processing that ``spec`` describes for tensors of these widths; None if there are no steps.

        Args:
            role: "preprocess" or "postprocess".
            spec: a module, a callable, a name, a config, or a list of them.
            widths: one per tensor.
            factory: device and dtype of modules that are built here; None for the default.

        Raises:
            FusionError: ``spec`` is none of these.
            ConfigError: a name or option is unknown, or a ``_target_`` is not allowed.
        """
        specs = list(spec) if isinstance(spec, Sequence) and not isinstance(spec, str | nn.Module) else [spec]
        specs = [one for one in specs if one is not None]
        if not specs:
            return None
        per_step: list[list[Step]] = []
        made: list[Step] = []
        for i, one in enumerate(specs):
            where = f"{role}[{i}]" if len(specs) > 1 else role
            if isinstance(one, str | Mapping):
                modules = [_make(where, one, width, factory) for width in widths]
                per_step.append([*modules])
                made += modules
            elif isinstance(one, type) or not callable(one):
                raise FusionError(f"{where} should be a module, a callable, a config or a list of them; found {one!r}.")
            else:
                per_step.append([one] * len(widths))
        return cls(role, list(zip(*per_step, strict=True)), made)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Reset the modules built from configs; modules that the user passed may be trained and are not reset."""
        resets = [reset for i in self._made if callable(reset := getattr(self.steps[i], "reset_parameters", None))]
        reset_all(resets, self, generator)

    def restrict(self, indices: Sequence[int]) -> Processing:
        """Return a copy for some of the tensors."""
        steps, callables = copy.deepcopy((self.steps, self._chains))
        chains = [[steps[step] if isinstance(step, int) else step for step in callables[i]] for i in indices]
        kept = {id(step) for chain in chains for step in chain}
        return Processing(self.role, chains, [step for i in self._made if id(step := steps[i]) in kept])

    def forward(self, tensors: Sequence[Any]) -> list[Any]:
        """Apply the chain of each tensor, (..., n_i) -> (..., n_i); what is None stays None."""
        out = []
        for i, (tensor, chain) in enumerate(zip(tensors, self._chains, strict=True)):
            value = tensor
            if value is None:
                chain = ()
            for j, step in enumerate(chain):
                apply = self.steps[step] if isinstance(step, int) else step
                try:
                    value = apply(value)
                except Exception as error:
                    if not is_dynamo_compiling():
                        error.add_note(self._where(i, j, apply, value))
                    raise
                if not isinstance(value, Tensor) or value.shape != tensor.shape:
                    found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                    of_view = f" of view {i}" if self.role == "preprocess" else ""
                    shape = tuple(tensor.shape)
                    raise FusionError(f"{self.role} should keep the shape{of_view}, {shape}; found {found}.")
            out.append(value)
        return out

    def _where(self, i: int, j: int, step: Any, value: Any) -> str:
        name = type(step).__name__ if isinstance(step, nn.Module) else getattr(step, "__name__", repr(step))
        given = f"{tuple(value.shape)} of {value.dtype} on {value.device}"
        of_view = f"view {i}, {given}" if self.role == "preprocess" else f"the result, {given}"
        return f"In {self.role}, step {j} of {len(self._chains[i])}, {name}, for {of_view}; steps are applied in turn."


def pop_class(where: str, options: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """Remove from the options of a step what names its class; return the class, and its positional arguments.

    Raises:
        ConfigError: a ``_target_`` that is not allowed, or a name that is not in ``NAMES``.
    """
    if "_target_" in options:
        return resolve_target(str(options.pop("_target_")), f"{where}._target_"), ()
    name = options.pop("name", None)
    if isinstance(name, str) and name in NAMES:
        return NAMES[name]
    hint = nearest(str(name), NAMES)
    raise ConfigError(f"{where}.name should be one of {', '.join(NAMES)}; found {name!r}.{hint}")


def reset_all(resets: Sequence[Callable[[], object]], owner: nn.Module, generator: torch.Generator | None) -> None:
    """Call the resets; the modules of torch draw from the global generators, which ``generator`` seeds meanwhile."""
    if not resets:
        return
    devices = {tensor.device for tensor in owner.parameters() if tensor.is_cuda}
    with torch.random.fork_rng(devices, enabled=generator is not None):
        if generator is not None:
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        for reset in resets:
            reset()


def _make(where: str, spec: str | Mapping[str, Any], width: int, factory: Mapping[str, Any]) -> nn.Module:
    """Build one module from a name, ``{name: ..., option: ...}`` or ``{_target_: torch.nn..., option: ...}``.

    ``where`` is the name of the step in messages.
    """
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    cls, args = pop_class(where, options)
    known = inspect.signature(cls).parameters
    for option in options:
        if option not in known:
            should = f"be an option of {cls.__name__} ({', '.join(known)})"
            raise ConfigError(f"{where}.{option} should {should}; found {option!r}.{nearest(option, known)}")
    defaults = {key: value for key, value in factory.items() if key in known and value is not None}
    # Options of the config win over the positional arguments in NAMES.
    defaults |= dict(zip(known, args, strict=False))
    try:
        module = cls(**{key: _fill(value, width) for key, value in (defaults | options).items()})
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{where} should build {cls.__name__}; found: {error}.") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{where} should build a torch.nn.Module; found {type(module).__name__}.")
    return module


def _fill(value: Any, width: int) -> Any:
    if value == "{view}":
        return width
    if isinstance(value, list | tuple):
        return [_fill(item, width) for item in value]
    return value
