"""What a check gets: one operator (or fabrication) at one case, and the means to build it and to feed it.

``Source`` says which class it is and whose; ``Case`` with which arguments it is built; a ``Subject`` is both.  A
fabrication is built inside a host, ``parameterized_concatenation``, so that the checks of operators hold for it too.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pkgutil import iter_modules
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from fusionkit import registry
from fusionkit.contract.rules import Kind, Violation, describe, skip
from fusionkit.core.construction import Unwritable, construct
from fusionkit.errors import ConfigError, RegistryError, nearest
from fusionkit.fabrication import Fabrication
from fusionkit.fusion import Fusion, Traits
from fusionkit.registry.catalogue import KINDS, Record

__all__ = ["HOST", "Case", "FabricationSubject", "FusionSubject", "Source", "Subject", "all_subjects", "subjects_of"]

#: The operator in which a fabrication is checked.
HOST = "parameterized_concatenation"

#: A generator without an end would fill the memory.
MOST_EXAMPLES = 1000
EXAMPLES = "examples() should yield at least one set of keywords for the constructor"

#: Widths of generated cases, by what they try; the first that the operator admits is taken.
GENERATED: dict[str, tuple[tuple[int, ...], ...]] = {
    "one view": ((5,), (4,)),
    "primes": ((11, 3), (11, 11), (7, 3, 5), (5, 5, 5), (5,)),
    "width 1": ((1, 4, 1), (1, 4), (1, 1, 1), (1, 1), (1,)),
    "many views": ((2, 3, 1, 2, 3, 2, 1), (2, 2, 2, 2, 2, 2, 2)),
}
GENERATED_N = 3
#: How the findings of an operator begin that cannot be built, and so not be checked.
UNBUILT = "the constructor should build"
#: Widths on which an operator is crossed with every fabrication.
CROSSED: tuple[tuple[int, ...], ...] = ((4, 8), (6, 6), (4, 4, 4), (6,))
CROSSED_N = 6

#: (n, dims) on which a fabrication is checked: with its first example on all, with the others on the first that fits.
SIZES: tuple[tuple[int, tuple[int, ...]], ...] = ((6, (4, 3, 5)), (16, (12, 20)), (64, (76, 216)))
ODD_SIZES: tuple[tuple[int, tuple[int, ...]], ...] = (
    (7, (5, 2, 4)),
    (11, (2, 3)),
    (1, (4, 3)),
    (6, (6,)),
    (3, (1,)),
    (13, (11, 2, 19, 5, 16)),
)

#: Traits that an operator has as soon as a fabrication in it has them.
INHERITED = ("stochastic", "train_eval_differ", "once_differentiable_only", "constant")

S = TypeVar("S", bound="Subject")


@dataclass(frozen=True)
class Case:
    """The arguments with which a subject is built.

    Attributes:
        options: keywords of the constructor.
        n, dims: of the host, for a fabrication.
        origin: from ``examples()``, generated, crossed with a fabrication, or the instance itself.
        tier: from which the case is taken.
        problem: why there are no arguments, as what should be and what was found: ``examples()`` fails.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    n: int | None = None
    dims: tuple[int, ...] | None = None
    origin: Literal["example", "generated", "crossed", "instance"] = "example"
    tier: int = 1
    problem: tuple[str, str] | None = None

    def __str__(self) -> str:
        if self.problem is not None:
            return "examples()"
        options = {key: list(value) if isinstance(value, tuple) else value for key, value in self.options.items()}
        if self.n is not None and self.dims is not None:
            options.update(n=self.n, dims=list(self.dims))
        return ", ".join(f"{key}={value!r}" for key, value in options.items()) or "no options"


@dataclass(frozen=True)
class Source:
    """Which class, and whose.

    Attributes:
        id: ``<distribution>/<name>`` if registered, else ``module:Class``.
        kind: fusion or fabrication.
        record: of the registry, None if it is not registered.
        load: returns the class.
        instance: the object to check, if one was given.
        known: the cases, once they were listed.
    """

    id: str
    kind: Kind
    record: Record | None
    load: Callable[[], type]
    instance: nn.Module | None = None
    known: list[Case] = field(default_factory=list, compare=False)


