"""Finding plugins, and saying which of them may be imported."""

from __future__ import annotations

import json
import sys

import pytest

from fusionkit.registry.discovery import Candidate, canonical, disabled, incompatible, installed, outdated
from tests.fake_distributions import Site


def candidate(*requires: str, distribution: str = "fk-gram") -> Candidate:
    return Candidate("gram", "fk_gram", distribution, "1.0", lambda: None, tuple(requires))


def found() -> dict[str, Candidate]:
    """Return the fake candidates by distribution; the machine may have others."""
    return {one.distribution: one for one in installed() if one.distribution.startswith("fk")}


class TestInstalled:
    def test_entry_point_and_metadata(self, site: Site) -> None:
        site.install("fk-gram", "", entry="gram", version="2.1", requires=["fusionkit>=0.1", "torch"])
        one = found()["fk-gram"]
        assert (one.name, one.target, one.version) == ("gram", "fk_gram", "2.1")
        assert one.requires == ("fusionkit>=0.1", "torch")

    def test_imports_nothing(self, site: Site) -> None:
        site.install("fk-gram", "raise RuntimeError")
        assert "fk-gram" in found()
        assert "fk_gram" not in sys.modules

    def test_the_core_is_not_among_them(self) -> None:
        assert "fusionkit.builtin" not in [one.target for one in installed()]

    def test_sorted_by_distribution_then_name(self, site: Site) -> None:
        site.install("fk-zebra", "", entry="a")
        site.install("fk-ape", "", entry_points="[fusionkit]\nz = fk_ape\nb = fk_ape\n")
        mine = [(one.distribution, one.name) for one in installed() if one.distribution.startswith("fk-")]
        assert mine == [("fk-ape", "b"), ("fk-ape", "z"), ("fk-zebra", "a")]

    def test_same_entry_point_name_in_two_distributions(self, site: Site) -> None:
        site.install("fk-one", "", entry="same")
        site.install("fk-two", "", entry="same")
        assert set(found()) == {"fk-one", "fk-two"}

    def test_other_groups_do_not_count(self, site: Site) -> None:
        site.install("fk-other", "", entry_points="[console_scripts]\nfusionkit-x = fk_other:main\n")
        assert found() == {}

    def test_distribution_without_metadata(self, site: Site) -> None:
        site.install("fk-bare", "", metadata="", version="3.0")
        assert [(one.distribution, one.version) for one in installed() if one.target == "fk_bare"] == [
            ("unknown", None)
        ]

    def test_distribution_with_unreadable_metadata(self, site: Site) -> None:
        site.install("fk-latin", "", version="3.0")
        (site.folder / "fk_latin-3.0.dist-info" / "METADATA").write_bytes(b"Name: fk-\xff\n")
        assert [(one.distribution, one.version) for one in installed() if one.target == "fk_latin"] == [
            ("unknown", None)
        ]

    def test_egg_info(self, site: Site) -> None:
        egg = site.folder / "fk_egg.egg-info"
        egg.mkdir()
        (egg / "PKG-INFO").write_text("Metadata-Version: 1.0\nName: fk-egg\nVersion: 4\n")
        (egg / "requires.txt").write_text("fusionkit>=99\n")
        (egg / "entry_points.txt").write_text("[fusionkit]\negg = fk_egg\n")
        one = found()["fk-egg"]
        assert (one.version, one.requires) == ("4", ("fusionkit>=99",))


