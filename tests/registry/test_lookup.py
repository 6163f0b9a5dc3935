"""The registry: names to classes, and quarantine."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

import fusionkit
from fusionkit import Fabrication, Fusion, RegistryError, Spec, hookimpl, registry
from fusionkit.fusions.summation import Summation
from tests.fake_distributions import Site
from tests.registry.offers import hooks


class TestQuestions:
    def test_names(self, gram: Site) -> None:
        assert "gram" in registry.fusions()
        assert registry.fusions() == sorted(registry.fusions())
        assert {"dense", "lowrank"} <= set(registry.fabrications())
        assert "fk_gram_ops" not in sys.modules

    def test_names_that_do_not_work_in_short_form_are_qualified(self, site: Site) -> None:
        site.fusions("fk-one", {"twin": "a:B", "sum": "a:B"})
        site.fusions("fk-two", {"twin": "a:B"})
        mine = [name for name in registry.names("fusion") if name.startswith(("fk-", "twin", "sum"))]
        assert mine == ["fk-one/sum", "fk-one/twin", "fk-two/twin", "summation"]

    def test_records_of_one_kind(self, gram: Site) -> None:
        assert {record.kind for record in registry.records("fabrication")} == {"fabrication"}
        assert {record.kind for record in registry.records()} == {"fusion", "fabrication", "dataset"}

    @pytest.mark.parametrize("question", [registry.records, registry.names, lambda kind: registry.resolve(kind, "sum")])
    def test_wrong_kind(self, question: Any) -> None:
        with pytest.raises(RegistryError, match=r"^the kind should .*found 'fusions'\.$"):
            question("fusions")

    def test_resolve_imports_nothing(self, gram: Site) -> None:
        assert registry.resolve("fusion", "gram").target == "fk_gram_ops:Gram"
        assert "fk_gram_ops" not in sys.modules

    def test_find(self, gram: Site) -> None:
        assert registry.find("gram").kind == "fusion"
        assert registry.find("dense", "fabrication").kind == "fabrication"

    def test_conf_paths(self, site: Site) -> None:
        source = "import fusionkit\n@fusionkit.hookimpl\ndef fusionkit_conf():\n    return ['pkg://fk_conf.conf']\n"
        site.install("fk-conf", source)
        assert ("fk-conf", "pkg://fk_conf.conf") in registry.conf_paths()


class TestLoad:
    @pytest.mark.parametrize("name", ["gram", "fk-gram/gram", "FK_GRAM/gram"])
    def test_class(self, name: str, gram: Site) -> None:
        cls = registry.load("fusion", name)
        assert cls is sys.modules["fk_gram_ops"].Gram
        assert issubclass(cls, Fusion)

    def test_nested_class(self, gram: Site) -> None:
        gram.fusions("fk-nested", {"nested": "fk_gram_ops:Outer.Inner"})
        assert registry.load("fusion", "nested").__name__ == "Gram"

    def test_fabrication(self) -> None:
        assert issubclass(registry.load("fabrication", "identity"), Fabrication)

    @pytest.mark.parametrize(
        ("target", "cause"),
        [
            ("fk_nowhere:X", "ModuleNotFoundError: No module named 'fk_nowhere'"),
            ("fk_gram_ops:X", "AttributeError: module 'fk_gram_ops' has no attribute 'X'"),
            ("fk_gram_ops:Gram.X", "AttributeError: type object 'Gram' has no attribute 'X'"),
            ("fk_exits:X", "SystemExit: 1"),
        ],
    )
    def test_target_that_cannot_be_imported(self, target: str, cause: str, gram: Site) -> None:
        (gram.folder / "fk_exits.py").write_text("raise SystemExit(1)")
        gram.fusions("fk-broken", {"broken": target})
        assert "broken" in registry.fusions()
        with pytest.raises(RegistryError) as caught:
            registry.load("fusion", "broken")
        assert str(caught.value) == f"the fusion 'broken' of fk-broken 1.0 cannot be imported from {target!r}: {cause}."
        assert registry.load("fusion", "gram")

    @pytest.mark.parametrize(
        ("target", "found"),
        [
            ("fk_gram_ops:Outer", "<class 'fk_gram_ops.Outer'>"),
            ("fk_gram_ops:function", "<function function at"),
            ("fusionkit.fabrications.dense:Dense", "<class 'fusionkit.fabrications.dense.Dense'>"),
        ],
    )
    def test_target_that_is_no_fusion(self, target: str, found: str, gram: Site) -> None:
        gram.fusions("fk-broken", {"broken": target})
        with pytest.raises(RegistryError) as caught:
            registry.load("fusion", "broken")
        message = str(caught.value)
        assert message.startswith(
            f"the fusion 'broken' of fk-broken 1.0 should be a subclass of fusionkit.Fusion; found {found}"
        )
        assert message.endswith(f"at {target!r}.")

    def test_ctrl_c_while_importing(self, gram: Site) -> None:
        (gram.folder / "fk_slow.py").write_text("raise KeyboardInterrupt")
        gram.fusions("fk-slow", {"slow": "fk_slow_ops:X"})
        (gram.folder / "fk_slow_ops.py").write_text("raise KeyboardInterrupt")
        with pytest.raises(KeyboardInterrupt):
            registry.load("fusion", "slow")


class TestDataset:
    def test_function(self, site: Site) -> None:
        site.dataset(summary="twelve rows", aliases=("plaything",))
        record = registry.resolve("dataset", "toy")
        assert (record.kind, record.qualified, record.summary) == ("dataset", "fk-data/toy", "twelve rows")
        assert registry.find("fk-data/plaything") == record
        assert {"digits", "mfeat", "toy"} <= set(registry.names("dataset"))
        assert "fk_read" not in sys.modules
        assert registry.dataset("toy") is sys.modules["fk_read"].read

    def test_names_of_the_core_and_of_two_plugins(self, site: Site) -> None:
        site.dataset("mfeat")
        site.dataset("toy", "fk-two")
        site.dataset("toy", "fk-three")
        assert registry.resolve("dataset", "mfeat").distribution == "tensor-fusionkit"
        assert registry.resolve("dataset", "fk-data/mfeat").status == "shadowed"
        with pytest.raises(RegistryError, match=r"^the data set 'toy' should come from one plugin; found 2: use 'fk-"):
            registry.dataset("toy")

    @pytest.mark.parametrize(
        ("target", "sentence"),
        [
            ("fk_nowhere:read", "cannot be imported from 'fk_nowhere:read': ModuleNotFoundError: No module named "),
            ("fk_read:np.pi", "should be a function; found 3.14159"),
        ],
    )
    def test_what_is_no_function(self, target: str, sentence: str, site: Site) -> None:
        site.dataset(target=target)
        with pytest.raises(RegistryError, match=rf"^the data set 'toy' of fk-data 1\.0 {re.escape(sentence)}"):
            registry.dataset("toy")
        (plugin,) = [one for one in registry.verify(import_targets=True) if one.distribution == "fk-data"]
        assert sentence in (plugin.error or "")

    def test_deprecated_warns_once_and_removed_is_refused(self, site: Site) -> None:
        site.dataset(deprecated="digits")
        site.dataset("old", "fk-two", target="", removed="digits")
        with pytest.warns(registry.DeprecatedNameWarning, match=r"^the data set 'toy' is deprecated: use 'digits'\.$"):
            registry.dataset("toy")
        registry.dataset("toy")
        with pytest.raises(RegistryError, match=r"^the data set 'old' was removed: use 'digits'\.$"):
            registry.dataset("old")

    def test_registered_at_run_time(self) -> None:
        offers = SimpleNamespace(__name__="local_pkg", fusionkit_datasets=hookimpl(lambda: {"here": len}))
        with registry.isolated(offers):
            assert registry.dataset("here") is len
            assert registry.resolve("dataset", "here").target == "builtins:len"
        with pytest.raises(RegistryError, match="found 'here'"):
            registry.dataset("here")


class TestKeyOf:
    def test_registered(self, gram: Site) -> None:
        assert registry.key_of(Summation) == "summation"
        assert registry.key_of(registry.load("fusion", "gram")) == "gram"

    def test_registered_and_never_loaded_through_the_registry(self, gram: Site) -> None:
        module = importlib.import_module("fk_gram_ops")
        assert registry.key_of(module.Gram) == "gram"

    def test_exported_from_another_module(self, gram: Site) -> None:
        (gram.folder / "fk_exports.py").write_text("from fk_gram_ops import Gram as Exported")
        with registry.isolated(hooks(exported="fk_exports:Exported")):
            assert registry.key_of(importlib.import_module("fk_gram_ops").Gram) is None
            assert registry.key_of(importlib.import_module("fk_exports").Exported) == "exported"

    def test_not_registered(self) -> None:
        assert registry.key_of(type("Foreign", (Summation,), {})) is None

    def test_shadowed_name_is_qualified(self, gram: Site) -> None:
        gram.fusions("fk-thief", {"sum": "fk_gram_ops:Outer.Inner"})
        importlib.import_module("fk_gram_ops")
        assert registry.key_of(registry.load("fusion", "fk-thief/sum")) == "gram"
        gram_class = registry.load("fusion", "gram")
        with registry.isolated(hooks(sum=gram_class)):
            assert registry.key_of(gram_class) == "local_pkg/sum"

    def test_current_name_before_a_deprecated_one(self, site: Site) -> None:
        with registry.isolated(hooks(aaa=Spec(Summation, deprecated="summation"))):
            assert registry.key_of(Summation) == "summation"


class TestCreate:
    def test_operator_knows_its_key(self, gram: Site) -> None:
        operator = fusionkit.create("fk-gram/gram", dims=[2, 3])
        assert (operator.name, operator.calculate_n()) == ("gram", 5)
        assert operator.to_config() == {"name": "gram", "dims": [2, 3]}

    def test_alias_becomes_the_name(self) -> None:
        assert fusionkit.create("sum", dims=[2, 2]).to_config()["name"] == "summation"

    def test_shadowed_operator_keeps_its_qualified_name(self, gram: Site) -> None:
        gram.fusions("fk-thief", {"sum": "fk_gram_ops:Gram"})
        operator = fusionkit.create("fk-thief/sum", dims=[2, 3])
        config = operator.to_config()
        assert config["name"] == "fk-thief/sum"
        assert type(fusionkit.create(**config)) is type(operator)

    def test_fabrication(self) -> None:
        assert fusionkit.create_fabrication("lorr", r=2).to_config() == {"name": "lowrank", "r": 2}

    def test_name_as_keyword(self) -> None:
        assert isinstance(fusionkit.create(name="sum", dims=[2]), Summation)

    def test_unknown_name(self) -> None:
        with pytest.raises(RegistryError, match=r"found 'sumation'\. Did you mean 'summation'"):
            fusionkit.create("sumation")

    def test_fusion_asked_as_fabrication(self) -> None:
        with pytest.raises(RegistryError, match=r"There is a fusion of this name\.$"):
            fusionkit.create_fabrication("summation")

    @pytest.mark.parametrize(
        ("check", "variable", "attached"), [(True, "", 1), (False, "1", 1), (False, "0", 0), (False, "", 0)]
    )
    def test_passive_checker(self, check: bool, variable: str, attached: int, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[Any] = []
        passive = SimpleNamespace(attach=seen.append)
        monkeypatch.setattr("fusionkit.core.factory.first_call", passive)
        monkeypatch.setenv("FUSIONKIT_CHECK", variable)
        operator = fusionkit.create("summation", check=check, dims=[2])
        assert seen == [operator] * attached


class TestDeprecated:
    def test_warns_once_and_at_the_caller(self, site: Site) -> None:
        with registry.isolated(hooks(old=Spec(Summation, deprecated="summation"))):
            with pytest.warns(registry.DeprecatedNameWarning) as caught:
                fusionkit.create("old")
            assert str(caught[0].message) == "the fusion 'old' is deprecated: use 'summation'."
            assert caught[0].filename == __file__
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                fusionkit.create("old")
                registry.load("fusion", "old")
                fusionkit.create("local_pkg/old")

    def test_is_a_deprecation_warning(self) -> None:
        assert issubclass(registry.DeprecatedNameWarning, DeprecationWarning)

    def test_loading_warns_at_the_caller_too(self, site: Site) -> None:
        with (
            registry.isolated(hooks(old=Spec(Summation, deprecated="call sum(views)"))),
            pytest.warns(registry.DeprecatedNameWarning, match=r"is deprecated: call sum\(views\)\.$") as caught,
        ):
            registry.load("fusion", "old")
        assert caught[0].filename == __file__

    def test_looking_does_not_warn(self, site: Site) -> None:
        with registry.isolated(hooks(old=Spec(Summation, deprecated="summation"))):
            assert registry.resolve("fusion", "old").status == "deprecated"
            assert "old" in registry.fusions()

    def test_removed(self, site: Site) -> None:
        with (
            registry.isolated(hooks(old=Spec("", removed="summation"))),
            pytest.raises(RegistryError, match=r"^the fusion 'old' was removed: use 'summation'\.$"),
        ):
            fusionkit.create("old")


class TestQuarantine:
    def test_the_others_work(self, gram: Site) -> None:
        gram.install("fk-broken", "raise ValueError('boom')")
        assert "gram" in registry.fusions()
        (broken,) = [plugin for plugin in registry.plugins() if plugin.distribution == "fk-broken"]
        assert (broken.status, broken.error) == ("failed", "it cannot be imported: ValueError: boom")

    def test_using_its_name_says_why(self, site: Site) -> None:
        site.fusions("fk-broken", {"lost": "a:B", "Bad": "a:B"})
        with pytest.raises(RegistryError) as caught:
            fusionkit.create("lost")
        assert "It would come from 'plugin' of fk-broken 1.0, which failed because a name in" in str(caught.value)

    def test_an_unknown_name_says_what_is_not_loaded(self, site: Site) -> None:
        site.install("fk-broken", "raise ValueError('boom')")
        with pytest.raises(RegistryError, match=r"Not loaded: 'plugin' of fk-broken 1\.0"):
            fusionkit.create("lost")

    def test_strict(self, gram: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        gram.install("fk-broken", "raise ValueError('boom')")
        monkeypatch.setenv("FUSIONKIT_STRICT", "1")
        for question in (registry.fusions, registry.refresh, lambda: fusionkit.create("sum"), registry.conf_paths):
            with pytest.raises(RegistryError) as caught:
                question()
            assert str(caught.value) == (
                "under FUSIONKIT_STRICT=1 every plugin should load; "
                "found 'plugin' of fk-broken 1.0: it cannot be imported: ValueError: boom."
            )
        assert "fk-broken" in [plugin.distribution for plugin in registry.plugins()]

    @pytest.mark.parametrize("value", ["", "0", "false", "no", "OFF"])
    def test_not_strict(self, value: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        site.install("fk-broken", "raise ValueError")
        monkeypatch.setenv("FUSIONKIT_STRICT", value)
        assert "summation" in registry.fusions()

    def test_strict_does_not_mind_what_is_disabled(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        site.install("fk-broken", "raise ValueError")
        monkeypatch.setenv("FUSIONKIT_PLUGINS", "")
        monkeypatch.setenv("FUSIONKIT_STRICT", "1")
        assert "summation" in registry.fusions()

    def test_allow_list(self, gram: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        gram.fusions("fk-other", {"other": "a:B"})
        monkeypatch.setenv("FUSIONKIT_PLUGINS", "fk-gram")
        assert "gram" in registry.fusions()
        assert "other" not in registry.fusions()
        with pytest.raises(RegistryError, match=r"Not loaded: 'plugin' of fk-other 1\.0"):
            fusionkit.create("other")
        with pytest.raises(
            RegistryError, match=r"which is disabled because FUSIONKIT_PLUGINS should name fk-other; found"
        ):
            fusionkit.create("fk-other/other")

    def test_plugin_that_uses_the_registry_when_it_is_imported_first(self, site: Site) -> None:
        site.install("fk-eager", "import fusionkit\nNAMES = fusionkit.fusions()\n")
        assert "summation" in importlib.import_module("fk_eager").NAMES
        (eager,) = [plugin for plugin in registry.plugins() if plugin.distribution == "fk-eager"]
        assert eager.error == "it should not use the registry while it is imported; found that it does"

    def test_plugin_that_uses_the_registry_while_it_is_imported(self, site: Site) -> None:
        site.install("fk-eager", "import fusionkit\nfusionkit.fusions()\n")
        (eager,) = [plugin for plugin in registry.plugins() if plugin.distribution == "fk-eager"]
        assert eager.error == (
            "it cannot be imported: RegistryError: the registry should not be used by a plugin that is being imported; "
            "found that it is"
        )

    def test_interrupted(self, gram: Site) -> None:
        gram.install("fk-slow", "raise KeyboardInterrupt")
        with pytest.raises(KeyboardInterrupt):
            registry.fusions()
        (gram.folder / "fk_slow.py").write_text("")
        registry.refresh()
        assert "gram" in registry.fusions()
