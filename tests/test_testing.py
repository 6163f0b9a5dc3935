from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

OPERATORS = """
import fusionkit

class Right(fusionkit.Fusion):
    def calculate_n(self, dims=None): return self.resolve_equal_dims(dims)
    def calculate_l(self): return 0
    def _fuse(self, x): return sum(x[1:], x[0].clone())

class Squeezes(Right):
    def _fuse(self, x): return super()._fuse(x).squeeze(0)
"""


def run(pytester: pytest.Pytester, source: str) -> pytest.RunResult:
    pytester.makepyfile(operators=OPERATORS)
    pytester.makepyfile(test_contract="from fusionkit.testing import parametrize_with_checks\n" + source)
    return pytester.runpytest("-p", "no:cacheprovider", "-v")


def test_right_operator(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
@parametrize_with_checks(["operators:Right"], select=["forward_shape", "all_parameters_get_grad"])
def test_contract(check):
    check()
""",
    )
    outcome.assert_outcomes(passed=1, skipped=1)
    outcome.stdout.fnmatch_lines(["*::test_contract?operators:Right-forward_shape? PASSED*"])


def test_wrong_operator(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
import operators
@parametrize_with_checks([operators.Squeezes], select=["forward_shape", "n_matches_output"])
def test_contract(check):
    check()
""",
    )
    outcome.assert_outcomes(passed=1, failed=1)
    outcome.stdout.fnmatch_lines(
        [
            "Views of shape (..., n_i) give an output of shape (..., n).",
            "operators:Squeezes *dims=*4, 4, 4*: the output of views (*(1,), n_i) should have shape (1, 4); found (4,)",
        ]
    )


def test_expected_failures(pytester: pytest.Pytester) -> None:
    outcome = run(
        pytester,
        """
@parametrize_with_checks(
    "operators:Squeezes",
    select=["forward_shape", "n_matches_output"],
    expected_failures={"forward_shape": "squeezes", "n_matches_output": "wrongly expected"},
)
def test_contract(check):
    check()
""",
    )
    outcome.assert_outcomes(xfailed=1, failed=1)
    outcome.stdout.fnmatch_lines(["*this check was expected to fail (wrongly expected); it passed*"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ('["nope"]', "*RegistryError: *'nope'*"),
        ('"operators:Right", expected_failures={"forward_shap": "x"}', "*Did you mean 'forward_shape'*"),
        ('"operators:Right", expected_failures={"forward_shape": ""}', "*should say why the check fails*"),
    ],
)
def test_mistakes_are_collection_errors(pytester: pytest.Pytester, arguments: str, message: str) -> None:
    outcome = run(pytester, f"@parametrize_with_checks({arguments})\ndef test_contract(check):\n    check()\n")
    outcome.assert_outcomes(errors=1)
    outcome.stdout.fnmatch_lines([message])


def test_isolated_registry_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        plugin="""
import fusionkit
@fusionkit.hookimpl
def fusionkit_fusions():
    return {"right": "operators:Right"}
""",
        operators=OPERATORS,
        test_it="""
import fusionkit
def test_isolated(isolated_registry):
    import plugin
    assert "right" not in fusionkit.fusions()
    isolated_registry(plugin)
    assert "right" in fusionkit.fusions()
    assert fusionkit.create("right", dims=[2, 2]).calculate_n() == 2

def test_nothing_remains():
    assert "right" not in fusionkit.fusions()
""",
    )
    pytester.runpytest("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_plugin_is_inert() -> None:
    import subprocess
    import sys

    code = "import sys, fusionkit.contract.pytest_plugin; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
