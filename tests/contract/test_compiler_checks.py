"""torch.compile on machines where inductor does not work: the operator is not blamed for it."""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import fusionkit
from fusionkit.contract.checks.compiler import same_when_compiled
from fusionkit.contract.lookup import subjects_of
from fusionkit.contract.needs import NEEDS, _compiler
from tests.contract.mutants.resources import BreaksTheGraph
from tests.contract.mutants.right import Mix

COMPILE_FX = "torch._inductor.compile_fx"


@pytest.fixture
def compile_fx(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Return inductor's entrance; whether a compiler is there is found out anew in the test and after it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch imports what it deprecates.
        compile_fx: Callable[..., Any] = importlib.import_module(COMPILE_FX).compile_fx
    monkeypatch.setitem(NEEDS, "compiler", _compiler)  # Which the quick suite does without.
    _compiler.cache_clear()
    with torch._inductor.config.patch(force_disable_caches=True):  # Else a graph that was seen before passes it by.
        yield compile_fx
    _compiler.cache_clear()


@pytest.mark.usefixtures("compile_fx")
def test_inductor_that_compiles_nothing_is_not_the_operators_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Python.h is missing")

    monkeypatch.setattr(f"{COMPILE_FX}.compile_fx", broken)
    report = fusionkit.check(Mix, select=["compile_fullgraph"])
    assert report.ok, repr(report)
    reason = report.results[0].reason
    assert reason.startswith("compiled with aot_eager, needs a torch.compile that works, and with inductor a sum fails")
    assert "Python.h is missing" in reason
    # What the operator is to blame for is found all the same.
    found = fusionkit.check(BreaksTheGraph, select=["compile_fullgraph"]).results
    assert {result.status for result in found} == {"failed"}


@pytest.mark.exhaustive
def test_inductor_that_fails_on_the_operator_alone_is(
    monkeypatch: pytest.MonkeyPatch, compile_fx: Callable[..., Any]
) -> None:
    def picky(graph: Any, inputs: Any, **options: Any) -> Any:
        if len(inputs) > 1:
            raise RuntimeError("no code for this operator")
        return compile_fx(graph, inputs, **options)

    monkeypatch.setattr(f"{COMPILE_FX}.compile_fx", picky)
    (result,) = fusionkit.check(Mix, select=["compile_fullgraph"]).results
    assert result.bad, result.reason
    assert "no code for this operator" in result.reason
    assert result.case == "dims=[4, 4, 4]"


def test_getting_the_compiler_ready_does_not_count_as_the_operators_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow() -> None:
        start = time.process_time()
        while time.process_time() - start < 1.5:
            sum(range(10_000))

    monkeypatch.setitem(NEEDS, "compiler", slow)
    monkeypatch.setattr("fusionkit.contract.checks.compiler.same_when_compiled", lambda *_: None)
    report = fusionkit.check(Mix, select=["compile_fullgraph"], time_limit=1.0)
    assert report.ok, repr(report)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["dense", "lowrank", "kronecker"])
def test_fabrications_compile_with_the_default_backend(name: str) -> None:
    """The kit compiles them with aot_eager, which generates no code."""
    (subject,) = subjects_of(name, "fabrication")
    same_when_compiled(subject, subject.operator(dtype=torch.float32), "inductor")
