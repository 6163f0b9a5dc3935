"""What names mean, given what the plugins offer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fusionkit import RegistryError, Spec
from fusionkit.registry.catalogue import Record, Snapshot, instead
from fusionkit.registry.loading import Kind, Plugin

CORE = Plugin(
    "builtin",
    "fusionkit.builtin",
    "tensor-fusionkit",
    "0.1.0",
    specs={
        "fusion": {"summation": Spec("core:Sum", ("sum",), "adds"), "gone": Spec("", removed="summation")},
        "fabrication": {"dense": Spec("core:Dense")},
    },
)


def plugin(name: str, *, kind: Kind = "fusion", distribution: str | None = None, **specs: Spec | str) -> Plugin:
    offers = {key: spec if isinstance(spec, Spec) else Spec(spec) for key, spec in specs.items()}
    return Plugin(name, f"fk_{name}", distribution or f"fk-{name}", "1.0", specs={kind: offers})


def resolve(snapshot: Snapshot, name: str, kind: Kind = "fusion") -> Record:
    return snapshot.resolve((kind,), name)


def refusal(snapshot: Snapshot, name: str, *kinds: Kind) -> str:
    with pytest.raises(RegistryError) as caught:
        snapshot.resolve(kinds or ("fusion",), name)
    return str(caught.value)


def test_record() -> None:
    assert resolve(Snapshot([CORE]), "summation").to_dict() == {
        "kind": "fusion",
        "name": "summation",
        "qualified": "fusionkit/summation",
        "distribution": "tensor-fusionkit",
        "version": "0.1.0",
        "target": "core:Sum",
        "aliases": ["sum"],
        "summary": "adds",
        "status": "ok",
    }


def test_record_of_a_class() -> None:
    snapshot = Snapshot([plugin("local", spec=Spec(Spec))])
    assert resolve(snapshot, "spec").target == "fusionkit.hookspecs:Spec"


def test_records_are_sorted_fusions_first() -> None:
    snapshot = Snapshot(
        [CORE, plugin("z", zeta="a:B"), plugin("b", zeta="a:B"), plugin("c", kind="fabrication", alpha="a:B")]
    )
    assert [record.qualified for record in snapshot.records] == [
        "fusionkit/summation",
        "fk-b/zeta",
        "fk-z/zeta",
        "fk-c/alpha",
        "fusionkit/dense",
    ]


class TestNames:
    @pytest.mark.parametrize("name", ["gram", "g", "fk-gram/gram", "fk-gram/g", "FK_Gram/gram", "fk.gram/g"])
    def test_all_forms(self, name: str) -> None:
        snapshot = Snapshot([CORE, plugin("gram", gram=Spec("a:B", ("g",)))])
        record = resolve(snapshot, name)
        assert (record.qualified, record.status, record.key) == ("fk-gram/gram", "ok", "gram")

    def test_an_alias_of_its_own_name(self) -> None:
        assert resolve(Snapshot([plugin("gram", gram=Spec("a:B", ("gram", "g", "g")))]), "gram").status == "ok"

    def test_kinds_are_separate(self) -> None:
        snapshot = Snapshot([CORE, plugin("gram", dense="a:B")])
        assert resolve(snapshot, "dense").status == "ok"
        assert resolve(snapshot, "dense", "fabrication").distribution == "tensor-fusionkit"

    def test_both_kinds(self) -> None:
        snapshot = Snapshot([CORE, plugin("gram", dense="a:B")])
        assert refusal(snapshot, "dense", "fusion", "fabrication") == (
            "the name 'dense' should have one kind; found fusion and fabrication: choose one with --kind."
        )
        assert snapshot.resolve(("fusion", "fabrication"), "fk-gram/dense").kind == "fusion"

    def test_distribution_without_a_version(self) -> None:
        snapshot = Snapshot([replace(plugin("gram", gram="a:B"), version=None)])
        assert resolve(snapshot, "gram").version is None
        assert snapshot.plugins[0].title == "'gram' of fk-gram"


class TestPrefix:
    """The distributions were named fusionkit, fusionkit-gram, ... before; configs and models of then keep working."""

    SNAPSHOT = Snapshot([CORE, plugin("gram", gram="a:B", sum="a:C", distribution="tensor-fusionkit-gram")])

    @pytest.mark.parametrize("name", ["fusionkit/summation", "tensor-fusionkit/summation", "Tensor_Fusionkit/sum"])
    def test_of_the_core(self, name: str) -> None:
        record = resolve(self.SNAPSHOT, name)
        assert (record.qualified, record.distribution) == ("fusionkit/summation", "tensor-fusionkit")

    @pytest.mark.parametrize("name", ["gram", "fusionkit-gram/gram", "tensor-fusionkit-gram/gram"])
    def test_of_a_plugin(self, name: str) -> None:
        record = resolve(self.SNAPSHOT, name)
        assert (record.qualified, record.distribution) == ("fusionkit-gram/gram", "tensor-fusionkit-gram")

    def test_a_shadowed_name_is_written_without(self) -> None:
        assert resolve(self.SNAPSHOT, "tensor-fusionkit-gram/sum").key == "fusionkit-gram/sum"
        assert self.SNAPSHOT.plugins[1].warnings == (
            "the fusion 'sum' is the core's: this one is 'fusionkit-gram/sum'",
        )

    def test_a_plugin_of_before(self) -> None:
        snapshot = Snapshot([CORE, plugin("gram", gram="a:B", distribution="fusionkit-gram")])
        assert resolve(snapshot, "tensor-fusionkit-gram/gram").distribution == "fusionkit-gram"

    def test_of_another_project(self) -> None:
        snapshot = Snapshot([plugin("a", gram="a:B", distribution="tensor-gram")])
        assert resolve(snapshot, "tensor-gram/gram").qualified == "tensor-gram/gram"
        assert "'gram/gram'" in refusal(snapshot, "gram/gram")

    def test_nearest_names(self) -> None:
        assert "Did you mean 'fusionkit/summation'" in refusal(self.SNAPSHOT, "tensor-fusionkit/sumation")


class TestReservedNames:
    @pytest.mark.parametrize("taken", ["summation", "sum"])
    def test_name_of_the_core(self, taken: str) -> None:
        snapshot = Snapshot([CORE, plugin("thief", **{taken: "evil:Sum"})])  # type: ignore[arg-type]
        assert resolve(snapshot, taken).distribution == "tensor-fusionkit"
        record = resolve(snapshot, f"fk-thief/{taken}")
        assert (record.status, record.key, record.target) == ("shadowed", f"fk-thief/{taken}", "evil:Sum")
        assert snapshot.plugins[1].status == "loaded"
        assert snapshot.plugins[1].warnings == (f"the fusion {taken!r} is the core's: this one is 'fk-thief/{taken}'",)

    def test_alias_of_the_core(self) -> None:
        snapshot = Snapshot([CORE, plugin("thief", gram=Spec("a:B", ("sum",)))])
        assert resolve(snapshot, "sum").distribution == "tensor-fusionkit"
        assert resolve(snapshot, "fk-thief/sum").name == "gram"
        assert resolve(snapshot, "gram").status == "ok"
        assert snapshot.plugins[1].warnings == ("the fusion 'sum' is the core's: this one is 'fk-thief/sum'",)

    def test_two_plugins_with_one_name_of_the_core(self) -> None:
        snapshot = Snapshot([CORE, plugin("a", sum="a:B"), plugin("b", sum="a:B")])
        assert resolve(snapshot, "sum").distribution == "tensor-fusionkit"
        assert [record.status for record in snapshot.records if record.name == "sum"] == ["shadowed", "shadowed"]

    def test_a_name_that_the_core_gave_up_is_free(self) -> None:
        assert resolve(Snapshot([CORE, plugin("a", gone="a:B")]), "gone").key == "gone"


class TestAmbiguousNames:
    def test_two_plugins(self) -> None:
        snapshot = Snapshot([CORE, plugin("a", gram="a:B"), plugin("b", gram="a:B")])
        assert refusal(snapshot, "gram") == (
            "the fusion 'gram' should come from one plugin; found 2: use 'fk-a/gram' or 'fk-b/gram'."
        )
        assert [record.key for record in snapshot.records if record.name == "gram"] == ["fk-a/gram", "fk-b/gram"]
        assert {record.status for record in snapshot.records if record.name == "gram"} == {"ambiguous"}
        assert snapshot.plugins[1].warnings == (
            "the fusion 'gram' comes from 'b' of fk-b 1.0 too: this one is 'fk-a/gram'",
        )

    def test_name_and_alias(self) -> None:
        snapshot = Snapshot([plugin("a", gram="a:B"), plugin("b", gauss=Spec("a:B", ("gram",)))])
        assert refusal(snapshot, "gram").endswith("found 2: use 'fk-a/gram' or 'fk-b/gram'.")
        assert resolve(snapshot, "gauss").status == "ok"
        assert resolve(snapshot, "fk-b/gram").name == "gauss"

    def test_one_distribution_with_two_plugins(self) -> None:
        snapshot = Snapshot([plugin("a", distribution="fk", gram="a:B"), plugin("b", distribution="FK", gram="a:C")])
        assert resolve(snapshot, "gram").target == "a:B"
        assert (snapshot.plugins[1].status, snapshot.plugins[1].error) == (
            "failed",
            "the fusion 'fk/gram' should be registered once; found it in the plugin 'a' already",
        )

    def test_plugin_that_calls_its_distribution_fusionkit(self) -> None:
        snapshot = Snapshot([CORE, plugin("fake", distribution="FusionKit", summation="evil:Sum")])
        assert resolve(snapshot, "fusionkit/summation").target == "core:Sum"
        assert snapshot.plugins[1].status == "failed"


class TestDeprecatedAndRemoved:
    def test_deprecated_name_works(self) -> None:
        record = resolve(Snapshot([plugin("a", old=Spec("a:B", deprecated="new"))]), "old")
        assert (record.status, record.key) == ("deprecated", "old")

    @pytest.mark.parametrize("name", ["old", "o", "fk-a/old", "FK-A/o"])
    def test_removed_name(self, name: str) -> None:
        snapshot = Snapshot([plugin("a", old=Spec("", ("o",), removed="new"))])
        assert refusal(snapshot, name) == f"the fusion {name!r} was removed: use 'new'."
        assert snapshot.records == ()

    def test_removed_with_a_sentence(self) -> None:
        snapshot = Snapshot([plugin("a", old=Spec("", removed="install fusionkit-old"))])
        assert refusal(snapshot, "old") == "the fusion 'old' was removed: install fusionkit-old."

    def test_instead(self) -> None:
        assert instead("summation") == "use 'summation'"
        assert instead("fk-a/new") == "use 'fk-a/new'"
        assert instead("call sum(views)") == "call sum(views)"


class TestUnknownNames:
    SENTENCE = "the name of a fusion should be one that 'fusionkit list' shows; found {!r}."

    @pytest.mark.parametrize("name", ["sumation", "Summation", "summ-ation"])
    def test_nearest(self, name: str) -> None:
        assert refusal(Snapshot([CORE]), name).startswith(self.SENTENCE.format(name) + " Did you mean 'summation'")

    def test_nearest_qualified(self) -> None:
        expected = self.SENTENCE.format("fusionkit/sumation") + " Did you mean 'fusionkit/summation'"
        assert refusal(Snapshot([CORE]), "fusionkit/sumation").startswith(expected)

    def test_nothing_near(self) -> None:
        assert refusal(Snapshot([CORE]), "xyz") == self.SENTENCE.format("xyz")

    @pytest.mark.parametrize("name", ["dense", "fusionkit/dense"])
    def test_of_the_other_kind(self, name: str) -> None:
        assert refusal(Snapshot([CORE]), name).endswith("There is a fabrication of this name.")

    def test_of_any_kind(self) -> None:
        assert refusal(Snapshot([CORE]), "dens", "fusion", "fabrication") == (
            "the name of a fusion or fabrication should be one that 'fusionkit list' shows; found 'dens'. "
            "Did you mean 'dense'?"
        )

    @pytest.mark.parametrize("name", ["", "/", "a/", "/gram", "fusionkit/", "a/b/c", "../summation"])
    def test_odd(self, name: str) -> None:
        assert refusal(Snapshot([CORE]), name).startswith(self.SENTENCE.format(name))

    @pytest.mark.parametrize("name", [None, 3, b"sum", ["sum"]])
    def test_no_string(self, name: object) -> None:
        message = refusal(Snapshot([CORE]), name)  # type: ignore[arg-type]
        assert message == f"the name of a fusion should be a string; found {name!r}."


class TestNamesOfPluginsThatAreNotLoaded:
    def test_known_name(self) -> None:
        broken = replace(plugin("a", gram="a:B"), status="failed", error="it burns")
        assert refusal(Snapshot([CORE, broken]), "gram").endswith(
            "found 'gram'. It would come from 'a' of fk-a 1.0, which failed because it burns."
        )

    @pytest.mark.parametrize(("status", "words"), [("incompatible", "is incompatible"), ("disabled", "is disabled")])
    def test_not_imported(self, status: str, words: str) -> None:
        broken = replace(plugin("a"), status=status, error="of a reason")  # type: ignore[arg-type]
        assert refusal(Snapshot([broken]), "fk_a/gram").endswith(
            f"It would come from 'a' of fk-a 1.0, which {words} because of a reason."
        )

    def test_unknown_names(self) -> None:
        one, two = (replace(plugin(name), status="failed", error="it burns") for name in "ab")
        assert refusal(Snapshot([CORE, one, two]), "gram").endswith(
            "Not loaded: 'a' of fk-a 1.0, 'b' of fk-b 1.0 ('fusionkit plugins' says why)."
        )

    def test_they_claim_nothing(self) -> None:
        broken = replace(plugin("a", gram="a:B"), status="failed", error="it burns")
        assert resolve(Snapshot([broken, plugin("b", gram="b:B")]), "gram").target == "b:B"
