from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest

from fusionkit import cli
from fusionkit.cli.check import check
from fusionkit.contract.runner import DEFAULT_LIMIT, all_checks

SQUEEZES = "tests.contract.mutants.sizes:Squeezes"
TOTAL = "tests.contract.mutants.right:Total"
QUICK = ["--select", "forward_shape,n_matches_output"]


def run(*argv: str) -> int:
    return cli.main(["check", *argv])


def test_table_and_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("summation", "lowrank", *QUICK) == 0
    out = capsys.readouterr().out
    assert "fusionkit/summation" in out
    assert "fusionkit/lowrank" in out
    assert "ok: " in out


def test_failure_shows_rule_case_expected_found_and_rerun(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SQUEEZES, *QUICK) == 1
    out = capsys.readouterr().out
    for line in (
        f"failed forward_shape of {SQUEEZES}",
        "rule      Views of shape (..., n_i) give an output of shape (..., n).",
        "case      dims=[4, 4, 4]",
        "expected  the output of views (*(1,), n_i) should have shape (1, 4)",
        "found     (4,)",
        f"rerun     fusionkit check {SQUEEZES} --select forward_shape --case 'dims=[4, 4, 4]'",
    ):
        assert line in out


def test_likely_cause_comes_first_and_output_is_bounded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    js, xml = tmp_path / "r.json", tmp_path / "r.xml"
    argv = ["tests.contract.bad_operators:AddsInPlace", "--tier", "1", "--json", str(js), "--junit", str(xml)]
    assert run(*argv) == 1
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert len(lines) < 100
    shown = [line.split()[1] for line in lines if line.startswith(("failed ", "error "))]
    assert shown[0] == "no_input_mutation"
    assert len(shown) == 5
    reruns = [shlex.split(line)[5] for line in lines if line.startswith("  rerun")]
    assert max(Counter(reruns).values()) == 2

    results = [result for result in json.loads(js.read_text())["results"] if result["status"] in ("failed", "error")]
    start = next(i for i, line in enumerate(lines) if line.startswith("broken rules ("))
    assert lines[start].endswith("the likely cause of the others first; -x stops at the first failure)")
    table = lines[start + 1 : -2]
    assert len(table) == len({result["check"] for result in results}) == int(lines[start].split("(")[1].split(",")[0])
    first = Counter(result["status"] for result in results if result["check"] == "no_input_mutation")
    of = sum(result["check"] == "no_input_mutation" for result in json.loads(js.read_text())["results"])
    command = "fusionkit check tests.contract.bad_operators:AddsInPlace --select no_input_mutation"
    assert " ".join(table[0].split()) == f"no_input_mutation {first['failed']} failed of {of} {command}"
    findings = len({(result["check"], result["reason"]) for result in results})
    assert findings > 10
    assert "-v prints them, and --json FILE writes them." in out

    # The table of subjects, the last line, the JSON and the JUnit report count alike.
    counts = json.loads(js.read_text())["summary"]
    row = dict(zip(lines[0].split()[2:-1], lines[1].split()[2:-2], strict=True))
    assert row == {status: str(counts[status]) for status in ("passed", "failed", "error", "skipped")}
    assert counts["error"] > 0
    words = ", ".join(f"{counts[status]} {status}" for status in ("passed", "failed", "error", "skipped"))
    assert lines[-1].startswith(f"failed: {words} in ")
    root = ET.parse(xml).getroot().attrib
    assert (root["failures"], root["errors"], root["skipped"]) == (row["failed"], row["error"], row["skipped"])

    assert run(*argv[:1], "--select", "no_input_mutation,gradcheck", "-v") == 1
    out = capsys.readouterr().out
    reasons = [r["reason"] for r in results if r["check"] in ("no_input_mutation", "gradcheck")]
    assert all(reason.rpartition("; found ")[2] in out for reason in reasons)
    assert "not shown" not in out


def test_rerun_command_reruns_just_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SQUEEZES, "--select", "forward_shape", "--case", "dims=[4, 4, 4]", "--json", "-") == 1
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["check"], result["case"], result["status"]) == ("forward_shape", "dims=[4, 4, 4]", "failed")


