"""Importing one plugin and collecting what it offers: whatever is wrong with it stays with it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fusionkit import DatasetSpec, Spec, hookimpl
from fusionkit.registry.discovery import Candidate, installed
from fusionkit.registry.loading import Plugin, PluginProblem, call_hook, checks_of, collect_offers, load
from tests.fake_distributions import Site

RUNNING = "0.1.0"


def plugin_of(**hooks: Any) -> Plugin:
    """Return an imported plugin whose module has these functions, all marked as hooks."""
    module = SimpleNamespace(**{name: hookimpl(function) for name, function in hooks.items()})
    return Plugin("gram", "fk_gram", "fk-gram", "1.0", module=module)


def offering(value: Any) -> Plugin:
    """Return what becomes of a plugin whose ``fusionkit_fusions`` returns ``value``."""
    return collect_offers(plugin_of(fusionkit_fusions=lambda: value))


def load_installed(site: Site, source: str | None, **options: Any) -> Plugin:
    """Install a plugin with this source and return what becomes of it."""
    site.install("fk-gram", source, **options)
    (candidate,) = [one for one in installed() if one.distribution == "fk-gram"]
    return load(candidate, RUNNING)


class TestLoad:
    def test_right_plugin(self, site: Site) -> None:
        site.fusions("fk-gram", {"gram": "fk_gram.ops:Gram"}, entry="gram")
        (candidate,) = [one for one in installed() if one.distribution == "fk-gram"]
        plugin = load(candidate, RUNNING)
        assert plugin.to_dict() == {
            "plugin": "gram",
            "distribution": "fk-gram",
            "version": "1.0",
            "status": "loaded",
            "error": None,
            "fusions": ["gram"],
            "fabrications": [],
            "datasets": [],
            "target": "fk_gram",
            "seconds": pytest.approx(plugin.seconds, abs=1e-6),
            "warnings": [],
            "traceback": None,
        }
        assert plugin.seconds > 0
        assert plugin.title == "'gram' of fk-gram 1.0"

    @pytest.mark.parametrize(
        ("source", "error"),
        [
            ("import fk_nowhere", "it cannot be imported: ModuleNotFoundError: No module named 'fk_nowhere'"),
            (None, "it cannot be imported: ModuleNotFoundError: No module named 'fk_gram'"),
            ("def f(:\n", "it cannot be imported: SyntaxError: invalid syntax (fk_gram.py, line 1)"),
            ("raise SystemExit(3)", "it cannot be imported: SystemExit: 3"),
            ("import sys; sys.exit()", "it cannot be imported: SystemExit"),
            ("import pytest; pytest.skip('x', allow_module_level=True)", "it cannot be imported: Skipped: x"),
            ("raise ValueError('two\\nlines.')", "it cannot be imported: ValueError: two lines"),
            ("def f(): f()\nf()", "it cannot be imported: RecursionError: maximum recursion depth exceeded"),
            ("class Odd(Exception):\n    def __str__(self): return 1 / 0\nraise Odd", "it cannot be imported: Odd"),
            ("raise ValueError('\\udcff\\x1b[31m')", "it cannot be imported: ValueError: \\udcff\\x1b[31m"),
            ("raise GeneratorExit", "it cannot be imported: GeneratorExit"),
        ],
    )
    def test_whatever_the_import_raises(self, source: str | None, error: str, site: Site) -> None:
        plugin = load_installed(site, source)
        assert (plugin.status, plugin.error) == ("failed", error)
        assert plugin.traceback is not None
        assert plugin.traceback.startswith("Traceback")
        assert plugin.names("fusion") == []

    def test_missing_attribute(self, site: Site) -> None:
        plugin = load_installed(site, "", entry_points="[fusionkit]\ngram = fk_gram:nothing\n")
        assert plugin.error == "it cannot be imported: AttributeError: module 'fk_gram' has no attribute 'nothing'"

    @pytest.mark.parametrize("value", ["a b c", "", "fk_gram:x:y", "fk-gram"])
    def test_entry_point_that_is_none(self, site: Site, value: str) -> None:
        plugin = load_installed(site, "", entry_points=f"[fusionkit]\ngram = {value}\n")
        assert (plugin.name, plugin.error) == (
            "gram",
            "it cannot be imported: ValueError: its entry_points.txt should have lines of the form name = module; "
            f"found {f'gram = {value}'.strip()!r}",
        )

    def test_entry_point_with_extras(self, site: Site) -> None:
        source = "import fusionkit\n@fusionkit.hookimpl\ndef fusionkit_fusions(): return {'gram': 'a:B'}\n"
        plugin = load_installed(site, source, entry_points="[fusionkit]\ngram = fk_gram [run, test]\n")
        assert (plugin.target, plugin.names("fusion")) == ("fk_gram", ["gram"])

    @pytest.mark.parametrize("name", ["FusionKit", "tensor_fusionkit"])
    def test_a_distribution_that_calls_itself_fusionkit(self, name: str, site: Site) -> None:
        site.install("fk-gram", "raise ValueError", metadata=f"Metadata-Version: 2.1\nName: {name}\nVersion: 66\n")
        (candidate,) = [one for one in installed() if one.target == "fk_gram"]
        plugin = load(candidate, RUNNING)
        assert (plugin.status, plugin.error) == (
            "failed",
            f"its distribution should have a name of its own; found {name}",
        )

    def test_entry_point_may_name_an_object(self, site: Site) -> None:
        source = """
            import fusionkit
            class Hooks:
                @fusionkit.hookimpl
                def fusionkit_fusions(self):
                    return {"gram": "fk_gram:Gram"}
            hooks = Hooks()
        """
        plugin = load_installed(site, source, entry_points="[fusionkit]\ngram = fk_gram:hooks\n")
        assert (plugin.error, plugin.names("fusion")) == (None, ["gram"])

    def test_it_may_import_more_of_fusionkit(self, site: Site) -> None:
        source = "import fusionkit.bench.timing\n@fusionkit.hookimpl\ndef fusionkit_fusions(): return {'gram': 'a:B'}\n"
        assert load_installed(site, source).error is None

    def test_ctrl_c_is_not_the_plugins_fault(self, site: Site) -> None:
        with pytest.raises(KeyboardInterrupt):
            load_installed(site, "raise KeyboardInterrupt")

    def test_incompatible_is_not_imported(self, site: Site) -> None:
        plugin = load_installed(site, "raise ValueError", requires=["fusionkit>=99"])
        assert (plugin.status, plugin.error) == ("incompatible", "it requires 'fusionkit>=99'; found fusionkit 0.1.0")

    def test_disabled_is_neither_imported_nor_compared(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FUSIONKIT_PLUGINS", "")
        plugin = load_installed(site, "raise ValueError", requires=["fusionkit>=99"])
        assert (plugin.status, plugin.error) == ("disabled", "FUSIONKIT_PLUGINS should name fk-gram; found ''")

    def test_the_core_is_always_loaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FUSIONKIT_PLUGINS", "")
        core = Candidate(
            "builtin",
            "fusionkit.builtin",
            "tensor-fusionkit",
            RUNNING,
            lambda: plugin_of(fusionkit_fusions=lambda: {"gram": "a:B"}).module,
        )
        assert load(core, RUNNING).status == "loaded"


class TestCollectOffers:
    def test_all_hooks(self) -> None:
        plugin = collect_offers(
            plugin_of(
                fusionkit_fusions=lambda: {"gram": Spec("a.b:C", ("g",), "a summary"), "other": "a:B", "local": Spec},
                fusionkit_fabrications=lambda: {"fab": "a:B.C"},
                fusionkit_datasets=lambda: {"toy": DatasetSpec("a.b:read", "regression", "MIT"), "m": "a:b", "l": len},
                fusionkit_conf=lambda: ["pkg://a.conf"],
                fusionkit_checks=lambda: [check_nothing],
            )
        )
        assert plugin.error is None
        assert plugin.specs["fusion"]["gram"] == Spec("a.b:C", ("g",), "a summary")
        assert plugin.specs["fusion"]["local"] == Spec(Spec)
        assert (plugin.names("fusion"), plugin.names("fabrication")) == (["gram", "local", "other"], ["fab"])
        assert plugin.specs["dataset"]["toy"] == DatasetSpec("a.b:read", "regression", "MIT")
        assert plugin.specs["dataset"]["l"] == DatasetSpec(len)
        assert plugin.names("dataset") == ["l", "m", "toy"]
        assert plugin.conf == ("pkg://a.conf",)
        assert checks_of(plugin) == [check_nothing]

    def test_removed_names_are_not_offered(self) -> None:
        assert offering({"gram": "a:B", "old": Spec("", removed="gram")}).names("fusion") == ["gram"]

    def test_no_hook(self) -> None:
        assert (
            collect_offers(plugin_of()).error
            == "it should mark at least one hook with @fusionkit.hookimpl; found none in fk_gram"
        )

    def test_unmarked_hook(self) -> None:
        plugin = Plugin("gram", "fk_gram", "fk-gram", "1.0", module=SimpleNamespace(fusionkit_fusions=dict))
        assert (collect_offers(plugin).error or "").startswith("it should mark at least one hook")

    def test_misspelt_hook(self) -> None:
        plugin = collect_offers(plugin_of(fusionkit_fusion=lambda: {}, fusionkit_fabrications=lambda: {}))
        assert plugin.error == (
            "its hooks should be among fusionkit_checks, fusionkit_conf, fusionkit_datasets, fusionkit_fabrications, "
            "fusionkit_fusions, fusionkit_run_finished; found 'fusionkit_fusion'. Did you mean 'fusionkit_fusions'?"
        )

    def test_a_misspelt_hook_sticks_to_its_plugin_alone(self) -> None:
        assert collect_offers(plugin_of(fusionkit_fusion=lambda: {})).status == "failed"
        assert collect_offers(plugin_of(fusionkit_fusions=lambda: {"gram": "a:B"})).status == "loaded"

    def test_unknown_hook_may_be_optional(self) -> None:
        module = SimpleNamespace(
            fusionkit_fusions=hookimpl(lambda: {"gram": "a:B"}), fusionkit_later=hookimpl(optionalhook=True)(lambda: 1)
        )
        assert collect_offers(Plugin("gram", "fk_gram", "fk-gram", "1.0", module=module)).status == "loaded"

    def test_hook_with_an_unknown_argument(self) -> None:
        plugin = collect_offers(plugin_of(fusionkit_fusions=lambda registry: {}))
        assert (plugin.error or "").startswith("a hook should fit its specification; found Plugin 'gram' for hook")

    @pytest.mark.parametrize(
        ("value", "error"),
        [
            (3, "the target of 'toy' in HOOK should be 'package.module:function' or a function; found 3"),
            (
                Spec("a:B"),
                "the target of 'toy' in HOOK should be 'package.module:function' or a function; found "
                "Spec(target='a:B', aliases=(), summary='', deprecated=None, removed=None)",
            ),
            (
                DatasetSpec("a:b", "ranking"),
                "'task' of 'toy' in HOOK should be one of classification, multilabel, regression; found 'ranking'",
            ),
            (DatasetSpec("a:b", licence=3), "'licence' of 'toy' in HOOK should be a string; found 3"),  # type: ignore[arg-type]
            (
                DatasetSpec("a:b", aliases=("table",)),
                "a name in HOOK should not be a form of data, npz, table, folder; found 'table'",
            ),
        ],
    )
    def test_invalid_data_set(self, value: Any, error: str) -> None:
        plugin = collect_offers(plugin_of(fusionkit_datasets=lambda: {"toy": value}))
        assert plugin.error == error.replace("HOOK", "fusionkit_datasets")

    @pytest.mark.parametrize("hook", ["fusionkit_fusions", "fusionkit_datasets", "fusionkit_conf"])
    def test_raising_hook(self, hook: str) -> None:
        def fail() -> None:
            raise OSError("boom")

        plugin = collect_offers(plugin_of(**{hook: fail}))
        assert plugin.error == f"{hook} should not raise; found OSError: boom"
        assert "in fail" in (plugin.traceback or "")

    def test_exiting_hook(self) -> None:
        def leave() -> None:
            raise SystemExit(1)

        assert (
            collect_offers(plugin_of(fusionkit_fusions=leave)).error
            == "fusionkit_fusions should not raise; found SystemExit: 1"
        )

    @pytest.mark.parametrize("hook", ["fusionkit_fusions", "fusionkit_datasets", "fusionkit_conf"])
    def test_none(self, hook: str) -> None:
        plugin = collect_offers(plugin_of(**{hook: lambda: None}))
        assert plugin.error == f"{hook} should return what its specification says; found None"

    @pytest.mark.parametrize("value", [[("gram", "a:B")], "gram", 3, {"gram"}])
    def test_not_a_dict(self, value: Any) -> None:
        error = offering(value).error or ""
        assert error.startswith("fusionkit_fusions should return a dict from names to targets; found ")

    @pytest.mark.parametrize("name", ["Gram", "gram-2", "2gram", "", "a/b", "gräm", "_gram", "gram\n", 3, None])
    def test_invalid_name(self, name: Any) -> None:
        expected = f"a name in fusionkit_fusions should match [a-z][a-z0-9_]*; found {name!r}"
        assert offering({name: "a:B"}).error == expected

    @pytest.mark.parametrize("target", ["", "a.b", "a:", ":B", "a.b.C", "a b:C", "a:B()", 3, None, ["a:B"]])
    def test_invalid_target(self, target: Any) -> None:
        assert offering({"gram": target}).error == (
            f"the target of 'gram' in fusionkit_fusions should be 'package.module:Class' or a class; found {target!r}"
        )

    @pytest.mark.parametrize("alias", ["Sum", "", 3])
    def test_invalid_alias(self, alias: Any) -> None:
        assert offering({"gram": Spec("a:B", (alias,))}).error == (
            f"an alias of 'gram' in fusionkit_fusions should match [a-z][a-z0-9_]*; found {alias!r}"
        )

    @pytest.mark.parametrize(
        ("part", "value", "should"),
        [
            ("summary", True, "be a string"),
            ("summary", None, "be a string"),
            ("deprecated", True, "say what to use instead"),
            ("deprecated", "", "say what to use instead"),
            ("removed", " ", "say what to use instead"),
        ],
    )
    def test_invalid_text(self, part: str, value: Any, should: str) -> None:
        error = offering({"gram": Spec("a:B", **{part: value})}).error
        assert error == f"{part!r} of 'gram' in fusionkit_fusions should {should}; found {value!r}"

    def test_one_alias_for_two_names(self) -> None:
        plugin = offering({"gram": Spec("a:B", ("g",)), "gauss": Spec("a:C", ("g",))})
        assert plugin.error == "fusionkit_fusions should have each name once; found 'g' for 'gram' and 'gauss'"

    def test_an_alias_that_is_a_name(self) -> None:
        plugin = offering({"gram": Spec("a:B", ("gauss",)), "gauss": "a:C"})
        assert plugin.error == "fusionkit_fusions should have each name once; found 'gauss' for 'gram' and 'gauss'"

    def test_every_problem_is_named(self) -> None:
        error = offering({"Gram": "a:B", "gauss": "a"}).error or ""
        assert "found 'Gram'" in error
        assert "found 'a'" in error

    def test_names_known_before_the_failure_are_kept(self) -> None:
        assert set(offering({"gram": "a:B", "Bad": "a:B"}).specs["fusion"]) == {"gram"}

    @pytest.mark.parametrize("value", ["pkg://a", ["a/conf"], [3], {"pkg://a": 1}])
    def test_invalid_conf(self, value: Any) -> None:
        error = collect_offers(plugin_of(fusionkit_conf=lambda: value)).error or ""
        assert error.startswith("fusionkit_conf should return a list of 'pkg://package.folder'; found ")

    def test_a_mapping_that_raises(self) -> None:
        class Hostile(dict[str, str]):
            def items(self) -> Any:
                raise ValueError("hostile")

        assert offering(Hostile(gram="a:B")).error == "ValueError: hostile"

    def test_a_generator(self) -> None:
        def fusionkit_fusions() -> Any:
            yield "gram", "a:B"

        error = collect_offers(plugin_of(fusionkit_fusions=fusionkit_fusions)).error or ""
        assert error.startswith("fusionkit_fusions should return a dict from names to targets; found <generator object")

    def test_a_wrapper_that_returns_something_else(self) -> None:
        @hookimpl(wrapper=True)
        def fusionkit_fusions() -> Any:
            yield
            return 5

        plugin = collect_offers(
            Plugin("gram", "fk_gram", "fk-gram", "1.0", module=SimpleNamespace(fusionkit_fusions=fusionkit_fusions))
        )
        assert plugin.error == "a wrapper of fusionkit_fusions should return the list of results; found 5"


def check_nothing(subject: Any) -> None: ...


class TestChecks:
    @pytest.mark.parametrize("value", [check_nothing, {"a": check_nothing}, "check"])
    def test_not_a_list(self, value: Any) -> None:
        plugin = collect_offers(plugin_of(fusionkit_checks=lambda: value))
        with pytest.raises(PluginProblem, match=r"^fusionkit_checks should .*found "):
            checks_of(plugin)

    @pytest.mark.parametrize("value", [[3], [load], [lambda subject: None], [partial(check_nothing)]])
    def test_not_functions_of_the_right_name(self, value: Any) -> None:
        plugin = collect_offers(plugin_of(fusionkit_checks=lambda: value))
        with pytest.raises(
            PluginProblem, match=r"^fusionkit_checks should return a list of functions called check_<name>; fou"
        ):
            checks_of(plugin)

    def test_not_called_to_list(self) -> None:
        def fail() -> list[Callable[..., Any]]:
            raise ValueError("called")

        plugin = collect_offers(plugin_of(fusionkit_checks=fail))
        assert plugin.status == "loaded"
        with pytest.raises(PluginProblem, match=r"^fusionkit_checks should .*found ValueError: called$"):
            checks_of(plugin)

    def test_of_a_plugin_that_is_not_loaded(self) -> None:
        assert checks_of(collect_offers(plugin_of())) == []


def test_call_passes_arguments_and_allows_no_result() -> None:
    seen: list[dict[str, Any]] = []

    def fusionkit_run_finished(result: dict[str, Any]) -> None:
        seen.append(result)

    plugin = collect_offers(plugin_of(fusionkit_run_finished=fusionkit_run_finished))
    assert call_hook(plugin, "fusionkit_run_finished", result={"n": 1}, run_dir=None) == []
    assert seen == [{"n": 1}]


def test_spec_refuses_a_string_of_aliases() -> None:
    with pytest.raises(TypeError, match=re.escape("the aliases of a Spec should be a tuple of names; found 'sum'")):
        Spec("a:B", "sum")  # type: ignore[arg-type]


def test_spec_takes_a_list_of_aliases() -> None:
    assert Spec("a:B", ["sum"]).aliases == ("sum",)  # type: ignore[arg-type]


# -- what a plugin changes of the process ------------------------------------------------------------------------------

CHANGES = {
    "folder": "import os; os.chdir('/')",
    "recursion limit": "import sys; sys.setrecursionlimit(sys.getrecursionlimit() + 1000)",
    "default dtype": "import torch; torch.set_default_dtype(torch.float64)",
    "default device": "import torch; torch.set_default_device('meta')",
    "grad mode": "import torch; torch.set_grad_enabled(False)",
    "inference mode": "import torch; globals()['mode'] = torch.inference_mode(); mode.__enter__()",
}


def state() -> tuple[Any, ...]:
    modes = (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled())
    return (os.getcwd(), sys.getrecursionlimit(), *modes, torch.is_inference_mode_enabled())


@pytest.mark.parametrize("place", ["import", "hook", "failing import"])
@pytest.mark.parametrize("changed", CHANGES)
def test_a_change_of_the_process_is_put_back_and_its_plugin_named(changed: str, place: str, site: Site) -> None:
    source = OFFER
    if place == "hook":
        source += f"    {CHANGES[changed]}\n    return {{}}\n"
    else:
        source = f"{CHANGES[changed]}\n{'1 / 0' if place == 'failing import' else ''}\n{source}    return {{}}\n"
    site.install("careless", source)
    before = state()
    try:
        with contextlib.ExitStack() as stack:
            if place != "failing import":
                message = f"'plugin' of careless 1.0 should leave the {changed}"
                stack.enter_context(pytest.warns(RuntimeWarning, match=message))
            (plugin,) = (load(candidate, "0.1.0") for candidate in installed() if candidate.distribution == "careless")
        assert plugin.status == ("failed" if place == "failing import" else "loaded")
        assert state() == before
    finally:
        os.chdir(before[0])
        sys.setrecursionlimit(before[1])
        torch.set_default_dtype(before[2])
        torch.set_default_device(None)
        torch.set_grad_enabled(True)


OFFER = "import fusionkit\n\n@fusionkit.hookimpl\ndef fusionkit_fusions():\n"
