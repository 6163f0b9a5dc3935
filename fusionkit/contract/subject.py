"""The argument of a check: one operator (or fabrication) at one case, with methods to build it and to call it.

A ``Subject`` joins a ``Source``, the class and its registry entry, with a ``Case``, the arguments of the constructor.
A fabrication is built inside a host, ``parameterized_concatenation``, so that the checks of operators apply to it.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from fusionkit import registry
from fusionkit.contract.cases import Case, fabrication_cases, fusion_cases
from fusionkit.contract.rules import Kind, Violation, expect, located, no_error, outcome, skip
from fusionkit.core.construction import Unwritable, construct
from fusionkit.errors import RegistryError
from fusionkit.fabrication import Fabrication
from fusionkit.fusion import Fusion, Traits
from fusionkit.registry.catalogue import Record

__all__ = ["HOST", "UNBUILT", "Case", "FabricationSubject", "FusionSubject", "Source", "Subject"]

#: The operator in which a fabrication is checked.
HOST = "parameterized_concatenation"

#: The beginning of the findings of an operator that cannot be built.
UNBUILT = "the constructor should build"
#: Traits that an operator takes over from the fabrications in it.
INHERITED = ("stochastic", "train_eval_differ", "once_differentiable_only", "constant")


@dataclass(frozen=True)
class Source:
    """A class, and its registry entry.

    Attributes:
        id: ``<distribution>/<name>`` if registered, else ``module:Class``.
        kind: fusion or fabrication.
        record: its registry entry, None if it is not registered.
        cls: the class; None means the target of the record, imported when it is needed.
        instance: the object to check, if one was given.
        known: the cases, once they are listed.
        notes: findings about the class that checks share.
    """

    id: str
    kind: Kind
    record: Record | None
    cls: type | None = None
    instance: nn.Module | None = None
    known: list[Case] = field(default_factory=list, compare=False)
    notes: dict[str, Any] = field(default_factory=dict, compare=False)


class Subject:
    """One operator or fabrication at one case."""

    kind: Kind

    def __init__(self, source: Source, case: Case | None = None, seed: int = 0) -> None:
        self.source = source
        self._case = case
        self.seed = seed

    def __repr__(self) -> str:
        return f"<{self.source.kind} {self.source.id}{f' at {self._case}' if self._case else ''}>"

    def at(self, case: Case | None) -> Self:
        """Return the same subject at another case."""
        return type(self)(self.source, case, self.seed)

    # ------------------------------------------------------------------ the class and its registry entry

    @property
    def id(self) -> str:
        """``<distribution>/<name>``, or ``module:Class``."""
        return self.source.id

    @property
    def names(self) -> set[str]:
        """The names that mean it, ``id``, ``key``, and that of the class where it is not registered."""
        return {self.id, self.key or self.id.rpartition(":")[2]}

    @property
    def key(self) -> str | None:
        """Its registry key; None for an unregistered subject."""
        return self.source.record.key if self.source.record else None

    @property
    def record(self) -> Record:
        """Its registry entry; skips the check for an unregistered subject."""
        if self.source.record is None:
            skip("needs a registry entry, and the subject is not registered")
        return self.source.record

    @property
    def cls(self) -> type:
        """The class; a violation if it cannot be imported."""
        if self.source.cls is not None:
            return self.source.cls
        try:
            return registry.load(self.kind, self.record.qualified)
        except RegistryError as error:
            raise Violation("the target should be importable", str(error)) from error

    @property
    def traits(self) -> Traits:
        """Its declared traits; a violation if they are none."""
        traits = getattr(self.source.instance or self.cls, "traits", None)
        if not isinstance(traits, Traits):
            raise Violation("traits should be a fusionkit.Traits", repr(traits))
        return traits

    def accepts(self, option: str) -> bool:
        """Whether the constructor takes ``option``."""
        return option in inspect.signature(self.cls).parameters

    def offers(self, *options: str) -> bool:
        """Whether the constructor of the operator takes all of these options of the base class."""
        return all(self.accepts(option) for option in options)

    # ------------------------------------------------------------------ cases

    @property
    def case(self) -> Case:
        """The case; a violation if there is none because ``examples()`` failed."""
        if self._case is None:
            return self.cases()[0]
        if self._case.problem is not None:
            raise Violation(*self._case.problem)
        return self._case

    @property
    def options(self) -> dict[str, Any]:
        """A copy of the keywords of the case; skips the check where those of an instance are unknown."""
        for option, value in self.case.options.items():
            if isinstance(value, Unwritable):
                skip(f"needs to build the operator anew, and its argument {option} is {value.why}")
        return copy.deepcopy(dict(self.case.options))

    def cases(self) -> list[Case]:
        """Return the cases on which it is checked, at least one; computed once, as that builds operators."""
        if not self.source.known:
            try:
                found = self.list_cases()
            except Violation as violation:
                found = [Case(problem=(violation.should, violation.found))]
            self.source.known.extend(found)
        return list(self.source.known)

    def list_cases(self) -> list[Case]:
        """Return the cases from ``examples()`` and the generated ones."""
        raise NotImplementedError

    # ------------------------------------------------------------------ building it

    def construct(self, *, fresh: bool = False, **overrides: Any) -> Fusion:
        """Build the operator of the case; errors of the constructor pass through.

        Args:
            fresh: call the constructor also for an instance; without it, an instance is copied if possible.
            **overrides: options that replace those of the case.
        """
        raise NotImplementedError

    def _call_constructor(self, options: dict[str, Any]) -> Any:
        return construct(self.cls, self.key, options) if self.key else self.cls(**options)

    @property
    def dims(self) -> tuple[int, ...]:
        """The widths of the views of the case."""
        raise NotImplementedError

    def build(self, **overrides: Any) -> Fusion:
        """Build the operator of the case; a violation if that fails."""
        case = self._case or self.case
        try:
            return self.construct(**overrides)
        except Violation:
            raise
        except Exception as error:
            raise Violation(f"{UNBUILT} {case}{self._advice(error, case)}", located(error)) from error

    def _advice(self, error: Exception, case: Case) -> str:
        """Return how to mend an error of the constructor, as the end of a sentence."""
        if isinstance(error, TypeError) and " missing " in str(error):
            return ", and examples() should yield the options that it needs"
        if isinstance(error, AttributeError) and self._lacks_super():
            return ", and begin with super().__init__()"
        return ", or refuse it with a DimsError" if case.origin in ("generated", "crossed") else ""

    def _lacks_super(self) -> bool:
        """Whether the constructor leaves out that of ``nn.Module``."""
        cls: Any = self.cls
        made = cls.__new__(cls)
        outcome(lambda: made.__init__(**self.options))
        return "_modules" not in vars(made)

    def made(self) -> Fusion | Fabrication:
        """Return the object that is checked: the operator, or the fabrication itself."""
        return self.build()

    def promises(self, op: Fusion) -> Traits:
        """Return the traits of an operator from ``build``, including those of the fabrications in it.

        An operator that is stochastic in training only, such as dropout, is not stochastic in evaluation mode.
        """
        inside = [module.traits for module in op.modules() if isinstance(module, Fabrication)]
        gains = [traits.init_gain for traits in (op.traits, *inside)]
        inherited: dict[str, Any] = {
            name: any(getattr(traits, name) for traits in (op.traits, *inside)) for name in INHERITED
        }
        if inherited["stochastic"] and not op.training:
            inherited["stochastic"] = self._outputs_differ(op)
        return replace(
            op.traits,
            linear=op.traits.linear and not any(traits.stochastic for traits in inside),
            **inherited,
            memory_factor=max(traits.memory_factor for traits in (op.traits, *inside)),
            init_gain=(min(low for low, _ in gains), max(high for _, high in gains)),
        )

    def _outputs_differ(self, op: Fusion) -> bool:
        """Whether calls with the same views return different outputs."""
        tensors = (tensor for tensor in (*op.parameters(), *op.buffers()) if tensor.is_floating_point())
        like = next(tensors, torch.empty(0, dtype=torch.float64))
        x = self.views(32, dtype=like.dtype, device=like.device)
        owned = op.require_parameters or not op.calculate_l()
        w = {} if owned else {"w": torch.randn(op.calculate_l(), dtype=like.dtype, device=like.device)}
        with torch.no_grad():
            first, *others = (self.forward(op, x, **w) for _ in range(4))
            return any(not torch.equal(first, other) for other in others)

    def operator(self, *, dtype: torch.dtype = torch.float64, **overrides: Any) -> Fusion:
        """Return the operator of the case in evaluation mode, with parameters at random values."""
        op = self.build(dtype=dtype, **overrides)
        self.randomize(op)
        return op.eval()

    def deterministic_operator(self, *, dtype: torch.dtype = torch.float64, **overrides: Any) -> Fusion:
        """Return ``operator``; skips the check if it is stochastic."""
        op = self.operator(dtype=dtype, **overrides)
        if self.promises(op).stochastic:
            skip("the operator is stochastic")
        return op

    @staticmethod
    def randomize(op: nn.Module) -> None:
        """Set all parameters to random values: initial values of zero would hide what they multiply."""
        with torch.no_grad():
            for parameter in op.parameters():
                parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64) * 0.7)

    @staticmethod
    def own(op: Fusion) -> list[tuple[str, nn.Parameter]]:
        """Return the own parameters with their names."""
        return list(op._own_parameters())

    @staticmethod
    def prepared(op: Fusion) -> Iterator[tuple[str, Fabrication, int, tuple[int, ...]]]:
        """Yield path, fabrication, n and widths of every fabrication in the operator that has a size."""
        for path, module in op.named_modules():
            if isinstance(module, Fabrication) and module._sized is not None:
                yield path, module, module._sized.n, module._sized.dims

    def leaves_nothing(self, op: Fusion) -> bool:
        """Whether the case is generated and the output does not depend on the views: normalization of one entry."""
        if self.case.origin != "generated":
            return False
        with torch.no_grad():
            one, other = (self.forward(op, self.views(16)) for _ in range(2))
        return torch.equal(one, other)

    # ------------------------------------------------------------------ calling it

    def views(
        self,
        *lead: int,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        requires_grad: bool = False,
        dims: Sequence[int] | None = None,
    ) -> list[Tensor]:
        """Return random views of shape ``(*lead, n_i)``."""
        return [
            torch.randn(*lead, width, dtype=torch.float64).to(device, dtype).requires_grad_(requires_grad)
            for width in (self.dims if dims is None else dims)
        ]

    def forward(self, op: Any, x: Sequence[Tensor | None], **arguments: Any) -> Tensor:
        """Call the operator; a violation if it raises or does not return a dense tensor."""
        shapes = ", ".join(
            "None" if view is None else f"{tuple(view.shape)} {str(view.dtype).removeprefix('torch.')}" for view in x
        )
        given = f" with {' and '.join(arguments)}" if arguments else ""
        with no_error(f"forward should accept views of shape {shapes}{given}"):
            out = op(x, **arguments)
        if not isinstance(out, Tensor):
            raise Violation("forward should return a tensor", type(out).__name__ if out is not None else "None")
        expect(out.layout is torch.strided, "forward should return a dense tensor", str(out.layout))
        return out


class FusionSubject(Subject):
    """A fusion operator."""

    kind = "fusion"

    def list_cases(self) -> list[Case]:
        """Return the arguments of the instance as the only case, or the cases of ``fusion_cases``."""
        op = self.source.instance
        if op is None:
            return fusion_cases(self)
        assert isinstance(op, Fusion)
        options = {"dims": list(op.dims) if op.dims is not None else None, **op._arguments}
        for option in ("name", "device", "dtype"):
            options.pop(option, None)
        return [Case(options, origin="instance")]

    @property
    def dims(self) -> tuple[int, ...]:
        """The widths of the views of the case."""
        dims = self.case.options.get("dims")
        if dims is None:
            raise Violation("every keyword set of examples() should contain dims", str(self.case))
        return tuple(dims)

    def construct(self, *, fresh: bool = False, **overrides: Any) -> Fusion:
        """Build the operator of the case, with ``overrides``; see ``Subject.construct``."""
        given = self.source.instance
        if given is not None and not fresh and not set(overrides) - {"dtype"}:
            return copy.deepcopy(given).to(overrides.get("dtype"))  # type: ignore[return-value]
        options = {**self.options, **overrides}
        moved = {key: options.pop(key) for key in ("device", "dtype") if key in overrides and not self.accepts(key)}
        op: Fusion = self._call_constructor(options)
        return op.to(**moved) if moved else op


class FabricationSubject(Subject):
    """A fabrication; ``construct`` and ``build`` return the host, ``fabrication`` returns the fabrication itself."""

    kind = "fabrication"

    def offers(self, *options: str) -> bool:
        """Return True: the host takes all options of the base class."""
        return True

    def list_cases(self) -> list[Case]:
        """Return the cases of ``fabrication_cases``."""
        given = self.source.instance
        return fabrication_cases(self, given._arguments if isinstance(given, Fabrication) else None)

    @property
    def dims(self) -> tuple[int, ...]:
        """The widths of the views of the case."""
        dims = self.case.dims
        assert dims is not None
        return dims

    @property
    def size(self) -> tuple[int, int]:
        """(n, D) of the case."""
        n = self.case.n
        assert n is not None
        return n, sum(self.dims)

    def fabrication(self, **overrides: Any) -> Fabrication:
        """Return the fabrication of the case, with ``overrides`` of its options; it has no size yet."""
        given = self.source.instance
        if given is not None and not overrides:
            return copy.deepcopy(given)  # type: ignore[return-value]
        made: Fabrication = self._call_constructor({**self.options, **overrides})
        return made

    def check_size(self) -> None:
        """Raise a ValueError if the fabrication refuses the size of the case."""
        self.fabrication().checked_shapes(*self.size)

    def construct(self, *, fresh: bool = False, **overrides: Any) -> Fusion:
        """Build the host of the case, with ``overrides`` of the host's options."""
        registered = self.key is not None and self.source.instance is None
        spec = {"name": self.key, **self.options} if registered else self.fabrication()
        return self._host(self.size[0], self.dims, parameter_fabrication=spec, **overrides)

    def resized(self, n: int, dims: tuple[int, ...], options: Mapping[str, Any]) -> Fusion:
        """Return a host of another size on the meta device, with other options of the fabrication."""
        return self._host(n, dims, parameter_fabrication=self.fabrication(**options), device="meta")

    def _host(self, n: int, dims: tuple[int, ...], **options: Any) -> Fusion:
        host: Fusion = construct(registry.load("fusion", HOST), HOST, {"n": n, "dims": list(dims), **options})
        return host

    def made(self) -> Fabrication:
        """Return the fabrication itself; a violation if it cannot be built."""
        with no_error(f"the constructor should accept {dict(self.case.options)}"):
            return self.fabrication()
