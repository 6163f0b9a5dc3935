"""torch.compile on machines where inductor does not work: the operator is not blamed for it."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from mutants import BreaksTheGraph, Mix

import fusionkit

COMPILE_FX = "torch._inductor.compile_fx"


@pytest.fixture
def compile_fx() -> Callable[..., Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch imports what it deprecates.
        compile_fx: Callable[..., Any] = importlib.import_module(COMPILE_FX).compile_fx
    return compile_fx


@pytest.mark.usefixtures("compile_fx")
def test_inductor_that_compiles_nothing_is_not_the_operators_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Python.h is missing")

    monkeypatch.setattr(f"{COMPILE_FX}.compile_fx", broken)
    report = fusionkit.check(Mix, select=["compile_fullgraph"])
    assert report.ok, repr(report)
    reason = report.results[0].reason
    assert reason.startswith("compiled with aot_eager, needs an inductor that works, and on a sum it fails (")
    assert "Python.h is missing" in reason
    # What the operator is to blame for is found all the same.
    found = fusionkit.check(BreaksTheGraph, select=["compile_fullgraph"]).results
    assert {result.status for result in found} == {"failed"}


def test_inductor_that_fails_on_the_operator_alone_is(
    monkeypatch: pytest.MonkeyPatch, compile_fx: Callable[..., Any]
) -> None:
    def picky(graph: Any, inputs: Any, **options: Any) -> Any:
        if len(inputs) > 1:
            raise RuntimeError("no code for this operator")
        return compile_fx(graph, inputs, **options)

    monkeypatch.setattr(f"{COMPILE_FX}.compile_fx", picky)
    (result,) = fusionkit.check(Mix, select=["compile_fullgraph"]).bad
    assert "no code for this operator" in result.reason
    assert result.case == "dims=[4, 4, 4]"
