"""What ``fusionkit show`` says about one name."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from fusionkit import ConfigError, FusionError, Spec, hookimpl, registry
from fusionkit.cli.show import describe, formula, page, parse
from fusionkit.errors import OptionError
from fusionkit.fusions.summation import Summation
from tests.fake_distributions import Site


def described(name: str, **options: Any) -> dict[str, Any]:
    return describe(registry.find(name), options)


class TestParse:
    @pytest.mark.parametrize(
        ("settings", "options"),
        [
            ([], {}),
            (["n=64", "dims=[76,216]"], {"n": 64, "dims": [76, 216]}),
            (["a=null", "b=true", "c=1e-3", "d=text"], {"a": None, "b": True, "c": 1e-3, "d": "text"}),
            (["f={name: lowrank, r: 8}"], {"f": {"name": "lowrank", "r": 8}}),
            (["f.name=lowrank", "f.r=8"], {"f": {"name": "lowrank", "r": 8}}),
            (["a=b=c"], {"a": "b=c"}),
            (["dims=76,216", "one=76,", "n=76"], {"dims": [76, 216], "one": [76], "n": 76}),
            (["a=1,x", "b=1.5,2"], {"a": "1,x", "b": "1.5,2"}),
        ],
    )
    def test_values(self, settings: list[str], options: dict[str, Any]) -> None:
        assert parse(settings) == options

    @pytest.mark.parametrize("setting", ["n", "=3", "64"])
    def test_form(self, setting: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse(["dims=[1]", setting])
        assert str(caught.value) == f"an option should have the form key=value, such as dims=76,216; found {setting!r}."

    @pytest.mark.parametrize("setting", ["n=${m}", "n=[1,", "n={a: ]"])
    def test_value(self, setting: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse([setting])
        assert str(caught.value).startswith(f"options should be plain values; found {setting!r} (")


class TestFormula:
    @pytest.mark.parametrize(
        ("doc", "found"),
        [
            ("``W = A B`` of rank r.", "W = A B"),
            ("Uses `name`; computes `sum_i x_i`.", "sum_i x_i"),
            ("Computes $x + y$ of views.", "x + y"),
            ("Computes :math:`\\sum_i x_i` of views.", "\\sum_i x_i"),
            ("``A\n B^T`` across lines", "A B^T"),
            ("The sum.\n\n    out = x + y\n", "out = x + y"),
            ("The `sum` of the views.", None),
            ("", None),
        ],
    )
    def test_first(self, doc: str, found: str | None) -> None:
        assert formula(doc) == found


class TestDescribe:
    def test_everything(self) -> None:
        found = described("sum")
        assert found["name"] == "summation"
        assert registry.find("sum").to_dict().items() <= found.items()
        assert found["file"] == inspect.getsourcefile(Summation)
        assert "class Summation" in Path(found["file"]).read_text().splitlines()[found["line"] - 1]
        assert found["signature"].startswith("Summation(n: int | None = None, dims: Sequence[int] | None = None, ")
        assert found["options"][0] == {"name": "n", "type": "int | None", "required": False, "default": "None"}
        assert found["formula"]
        assert found["doc"]
        assert found["traits"]["permutation_invariant"] is True
        assert found["config"].startswith("#") or "_target_: fusionkit.create" in found["config"]
        assert (found["n"], found["l"]) == (None, None)
        json.dumps(found)

    @pytest.mark.parametrize(
        ("options", "n", "l"),
        [
            ({"dims": [76, 216], "n": 64}, 64, 292 * 64),
            ({"dims": [76, 216], "n": 64, "parameter_fabrication": {"name": "lowrank", "r": 2}}, 64, 2 * (292 + 64)),
            ({"dims": [1000000, 1000000], "n": 1000000}, 1000000, 2 * 10**12),
        ],
    )
    def test_sizes_of_a_fusion(self, options: dict[str, Any], n: int, l: int) -> None:
        found = described("parameterized_concatenation", **options)
        assert (found["n"], found["l"]) == (n, l)

    def test_cost(self) -> None:
        found = described("parameterized_concatenation", dims=[76, 216], n=64, m=10)
        assert (found["m"], found["macs"], found["parameter_bytes"]) == (10, 10 * 292 * 64, 4 * 292 * 64)
        assert "macs" not in described("parameterized_concatenation")

    def test_operator_that_cannot_run_without_values(self) -> None:
        class Choosy(Summation):
            def _fuse(self, x: Sequence[Tensor]) -> Tensor:
                return x[0] if x[0].sum() > 0 else x[-1]

        module = SimpleNamespace(__name__="local_pkg", fusionkit_fusions=hookimpl(lambda: {"choosy": Choosy}))
        with registry.isolated(module):
            found = described("choosy", dims=[2, 2])
        assert (found["n"], found["l"]) == (2, 0)
        assert "should run on the meta device" in found["cost_error"]
        assert found["cost_error"] in page(found)

    def test_sizes_of_a_fabrication(self) -> None:
        found = described("lowrank", dims=[76, 216], n=64, r=2)
        assert (found["n"], found["l"]) == (64, 2 * (292 + 64))

    @pytest.mark.parametrize("options", [{"n": 64}, {"dims": [3]}, {"r": 2}, {"dims": [3], "m": 2}])
    def test_half_a_size(self, options: dict[str, Any]) -> None:
        with pytest.raises(FusionError) as caught:
            described("lowrank", **options)
        assert (
            str(caught.value) == f"the size of W should be given, as in n=64 dims=76,216; found {next(iter(options))}."
        )

    def test_wrong_options(self) -> None:
        with pytest.raises(OptionError, match="found 'dim'"):
            described("summation", dim=[2])
        with pytest.raises(FusionError, match=r"found .*\b2, 3"):
            described("summation", dims=[2, 3])
        with pytest.raises(FusionError):
            described("lowrank", dims=["a"], n=2)
        with pytest.raises(FusionError, match=r"^m, the number of rows, should be .*; found 0\.$"):
            described("summation", dims=[2, 2], m=0)

    def test_deprecated(self) -> None:
        module = SimpleNamespace(
            __name__="local_pkg", fusionkit_fusions=hookimpl(lambda: {"old": Spec(Summation, deprecated="summation")})
        )
        with registry.isolated(module), pytest.warns(registry.DeprecatedNameWarning):
            found = described("old")
        assert (found["status"], found["replacement"]) == ("deprecated", "summation")
        assert "deprecated: use 'summation'" in page(found)

    def test_class_without_source(self) -> None:
        namespace: dict[str, Any] = {}
        exec("from fusionkit.fusions.summation import Summation\nclass Made(Summation): pass", namespace)
        module = SimpleNamespace(__name__="local_pkg", fusionkit_fusions=hookimpl(lambda: {"made": namespace["Made"]}))
        with registry.isolated(module):
            found = described("made")
        assert (found["file"], found["line"], found["doc"], found["formula"]) == (None, None, "", None)
        assert "file" not in page(found)

    def test_signature(self) -> None:
        class Odd(Summation):
            def __init__(self, first, *rest: int, only: str = "x", **others) -> None:  # type: ignore[no-untyped-def]
                """Take all kinds of parameters."""

        module = SimpleNamespace(__name__="local_pkg", fusionkit_fusions=hookimpl(lambda: {"odd": Odd}))
        with registry.isolated(module):
            found = described("odd")
        assert found["signature"] == "Odd(first, *rest: int, only: str = 'x', **others)"
        assert [option["required"] for option in found["options"]] == [True, False, False, False]


def test_a_data_set(site: Site) -> None:
    site.dataset(
        summary="12 rows",
        task="regression",
        licence="CC0",
        citation="A. Nobody, 2020",
        origin="made up",
        aliases=("plaything",),
    )
    found = described("plaything")
    assert found.items() >= registry.find("toy").to_dict().items()
    assert (found["doc"], found["details"]) == ("Return twelve rows.", "Made up.")
    assert json.loads(json.dumps(found)) == found
    lines = page(found).splitlines()
    for line in (
        r"function +fk_read:read",
        r"task +regression",
        r"licence +CC0",
        r"citation +A\. Nobody, 2020",
        r"origin +made up",
        r"rows, views, parts +fusionkit show data=toy",
        r"  path: null",
    ):
        assert any(re.fullmatch(line, one) for one in lines), line
    with pytest.raises(ConfigError, match=r"^a data set should be shown without options; found n\.  Try "):
        described("toy", n=3)


def test_page() -> None:
    text = page(described("parameterized_concatenation", dims=[76, 216], n=64))
    lines = dict(line.split(maxsplit=1) for line in text.partition("\n\n")[0].splitlines())
    assert lines["name"] == "parameterized_concatenation"
    assert lines["distribution"].startswith("tensor-fusionkit ")
    assert (lines["n"], lines["l"]) == ("64", "18688")
    assert "free_n" in lines["traits"]
    assert "\nconfig\n  " in text


def test_the_page_has_the_arguments_of_the_docstring() -> None:
    found = describe(registry.find("metric"), {})
    assert found["details"].startswith("It stacks the views")
    text = page(found)
    assert "\n\ndetails\n" in text
    assert "metric: a name (sum, mean" in text
    assert text.index("\ndetails\n") < text.index("\nconfig\n")


def test_a_fabrication_beside_the_dense_matrix() -> None:
    found = describe(registry.find("lowrank"), {"dims": [7, 5, 1], "n": 3})
    assert (found["l"], found["dense_l"]) == (48, 39)
    assert re.search(r"^l +48\ndense_l +39$", page(found), re.MULTILINE)
