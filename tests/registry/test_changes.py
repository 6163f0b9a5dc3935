"""The registry: what is verified, checks and hooks of plugins, plugins that come and go, threads."""

from __future__ import annotations

import functools
import importlib
import sys
import threading
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

import fusionkit
from fusionkit import RegistryError, Spec, hookimpl, registry
from fusionkit.fusions.summation import Summation
from tests.fake_distributions import Site
from tests.registry.offers import hooks


class TestVerify:
    def test_targets(self, gram: Site) -> None:
        gram.fusions("fk-broken", {"one": "fk_nowhere:X", "two": "fk_gram_ops:Outer", "three": "fk_gram_ops:Gram"})
        found = {plugin.distribution: plugin for plugin in registry.verify()}
        assert found["fk-broken"].status == "loaded"
        found = {plugin.distribution: plugin for plugin in registry.verify(import_targets=True)}
        assert found["fk-gram"].status == "loaded"
        assert found["tensor-fusionkit"].error is None
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
            "the plugin 'local_pkg' of local_pkg should process the finished run; found that "
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

    def test_register_again_after_a_change(self, site: Site) -> None:
        offers: dict[str, Any] = {"mine": Summation}
        module = hooks(**offers)
        module.fusionkit_fusions = fusionkit.hookimpl(lambda: dict(offers), specname="fusionkit_fusions")
        registry.register(module)
        offers["other"] = "a:B"
        registry.register(module)
        assert {"mine", "other"} <= set(registry.fusions())
        del offers["mine"]
        registry.register(module)
        assert "mine" not in registry.fusions()

    def test_register_again_after_a_reload(self, gram: Site) -> None:
        assert "second" not in registry.fusions()
        file = gram.folder / "fk_gram.py"
        file.write_text(file.read_text().replace("{'gram'", "{'second': 'a:B', 'gram'"))
        registry.register(importlib.reload(sys.modules["fk_gram"]))
        assert {"gram", "second"} <= set(registry.fusions())
        assert not registry.resolve("fusion", "second").local

    def test_a_notebook_cell_that_registers_a_class_runs_twice(self, site: Site) -> None:
        cell = (
            "import fusionkit\nfrom fusionkit.fusions.summation import Summation\n"
            "class Mine(Summation): pass\n"
            "class Plugin:\n"
            "    @fusionkit.hookimpl\n"
            "    def fusionkit_fusions(self): return {'mine': Mine}\n"
            "fusionkit.registry.register(Plugin())\n"
        )
        for _ in range(2):
            namespace: dict[str, Any] = {"__name__": "notebook"}
            exec(cell, namespace)
            assert type(fusionkit.create("mine", dims=[3])) is namespace["Mine"]
            assert registry.key_of(namespace["Mine"]) == "mine"

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

    def test_reading_while_it_changes(self, gram: Site, request: pytest.FixtureRequest) -> None:
        # Threads take turns often, so that the one that changes it is not held up by those that read.
        request.addfinalizer(functools.partial(sys.setswitchinterval, sys.getswitchinterval()))
        sys.setswitchinterval(1e-4)
        stop = threading.Event()
        problems: list[BaseException] = []

        def read() -> None:
            try:
                while not stop.is_set():
                    assert "gram" in registry.fusions()
                    fusionkit.create("gram", dims=[2])
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(2):
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
