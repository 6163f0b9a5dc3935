"""The names of a new package: how they follow from the directory and the operator, and which are refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from fusionkit import ConfigError
from fusionkit.registry.loading import Operator
from fusionkit.scaffold.answers import Answers, requirement
from tests.fake_distributions import PLUGIN, Site


def test_names_follow() -> None:
    found = asdict(Answers.of(Path("/a/Fusionkit.Low-Band"), "fabrication", "low_band_2"))
    del found["requires"]
    assert found == {
        "kind": "fabrication",
        "name": "low_band_2",
        "distribution": "Fusionkit.Low-Band",
        "package": "fusionkit_low_band",
        "module": "low_band_2",
        "class_name": "LowBand2",
        "parameters": False,
    }


@pytest.mark.parametrize(
    ("kind", "name", "module", "class_name"),
    [
        ("fusion", "plugin", "plugin_fusion", "Plugin"),
        ("fabrication", "conf", "conf_fabrication", "Conf"),
        ("fusion", "lambda", "lambda_fusion", "Lambda"),
        ("fusion", "none", "none", "NoneFusion"),
        ("fabrication", "mapping", "mapping", "MappingFabrication"),
        ("fusion", "a__1_", "a__1_", "A1"),
    ],
)
def test_names_that_would_collide(kind: Operator, name: str, module: str, class_name: str) -> None:
    found = Answers.of(Path("/a/fusionkit-odd"), kind, name)
    assert (found.module, found.class_name) == (module, class_name)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.1.0", "tensor-fusionkit>=0.1"),
        ("1.4.2", "tensor-fusionkit>=1.4"),
        ("0.2.1rc1", "tensor-fusionkit>=0.2"),
        ("0.2.0rc1", "tensor-fusionkit>=0.2.0rc1"),
        ("0.2.0.dev3+g12ab", "tensor-fusionkit>=0.2.0.dev3"),
    ],
)
def test_requirement(version: str, expected: str) -> None:
    assert requirement(version) == expected


@pytest.mark.parametrize(
    "name", ["", "Gram", "1gram", "_gram", "gram-1", "grâm", "gram ", "fusionkit/gram", "gram\n", "null"]
)
def test_invalid_name(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        Answers.of(Path("/a/fusionkit-gram"), "fusion", name)
    assert str(error.value) == (
        "the name of the new fusion should match [a-z][a-z0-9_]*, and be none of null, true, false, inf, nan; "
        f"found {name!r}."
    )


@pytest.mark.parametrize("directory", ["", "2gram", "gram-", "my gram", "grâm", "lambda", "{{gram}}"])
def test_invalid_directory(directory: str) -> None:
    with pytest.raises(ConfigError) as error:
        Answers.of(Path("/") / directory, "fusion", "gram")
    assert str(error.value) == (
        "the name of the directory, which is that of the distribution, should start with a letter, contain only "
        f"letters, digits, -, _ and ., and not be a keyword of Python; found {directory!r}."
    )


@pytest.mark.parametrize(
    ("directory", "module"),
    [
        ("json", "json"),
        ("torch", "torch"),
        ("fusionkit", "fusionkit"),
        ("Fusionkit", "fusionkit"),
        ("tensor-fusionkit", "fusionkit"),
        ("tests", "tests"),
    ],
)
def test_directory_whose_package_exists(directory: str, module: str) -> None:
    with pytest.raises(ConfigError) as error:
        Answers.of(Path("/a") / directory, "fusion", "gram")
    assert str(error.value) == (
        "the name of the directory should make a new name for the package; "
        f"found {directory!r}, and a module {module} exists."
    )


class TestTakenNames:
    @pytest.mark.parametrize(
        ("kind", "name", "owner"),
        [
            ("fusion", "summation", "a fusion of tensor-fusionkit"),
            ("fusion", "sum", "a fusion of tensor-fusionkit"),  # An alias.
            ("fusion", "dense", "a fabrication of tensor-fusionkit"),
            ("fabrication", "dense", "a fabrication of tensor-fusionkit"),
        ],
    )
    def test_by_the_core(self, kind: Operator, name: str, owner: str) -> None:
        with pytest.raises(ConfigError) as error:
            Answers.of(Path("/a/fusionkit-gram"), kind, name)
        assert str(error.value) == f"the name of the new {kind} should be free; found {name!r}, {owner}."

    def test_by_another_plugin(self, site: Site) -> None:
        site.install("gram-pro", PLUGIN.format(names={"gram": "gram_pro:Gram"}))
        with pytest.raises(ConfigError, match=r"found 'gram', a fusion of gram-pro\.$"):
            Answers.of(Path("/a/fusionkit-gram"), "fusion", "gram")

    def test_by_an_earlier_version_of_the_same_package(self, site: Site) -> None:
        site.install("fusionkit-gram", PLUGIN.format(names={"gram": "fusionkit_gram:Gram"}))
        assert Answers.of(Path("/a/Fusionkit_Gram"), "fusion", "gram").package == "fusionkit_gram"