class Subject:
    """One operator or fabrication at one case."""

    kind: Kind

    def __init__(self, source: Source, case: Case | None = None, seed: int = 0) -> None:
        self.source = source
        self._case = case
        self.seed = seed

    def __repr__(self) -> str:
        return f"<{self.source.kind} {self.source.id}{f' at {self._case}' if self._case else ''}>"

    def at(self: S, case: Case | None) -> S:
        """Return the same subject at another case."""
        return type(self)(self.source, case, self.seed)

    # ------------------------------------------------------------------ who it is

    @property
    def id(self) -> str:
        """``<distribution>/<name>``, or ``module:Class``."""
        return self.source.id

    @property
    def key(self) -> str | None:
        """The name by which the registry knows it; None for an unregistered one."""
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
        try:
            return self.source.load()
        except RegistryError as error:
            raise Violation("the target should be importable", str(error)) from error

    @property
    def traits(self) -> Traits:
        """What it declares."""
        traits = getattr(self.source.instance or self.cls, "traits", None)
        if not isinstance(traits, Traits):
            raise Violation("traits should be a fusionkit.Traits", repr(traits))
        return traits

    def accepts(self, option: str) -> bool:
        """Whether the constructor takes ``option``."""
        return option in inspect.signature(self.cls).parameters

    def offers(self, *options: str) -> bool:
        """Whether the operator's constructor takes these options of the base class."""
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
        """A copy of the keywords of the case; skips the check where an instance does not tell them."""
        for option, value in self.case.options.items():
            if isinstance(value, Unwritable):
                skip(f"needs to build the operator anew, and its argument {option} is {value.why}")
        return copy.deepcopy(dict(self.case.options))

    def cases(self) -> list[Case]:
        """Return the cases on which it is checked, at least one; listed once, since that builds operators."""
        if not self.source.known:
            self.source.known.extend(self.list_cases())
        return list(self.source.known)

    def list_cases(self) -> list[Case]:
        """Return the cases, from ``examples()`` and generated."""
        raise NotImplementedError

    def examples(self) -> list[dict[str, Any]]:
        """Return what the class yields."""
        cls = self.cls
        try:
            found = list(islice(cls.examples(), MOST_EXAMPLES + 1))  # type: ignore[attr-defined]
        except Exception as error:
            raise Violation(EXAMPLES, describe(error)) from error
        if len(found) > MOST_EXAMPLES:
            raise Violation(f"{EXAMPLES}, and at most {MOST_EXAMPLES}", "more")
        if not found or not all(isinstance(options, Mapping) for options in found):
            raise Violation(EXAMPLES, repr(found)[:200])
        return [dict(options) for options in found]

    # ------------------------------------------------------------------ building it

    def construct(self, *, fresh: bool = False, **overrides: Any) -> Fusion:
        """Build the operator of the case, with ``overrides``; what the constructor raises passes through.

        Args:
            fresh: call the constructor also for an instance, which else is copied where that will do.
            **overrides: options other than those of the case.
        """
        raise NotImplementedError

    @property
    def dims(self) -> tuple[int, ...]:
        """The widths of the views of the case."""
        raise NotImplementedError

    def build(self, **overrides: Any) -> Fusion:
        """Build the operator of the case; a violation if that fails."""
        try:
            return self.construct(**overrides)
        except Violation:
            raise
        except Exception as error:
            raise Violation(f"{UNBUILT} {self._case or self.case}", _located(error)) from error

    def made(self) -> Fusion | Fabrication:
        """Return the object that is checked: the operator, or the fabrication itself."""
        return self.build()

    def promises(self, op: Fusion) -> Traits:
        """Return what the operator that ``build`` made may be held to: its traits, and those of fabrications in it.

        One that is stochastic in training only, as dropout is, is held to everything else in evaluation mode.
        """
        inside = [module.traits for module in op.modules() if isinstance(module, Fabrication)]
        inherited = {name: any(getattr(traits, name) for traits in (op.traits, *inside)) for name in INHERITED}
        if inherited["stochastic"] and not op.training:
            inherited["stochastic"] = self._scatters(op)
        return replace(
            op.traits,
            linear=op.traits.linear and not any(traits.stochastic for traits in inside),
            **inherited,
            memory_factor=max(traits.memory_factor for traits in (op.traits, *inside)),
        )

    def _scatters(self, op: Fusion) -> bool:
        """Whether calls with the same views differ."""
        tensors = (tensor for tensor in (*op.parameters(), *op.buffers()) if tensor.is_floating_point())
        like = next(tensors, torch.empty(0, dtype=torch.float64))
        x = self.views(32, dtype=like.dtype, device=like.device)
        with torch.no_grad():
            first, *others = (self.forward(op, x) for _ in range(4))
            return any(not torch.equal(first, other) for other in others)

    def operator(self, *, dtype: torch.dtype = torch.float64, **overrides: Any) -> Fusion:
        """Return the operator of the case in evaluation mode, with parameters at random values."""
        op = self.build(dtype=dtype, **overrides)
        self.randomize(op)
        return op.eval()

    @staticmethod
    def randomize(op: nn.Module) -> None:
        """Draw all parameters at random: the initial ones may be zero, and hide what they would multiply."""
        with torch.no_grad():
            for parameter in op.parameters():
                parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64) * 0.7)

    @staticmethod
    def own(op: Fusion) -> list[tuple[str, nn.Parameter]]:
        """Return the own parameters with their names."""
        return list(op._own_parameters())

    def leaves_nothing(self, op: Fusion) -> bool:
        """Whether no example asks for the case, and nothing is left of the views there, as by a norm of one entry."""
        if self.case.origin != "generated":
            return False
        with torch.no_grad():
            one, other = (self.forward(op, self.views(16)) for _ in range(2))
        return torch.equal(one, other)

    # ------------------------------------------------------------------ feeding it

    def views(
        self,
        *lead: int,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        requires_grad: bool = False,
        dims: Sequence[int] | None = None,
    ) -> list[Tensor]:
        """Return random views of shape (*lead, n_i)."""
        return [
            torch.randn(*lead, width, dtype=torch.float64).to(device, dtype).requires_grad_(requires_grad)
            for width in (self.dims if dims is None else dims)
        ]

    def forward(self, op: Any, x: Sequence[Tensor], **arguments: Any) -> Tensor:
        """Call the operator; a violation if it raises or returns something else than a tensor."""
        try:
            out = op(x, **arguments)
        except Exception as error:
            shapes = ", ".join(f"{tuple(view.shape)} {str(view.dtype).removeprefix('torch.')}" for view in x)
            given = f" with {' and '.join(arguments)}" if arguments else ""
            raise Violation(f"forward should accept views of shape {shapes}{given}", _located(error)) from error
        if not isinstance(out, Tensor):
            raise Violation("forward should return a tensor", type(out).__name__ if out is not None else "None")
        if out.layout is not torch.strided:
            raise Violation("forward should return a dense tensor", str(out.layout))
        return out