class TestMalformedEntryPoints:
    """One such file makes ``importlib.metadata.entry_points`` raise for the whole machine."""

    def test_of_a_plugin(self, site: Site) -> None:
        site.install("fk-garbage", entry_points="[fusionkit]\nno equals sign\n")
        site.install("fk-good", "")
        mine = found()
        assert set(mine) == {"fk-garbage", "fk-good"}
        with pytest.raises(
            ValueError, match=r"its entry_points\.txt should have lines of the form name = module; found"
        ):
            mine["fk-garbage"].load()
        assert mine["fk-good"].name == "plugin"

    def test_of_an_unrelated_distribution(self, site: Site) -> None:
        site.install("fk-garbage", entry_points="[console_scripts]\nno equals sign\n")
        site.install("fk-good", "")
        assert set(found()) == {"fk-good"}

    def test_that_is_no_text(self, site: Site) -> None:
        site.install("fk-binary")
        (site.folder / "fk_binary-1.0.dist-info" / "entry_points.txt").write_bytes(b"[fusionkit]\n\xff = fk\n")
        with pytest.raises(ValueError, match=r"found .'utf-8' codec can't decode"):
            found()["fk-binary"].load()

    def test_shadowed_distribution_counts_once(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        site.install("fk-garbage", entry_points="[fusionkit]\nno equals sign\n")
        site.install("fk-good", "", version="1.0")
        behind = site.folder / "behind"
        behind.mkdir()
        Site(behind).install("fk-good", "", version="0.9")
        monkeypatch.setattr(sys, "path", [*sys.path, str(behind)])
        assert [one.version for one in installed() if one.distribution == "fk-good"] == ["1.0"]


class TestDoubled:
    """The distribution of before, left beside the one that has its new name: both name the same module."""

    def test_counts_once(self, site: Site) -> None:
        for name in ("tensor-fusionkit-fk", "fusionkit-fk"):
            site.install(name, entry_points="[fusionkit]\na = fk_package.plugin\n")
        mine = [one.distribution for one in installed() if one.target == "fk_package.plugin"]
        assert mine == ["tensor-fusionkit-fk"]

    def test_another_module_is_another_plugin(self, site: Site) -> None:
        for name in ("tensor-fusionkit-fk", "fusionkit-fk"):
            site.install(name, entry="fk")
        mine = [one.distribution for one in installed() if one.name == "fk"]
        assert mine == ["fusionkit-fk", "tensor-fusionkit-fk"]

    def test_the_core_counts_once(self, site: Site) -> None:
        for name in ("tensor-fusionkit", "fusionkit"):
            site.install(name, entry_points="[fusionkit]\nbuiltin = fusionkit.builtin\n", version="9")
        done = site.command("plugins", "--json", FUSIONKIT_PLUGINS="")
        (core,) = [record for record in json.loads(done.stdout) if record["target"] == "fusionkit.builtin"]
        assert (core["distribution"], core["version"], core["status"]) == ("tensor-fusionkit", "9", "loaded")


class TestDisabled:
    @pytest.mark.parametrize("allowed", ["fk-gram", "other, FK_Gram", "fk.gram,other"])
    def test_named(self, allowed: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FUSIONKIT_PLUGINS", allowed)
        assert disabled(candidate()) is None

    def test_no_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("FUSIONKIT_PLUGINS", raising=False)
        assert disabled(candidate()) is None

    @pytest.mark.parametrize("allowed", ["fusionkit-gram", "tensor-fusionkit-gram"])
    @pytest.mark.parametrize("distribution", ["fusionkit-gram", "tensor-fusionkit-gram"])
    def test_named_with_or_without_the_prefix(
        self, allowed: str, distribution: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FUSIONKIT_PLUGINS", allowed)
        assert disabled(candidate(distribution=distribution)) is None

    @pytest.mark.parametrize("allowed", ["", " ", "fk", "fk-gram-2", "tensor-fk-gram"])
    def test_not_named(self, allowed: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FUSIONKIT_PLUGINS", allowed)
        assert disabled(candidate()) == f"FUSIONKIT_PLUGINS should name fk-gram; found {allowed!r}"


class TestIncompatible:
    @pytest.mark.parametrize(
        ("requirement", "running"),
        [
            ("fusionkit", "0.1.0"),
            ("fusionkit>=0.1", "0.1.0"),
            ("fusionkit[run]>=0.1,<0.2", "0.1.5"),
            ("FusionKit (>=0.1)", "0.1.0"),
            ("fusionkit @ file:///tmp/fusionkit.whl", "0.1.0"),
            ("tensor-fusionkit>=0.1", "0.1.0"),
            ("Tensor_FusionKit[run]>=0.1,<0.2", "0.1.5"),
            # A prerelease serves those who want the release, and those who want a prerelease.
            ("fusionkit>=0.2", "0.2.0rc1"),
            ("fusionkit>=0.2.0rc1", "0.2.0rc2"),
            ("fusionkit>=0.1", "0.2.0.dev3"),
            ("fusionkit==0.1.0", "0.1.0+local"),
            # Markers decide whether it applies at all; extras are not asked for.
            ("fusionkit>=99; extra == 'test'", "0.1.0"),
            ("fusionkit>=99; python_version < '3'", "0.1.0"),
        ],
    )
    def test_admitted(self, requirement: str, running: str) -> None:
        assert incompatible(candidate("torch>=99", requirement), running) is None

    @pytest.mark.parametrize(
        ("requirement", "running"),
        [
            ("fusionkit>=99", "0.1.0"),
            ("fusionkit<0.1", "0.1.0"),
            ("fusionkit==0.2.*", "0.1.0"),
            ("tensor-fusionkit>=99", "0.1.0"),
            ("tensor.fusionkit[run]==0.2.*", "0.1.0"),
            ("fusionkit>=0.2", "0.1.9rc1"),
            ("fusionkit<0.2", "0.2.0rc1"),
            ("FUSIONKIT~=1.0", "0.1.0"),
            ("fusionkit>=99; python_version >= '3'", "0.1.0"),
        ],
    )
    def test_refused(self, requirement: str, running: str) -> None:
        assert (
            incompatible(candidate(requirement), running) == f"it requires {requirement!r}; found fusionkit {running}"
        )

    def test_no_requirement(self) -> None:
        assert incompatible(candidate(), "0.1.0") is None

    def test_every_requirement_counts(self) -> None:
        reason = incompatible(candidate("fusionkit>=0.1", "fusionkit<0.1"), "0.1.0")
        assert reason == "it requires 'fusionkit<0.1'; found fusionkit 0.1.0"

    @pytest.mark.parametrize(
        "requirement",
        ["fusionkit >>> 1", "fusionkit>=one", "!fusionkit", "fusionkit; color == 'red'", "tensor-fusionkit >>> 1"],
    )
    def test_malformed(self, requirement: str) -> None:
        reason = incompatible(candidate(requirement), "0.1.0") or ""
        assert reason.startswith(f"its requirement on fusionkit should follow PEP 508; found {requirement!r} (")

    @pytest.mark.parametrize("requirement", ["numpy >>> 1", "fusionkit-gram >>> 1", "not-fusionkit>=one"])
    def test_malformed_about_others(self, requirement: str) -> None:
        assert incompatible(candidate(requirement), "0.1.0") is None

    def test_similar_names_are_others(self) -> None:
        assert (
            incompatible(
                candidate("fusionkit-bilinear>=99", "my-fusionkit>=99", "tensor-fusionkit-bilinear>=99"), "0.1.0"
            )
            is None
        )


class TestOutdated:
    """Requirements by the name that another project has on PyPI."""

    @pytest.mark.parametrize(
        ("requirement", "new"),
        [
            ("fusionkit", "tensor-fusionkit"),
            ("fusionkit>=0.1", "tensor-fusionkit>=0.1"),
            ("FusionKit (<0.2)", "tensor-fusionkit (<0.2)"),
            ("fusionkit[run]; extra == 'test'", "tensor-fusionkit[run]; extra == 'test'"),
        ],
    )
    def test_how_to_rename(self, requirement: str, new: str) -> None:
        (found,) = outdated(candidate("torch", requirement))
        assert found == (
            f"it requires {requirement!r}, which pip takes for another project: write {new!r} in its pyproject.toml"
        )

    def test_others_stay(self) -> None:
        assert not outdated(candidate("tensor-fusionkit>=0.1", "fusionkit-bilinear", "torch", "fusionkits"))


def test_canonical() -> None:
    assert canonical("FK.Gram__x") == "fk-gram-x"
    assert canonical("Tensor_Fusionkit.Gram") == "fusionkit-gram"


def test_a_requirement_that_is_nested_too_deep() -> None:
    line = f"fusionkit; {'(' * 3000}python_version > '3'{')' * 3000}"
    candidate = Candidate("a", "b", "c", "1", lambda: None, (line,))
    assert "its requirement on fusionkit should " in str(incompatible(candidate, "0.1.0"))
