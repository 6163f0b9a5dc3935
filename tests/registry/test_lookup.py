"""The registry: names to classes, quarantine, plugins that come and go, threads."""

from __future__ import annotations

import importlib
import sys
import threading
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

import fusionkit
from fusionkit import Fabrication, Fusion, RegistryError, Spec, hookimpl, registry
from fusionkit.fusions.summation import Summation
from tests.fake_distributions import Site

OPERATORS = """\
import torch
import fusionkit

class Gram(fusionkit.Fusion):
    def calculate_n(self, dims=None):
        return sum(self.resolve_dims(dims))

    def calculate_l(self):
        return 0

    def _fuse(self, x):
        return torch.cat(list(x), -1)

class Outer:
    Inner = Gram

def function():
    pass
"""


@pytest.fixture
def gram(site: Site) -> Site:
    """Install fk-gram, whose plugin offers a class in another module."""
    (site.folder / "fk_gram_ops.py").write_text(OPERATORS)
    site.fusions("fk-gram", {"gram": "fk_gram_ops:Gram"}, entry="gram")
    return site


def hooks(**offers: Any) -> SimpleNamespace:
    """Return a plugin object with these fusions."""
    return SimpleNamespace(__name__="local_pkg.plugin", fusionkit_fusions=hookimpl(lambda: offers))


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
        assert {record.kind for record in registry.records()} == {"fusion", "fabrication"}

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


class TestVerify:
    def test_targets(self, gram: Site) -> None:
        gram.fusions("fk-broken", {"one": "fk_nowhere:X", "two": "fk_gram_ops:Outer", "three": "fk_gram_ops:Gram"})
        found = {plugin.distribution: plugin for plugin in registry.verify()}
        assert found["fk-broken"].status == "loaded"
        found = {plugin.distribution: plugin for plugin in registry.verify(import_targets=True)}
        assert found["fk-gram"].status == "loaded"
        assert found["fusionkit"].error is None
        assert found["fk-broken"].status == "failed"
        error = found["fk-broken"].error or ""
        assert "the fusion 'one' of fk-broken 1.0 cannot be imported" in error
        assert "the fusion 'two' of fk-broken 1.0 should be a subclass" in error
        assert "three" not in error
        assert "ModuleNotFoundError" in (found["fk-broken"].traceback or "")

    def test_checks_hook(self, gram: Site) -> None:
        source = "import fusionkit\n@fusionkit.hookimpl\ndef fusionkit_checks():\n    raise ValueError('boom')\n"
        gram.install("fk-checks", source)
        assert {plugin.status for plugin in registry.plugins() if plugin.distribution == "fk-checks"} == {"loaded"}
        (plugin,) = [plugin for plugin in registry.verify() if plugin.distribution == "fk-checks"]
        assert (plugin.status, plugin.error) == ("failed", "fusionkit_checks should not raise; found ValueError: boom")
        assert "gram" in registry.fusions()