class FusionSubject(Subject):
    """A fusion operator."""

    kind = "fusion"

    def list_cases(self) -> list[Case]:
        """Return the examples, generated cases that the operator admits, and every fabrication if it takes one."""
        if self.source.instance is not None:
            return [Case(self._instance_options(), origin="instance")]
        try:
            cases = [Case(options) for options in self.examples()]
        except Violation as violation:
            return [Case(problem=(violation.should, violation.found))]
        base = {key: value for key, value in cases[0].options.items() if key not in ("n", "dims")}
        for candidates in GENERATED.values():
            cases += self._admitted(base, candidates, GENERATED_N, "generated")
        if self.accepts("parameter_fabrication"):
            for key in registry.names("fabrication"):
                if _loads(key):
                    crossed = {**base, "parameter_fabrication": {"name": key}}
                    cases += self._admitted(crossed, CROSSED, CROSSED_N, "crossed")
        return _unique(cases)

    def _admitted(
        self,
        base: Mapping[str, Any],
        candidates: Iterable[tuple[int, ...]],
        n: int,
        origin: Literal["generated", "crossed"],
    ) -> Iterator[Case]:
        free_n = self.traits.free_n
        for dims in candidates:
            options = {"dims": list(dims), **({"n": n} if free_n else {}), **base}
            case = Case(options, origin=origin, tier=2 if origin == "crossed" else 1)
            try:
                self.at(case).construct()
            except ValueError:  # Refused, as an operator may do: FusionError is one.
                continue
            except (Exception, SystemExit):  # Not refused but broken: the checks say how.
                pass
            yield case
            return

    def _instance_options(self) -> dict[str, Any]:
        op = self.source.instance
        assert isinstance(op, Fusion)
        options = {"dims": list(op.dims) if op.dims is not None else None, **op._arguments}
        return {key: value for key, value in options.items() if key not in ("name", "device", "dtype")}

    @property
    def dims(self) -> tuple[int, ...]:
        """The widths of the views of the case."""
        dims = self.case.options.get("dims")
        if dims is None:
            raise Violation("every keyword set of examples() should hold dims", str(self.case))
        return tuple(dims)

    def construct(self, *, fresh: bool = False, **overrides: Any) -> Fusion:
        """Build the operator of the case, with ``overrides``; see ``Subject.construct``."""
        given = self.source.instance
        if given is not None and not fresh and not set(overrides) - {"dtype"}:
            return copy.deepcopy(given).to(overrides.get("dtype"))  # type: ignore[return-value]
        options = {**self.options, **overrides}
        moved = {key: options.pop(key) for key in ("device", "dtype") if key in overrides and not self.accepts(key)}
        cls = self.cls
        op: Fusion = construct(cls, self.key, options) if self.key else cls(**options)
        return op.to(**moved) if moved else op


