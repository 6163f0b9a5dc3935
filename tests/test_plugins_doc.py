"""The page about plugins is current: hooks, statuses, variables, commands; and what it shows works."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import torch

import fusionkit
from fusionkit import registry
from fusionkit.cli import commands as cli_commands
from fusionkit.contract.rules import rule_of
from fusionkit.registry import catalogue, loading
from fusionkit.testing import isolated_registry
from tests.page_scripts import page_script

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hook_reference() -> ModuleType:
    return page_script("hook_reference")


def blocks(language: str, containing: str) -> list[str]:
    return [block for block in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if containing in block]


def test_current(hook_reference: ModuleType) -> None:
    assert hook_reference.updated(PAGE) == PAGE, "run: python docs/hook_reference.py"


def test_every_hook_is_there() -> None:
    for hook in loading.HOOKS:
        assert f"\n### `{hook}`\n" in PAGE


def test_markers_are_needed(hook_reference: ModuleType) -> None:
    for page in ("", hook_reference.BEGIN, hook_reference.END):
        with pytest.raises(ValueError, match=r"plugins\.md should contain .* found one of them missing"):
            hook_reference.updated(page)


def test_statuses_and_variables() -> None:
    plugin = get_args(loading.Status)
    name = get_args(catalogue.Status)
    assert {word for word in plugin if f"\n| `{word}` | " in PAGE} == set(plugin)
    assert {word for word in name if re.search(rf"`{word}`", PAGE)} >= set(name) - {"ok"}
    used = {
        variable
        for path in (ROOT / "fusionkit").rglob("*.py")
        for variable in re.findall(r'"(FUSIONKIT_\w+)"', path.read_text(encoding="utf-8"))
    }
    assert {"FUSIONKIT_PLUGINS", "FUSIONKIT_STRICT", "FUSIONKIT_CHECK"} <= used
    assert {variable for variable in used if f"\n| `{variable}" in PAGE} == used


def test_commands_exist() -> None:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    code = [text for language, text in fences if not language] + re.findall(r"`(fusionkit [^`\n]*)`", PAGE)
    commands = set(re.findall(r"(?:^|&& )fusionkit ([a-z]+)", "\n".join(code), re.MULTILINE))
    assert commands >= {"new", "list", "check", "run", "plugins", "conf", "show"}
    assert commands <= cli_commands.COMMANDS.keys()


def test_the_plugin_it_shows_loads() -> None:
    module = ModuleType("fusionkit_gram.plugin")
    exec(blocks("python", "def fusionkit_fusions():")[0], module.__dict__)
    with isolated_registry(module):
        record = registry.resolve("fusion", "gram")
    assert (record.qualified, record.target) == ("fusionkit_gram/gram", "fusionkit_gram.gram:Gram")


def test_the_check_it_shows_works() -> None:
    source = blocks("python", "def check_single_precision")[0]
    scope: dict[str, Any] = {}
    exec(source.replace("...", "found = subject.forward(op.float(), [view.float() for view in views])"), scope)
    check = scope["check_single_precision"]
    assert rule_of(check).summary == "The float32 result is the float64 result, up to rounding."
    assert rule_of(check).mend == "Compute in the dtype of the views."
    module = ModuleType("shown_checks")
    module.__dict__["fusionkit_checks"] = fusionkit.hookimpl(lambda: [check], specname="fusionkit_checks")
    with isolated_registry(module):
        report = fusionkit.check("summation", select=["single_precision"])
    assert report.ok
    assert report.results


def test_the_config_it_shows_is_the_generated_one() -> None:
    import yaml  # type: ignore[import-untyped, unused-ignore]

    from fusionkit.config.nodes import node_text

    shown = yaml.safe_load(blocks("yaml", "_target_")[0])
    generated = node_text("fusion", "summation")
    assert generated is not None
    assert {**shown, "name": "summation"} == yaml.safe_load(generated)


def test_files_it_names_exist() -> None:
    if not (ROOT / "plugins").exists():
        pytest.skip("plugins are no part of this distribution")
    for path in set(re.findall(r"`(plugins/[\w/.-]+)`", PAGE)) | set(re.findall(r"\]\((?!http)([\w/.]+)\)", PAGE)):
        assert (ROOT / path).exists() or (ROOT / "docs" / path).exists(), path


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["Gated", "Pairs", "Spread", "Calmest", "SharedRows"])
def test_the_operators_keep_the_contract(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = blocks("python", f"class {name}(")
    module = ModuleType(f"page_{name.lower()}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(block, f"{module.__name__}.py", "exec"), vars(module))
    report = fusionkit.check(getattr(module, name), tier=2 if name == "Calmest" else 1, skip=["documented"])
    assert report.ok, report
    assert report.results


def test_the_callables_work() -> None:
    (block,) = blocks("python", "class Circulant")
    found: dict[str, Any] = {}
    exec(block, found)
    fusion, other = found["fusion"], found["other"].eval()
    assert fusion.calculate_l() == 7
    x = [torch.randn(6, 4), torch.randn(6, 3)]
    W = torch.stack([fusion.flat_w().roll(i) for i in range(5)])
    torch.testing.assert_close(fusion(x), torch.cat(x, -1) @ W.T)
    y = [torch.randn(6, 4) for _ in range(3)]
    stack = torch.stack([torch.tanh(torch.nn.functional.layer_norm(view, (4,))) for view in y])
    torch.testing.assert_close(other(y), stack.amax(0) - stack.amin(0))
