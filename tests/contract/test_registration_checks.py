"""The checks of registry entries and configs, each with an entry that is wrong in its way."""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fusionkit
from fusionkit import registry
from fusionkit.contract.lookup import subjects_of
from fusionkit.contract.report import Report
from fusionkit.contract.runner import Plan, run
from fusionkit.contract.subject import FusionSubject, Source
from tests.contract.mutants.right import Mix, Total
from tests.contract.mutants.table import shows
from tests.exhaustive import exhaustive
from tests.fake_distributions import Site

RIGHT = """
import fusionkit

class Right(fusionkit.Fusion):
    '''``A_1 + ... + A_k``'''
    traits = fusionkit.Traits(permutation_invariant=True, linear=True, batch_independent=True)
    def calculate_n(self, dims=None): return self.resolve_equal_dims(dims)
    def calculate_l(self): return 0
    def _fuse(self, x): return sum(x[1:], x[0].clone())
"""

REGISTRATION = (
    "entry_point_resolves", "import_side_effects", "import_budget", "name_valid", "api_version", "signature",
    "documented", "config_composes", "config_safe", "config_matches_signature", "config_round_trip",
)  # fmt: skip


def install(site: Site, source: str = RIGHT, *, requires: Iterable[str] = (), conf: str | None = None) -> None:
    """Install the distribution ``fusionkit-gram`` with the fusion ``gram``."""
    (site.folder / "gram_code.py").write_text(source, encoding="utf-8")
    plugin = (
        "import fusionkit\n\n@fusionkit.hookimpl\ndef fusionkit_fusions():\n    return {'gram': 'gram_code:Right'}\n"
    )
    if conf is not None:
        folder = site.folder / "gram_conf" / "fusion"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").touch()
        (folder / "gram.yaml").write_text(conf, encoding="utf-8")
        plugin += "\n@fusionkit.hookimpl\ndef fusionkit_conf():\n    return ['pkg://gram_conf']\n"
    site.install("fusionkit-gram", plugin, requires=requires)


def check(name: str = "gram", select: Iterable[str] = REGISTRATION) -> Report:
    return fusionkit.check(name, select=select)


def caught(report: Report, name: str) -> str:
    """Return the reason of the one check that failed."""
    assert {result.check for result in report.bad} == {name}, report
    assert {result.status for result in report.bad} == {"failed"}
    return report.bad[0].reason


def test_right_plugin_passes(site: Site) -> None:
    install(site)
    report = check()
    assert report.ok, report
    assert {result.status for result in report.results} == {"passed"}, report
    (budget,) = [result for result in report.results if result.check == "import_budget"]
    assert budget.reason.startswith("imported in 0.")


@shows("entry_point_resolves")
def test_target_that_needs_another_module(site: Site) -> None:
    install(site, "import sys\nif 'pytest' not in sys.modules: raise ImportError('pytest was not imported')\n" + RIGHT)
    reason = caught(check(), "entry_point_resolves")
    assert reason == (
        "gram_code:Right should import alone in a fresh interpreter; found ImportError: pytest was not imported"
    )


@shows("entry_point_resolves")
def test_target_that_ends_the_interpreter(site: Site) -> None:
    install(site, "import os, sys\nif 'pytest' not in sys.modules: os._exit(3)\n" + RIGHT)
    assert "process ended with exit status 3" in caught(check(), "entry_point_resolves")


@shows("import_side_effects")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import torch; torch.manual_seed(3)", "the state of torch's generator"),
        *exhaustive(
            [
                ("import torch; torch.set_default_dtype(torch.float64)", "the default dtype"),
                ("import random; random.random()", "the state of Python's generator"),
                ("import numpy; numpy.random.rand()", "the state of NumPy's generator"),
                ("import warnings; warnings.simplefilter('ignore')", "the warning filters"),
                ("import os; os.environ['GRAM'] = '1'", "the environment"),
                ("import torch; torch.set_num_threads(3)", "the number of threads"),
                ("import socket; socket.socket().close()", "sockets (socket.__new__)"),
            ]
        ),
    ],
)
def test_import_that_changes_the_world(site: Site, line: str, found: str) -> None:
    install(site, f"import sys\nif 'pytest' not in sys.modules:\n    {line}\n" + RIGHT)
    assert caught(check(), "import_side_effects") == f"importing the target should change nothing; found {found}"


@shows("import_budget")
def test_slow_import(site: Site) -> None:
    work = "while 'pytest' not in sys.modules and time.process_time() < end: sum(range(1000))\n"
    install(site, f"import sys, time\nend = time.process_time() + 2.1\n{work}{RIGHT}")
    should = "importing the target should take at most 2 s of processor time; found 2."
    assert caught(check(), "import_budget").startswith(should)


@shows("import_budget")
def test_plugin_that_imports_its_operators(site: Site) -> None:
    install(site)
    plugin = site.folder / "fusionkit_gram.py"
    plugin.write_text("import gram_code\n" + plugin.read_text())
    assert caught(check(), "import_budget") == "listing the registry should not import gram_code; found that it does"


@shows("name_valid")
def test_name_that_means_another_operator() -> None:
    record = registry.resolve("fusion", "summation")
    for wrong, found in (
        (replace(record, name="Summation"), "a name should match [a-z][a-z0-9_]*; found Summation"),
        (replace(record, qualified="fusionkit/average"), "fusionkit/average"),
    ):
        subject = FusionSubject(Source("fusionkit/summation", "fusion", wrong, Total))
        assert found in caught(run([subject], Plan.of(select=["name_valid"])), "name_valid")