class FabricationSubject(Subject):
    """A fabrication; ``construct`` and ``build`` return its host, ``fabrication`` the fabrication itself."""

    kind = "fabrication"

    def offers(self, *options: str) -> bool:
        """Whether the host takes these options; it takes all."""
        return True

    def list_cases(self) -> list[Case]:
        """Return the first example on all sizes that it admits, the others on the first one."""
        if self.source.instance is not None:
            examples: list[dict[str, Any]] = [self._instance_options()]
        else:
            try:
                examples = self.examples()
            except Violation as violation:
                return [Case(problem=(violation.should, violation.found))]
        should = f"every keyword set of examples() should fit one of the sizes (n, dims) {list(SIZES)}"
        cases: list[Case] = []
        for i, options in enumerate(examples):
            fitting, problem = self._fitting(options, SIZES)
            if not fitting:
                cases.append(Case(options, problem=(should, f"{options}: {problem}")))
            cases += fitting[:1]
            if i == 0:
                cases += [replace(case, origin="generated") for case in self._fitting(options, ODD_SIZES)[0]]
        return _unique(cases)

    def _fitting(
        self, options: Mapping[str, Any], sizes: Iterable[tuple[int, tuple[int, ...]]]
    ) -> tuple[list[Case], str]:
        cases, problem = [], ""
        for n, dims in sizes:
            case = Case(options, n=n, dims=dims)
            try:
                self.at(case).fabrication().checked_shapes(n, sum(dims))
            except ValueError as error:
                problem = describe(error)
                continue
            except Exception:  # Not refused but broken: the checks say how.
                pass
            cases.append(case)
        return cases, problem

    def _instance_options(self) -> dict[str, Any]:
        fabrication = self.source.instance
        assert isinstance(fabrication, Fabrication)
        return dict(fabrication._arguments)

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
        """Return the fabrication of the case, with ``overrides`` of its options; not prepared."""
        given = self.source.instance
        if given is not None and not overrides:
            return copy.deepcopy(given)  # type: ignore[return-value]
        options = {**self.options, **overrides}
        cls = self.cls
        made: Fabrication = construct(cls, self.key, options) if self.key else cls(**options)
        return made

    def construct(self, *, fresh: bool = False, **overrides: Any) -> Fusion:
        """Build the host of the case, with ``overrides`` of the host's options."""
        registered = self.key is not None and self.source.instance is None
        spec = {"name": self.key, **self.options} if registered else self.fabrication()
        options = {"n": self.case.n, "dims": list(self.dims), "parameter_fabrication": spec, **overrides}
        host: Fusion = construct(registry.load("fusion", HOST), HOST, options)
        return host

    def resized(self, n: int, dims: tuple[int, ...], options: Mapping[str, Any]) -> Fusion:
        """Return a host of another size on the meta device, with other options of the fabrication."""
        host: Fusion = construct(
            registry.load("fusion", HOST),
            HOST,
            {"n": n, "dims": list(dims), "parameter_fabrication": self.fabrication(**options), "device": "meta"},
        )
        return host

    def made(self) -> Fabrication:
        """Return the fabrication itself; a violation if it cannot be built."""
        try:
            return self.fabrication()
        except Violation:
            raise
        except Exception as error:
            raise Violation(f"the constructor should accept {dict(self.case.options)}", describe(error)) from error


# ---------------------------------------------------------------------- finding subjects


def all_subjects(kind: str | None = None) -> list[Subject]:
    """Return everything that is registered, fusions first."""
    return [_registered(record) for record in registry.records(_kind(kind))]


def subjects_of(obj: Any, kind: str | None = None) -> list[Subject]:
    """Return the subjects that ``obj`` means: a name, ``module:Class``, a class, an instance, or a list of them.

    A name that both kinds have means two subjects.  An instance is checked without its pre- and postprocess, which may
    have none of its traits; the check ``processing`` gives it others.

    Raises:
        RegistryError: it means nothing.
        ConfigError: an instance without dims, or without the parameters that it is made for.
    """
    if isinstance(obj, str):
        return [_of_class(_import(obj))] if ":" in obj else _named(obj, _kind(kind))
    if isinstance(obj, type):
        return [_of_class(obj)]
    if isinstance(obj, Fusion | Fabrication):
        if isinstance(obj, Fusion):
            _check_instance(obj)
            obj = _without_processing(obj)
        return [_of_class(type(obj), obj)]
    if isinstance(obj, list | tuple | set | frozenset):
        return [subject for one in obj for subject in subjects_of(one, kind)]
    raise RegistryError(
        "what is checked should be a name, 'module:Class', a subclass or an instance of fusionkit.Fusion or "
        f"fusionkit.Fabrication; found {obj!r}."
    )