class TestChecks:
    def test_all_plugins(self, site: Site) -> None:
        def check_one(subject: Any) -> None: ...

        module = SimpleNamespace(__name__="local_pkg", fusionkit_checks=hookimpl(lambda: [check_one]))
        with registry.isolated(module):
            assert registry.checks() == [check_one]

    def test_failing_hook_quarantines_its_plugin(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        module = hooks(gram="a:B")
        module.fusionkit_checks = hookimpl(lambda: None)
        with registry.isolated(module):
            assert "gram" in registry.fusions()
            assert registry.checks() == []
            assert "gram" not in registry.fusions()
            monkeypatch.setenv("FUSIONKIT_STRICT", "1")
            with pytest.raises(RegistryError, match=r"fusionkit_checks should return what its specification says"):
                registry.checks()
            monkeypatch.delenv("FUSIONKIT_STRICT")

    def test_a_hook_that_fails_in_another_way(self, site: Site) -> None:
        @hookimpl(wrapper=True)
        def fusionkit_checks() -> Any:
            yield
            return 5

        module = hooks(gram="a:B")
        module.fusionkit_checks = fusionkit_checks
        with registry.isolated(module):
            assert registry.checks() == []
            assert [plugin.error for plugin in registry.quarantined()] == [
                "a wrapper of fusionkit_checks should return the list of results; found 5"
            ]


class TestRunFinished:
    def test_each_plugin_gets_a_copy(self, site: Site) -> None:
        seen: list[dict[str, Any]] = []

        def fusionkit_run_finished(result: dict[str, Any]) -> None:
            seen.append(result)
            result["metrics"]["accuracy"] = 0

        module = SimpleNamespace(__name__="local_pkg", fusionkit_run_finished=hookimpl(fusionkit_run_finished))
        result = {"metrics": {"accuracy": 1}}
        with registry.isolated(module):
            registry.run_finished(result)
        assert seen == [{"metrics": {"accuracy": 0}}]
        assert result == {"metrics": {"accuracy": 1}}

    def test_a_failing_tracker_is_a_warning(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        def fusionkit_run_finished() -> None:
            raise OSError("offline")

        module = SimpleNamespace(__name__="local_pkg", fusionkit_run_finished=hookimpl(fusionkit_run_finished))
        sentence = (
            "the plugin 'local_pkg' of local_pkg should take note of the finished run; found that "
            "fusionkit_run_finished should not raise; found OSError: offline."
        )
        with registry.isolated(module):
            with pytest.warns(RuntimeWarning) as caught:
                registry.run_finished({})
            assert str(caught[0].message) == sentence
            monkeypatch.setenv("FUSIONKIT_STRICT", "1")
            with pytest.raises(RegistryError) as refused:
                registry.run_finished({})
            assert str(refused.value) == sentence


class TestChanges:
    def test_installed_later(self, site: Site) -> None:
        assert "gram" not in registry.fusions()
        site.fusions("fk-gram", {"gram": "a:B"})
        assert "gram" not in registry.fusions()
        fusionkit.refresh()
        assert "gram" in registry.fusions()

    def test_mended_later(self, site: Site) -> None:
        module = site.install("fk-gram", "raise ValueError")
        assert "gram" not in registry.fusions()
        site.fusions("fk-good", {"gram": "a:B"})
        (site.folder / f"{module}.py").write_text((site.folder / "fk_good.py").read_text())
        fusionkit.refresh()
        assert "fk-gram/gram" in registry.fusions()

    def test_removed_later(self, site: Site) -> None:
        site.fusions("fk-gram", {"gram": "a:B"})
        assert "gram" in registry.fusions()
        (site.folder / "fk_gram-1.0.dist-info" / "entry_points.txt").unlink()
        fusionkit.refresh()
        assert "gram" not in registry.fusions()

    def test_installed_later_editable(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """The folder stands in a .pth file, which Python reads at its start only."""
        monkeypatch.setattr("site.getsitepackages", lambda: [str(site.folder)])
        assert "gram" not in registry.fusions()
        source = site.folder / "source"
        source.mkdir()
        site.fusions("fk-gram", {"gram": "a:B"})
        (site.folder / "fk_gram.py").rename(source / "fk_gram.py")
        (site.folder / "_fk_gram.pth").write_text(f"# editable\nimport fk_never\n{source}\nnowhere\n")
        (site.folder / "_fk_latin.pth").write_bytes(b"\xff\n")
        before = list(sys.path)
        fusionkit.refresh()
        assert "gram" in registry.fusions()
        assert sys.path == [*before, str(source)]
        fusionkit.refresh()
        assert sys.path == [*before, str(source)]

    def test_register(self, site: Site) -> None:
        registry.register(hooks(mine=Summation))
        record = registry.resolve("fusion", "mine")
        assert (record.qualified, record.version, record.local) == ("local_pkg/mine", None, True)
        assert registry.key_of(Summation) == "summation"
        assert isinstance(fusionkit.create("mine"), Summation)
        fusionkit.refresh()
        assert "mine" in registry.fusions()

    def test_register_twice(self, site: Site) -> None:
        module = hooks(mine=Summation)
        registry.register(module)
        registry.register(module)
        assert registry.resolve("fusion", "mine").status == "ok"

    def test_register_what_is_installed_already(self, gram: Site) -> None:
        registry.fusions()
        registry.register(sys.modules["fk_gram"])
        assert not registry.resolve("fusion", "gram").local

    def test_register_takes_the_version_of_the_package(self, site: Site) -> None:
        module = hooks(mine=Summation)
        module.__name__ = "torch.plugin"
        registry.register(module)
        assert registry.resolve("fusion", "mine").version == sys.modules["torch"].__version__

    @pytest.mark.parametrize(
        ("module", "error"),
        [
            (SimpleNamespace(__name__="local_pkg"), "it should mark at least one hook with"),
            (hooks(Bad="a:B"), "a name in fusionkit_fusions should match [a-z][a-z0-9_]*; found 'Bad'."),
            (None, "it should mark at least one hook with"),
        ],
    )
    def test_register_something_wrong(self, module: Any, error: str, site: Site) -> None:
        before = registry.fusions()
        with pytest.raises(RegistryError) as caught:
            registry.register(module)
        assert "cannot be registered: " in str(caught.value)
        assert error in str(caught.value)
        assert registry.fusions() == before

    def test_register_a_second_meaning_of_a_qualified_name(self, site: Site) -> None:
        registry.register(hooks(mine=Summation))
        with pytest.raises(RegistryError, match=r"'local-pkg/mine' should .*found it in the plugin"):
            registry.register(hooks(mine="a:B"))

    def test_isolated(self, gram: Site) -> None:
        before = registry.fusions()
        with registry.isolated(hooks(mine=Summation)):
            assert "gram" not in registry.fusions()
            assert {"mine", "summation"} <= set(registry.fusions())
            fusionkit.refresh()
            assert "gram" not in registry.fusions()
            other = hooks(other=Summation)
            other.__name__ = "other_pkg"
            registry.register(other)
            assert "other" in registry.fusions()
        assert registry.fusions() == before

    def test_isolated_with_something_wrong(self, gram: Site) -> None:
        before = registry.fusions()
        with pytest.raises(RegistryError), registry.isolated(hooks(Bad="a:B")):
            pass
        assert registry.fusions() == before


class TestThreads:
    def test_loaded_once_by_the_first_thread(self, site: Site) -> None:
        source = """
            import time
            import fusionkit
            COUNTS = []

            @fusionkit.hookimpl
            def fusionkit_fusions():
                COUNTS.append(1)
                time.sleep(0.05)
                return {"gram": "a:B"}
        """
        site.install("fk-slow", source)
        found: list[list[str]] = []
        threads = [threading.Thread(target=lambda: found.append(registry.fusions())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert all("gram" in names for names in found)
        assert sys.modules["fk_slow"].COUNTS == [1]

    def test_reading_while_it_changes(self, gram: Site) -> None:
        stop = threading.Event()
        problems: list[BaseException] = []

        def read() -> None:
            try:
                while not stop.is_set():
                    assert "gram" in registry.fusions()
                    fusionkit.create("gram", dims=[2])
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            fusionkit.refresh()
        stop.set()
        for thread in threads:
            thread.join()
        assert problems == []

    def test_a_deprecated_name_warns_once_for_all_threads(self, site: Site) -> None:
        with (
            registry.isolated(hooks(old=Spec(Summation, deprecated="summation"))),
            warnings.catch_warnings(record=True) as seen,
        ):
            warnings.simplefilter("always")
            threads = [threading.Thread(target=lambda: fusionkit.create("old")) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(seen) == 1