@shows("api_version")
def test_requirement_that_is_not_met(site: Site) -> None:
    install(site)
    (metadata,) = site.folder.glob("*.dist-info/METADATA")
    subjects = subjects_of("gram")
    metadata.write_text(metadata.read_text().replace("\n\n", "\nRequires-Dist: fusionkit>=99\n\n", 1))
    reason = caught(run(subjects, Plan.of(select=["api_version"])), "api_version")
    assert reason.startswith(f"fusionkit-gram should admit fusionkit {fusionkit.__version__}; found it requires")


@shows("config_composes")
def test_yaml_that_does_not_compose(site: Site) -> None:
    install(site, conf="_target_: fusionkit.create\n_recursive_: false\nname: gram\nn: null\ndims: ${dms}\n")
    report = check(select=["config_*"])
    assert "config_composes" in {result.check for result in report.bad}
    assert "dms" in report.bad[0].reason


@shows("config_composes")
def test_yaml_of_another_operator(site: Site) -> None:
    install(
        site,
        conf="_target_: fusionkit.create\n_recursive_: false\n_convert_: all\nname: summation\nn: null\n"
        "dims: ${dims}\ndevice: ${device}\n",
    )
    assert caught(check(), "config_composes") == (
        "fusion.name should mean fusionkit-gram/gram; found fusionkit/summation"
    )


@shows("config_safe")
def test_yaml_that_builds_something_else(site: Site) -> None:
    install(
        site,
        conf="_target_: fusionkit.create\n_recursive_: false\n_convert_: all\nname: gram\nn: null\ndims: ${dims}\n"
        "device: ${device}\npreprocess: {_target_: builtins.open, file: x}\n",
    )
    report = check(select=["config_safe"])
    assert "builtins.open" in caught(report, "config_safe")
    assert not (site.folder / "x").exists()


@shows("config_matches_signature")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("lenth: 3", "There is no key 'fusion.lenth'"),
        ("require_parameters: 7", "fusion.require_parameters should be true or false; found 7"),
    ],
)
def test_yaml_with_a_wrong_option(site: Site, line: str, found: str) -> None:
    install(
        site,
        conf="_target_: fusionkit.create\n_recursive_: false\n_convert_: all\nname: gram\nn: null\ndims: ${dims}\n"
        f"device: ${{device}}\n{line}\n",
    )
    report = check(select=["config_matches_signature"])
    assert found in caught(report, "config_matches_signature")


class ForgetsItsOption(Mix):
    """``scale * (A_1 + ... + A_k)``, whose scale is set behind the constructor's back."""

    scale = 1.0

    def __init__(self, n: int | None = None, dims: Any = None, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__(n, dims, device=device, dtype=dtype)

    def to_config(self) -> dict[str, Any]:
        return {**super().to_config(), "dims": [2] * len(self.resolve_dims())}


class TakesAFunction(Mix):
    """``act(A_1) + ... + act(A_k)``."""

    @classmethod
    def examples(cls) -> Iterable[dict[str, Any]]:
        yield {"dims": [4, 4], "preprocess": abs}


@shows("config_round_trip")
@pytest.mark.parametrize(
    ("cls", "found"),
    [
        (ForgetsItsOption, "n of the rebuilt operator should be 4; found 2"),
        (TakesAFunction, "to_config() should return the arguments in JSON types; found ConfigError"),
    ],
)
def test_config_that_builds_another_operator(cls: type, found: str) -> None:
    plugin = types.ModuleType("mine")
    plugin.fusionkit_fusions = fusionkit.hookimpl(lambda: {"mine": cls}, specname="fusionkit_fusions")  # type: ignore[attr-defined]
    with registry.isolated(plugin):
        report = fusionkit.check("mine", select=["config_round_trip"])
    assert caught(report, "config_round_trip").startswith(found)


class LosesOptions(Mix):
    """``A_1 + ... + A_k``, whose config forgets the options of the base."""

    def to_config(self) -> dict[str, Any]:
        return {key: value for key, value in super().to_config().items() if key in ("name", "dims", "dtype")}


@shows("config_round_trip")
def test_config_that_loses_options() -> None:
    plugin = types.ModuleType("mine")
    plugin.fusionkit_fusions = fusionkit.hookimpl(lambda: {"mine": LosesOptions}, specname="fusionkit_fusions")  # type: ignore[attr-defined]
    with registry.isolated(plugin):
        report = fusionkit.check("mine", select=["config_round_trip"])
    assert caught(report, "config_round_trip") == (
        "require_parameters=False should be in to_config(); found that it is not"
    )


def test_local_plugin_skips_what_needs_an_installed_one(tmp_path: Path) -> None:
    plugin = types.ModuleType("local")
    plugin.fusionkit_fusions = fusionkit.hookimpl(lambda: {"mine": Mix}, specname="fusionkit_fusions")  # type: ignore[attr-defined]
    with registry.isolated(plugin):
        report = fusionkit.check("mine", select=["entry_point_resolves", "import_*", "spawn_safety", "name_valid"])
    assert {(result.check, result.status) for result in report.results} == {
        ("entry_point_resolves", "skipped"),
        ("import_side_effects", "skipped"),
        ("import_budget", "skipped"),
        ("spawn_safety", "skipped"),
        ("name_valid", "passed"),
    }
