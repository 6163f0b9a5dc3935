"""The line about a name for which its plugin has none."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fusionkit import Spec, registry
from fusionkit.cli.summary import first_sentence, summary
from fusionkit.fusions.summation import Summation
from fusionkit.registry.catalogue import Record


def record(target: str | type, text: str = "") -> Record:
    shown = target if isinstance(target, str) else "x:Y"
    return replace(registry.find("summation"), target=shown, spec=Spec(target), summary=text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


CLASS = 'raise SystemExit("it was imported")\nclass Gram{}:\n    """All inner products."""\n'


def test_the_plugin_comes_first() -> None:
    assert summary(record(Summation, "mine")) == "mine"


def test_a_class_is_asked() -> None:
    assert summary(record(Summation)) == "A_1 + A_2 + ... + A_k of k views of equal width, (..., n) each -> (..., n)"


def test_source_is_parsed_and_not_run(folder: Path) -> None:
    (folder / "sum_top.py").write_text(CLASS.format(""))
    package = folder / "sum_package" / "below"
    package.mkdir(parents=True)
    (folder / "sum_package/__init__.py").write_text("raise SystemExit")
    (package / "__init__.py").write_text("class Outer:\n    class Gram:\n        'Nested one; n = 1'")
    (package / "gram.py").write_text(CLASS.format("(object)"))
    assert summary(record("sum_top:Gram")) == "All inner products"
    assert summary(record("sum_package.below.gram:Gram")) == "All inner products"
    assert summary(record("sum_package.below:Outer.Gram")) == "Nested one"
    assert not {"sum_top", "sum_package"} & set(sys.modules)


def test_a_namespace_package(folder: Path) -> None:
    (folder / "sum_space").mkdir()
    (folder / "sum_space/gram.py").write_text(CLASS.format(""))
    assert summary(record("sum_space.gram:Gram")) == "All inner products"


@pytest.mark.parametrize(
    "source",
    [b"class Gram(", b"\xff\xfe", b"class Other: pass", b"Gram = 3", b"class Gram: pass\nclass Gram: pass", b"\0"],
)
def test_what_cannot_be_read_has_none(source: bytes, folder: Path) -> None:
    (folder / "sum_odd.py").write_bytes(source)
    assert summary(record("sum_odd:Gram")) == ""


@pytest.mark.parametrize("target", ["sum_nowhere:Gram", "sys:Gram", "json.a.b:Gram", "json:Gram"])
def test_what_cannot_be_found_has_none(target: str) -> None:
    assert summary(record(target)) == ""


@pytest.mark.parametrize(
    ("doc", "sentence"),
    [
        (None, ""),
        ("", ""),
        ("Adds.", "Adds"),
        ("Adds\n    two lines.  And more.", "Adds two lines"),
        ("Adds `A_1 + ... + A_k`, e.g. views.\n\nMore.", "Adds A_1 + ... + A_k, e.g. views"),
        ("No stop\n\nMore.", "No stop"),
        ("Really? Yes.", "Really?"),
        ("W = A B; l = 3.", "W = A B"),
        ("word " * 30, "word " * 19 + "..."),
    ],
)
def test_first_sentence(doc: Any, sentence: str) -> None:
    assert first_sentence(doc) == sentence
