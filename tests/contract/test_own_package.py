"""A package made by hand, outside the repository, has the kit in its own tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_distributions import Site

PLUGIN = """
import fusionkit

@fusionkit.hookimpl
def fusionkit_fusions():
    return {"shift": "shift_code:Shift"}

@fusionkit.hookimpl
def fusionkit_fabrications():
    return {"thin": "shift_code:Thin"}
"""

CODE = '''
import torch
import fusionkit

class Shift(fusionkit.Fusion):
    """`sum_i roll(A_i, i)`; n is the width of a view, l = 0."""

    traits = fusionkit.Traits(linear=True, batch_independent=True, monotone=True)

    def calculate_n(self, dims=None):
        return self.resolve_equal_dims(dims)

    def calculate_l(self):
        return 0

    def _fuse(self, x):
        return torch.stack([view.roll(i, -1) for i, view in enumerate(x)]).sum(0)

class Thin(fusionkit.Fabrication):
    """`W = u v^T`; blocks u (n), v (D)."""

    degree = 2

    def shapes(self, n, D):
        return {"u": (n,), "v": (D,)}

    def _materialize(self, blocks, n, D):
        return torch.outer(blocks["u"], blocks["v"])

class Loses(Shift):
    """`sum_i roll(A_i, i)`, of all views but the last."""

    def _fuse(self, x):
        return super()._fuse(x[:-1] or x)
'''

TESTS = """
from fusionkit.testing import parametrize_with_checks

@parametrize_with_checks(["shift", "thin"], tier=1)
def test_contract(check):
    check()

@parametrize_with_checks(
    ["shift_code:Loses"],
    select=["all_inputs_matter", "forward_shape"],
    expected_failures={"all_inputs_matter": "the last view is a checksum"},
)
def test_known_weakness(check):
    check()

@parametrize_with_checks("shift_code:Loses", select=["all_inputs_matter"])
def test_unknown_weakness(check):
    check()
"""


@pytest.fixture
def package(site: Site, tmp_path: Path) -> Path:
    site.install("fusionkit-shift", PLUGIN)
    (site.folder / "shift_code.py").write_text(CODE, encoding="utf-8")
    folder = tmp_path / "package" / "tests"
    folder.mkdir(parents=True)
    (folder / "test_contract.py").write_text(TESTS, encoding="utf-8")
    return folder.parent


@pytest.mark.exhaustive
def test_its_own_tests_run_the_kit(site: Site, package: Path) -> None:
    done = site.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-rxf", cwd=package)
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stdout + done.stderr
    assert lines[-1].startswith("1 failed, ")
    assert "2 xfailed" not in lines[-1]
    assert "1 xfailed" in lines[-1]
    (failed,) = (line for line in lines if line.startswith("FAILED"))
    assert "test_unknown_weakness[shift_code:Loses-all_inputs_matter]" in failed
    (expected,) = (line for line in lines if line.startswith("XFAIL"))
    assert "the last view is a checksum (" in expected
    assert "view 2 should influence the output" in done.stdout
    assert [path.name for path in package.iterdir() if path.name != "tests"] == []


@pytest.mark.exhaustive
def test_the_command_sees_it(site: Site, package: Path) -> None:
    done = site.command("check", "shift", "thin", "--select", "forward_shape,config_*", cwd=package)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fusionkit-shift/shift" in done.stdout
    assert "fusionkit-shift/thin" in done.stdout