@pytest.mark.parametrize(
    ("subject", "check"),
    [
        (SQUEEZES, "forward_shape"),
        ("tests.contract.mutants.traits:SaysInvariant", "permutation"),  # Of the whole subject.
        ("tests.contract.mutants.fabrications:Unreshaped", "structure"),
        (
            "tests.contract.mutants.sizes:ThinksDense",
            "l_matches_parameters",
        ),  # At cases that are crossed with fabrications.
    ],
)
def test_printed_rerun_command_repeats_the_result(
    subject: str, check: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    js = tmp_path / "r.json"
    assert run(subject, "--select", f"{check},n_matches_output", "--json", str(js)) == 1
    wanted = {(r["check"], r["case"]): r["reason"] for r in json.loads(js.read_text())["results"] if r["reason"]}
    commands = [line.split(None, 1)[1] for line in capsys.readouterr().out.splitlines() if line.startswith("  rerun")]
    for command in commands[:2]:
        program, *argv = shlex.split(command)
        assert program == "fusionkit"
        assert cli.main([*argv, "--json", str(js)]) == 1
        (result,) = json.loads(js.read_text())["results"]
        assert result["check"] == check
        assert wanted[result["check"], result["case"]] == result["reason"]


def test_on_a_terminal_a_bar_shows_what_runs_and_a_line_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("TERM", "xterm"), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    hangs = "tests.contract.bad_operators:Hangs"
    assert run(TOTAL, hangs, "--select", "forward_shape", "--time-limit", "0.7") == 1
    out, err = capsys.readouterr()
    assert f"{hangs} forward_shape " in err
    assert "2/2" in err
    assert f" forward_shape of {hangs}\n" in err
    assert "\x1b" not in out
    assert "forward_shape should finish within 0.7 s" in out


def test_without_a_terminal_nothing_is_live(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(TOTAL, "--select", "forward_shape") == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out
    assert err == ""


def test_rerun_command_keeps_seed_and_time_limit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SQUEEZES, "--select", "forward_shape", "--seed", "3", "--time-limit", "20") == 1
    assert "--case 'dims=[4, 4, 4]' --seed 3 --time-limit 20\n" in capsys.readouterr().out


def test_json_and_junit_files_also_on_failure(tmp_path: Path) -> None:
    js, xml = tmp_path / "r.json", tmp_path / "r.xml"
    assert run(SQUEEZES, TOTAL, *QUICK, "--json", str(js), "--junit", str(xml)) == 1
    data = json.loads(js.read_text())
    assert data["summary"]["failed"] >= 1
    assert {result["subject"] for result in data["results"]} == {SQUEEZES, TOTAL}
    root = ET.parse(xml).getroot()
    assert int(root.attrib["tests"]) == len(data["results"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json", "r.xml"]


def test_exit_first(tmp_path: Path) -> None:
    js = tmp_path / "r.json"
    assert run(SQUEEZES, TOTAL, "-x", "--select", "forward_shape", "--json", str(js)) == 1
    assert {result["subject"] for result in json.loads(js.read_text())["results"]} == {SQUEEZES}


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(all_checks()) + 1
    assert run("--list", "--json", "-", "--tier", "1") == 0
    listed = json.loads(capsys.readouterr().out)
    assert {one["tier"] for one in listed} == {1}
    assert {"check", "tier", "kinds", "needs", "rule"} == set(listed[0])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["sumation"], "Did you mean 'summation'"),
        (["--select", "gradchek"], "error: select should name checks; found 'gradchek'. Did you mean 'gradcheck'"),
        (["--tier", "7"], "Invalid value for '--tier': 7 is not in the range 1<=x<=3."),
        (["--jobs", "0"], "Invalid value for '-j' / '--jobs': 0 is not in the range x>=1."),
        (
            ["summation", "--json", "/no/such/folder/r.json"],
            "/no/such/folder/r.json should be a file in a folder that exists; found no /no/such/folder.",
        ),
        (["--list", "--json", "/no/such/folder/r.json"], "should be a file in a folder that exists; found no"),
        (["summation", "--junit", "/"], "/ should be a file to write to; found a folder."),
        (["no_such_module:X"], "error: 'no_such_module:X' should be an importable 'module:Class'"),
        (["tests.contract.mutant:Total"], "found no module 'mutant' in tests.contract. Did you mean 'mutants'"),
        (
            ["tests.contract.mutants.right:Totl"],
            "error: 'tests.contract.mutants.right:Totl' should be an importable 'module:Class';"
            " found no 'Totl' in tests.contract.mutants.right. Did you mean 'Total'?\n",
        ),
        (["summation", "--time-limit", "-1"], "the time limit should be a positive number"),
        (["summation", "--case", "dims=[9]"], "error: case should be one of dims=[4, 4, 4]; "),
    ],
)
def test_wrong_usage(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*argv) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.exhaustive
def test_class_of_a_file_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import fusionkit\n"
        "class Mine(fusionkit.Fusion):\n"
        "    def calculate_n(self, dims=None): return self.resolve_equal_dims(dims)\n"
        "    def calculate_l(self): return 0\n"
        "    def _fuse(self, x): return sum(x[1:], x[0].clone())\n"
    )
    command = [
        sys.executable,
        "-c",
        "import sys; sys.path.remove(''); from fusionkit.cli import main; sys.exit(main())",
    ]
    done = subprocess.run(
        [*command, "check", "mine:Mine", *QUICK], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "mine:Mine" in done.stdout


@pytest.mark.exhaustive
def test_a_constructor_that_fails_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tests.contract.bad_operators:RaisesInConstructor") == 1
    out = capsys.readouterr().out
    assert "  mend      Mend the constructor first: what it does not build cannot be checked.\n" in out
    # Of two cases of one rule.
    assert out.count("  expected  the constructor should build") == 2
    assert re.search(r"  found     RuntimeError: no constructor today \(at bad_operators\.py:\d+\)\n", out)
    assert re.search(r"^rules not shown, because the constructor fails: \d+; -v lists them\.$", out, re.MULTILINE)
    assert run("tests.contract.bad_operators:RaisesInConstructor", "-v") == 1
    assert "rules not shown" not in capsys.readouterr().out


def test_the_time_limit_of_the_help_is_that_of_the_runner() -> None:
    assert {option.name: option.default for option in check.params}["time_limit"] == DEFAULT_LIMIT