def _check_instance(op: Fusion) -> None:
    if getattr(op, "dims", None) is None:
        raise ConfigError(f"An operator that is checked should have dims; found {op.name} without.")
    if op._layout and not op.require_parameters:
        raise ConfigError(
            f"An operator that is checked should own its parameters; found {op.name} with require_parameters=False."
        )


def _without_processing(op: Fusion) -> Fusion:
    if op.preprocess is None and op.postprocess is None:
        return op
    twin, gone = copy.copy(op), dict.fromkeys(("preprocess", "postprocess"))
    vars(twin)["_modules"] = {name: child for name, child in op._modules.items() if name not in gone}
    vars(twin)["_arguments"] = {name: value for name, value in op._arguments.items() if name not in gone}
    vars(twin).update(gone)
    return twin


def _kind(kind: str | None) -> Kind | None:
    for known in KINDS:
        if kind == known:
            return known
    if kind is None:
        return None
    raise RegistryError(f"the kind should be {' or '.join(map(repr, KINDS))}; found {kind!r}.")


def _named(name: str, kind: Kind | None) -> list[Subject]:
    found, errors = [], []
    for one in (kind,) if kind else KINDS:
        try:
            found.append(_registered(registry.resolve(one, name)))
        except RegistryError as error:
            errors.append(error)
    if not found:
        # The one that suggests a name says more.
        raise max(errors, key=lambda error: "Did you mean" in str(error))
    return found


def _registered(record: Record) -> Subject:
    def load() -> type:
        return registry.load(record.kind, record.qualified)

    return _subject(Source(record.qualified, record.kind, record, load))


def _of_class(cls: type, instance: nn.Module | None = None) -> Subject:
    kind: Kind
    if issubclass(cls, Fusion):
        kind = "fusion"
    elif issubclass(cls, Fabrication):
        kind = "fabrication"
    else:
        raise RegistryError(
            f"what is checked should be a subclass of fusionkit.Fusion or fusionkit.Fabrication; found {cls!r}."
        )
    key = registry.key_of(cls)
    record = registry.resolve(kind, key) if key is not None else None
    name = record.qualified if record else f"{cls.__module__}:{cls.__qualname__}"
    return _subject(Source(name, kind, record, lambda: cls, instance))


def _subject(source: Source) -> Subject:
    return FusionSubject(source) if source.kind == "fusion" else FabricationSubject(source)


def _import(target: str) -> type:
    should = f"{target!r} should be an importable 'module:Class'; found"
    module, _, path = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not f"{module}.".startswith(f"{missing}."):  # Not it but one that it imports, or worse.
            raise RegistryError(f"{should} {describe(error)}.") from error
        parent = missing.rpartition(".")[0]
        known = [info.name for info in iter_modules(getattr(sys.modules[parent], "__path__", []) if parent else None)]
        wanted = missing.rpartition(".")[2]
        hint = nearest(wanted, known, limit=1)
        raise RegistryError(f"{should} no module {wanted!r}{f' in {parent}' if parent else ''}.{hint}") from error
    where = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            known = [name for name, value in vars(found).items() if isinstance(value, type)]
            raise RegistryError(f"{should} no {part!r} in {where}.{nearest(part, known, limit=1)}") from error
        where = f"{where}.{part}"
    if not isinstance(found, type):
        raise RegistryError(f"{target!r} should be a class; found {found!r}.")
    return found


def _loads(key: str) -> bool:
    try:
        registry.load("fabrication", key)
    except RegistryError:  # Its own subject says so.
        return False
    return True


def _unique(cases: Iterable[Case]) -> list[Case]:
    unique: dict[str, Case] = {}
    for case in cases:
        unique.setdefault(str(case), case)
    return list(unique.values())


def _located(error: BaseException) -> str:
    """Return the exception in one line, with the place in the operator's code where it arose."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if "/torch/" not in code.co_filename.replace("\\", "/"):
            frames.append(f"{code.co_filename.replace(chr(92), '/').rsplit('/', 1)[-1]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{describe(error)} (at {frames[-1]})" if frames else describe(error)
